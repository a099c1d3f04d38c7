//! Runs the `pagelab` binary as a user does: as a process, with a time limit.
//!
//! The binary is the one that cargo built, or the one that `PAGELAB_BIN` names,
//! so that the same tests run on another host. Nothing is skipped where there is
//! no KVM: the tests fail there, and the message says why.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod actor;
pub mod elf;
pub mod guests;
pub mod programs;
pub mod terminal;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long any run may take. Generous: an emulated host is slow.
const LIMIT: Duration = Duration::from_secs(60);

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("PAGELAB_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pagelab")), PathBuf::from)
}

/// Where the programs are that `scripts/programs` builds, before these tests run.
/// `PAGELAB_PROGRAMS` names the folder if it is not `target/programs`.
pub fn programs_folder() -> PathBuf {
    std::env::var_os("PAGELAB_PROGRAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/programs"),
        PathBuf::from,
    )
}

/// A run of pagelab.
pub struct Lab {
    pub command: Command,
    folder: TempDir,
    input: Vec<u8>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status, or 1000 + N for a process that signal N ended.
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub elapsed: Duration,
}

impl Outcome {
    /// Fails unless the status is `status` and every one of `texts` was said.
    #[track_caller]
    pub fn expect(&self, status: i32, texts: &[&str]) {
        assert_eq!(self.status, status, "standard error:\n{}", self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "‘{text}’ is not in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked at"), "pagelab panicked:\n{}", self.stderr);
    }

    /// Fails if the run took longer than `seconds`.
    #[track_caller]
    pub fn within(&self, seconds: u64) {
        assert!(self.elapsed < Duration::from_secs(seconds), "it took {:?}", self.elapsed);
    }
}

impl Lab {
    /// `pagelab` with arguments, without input.
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).env_remove("PAGELAB_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, folder: tempfile::tempdir().expect("a folder"), input: Vec::new() }
    }

    /// `pagelab run --kernel FILE` with options.
    pub fn with_kernel(file: &[u8], options: &[&str]) -> Self {
        let mut lab = Self::new(&["run"]);
        let path = lab.file("kernel.elf", file);
        lab.command.arg("--kernel").arg(path).args(options);
        lab
    }

    /// Writes a file that lives as long as the run.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// Gives it `bytes` through a pipe.
    pub fn with_input(mut self, bytes: &[u8]) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = bytes.to_vec();
        self
    }

    /// Gives it a file with `bytes`.
    pub fn with_input_file(mut self, bytes: &[u8]) -> Self {
        let path = self.file("input", bytes);
        self.command.stdin(File::open(path).expect("the input"));
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let began = Instant::now();
        let mut child = self.command.spawn().expect("pagelab starts");
        if let Some(mut pipe) = child.stdin.take() {
            let bytes = std::mem::take(&mut self.input);
            // A lab that ends early closes the pipe: no failure.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        Running { child, began, lab: self }
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.start().finish()
    }
}

/// A run that has not ended.
pub struct Running {
    pub child: Child,
    began: Instant,
    lab: Lab,
}

impl Running {
    /// Reads what it writes and waits for its end; kills it after the limit.
    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        let stdout = self.child.stdout.take().map(|pipe| thread::spawn(|| read_all(pipe)));
        let stderr = self.child.stderr.take().map(|pipe| thread::spawn(|| read_all(pipe)));
        let (status, elapsed) = self.wait();
        let join = |thread: Option<thread::JoinHandle<Vec<u8>>>| {
            thread.map_or_else(Vec::new, |thread| thread.join().expect("output"))
        };
        let stderr = String::from_utf8_lossy(&join(stderr)).into_owned();
        let Some(status) = status else {
            panic!("it did not end within {LIMIT:?}:\n{stderr}");
        };
        Outcome { status, stdout: join(stdout), stderr, elapsed }
    }

    /// Waits for the end without reading anything.
    fn wait(&mut self) -> (Option<i32>, Duration) {
        while self.began.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().expect("a child") {
                let signal = || 1000 + status.signal().unwrap_or_default();
                return (Some(status.code().unwrap_or_else(signal)), self.began.elapsed());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        (None, self.began.elapsed())
    }

    /// Waits for the end; what it writes is only read afterwards.
    #[track_caller]
    pub fn finish_unread(mut self) -> Outcome {
        let (status, elapsed) = self.wait();
        let status = status.unwrap_or_else(|| panic!("it did not end within {LIMIT:?}"));
        let stdout = self.child.stdout.take().map_or_else(Vec::new, read_all);
        let stderr = self.child.stderr.take().map_or_else(Vec::new, read_all);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Outcome { status, stdout, stderr, elapsed }
    }
}

fn read_all(mut pipe: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}
