//! The host's static shells in a lab, as a user would try them: what a script or
//! a session at a terminal prints there is what it prints on the host itself.
//!
//! The scripts are in `shells/`. Where busybox or bash is not installed as a
//! static program (`busybox-static`, `bash-static`), its tests say so.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::Lab;
use common::terminal::Terminal;

/// Nowhere: tools are busybox's own.
const PATH: &str = "/nowhere";
const PROMPT: &str = "@> ";

struct Shell {
    path: &'static str,
    arguments: &'static [&'static str],
    /// For a session at a terminal.
    interactive: &'static [&'static str],
}

const ASH: Shell = Shell { path: "/bin/busybox", arguments: &["ash"], interactive: &["ash", "-i"] };
const BASH: Shell = Shell {
    path: "/bin/bash-static",
    arguments: &[],
    interactive: &["--norc", "--noprofile", "--noediting", "-i"],
};

impl Shell {
    /// Whether it is there; says it if not.
    fn is_installed(&self) -> bool {
        let installed = Path::new(self.path).exists();
        if !installed {
            eprintln!("SKIPPED: {} is not installed on this host", self.path);
        }
        installed
    }

    fn here(&self) -> Command {
        let mut command = Command::new(self.path);
        command.env_clear().env("PATH", PATH).current_dir("/");
        command
    }

    fn in_a_lab(&self, options: &[&str]) -> Lab {
        let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "55"]);
        lab.command.args(["--env", &format!("PATH={PATH}")]).args(options).arg("--");
        lab.command.arg(self.path);
        lab
    }

    /// Runs a script at both places and compares what it prints and its status.
    #[track_caller]
    fn run(&self, script: &str) {
        if !self.is_installed() {
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = self.here();
        command
            .env("TMPDIR", folder.path())
            .args(self.arguments)
            .args(["-c", script])
            .stdin(Stdio::null());
        let expected = command.output().expect("the shell runs here");
        let mut lab = self.in_a_lab(&[]);
        lab.command.args(self.arguments).args(["-c", script]);
        let outcome = lab.run();
        let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
        // In a lab there is one terminal for both kinds of output.
        let errors = String::from_utf8_lossy(&expected.stderr);
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let wanted = String::from_utf8_lossy(&expected.stdout);
        let all = format!("{wanted}{errors}");
        assert_eq!(lines(&said), lines(&all), "{}", outcome.stderr);
        if errors.is_empty() {
            assert_eq!(said, wanted);
        }
        assert_eq!(Some(outcome.status), expected.status.code(), "{}", outcome.stderr);
    }

    /// Types `lines` at a terminal of both, one after each prompt, and compares
    /// what the terminals show.
    #[track_caller]
    fn converse(&self, lines: &[&str]) {
        if !self.is_installed() {
            return;
        }
        let terminal = Terminal::new();
        let mut command = self.here();
        command.env("PS1", PROMPT).env("TERM", "dumb").args(self.interactive);
        let mut child = terminal.start_here(command);
        let expected = type_lines(&terminal, lines);
        let status = child.wait().expect("a child").code();
        let terminal = Terminal::new();
        let prompt = format!("PS1={PROMPT}");
        let mut lab = self.in_a_lab(&["--interactive", "--env", &prompt, "--env", "TERM=dumb"]);
        lab.command.args(self.interactive);
        let running = terminal.start(lab);
        let shown = type_lines(&terminal, lines);
        assert_eq!(without_numbers(&shown), without_numbers(&expected));
        assert_eq!(Some(running.finish().status), status);
    }
}

/// The last line ends the session.
fn type_lines(terminal: &Terminal, lines: &[&str]) -> String {
    let mut screen = terminal.screen();
    let mut shown = String::new();
    for (index, line) in lines.iter().enumerate() {
        shown = screen.wait_for(PROMPT, index + 1);
        terminal.type_in(format!("{line}\n").as_bytes());
    }
    shown
}

/// Numbers of processes differ: `[1] 4711` is a job of a shell.
fn without_numbers(shown: &str) -> String {
    let line = |line: &str| match line.split_once("] ") {
        Some((job, number)) if job.starts_with('[') && number.trim().parse::<u32>().is_ok() => {
            format!("{job}] N")
        }
        _ => line.trim_end().to_owned(),
    };
    shown.lines().map(line).collect::<Vec<_>>().join("\n")
}

const JOBS: &[&str] = &[
    "echo hello | cat; (exit 3); echo status $?",
    "sleep 100 &",
    "jobs",
    "kill -STOP %1; sleep 0.5; jobs",
    "bg %1 >/dev/null; jobs",
    "kill %1; sleep 0.5; echo killed",
    "sleep 0.2 & fg %1; echo back",
    "echo 'a b' | { read x y; echo $y $x; }",
    "exit 7",
];

/// The same with what is built into bash.
const JOBS_OF_BASH: &[&str] = &[
    "echo hello; (exit 3); echo status $?",
    "(kill -STOP $BASHPID; exit 4) & read -t 1 x; jobs",
    "fg %1 >/dev/null; echo ended $?",
    "(kill -STOP $BASHPID; exit 5) & read -t 1 x; bg %1 >/dev/null; wait %1; echo ended $?",
    "(kill -STOP $BASHPID) & read -t 1 x; kill -KILL %1; read -t 1 x; wait %1; echo ended $?",
    "exit 7",
];

#[test]
fn busybox_tools_in_pipes() {
    ASH.run(include_str!("shells/pipes.sh"));
}

#[test]
fn busybox_tools_on_files() {
    ASH.run(include_str!("shells/files.sh"));
}

#[test]
fn ash_as_a_language() {
    ASH.run(include_str!("shells/language.sh"));
}

#[test]
fn bash_as_a_language() {
    BASH.run(include_str!("shells/language.sh"));
}

#[test]
fn what_bash_has_beyond() {
    BASH.run(include_str!("shells/bash.sh"));
}

#[test]
fn jobs_of_ash_at_a_terminal() {
    ASH.converse(JOBS);
}

#[test]
fn jobs_of_bash_at_a_terminal() {
    BASH.converse(JOBS_OF_BASH);
}
