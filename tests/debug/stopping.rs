//! Pausing, stepping, stopping at faults and at instructions.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, Debugged, PATIENCE, PROGRAM, hex};
use crate::common::programs::{self, ARENA, START};

const PAGE: u64 = 4096;

fn rip(client: &mut Client) -> (u64, Value) {
    let registers = client.call("regs", json!({}));
    (hex(&registers["rip"]), registers["ring"].clone())
}

/// Pauses a guest whose program spins: in ring 3, after a few attempts at most.
fn pause_in_program(client: &mut Client) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        client.call("pause", json!({}));
        if rip(client).1 == 3 {
            return;
        }
        client.call("resume", json!({}));
        thread::sleep(Duration::from_millis(20));
    }
    panic!("the program never runs");
}

#[test]
fn a_fault_stops_the_guest_exactly_there() {
    let lab = Debugged::start(&programs::known_faults(), &["--paused"]);
    let mut client = lab.client();
    let page = |number: u64| json!([ARENA + number * PAGE, ARENA + (number + 1) * PAGE]);
    client.call("break", json!({ "kind": "demand_zero", "range": page(3), "pid": PROGRAM }));
    assert_eq!(client.call("breaks", json!({}))["rows"].as_array().unwrap().len(), 1);
    client.call("resume", json!({}));
    let stopped = client.call("wait", json!({}));
    assert_eq!((&stopped["why"], &stopped["paused"]), (&json!("fault"), &json!(true)));
    assert_eq!(hex(&stopped["event"]["address"]), ARENA + 3 * PAGE);
    // The page is there, still zero: the program has not gone on. The next is not.
    assert_eq!(client.word(PROGRAM, ARENA + 3 * PAGE), Some(0));
    assert_eq!(client.word(PROGRAM, ARENA + 2 * PAGE), Some(102));
    assert_eq!(client.word(PROGRAM, ARENA + 4 * PAGE), None);
    // Now into the program, to the very instruction that faulted, and over it.
    client.call("step", json!({ "user": true }));
    assert_eq!(rip(&mut client), (hex(&stopped["event"]["instruction"]), json!(3)));
    client.call("step", json!({}));
    assert_eq!(client.word(PROGRAM, ARENA + 3 * PAGE), Some(103));
    // It stops once; the next of any kind by another one.
    assert_eq!(client.call("breaks", json!({}))["rows"], json!([]));
    client.call("break", json!({ "pid": PROGRAM + 1 }));
    client.call("resume", json!({}));
    assert_eq!(client.call("wait", json!({}))["event"]["pid"], PROGRAM + 1);
    client.call("resume", json!({}));
    client.wait_until_done();
}

#[test]
fn steps_execute_one_instruction_each() {
    let lab = Debugged::start(&programs::spin(), &[]);
    let mut client = lab.client();
    pause_in_program(&mut client);
    assert_eq!(rip(&mut client).0, START);
    for _ in 0..5 {
        // A jump to itself; an interrupt may come in between.
        client.call("step", json!({ "user": true }));
        assert_eq!(rip(&mut client), (START, json!(3)));
    }
    assert!(client.refused("step", json!({ "count": 0 })).contains("at least one"));
    client.call("resume", json!({}));
    assert!(client.refused("step", json!({})).contains("pause it first"));
    assert_eq!(lab.stop("-INT"), 130);
}

#[test]
fn breakpoints_stop_programs_and_the_kernel() {
    let lab = Debugged::start(&programs::known_faults(), &["--paused"]);
    let mut client = lab.client();
    assert!(client.refused("breakpoint", json!({ "address": START })).contains("not mapped"));
    // Once its page is there: the program's own memory.
    client.call("break", json!({ "pid": PROGRAM, "range": [ARENA, ARENA + PAGE] }));
    client.call("resume", json!({}));
    let instruction = hex(&client.call("wait", json!({}))["event"]["instruction"]);
    // The kernel stands behind the doorbell, where every such fault passes.
    let (doorbell, ring) = rip(&mut client);
    assert_eq!(ring, 0);
    // In the kernel by what this host heeds there: a debug register or an int3.
    let set = client.call("breakpoint", json!({ "address": doorbell }));
    let listed = client.call("breaks", json!({}))["rows"][0].clone();
    assert_eq!(set["means"], listed["means"], "{set} {listed}");
    assert!(["debug register", "int3"].contains(&set["means"].as_str().unwrap()), "{set}");
    client.call("break", json!({ "kind": "demand_zero", "range": "0x1000+1" }));
    client.call("resume", json!({}));
    let stopped = client.call("wait", json!({}));
    assert_eq!(stopped["why"], "breakpoint", "{stopped}");
    assert_eq!(rip(&mut client), (doorbell, json!(0)));
    client.call("unbreak", json!({}));
    client.call("breakpoint", json!({ "address": instruction }));
    for page in 1..4 {
        client.call("resume", json!({}));
        let stopped = client.call("wait", json!({}));
        assert_eq!(
            (&stopped["why"], &stopped["software"]),
            (&json!("breakpoint"), &json!(true)),
            "page {page}"
        );
        assert_eq!(rip(&mut client), (instruction, json!(3)));
        // While it stands, its memory is as the program left it.
        let code = client.call("disas", json!({ "count": 1 }));
        assert!(code["rows"][0]["text"].as_str().unwrap().starts_with("mov [rax],rdx"), "{code}");
        let rcx = hex(&client.call("regs", json!({}))["rcx"]);
        // The faulting page's instruction is executed twice: stopped before each.
        assert!(rcx <= page, "{rcx}");
        client.call("step", json!({}));
    }
    client.call("unbreak", json!({}));
    client.call("resume", json!({}));
    client.wait_until_done();
    client.call("pause", json!({}));
    let kernel = client.call("regs", json!({}));
    assert!(client.refused("breakpoint", json!({ "address": 3, "write": 8 })).contains("multiple"));
    assert!(kernel["rip"].is_string());
}

#[test]
fn accesses_to_watched_memory_stop_the_guest_behind_them() {
    let lab = Debugged::start(&programs::known_faults(), &["--paused"]);
    let mut client = lab.client();
    let (second, third) = (ARENA + 2 * PAGE, ARENA + 3 * PAGE);
    client.call("break", json!({ "pid": PROGRAM, "range": [ARENA, ARENA + PAGE] }));
    client.call("resume", json!({}));
    let store = hex(&client.call("wait", json!({}))["event"]["instruction"]);
    // A page that is not there yet: its fault is no access, only the store is.
    let set = client.call("breakpoint", json!({ "address": third, "write": 8 }));
    assert!(["debug register", "stepping"].contains(&set["means"].as_str().unwrap()), "{set}");
    client.call("breakpoint", json!({ "address": second + 4, "access": 4 }));
    for (address, watched, how) in [(second, second + 4, "accessed"), (third, third, "written")] {
        client.call("resume", json!({}));
        let stopped = client.call("wait", json!({}));
        assert_eq!(stopped["why"], "watchpoint", "{stopped}");
        assert_eq!((hex(&stopped["address"]), &stopped["how"]), (watched, &json!(how)));
        // Behind the store of eight bytes, which has been executed.
        let instruction = rip(&mut client);
        assert!(instruction.0 > store && instruction.0 <= store + 15, "{instruction:?}");
        assert_eq!(client.word(PROGRAM, address), Some(100 + (address - ARENA) / PAGE));
    }
    assert_eq!(client.call("unbreak", json!({}))["removed"], 2);
    client.call("resume", json!({}));
    client.wait_until_done();
}

#[test]
fn a_lab_stops_while_it_is_paused_and_whoever_waits_learns_it() {
    let lab = Debugged::start(&programs::spin(), &["--paused"]);
    let mut client = lab.client();
    let status = client.call("status", json!({}));
    assert_eq!((&status["state"], &status["why"]), (&json!("paused"), &json!("start")));
    client.call("resume", json!({}));
    client.send(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"wait\"}\n");
    client.send(b"status\n");
    let pid = lab.pid();
    assert_eq!(lab.stop("-TERM"), 143, "{pid}");
    let answer: Value = serde_json::from_str(&client.line()).expect("an answer");
    assert_eq!(answer["result"]["state"], "ended", "{answer}");

    let lab = Debugged::start(&programs::spin(), &["--paused"]);
    assert_eq!(lab.stop("-INT"), 130);
    let lab = Debugged::start(&programs::exit_42(), &["--paused"]);
    lab.client().call("resume", json!({}));
    assert_eq!(lab.finish(), 42);
}

#[test]
fn a_signal_is_heard_as_soon_as_there_is_a_socket() {
    for _ in 0..10 {
        let lab = Debugged::begin(&programs::spin(), &["--paused"]);
        let began = Instant::now();
        while !lab.socket.exists() {
            assert!(began.elapsed() < PATIENCE, "no socket");
        }
        assert_eq!(lab.stop("-INT"), 130);
    }
}
