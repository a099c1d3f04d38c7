//! What is seen of a program whose memory is known.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::{Client, Debugged, PROGRAM, hex};
use crate::common::programs::{ARENA, DATA_PAGE, START, USAGE_AT};

const PAGE: u64 = 4096;

/// How many events of each kind there are.
fn by_kind(client: &mut Client, params: Value) -> BTreeMap<String, u64> {
    let result = client.call("events", params);
    assert_eq!((&result["lost"], &result["overwritten"]), (&json!(0), &json!(0)));
    let mut counts = BTreeMap::new();
    for event in result["rows"].as_array().unwrap() {
        let kind = event["kind"].as_str().unwrap_or("none").to_owned();
        *counts.entry(kind).or_insert(0) += 1;
    }
    counts
}

fn counted(client: &mut Client, pid: u32) -> BTreeMap<String, u64> {
    let result = client.call("faults", json!({ "pid": pid }));
    let rows = result["rows"].as_array().unwrap().iter();
    let counts =
        rows.map(|row| (row["kind"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap()));
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn counters_events_and_getrusage_agree_exactly() {
    let (lab, mut client) = Debugged::with_known_faults();
    let of_arena = |pid| json!({ "pid": pid, "range": [ARENA, ARENA + 32 * PAGE] });
    let expected =
        [("cow_reuse", 8), ("demand_zero", 8), ("zero_page_read", 5), ("zero_page_upgrade", 3)];
    let expected: BTreeMap<_, _> = expected.map(|(kind, count)| (kind.to_owned(), count)).into();
    assert_eq!(by_kind(&mut client, of_arena(PROGRAM)), expected);
    let of_child = BTreeMap::from([("cow_copy".to_owned(), 4)]);
    assert_eq!(by_kind(&mut client, of_arena(PROGRAM + 1)), of_child);
    // The whole program: its counters, its events, and what it was told itself.
    let events = by_kind(&mut client, json!({ "pid": PROGRAM, "range": [0, 1u64 << 47] }));
    assert_eq!(counted(&mut client, PROGRAM), events);
    let minor = client.word(PROGRAM, USAGE_AT + 64).unwrap();
    let major = client.word(PROGRAM, USAGE_AT + 72).unwrap();
    assert_eq!(events.values().sum::<u64>(), minor + major);
    // All processes together.
    let all = client.call("faults", json!({}));
    let every = by_kind(&mut client, json!({ "range": [0, u64::MAX] }));
    assert_eq!(all["total"], every.values().sum::<u64>());
    assert_eq!(lab.stop("-TERM"), 143);
}

#[test]
fn differences_count_from_the_mark() {
    let lab = Debugged::start(&crate::common::programs::known_faults(), &["--paused"]);
    let mut client = lab.client();
    assert!(client.refused("mark", json!({ "name": "early" })).contains("not registered"));
    client.call("record", json!({ "what": "lossless" }));
    let range = json!([ARENA, ARENA + 8 * PAGE]);
    client.call("break", json!({ "kind": "demand_zero", "range": range }));
    client.call("resume", json!({}));
    assert_eq!(client.call("wait", json!({}))["event"]["address"], format!("{ARENA:#x}"));
    client.call("mark", json!({ "name": "first" }));
    client.call("resume", json!({}));
    client.wait_until_done();
    client.call("pause", json!({}));
    client.call("mark", json!({ "name": "done" }));
    let since = client.call("faults", json!({ "pid": PROGRAM, "since": "first" }));
    let count = |kind: &str| {
        let rows = since["rows"].as_array().unwrap();
        rows.iter().find(|row| row["kind"] == kind).unwrap()["count"].as_u64().unwrap()
    };
    // Seven more pages were written first; the first was before the mark.
    assert_eq!(
        (count("demand_zero"), count("zero_page_read"), count("zero_page_upgrade")),
        (7, 5, 3)
    );
    assert_eq!(client.call("faults", json!({ "since": "done" }))["total"], 0);
    assert!(client.refused("faults", json!({ "since": "never" })).contains("no mark ‘never’"));

    let difference =
        client.call("pt-diff", json!({ "from": "first", "to": "done", "pid": PROGRAM }));
    let changes = difference["report"]["changes"].as_array().unwrap();
    let leaf = |page: u64| {
        let address = format!("{:#x}", ARENA + page * PAGE);
        changes.iter().find(|change| change["level"] == 1 && change["address"] == address)
    };
    for page in 1..8 {
        let change = leaf(page).expect("a change");
        assert_eq!(
            (&change["kind"], &change["cause"]["kind"]),
            (&json!("mapped"), &json!("cow_reuse")),
            "{change}"
        );
    }
    assert_eq!(leaf(9).expect("a change")["cause"]["kind"], "zero_page_upgrade");
    assert_eq!(leaf(12).expect("a change")["cause"]["kind"], "zero_page_read");
    assert!(leaf(13).is_none());
    // Without a process: all whose tables changed, here only that one.
    let all = client.call("pt-diff", json!({ "from": "first", "to": "done" }));
    let processes = all["report"]["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 1, "{all}");
    assert_eq!(processes[0]["pid"], PROGRAM);
    assert_eq!(processes[0]["changes"], difference["report"]["changes"]);
    let unknown = json!({ "from": "first", "to": "done", "pid": 77 });
    assert!(client.refused("pt-diff", unknown).contains("no process 77"));
    // The same in words, for people.
    let (lines, end) = client.plain(&format!("pt diff first done pid {PROGRAM}"));
    assert!(lines.iter().any(|line| line.contains("zero_page_upgrade")), "{lines:?}");
    assert_eq!(end, "-- ok, paused: consistent");
}

#[test]
fn page_tables_translations_and_maps_are_those_of_the_program() {
    let (_lab, mut client) = Debugged::with_known_faults();
    client.call("pause", json!({}));
    let request =
        json!({ "target": PROGRAM, "shape": "entries", "range": [ARENA, ARENA + 32 * PAGE] });
    let answer = client.call("pt", request);
    assert_eq!((&answer["paused"], &answer["consistent"]), (&json!(true), &json!(true)));
    let rows = answer["report"]["rows"].as_array().unwrap().clone();
    let pages: Vec<u64> = rows.iter().map(|row| (hex(&row["first"]) - ARENA) / PAGE).collect();
    assert_eq!(pages, (0..13).collect::<Vec<u64>>());
    let zero = hex(&rows[11]["physical"]);
    for (page, row) in rows.iter().enumerate() {
        // Pages 8 to 10 were not written again since the fork. Pages 11 and 12
        // were only read and show the zero page.
        assert_eq!(row["rights"], if page < 8 { "urw-" } else { "ur--" }, "{row}");
        assert_eq!(hex(&row["physical"]) == zero, page >= 11);
        if page < 8 {
            assert_eq!(client.word(PROGRAM, ARENA + page as u64 * PAGE), Some(page as u64 + 100));
            let physical = json!({ "address": row["physical"], "length": 8, "physical": true });
            let bytes = client.call("memory", physical)["rows"][0]["bytes"].clone();
            assert_eq!(bytes, format!("{:016x}", (page as u64 + 100).swap_bytes()));
        }
        let address = ARENA + page as u64 * PAGE + 0x123;
        let translation =
            client.call("translate", json!({ "target": PROGRAM, "address": address }));
        assert_eq!(hex(&translation["report"]["physical"]), hex(&row["physical"]) + 0x123);
        // KVM says the same where the processor uses these tables right now.
        if let Some(kvm) = translation.get("kvm") {
            assert_eq!(kvm["physical"], translation["report"]["physical"]);
        }
    }
    // On every host, for an address of the kernel.
    let kernel = client
        .call("translate", json!({ "target": PROGRAM, "address": 0xffff_8000_0020_0123_u64 }));
    assert_eq!(kernel["report"]["physical"], "0x200123");
    if client.call("regs", json!({}))["cr3"] == kernel["report"]["root"] {
        assert_eq!(kernel["kvm"]["physical"], "0x200123");
    }
    let writable = json!({ "target": PROGRAM, "shape": "entries", "range": [ARENA, ARENA + 32 * PAGE], "only": "w" });
    assert_eq!(client.call("pt", writable)["report"]["rows"].as_array().unwrap().len(), 8);
    let aliases = client.call("aliases", json!({ "target": PROGRAM, "physical": zero }));
    let aliases = aliases["report"]["aliases"].as_array().unwrap();
    // Besides, the kernel maps all memory.
    let of_program = aliases.iter().filter(|alias| hex(&alias["address"]) >> 47 == 0);
    assert_eq!((of_program.count(), aliases.len()), (2, 3));
    let frame = client.call("frame", json!({ "number": hex(&rows[0]["physical"]) / PAGE }));
    assert_eq!(frame["report"]["mappers"].as_array().unwrap().len(), 1, "{frame}");
    assert_eq!(frame["report"]["mappers"][0]["pid"], PROGRAM);
    let found = client.call(
        "search",
        json!({ "target": PROGRAM, "u64": 105, "align": 8, "range": [ARENA, ARENA + 32 * PAGE] }),
    );
    let places = found["report"]["places"].as_array().unwrap();
    assert_eq!(
        places.iter().map(|place| hex(&place["address"])).collect::<Vec<_>>(),
        [ARENA + 5 * PAGE]
    );
    let (maps, _) = client.plain(&format!("maps {PROGRAM}"));
    assert!(maps.iter().any(|line| line.starts_with("10000000-10020000 rw-p")), "{maps:?}");
    let smaps = client.call("smaps", json!({ "pid": PROGRAM }));
    let areas = smaps["report"]["areas"].as_array().unwrap();
    let arena = areas.iter().find(|area| hex(&area["start"]) == ARENA).unwrap();
    assert_eq!(arena["usage"]["anonymous"], 11 * PAGE, "{arena}");
}

#[test]
fn frames_processes_and_the_second_level_are_told() {
    let (_lab, mut client) = Debugged::with_known_faults();
    client.call("pause", json!({}));
    let processes = client.call("ps", json!({}))["report"]["processes"].clone();
    let pids: Vec<_> =
        processes.as_array().unwrap().iter().map(|process| process["pid"].clone()).collect();
    assert_eq!(pids, [json!(1), json!(PROGRAM)]);
    let frames = client.call("frames", json!({}))["report"].clone();
    let of = |name: &str| frames[name].as_u64().unwrap();
    let sum =
        ["free", "tables", "kernel", "anonymous", "cache", "zero"].map(of).iter().sum::<u64>();
    assert_eq!(of("total"), sum, "{frames}");
    assert_eq!(frames["consistency"], "consistent");
    let second = client.call("second-level", json!({}))["report"]["backing"].clone();
    let count = |name: &str| second[name].as_u64().unwrap();
    assert_eq!(count("pages"), (32 << 20) / PAGE);
    assert_eq!(count("pages"), count("untouched") + count("backed"));
    // What has been taken back is faulted in again by the program as it goes on.
    let reclaimed = client.call("reclaim", json!({}))["report"].clone();
    assert_eq!(reclaimed["backed"], second["backed"]);
    assert_eq!(client.word(PROGRAM, ARENA), Some(100));
    client.call("resume", json!({}));
    assert_eq!(client.word(PROGRAM, ARENA + 8), Some(200));
}

#[test]
fn bytes_and_instructions_are_the_programs() {
    let (_lab, mut client) = Debugged::with_known_faults();
    let params = json!({ "address": START, "count": 2, "of": PROGRAM });
    let lines = client.call("disas", params)["rows"].clone();
    assert!(lines[0]["text"].as_str().unwrap().starts_with("mov qword"), "{lines}");
    assert_eq!(lines[1]["text"], "mov eax,9");
    let bytes =
        client.call("memory", json!({ "address": DATA_PAGE + 0x18, "length": 16, "of": PROGRAM }));
    let addresses: Vec<_> =
        bytes["rows"].as_array().unwrap().iter().map(|row| hex(&row["address"])).collect();
    assert_eq!(addresses, [DATA_PAGE + 0x18, DATA_PAGE + 0x20]);
    let unmapped = json!({ "address": 0x5000, "of": PROGRAM });
    assert!(client.refused("memory", unmapped).contains("nothing can be read at 0x5000"));
    assert!(client.refused("memory", json!({ "address": 0, "of": 99 })).contains("no process 99"));
    let running = client.refused("regs", json!({}));
    assert!(running.contains("pause it first"), "{running}");
    let walk = client.call("walk", json!({ "address": ARENA, "of": PROGRAM }));
    assert_eq!(walk["steps"].as_array().unwrap().len(), 4);
}
