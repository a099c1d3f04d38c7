//! A program that does with files what it is told
//! ([`actor.c`](../../guest/programs/files/actor.c)), in a lab or, for what Linux
//! does in the same place, on this machine itself.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use super::{binary, programs_folder};

/// A static program that `scripts/programs` has built.
pub fn program(name: &str) -> PathBuf {
    let path = programs_folder().join("musl").join(name);
    assert!(path.exists(), "{}: scripts/programs builds it", path.display());
    path
}

/// A new folder.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The program, for which a folder of the host lies at `/s`.
pub struct Actor {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Where the folder really is for the program.
    seen_at: String,
}

impl Actor {
    /// In a lab with more options.
    pub fn start(folder: &Path, options: &[&str]) -> Self {
        Self::with_access(folder, "", options)
    }

    /// In a lab that has the folder with `:ro` behind it, or nothing.
    pub fn with_access(folder: &Path, access: &str, options: &[&str]) -> Self {
        Self::run(&Self::in_lab(folder, access, options), "/s")
    }

    /// On this machine's Linux.
    pub fn on_linux(folder: &Path) -> Self {
        let seen_at = folder.display().to_string();
        Self::run(&[program("files/actor").display().to_string()], &seen_at)
    }

    /// On Linux or in a lab, with mounts of its own: those that the words of `mounts`
    /// for a shell make.
    pub fn with_mounts(mounts: &str, folder: &Path, lab: bool) -> Self {
        let shell = format!("{mounts} && exec \"$@\"");
        let mut words: Vec<String> =
            ["unshare", "-rm", "sh", "-ec", &shell, "sh"].map(str::to_owned).into();
        let seen_at = folder.display().to_string();
        if lab {
            words.extend(Self::in_lab(folder, "", &[]));
            Self::run(&words, "/s")
        } else {
            words.push(program("files/actor").display().to_string());
            Self::run(&words, &seen_at)
        }
    }

    fn in_lab(folder: &Path, access: &str, options: &[&str]) -> Vec<String> {
        let mut words = vec![binary().display().to_string()];
        words.extend(["run", "--log", "error", "--timeout", "50", "--share"].map(str::to_owned));
        words.push(format!("{}:/s{access}", folder.display()));
        words.extend(options.iter().map(|&option| option.to_owned()));
        words.extend(["--".to_owned(), program("files/actor").display().to_string()]);
        words
    }

    fn run(words: &[String], seen_at: &str) -> Self {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_remove("PAGELAB_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output, seen_at: seen_at.to_owned() }
    }

    /// A file of the folder as this process reaches it, also where the program has
    /// mounts of its own.
    pub fn reach(&self, folder: &Path, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        root.join(folder.strip_prefix("/").unwrap_or(folder)).join(name)
    }

    /// Says one line and returns the answer.
    pub fn ask(&mut self, line: &str) -> String {
        let line = line.replace("/s/", &format!("{}/", self.seen_at));
        let input = self.input.as_mut().expect("it was not told to end");
        input.write_all(format!("{line}\n").as_bytes()).expect("the program reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("the program answers");
        answer.trim().to_owned()
    }

    /// Says lines, each of which has to be answered as written behind the arrow.
    #[track_caller]
    pub fn play(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (question, expected) = line.split_once("->").expect("a question and an answer");
            let answer = self.ask(question.trim());
            assert_eq!(answer, expected.trim(), "{}", question.trim());
        }
    }

    /// The program ends, and with it the lab: it must have lost nothing.
    #[track_caller]
    pub fn end(mut self) {
        drop(self.input.take());
        let status = self.child.wait().expect("a child");
        assert_eq!(status.code(), Some(0), "the lab's status");
    }

    /// The lab ends between two instructions.
    pub fn kill(mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }
}
