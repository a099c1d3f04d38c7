//! A lab with a debug port, and a client that speaks with it line by line.

#![allow(unreachable_pub, reason = "a part of one test binary")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Lab, Running, programs};

/// How long an answer may take: an emulated host is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A lab that runs, with its debug port at a Unix socket.
pub struct Debugged {
    running: Option<Running>,
    pub socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Debugged {
    /// Runs a program; `options` are further ones of `pagelab run`.
    pub fn start(program: &[u8], options: &[&str]) -> Self {
        let debugged = Self::begin(program, options);
        debugged.wait_for_socket();
        debugged
    }

    /// The same, but returns at once.
    pub fn begin(program: &[u8], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("lab.sock");
        let mut lab = Lab::new(&["run", "--timeout", "50", "--mem", "32M", "--debug"]);
        let file = lab.file("program", program);
        lab.command.arg(&socket).args(options).arg("--").arg(file);
        let running = lab.start();
        Self { running: Some(running), socket, _folder: folder }
    }

    /// A lab whose guest has made its known faults and spins.
    pub fn with_known_faults() -> (Self, Client) {
        let lab = Self::start(&programs::known_faults(), &["--paused"]);
        let mut client = lab.client();
        client.call("record", json!({ "what": "lossless" }));
        client.call("resume", json!({}));
        client.wait_until_done();
        (lab, client)
    }

    fn wait_for_socket(&self) {
        let began = Instant::now();
        while UnixStream::connect(&self.socket).is_err() {
            assert!(began.elapsed() < PATIENCE, "no debug port at {}", self.socket.display());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).expect("the debug port");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        stream
    }

    pub fn client(&self) -> Client {
        Client::new(self.connect())
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a lab").child.id()
    }

    /// Ends it by a signal; its exit status.
    pub fn stop(mut self, signal: &str) -> i32 {
        let running = self.running.take().expect("a lab");
        let pid = running.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let outcome = running.finish();
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        assert!(!self.socket.exists(), "the socket's file is left behind");
        outcome.status
    }

    /// Waits for its end; its exit status.
    pub fn finish(mut self) -> i32 {
        let outcome = self.running.take().expect("a lab").finish();
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        outcome.status
    }
}

impl Drop for Debugged {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// A client of the port.
pub struct Client {
    pub reader: BufReader<UnixStream>,
    calls: u64,
}

impl Client {
    pub fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream), calls: 0 }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the port takes it");
    }

    /// The next line, without its end; empty at the connection's end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line within the time limit");
        line.trim_end_matches('\n').to_owned()
    }

    /// All that comes until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    /// A JSON-RPC call: the whole answer. Notifications before it are dropped.
    pub fn answer(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.send(format!("{call}\n").as_bytes());
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "{method}: the connection has ended");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if answer.get("id").is_some() {
                assert_eq!(answer["id"], id, "{method}: {answer}");
                return answer;
            }
        }
    }

    /// The result of a call that must succeed.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.answer(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        assert!(answer["result"].get("incomplete").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The message of a call that must fail.
    #[track_caller]
    pub fn refused(&mut self, method: &str, params: Value) -> String {
        let answer = self.answer(method, params);
        let error = answer.get("error").or_else(|| answer["result"].get("incomplete"));
        let error = error.unwrap_or_else(|| panic!("{method} worked: {answer}"));
        error["message"].as_str().expect("a message").to_owned()
    }

    /// A plain command: its lines, and the last, which says how it went.
    pub fn plain(&mut self, command: &str) -> (Vec<String>, String) {
        self.send(format!("{command}\n").as_bytes());
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            if line.starts_with("-- ") || line.is_empty() {
                return (lines, line);
            }
            lines.push(line);
        }
    }

    /// Eight bytes of a process's memory.
    pub fn word(&mut self, of: u32, address: u64) -> Option<u64> {
        let params = json!({ "address": address, "length": 8, "of": of });
        let answer = self.answer("memory", params);
        let bytes = answer["result"]["rows"].get(0)?["bytes"].as_str()?.to_owned();
        // The bytes in their order in memory, the lowest first.
        Some(u64::from_str_radix(&bytes, 16).ok()?.swap_bytes())
    }

    /// Waits until [`programs::known_faults`] only spins.
    pub fn wait_until_done(&mut self) {
        let began = Instant::now();
        while self.word(PROGRAM, programs::DONE_AT) != Some(programs::DONE) {
            assert!(began.elapsed() < PATIENCE, "the program is not done");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The number of a lab's first program: process 1 is the kernel's own.
pub const PROGRAM: u32 = 2;

/// A number that is written in hexadecimal.
pub fn hex(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    u64::from_str_radix(text.strip_prefix("0x").expect("0x"), 16).expect("a number")
}
