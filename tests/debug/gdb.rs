//! The remote protocol of gdb, spoken as gdb does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Debugged, PATIENCE, PROGRAM};
use crate::common::programs::{self, ARENA, DATA_PAGE, DONE, DONE_AT, START};
use crate::common::{Lab, Running};

/// A debugger that is connected.
struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    fn connect(socket: &PathBuf) -> Self {
        let began = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut debugger = Self { stream };
        let features = debugger.ask("qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+");
        assert!(features.contains("vContSupported+"), "{features}");
        debugger
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("an answer");
        byte[0]
    }

    /// Sends a packet.
    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stream, "${packet}#{sum:02x}").unwrap();
    }

    /// The next packet.
    fn receive(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => packet.push(byte),
            }
        }
        let (high, low) = (self.byte(), self.byte());
        let sum =
            u8::from_str_radix(&format!("{}{}", char::from(high), char::from(low)), 16).unwrap();
        assert_eq!(packet.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), sum);
        // Who was told to leave may have left already.
        let _ = self.stream.write_all(b"+");
        expand(&packet)
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.receive()
    }

    fn memory(&mut self, address: u64, length: usize) -> String {
        self.ask(&format!("m{address:x},{length:x}"))
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let bytes = self.memory(address, 8);
        // Three digits are an error: another process may run.
        let bytes = (bytes.len() == 16).then_some(bytes)?;
        u64::from_str_radix(&bytes, 16).ok().map(u64::swap_bytes)
    }

    /// The instruction pointer: behind the sixteen general registers.
    fn rip(&mut self) -> u64 {
        let registers = self.ask("g");
        u64::from_str_radix(&registers[256..272], 16).unwrap().swap_bytes()
    }
}

/// Undoes the run-length encoding of answers.
fn expand(packet: &[u8]) -> String {
    let mut text = String::new();
    let mut bytes = packet.iter();
    while let Some(&byte) = bytes.next() {
        if byte == b'*' {
            let count = bytes.next().expect("a count") - 29;
            let last = text.chars().next_back().expect("something to repeat");
            text.extend(std::iter::repeat_n(last, count.into()));
        } else {
            text.push(char::from(byte));
        }
    }
    text
}

fn start(program: &[u8]) -> (Running, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gdb.sock");
    let mut lab = Lab::new(&["run", "--timeout", "50", "--mem", "32M", "--paused", "--gdb"]);
    let file = lab.file("program", program);
    lab.command.arg(&socket).arg("--").arg(file);
    (lab.start(), socket, folder)
}

#[test]
fn a_debugger_watches_memory() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gdb.sock");
    let options = ["--paused", "--gdb", socket.to_str().unwrap()];
    let lab = Debugged::start(&programs::known_faults(), &options);
    // The debug port brings the program to its first store.
    let mut port = lab.client();
    port.call("break", json!({ "pid": PROGRAM, "range": [ARENA, ARENA + 4096] }));
    port.call("resume", json!({}));
    port.call("wait", json!({}));
    let mut gdb = Debugger::connect(&socket);
    let third = ARENA + 3 * 4096;
    // Written by the program, then by its child; each sees its own page.
    for (set, gone, reason, value) in [("Z2", "z2", "watch", 103), ("Z4", "z4", "awatch", 7)] {
        assert_eq!(gdb.ask(&format!("{set},{third:x},8")), "OK");
        let hit = gdb.ask("vCont;c");
        assert!(hit.starts_with("T05") && hit.contains(&format!(";{reason}:{third:x}")), "{hit}");
        assert_eq!(gdb.word(third), Some(value));
        assert_eq!(gdb.ask(&format!("{gone},{third:x},8")), "OK");
    }
    // The child runs; its parent is in the kernel, its program in `fork` or `wait4`.
    assert_eq!(gdb.ask("Hgp1.2"), "OK");
    let parent = gdb.rip();
    assert!((START..START + 4096).contains(&parent), "{parent:#x}");
    assert_eq!(gdb.memory(parent - 2, 2), "0f05");
    assert_eq!(gdb.word(third), Some(103));
    assert_eq!(gdb.ask("Hgp1.3"), "OK");
    // Instructions, without a byte of memory changed where the host can: the
    // parent waits for its child before it gets there.
    let behind_exit = gdb.rip() + 0x22;
    assert_eq!(gdb.ask(&format!("Z1,{behind_exit:x},1")), "OK");
    assert!(gdb.ask("vCont;c").starts_with("T05"));
    assert_eq!(gdb.rip(), behind_exit);
    assert_eq!(gdb.ask(&format!("z1,{behind_exit:x},1")), "OK");
    // Reading is waited for as any access is; nine bytes cannot be watched.
    assert_eq!(gdb.ask(&format!("Z3,{third:x},8")), "OK");
    assert_eq!(gdb.ask(&format!("z3,{third:x},8")), "OK");
    assert!(gdb.ask(&format!("Z2,{third:x},9")).starts_with('E'));
}

#[test]
fn a_debugger_stops_the_kernel_and_programs() {
    let (running, socket, _folder) = start(&programs::known_faults());
    let mut gdb = Debugger::connect(&socket);
    let kernel_entry = gdb.rip();
    assert!(kernel_entry >> 47 == 0x1_ffff, "{kernel_entry:#x}");
    // One instruction of the kernel.
    assert!(gdb.ask("vCont;s:p1.1").starts_with("T05"));
    assert_ne!(gdb.rip(), kernel_entry);
    // The guest goes on, is interrupted, and shows its processes.
    gdb.send("vCont;c");
    thread::sleep(Duration::from_secs(3));
    gdb.stream.write_all(&[3]).unwrap();
    let stopped = gdb.receive();
    assert!(stopped.starts_with("T02"), "{stopped}");
    let threads = gdb.ask("qfThreadInfo");
    assert!(threads.starts_with('m'), "{threads}");
    let began = Instant::now();
    while gdb.word(DONE_AT) != Some(DONE) {
        assert!(began.elapsed() < PATIENCE, "the program is not done: {:?}", gdb.word(DONE_AT));
        gdb.send("vCont;c");
        thread::sleep(Duration::from_millis(200));
        gdb.stream.write_all(&[3]).unwrap();
        gdb.receive();
    }
    // Its last instruction jumps to itself: a breakpoint there is hit.
    let spinning = gdb.rip();
    assert!((START..START + 4096).contains(&spinning), "{spinning:#x}");
    assert_eq!(gdb.memory(spinning, 2), "ebfe");
    assert_eq!(gdb.ask(&format!("Z0,{spinning:x},1")), "OK");
    for _ in 0..3 {
        let hit = gdb.ask("vCont;c");
        assert!(hit.starts_with("T05") && hit.contains("swbreak"), "{hit}");
        assert_eq!(gdb.rip(), spinning);
    }
    assert_eq!(gdb.ask(&format!("z0,{spinning:x},1")), "OK");
    gdb.ask("vCont;s:p1.2");
    assert_eq!(gdb.rip(), spinning);
    // Memory is written where it says.
    assert_eq!(gdb.ask(&format!("M{:x},8:0807060504030201", DATA_PAGE + 0x100)), "OK");
    assert_eq!(gdb.word(DATA_PAGE + 0x100), Some(0x0102_0304_0506_0708));
    assert!(gdb.memory(0x1000, 8).starts_with('E'));
    // It leaves; the lab goes on without it, and ends while another is there.
    assert_eq!(gdb.ask("D;1"), "OK");
    drop(gdb);
    let mut again = Debugger::connect(&socket);
    assert!(again.ask("qfThreadInfo").starts_with('m'));
    let pid = running.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    running.finish().expect(143, &[]);
    assert!(!socket.exists());
}
