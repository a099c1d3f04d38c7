//! Linux programs in a lab: the course's experiments, and programs that test the
//! kernel's files and signals. Each checks its own exact numbers, says `ok` and
//! exits with 0; all of them say the same on Linux itself.
//!
//! `scripts/programs` builds them, with each C library, before these tests run.
//! `PAGELAB_PROGRAMS` names their folder if it is not `target/programs`.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::Lab;

/// Runs all programs of a folder, each in a lab of its own.
fn run_all(part: &str, least: usize) {
    let folder = common::programs_folder().join(part);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!("{}: {error}; scripts/programs builds the programs", folder.display())
    });
    let mut programs: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    programs.retain(|path| path.is_file());
    programs.sort();
    assert!(programs.len() >= least, "only {programs:?} in {}", folder.display());
    let failed: Vec<String> = programs.iter().filter_map(|program| run(program).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn run(program: &Path) -> Result<(), String> {
    let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "50", "--"]);
    lab.command.arg(program);
    let outcome = lab.run();
    let said = String::from_utf8_lossy(&outcome.stdout);
    // Two sides of a fork may both say it, so it need not be the last line.
    let ok = outcome.status == 0 && said.lines().any(|line| line.trim() == "ok");
    // A lab that lost frames does not end with 0.
    if ok {
        return Ok(());
    }
    let name = program.display();
    Err(format!("{name}: status {}\n{said}\n{}", outcome.status, outcome.stderr))
}

const EXPERIMENTS: usize = 10;
const TESTS: usize = 29;

#[test]
fn experiments_built_with_musl() {
    run_all("musl", EXPERIMENTS);
}

#[test]
fn experiments_built_with_glibc() {
    run_all("gnu", EXPERIMENTS);
}

#[test]
fn kernel_tests_built_with_musl() {
    run_all("musl/tests", TESTS);
}

#[test]
fn kernel_tests_built_with_glibc() {
    run_all("gnu/tests", TESTS);
}

/// Where a program's memory is, as it sees it.
fn maps(options: &[&str]) -> String {
    let mut lab = Lab::new(&["run", "--log", "error"]);
    lab.command.args(options).arg("--").arg(common::programs_folder().join("musl/where"));
    let outcome = lab.run();
    outcome.expect(0, &[]);
    String::from_utf8_lossy(&outcome.stdout).into_owned()
}

#[test]
fn addresses_repeat_unless_they_are_to_be_random() {
    let fixed = maps(&[]);
    assert!(fixed.contains("[stack]"), "{fixed}");
    assert_eq!(maps(&[]), fixed);
    let random = maps(&["--aslr"]);
    assert_ne!(random, fixed);
    assert_ne!(maps(&["--aslr"]), random);
}

#[test]
fn swapped_pages_come_back_as_they_were_and_shared() {
    let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "100"]);
    lab.command.args(["--mem", "16M", "--swap", "32M", "--faults", "--"]);
    lab.command.arg(common::programs_folder().join("musl/swap"));
    let outcome = lab.run();
    let said = String::from_utf8_lossy(&outcome.stdout);
    assert!(said.contains("pages that came back as one frame: 16"), "{said}");
    assert!(said.contains("pages with wrong contents: 0"), "{said}");
    outcome.expect(0, &["swap_in"]);
}
