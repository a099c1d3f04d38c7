//! Signals as programs see them: each C program of `guest/programs/tests/signals`
//! checks itself, built static with musl and with glibc, first on the Linux that
//! runs the tests and then in a lab. Both must say `ok`.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::Lab;
use serde_json::Value;

const COMPILERS: [&str; 2] = ["musl-gcc", "gcc"];
const FLAGS: [&str; 8] = [
    "-static",
    "-O2",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Werror",
];

/// Builds a program in a folder.
fn build(compiler: &str, name: &str, folder: &Path) -> PathBuf {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest/programs/tests/signals");
    let program = folder.join(name);
    let status = Command::new(compiler)
        .args(FLAGS)
        .arg("-pthread")
        .arg("-o")
        .arg(&program)
        .arg(Path::new(sources).join(name).with_extension("c"))
        .status()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(status.success(), "{compiler} does not build {name}");
    program
}

/// Runs a program here and in a lab.
#[track_caller]
fn check(name: &str) {
    for compiler in COMPILERS {
        let folder = tempfile::tempdir().expect("a folder");
        let program = build(compiler, name, folder.path());
        let here = Command::new(&program).output().expect("the program runs");
        let said = String::from_utf8_lossy(&here.stdout);
        assert_eq!((said.as_ref(), here.status.code()), ("ok\n", Some(0)), "on Linux, {compiler}");

        let report = folder.path().join("report.json");
        let mut lab = Lab::new(&["run"]);
        lab.command.arg("--json").arg(&report).arg("--").arg(&program);
        let outcome = lab.run();
        let said = String::from_utf8_lossy(&outcome.stdout);
        assert_eq!(said, "ok\n", "in a lab, {compiler}:\n{}", outcome.stderr);
        outcome.expect(0, &[]);
        let report = std::fs::read_to_string(&report).expect("a report");
        let report: Value = serde_json::from_str(&report).expect("a report in JSON");
        assert_eq!(report["guest"]["frames"]["leaked"], 0, "{compiler}");
    }
}

/// One test for each program.
macro_rules! programs {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

programs! { exec faults hostile jobs masks pipes queue registers restart stacks threads timers }
