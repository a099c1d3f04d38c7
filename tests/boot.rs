//! Whole boots: the tour, the first program's exact faults, and programs that
//! try to bring the kernel down.

mod common;

use std::path::Path;

use common::{Lab, Outcome, programs};
use serde_json::Value;

/// Runs pagelab with its report in a file.
fn run_reported(mut lab: Lab, command: &[&str], program: Option<&Path>) -> (Outcome, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.json");
    lab.command.args(command).arg("--json").arg(&path);
    if let Some(program) = program {
        lab.command.arg("--").arg(program);
    }
    let outcome = lab.run();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (outcome, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// Runs a program in a lab.
fn run(program: &[u8], options: &[&str]) -> (Outcome, Value) {
    let lab = Lab::new(&["run"]);
    let path = lab.file("program", program);
    run_reported(lab, options, Some(&path))
}

fn tour() -> (Outcome, Value) {
    run_reported(Lab::new(&["tour"]), &[], None)
}

fn faults(report: &Value, kind: &str) -> u64 {
    let faults = report["guest"]["faults"].as_array().expect("faults in the report");
    let found = faults.iter().find(|fault| fault["kind"] == kind);
    found.and_then(|fault| fault["count"].as_u64()).expect("a kind of fault")
}

/// Fails unless the kernel powered off by itself with all its memory.
#[track_caller]
fn expect_clean(outcome: &Outcome, report: &Value, status: i32) {
    assert_eq!(outcome.status, status, "standard error:\n{}", outcome.stderr);
    assert_eq!(report["guest"]["frames"]["leaked"], 0, "{report:#}");
    assert!(
        report["reason"].as_str().is_some_and(|text| text.contains("powered off")),
        "{report:#}"
    );
}

#[test]
fn the_tour_takes_exactly_the_faults_that_its_program_makes() {
    let (outcome, report) = tour();
    outcome.expect(0, &["demand_zero", "leaked: 0"]);
    let said = String::from_utf8_lossy(&outcome.stdout);
    assert!(said.starts_with("Hello from ring 3.\n"), "{said}");
    expect_clean(&outcome, &report, 0);
    for (kind, count) in [
        // Eight pages of memory, and the page of the stack with the arguments.
        ("demand_zero", 9),
        ("zero_page_read", 4),
        ("zero_page_upgrade", 2),
        ("stack_growth", 4),
        ("cow_copy", 0),
        ("cow_reuse", 0),
        ("page_in_major", 0),
        ("spurious", 0),
        ("protection_violation", 0),
        ("no_mapping", 0),
    ] {
        assert_eq!(faults(&report, kind), count, "{kind} in {report:#}");
    }
    assert!(faults(&report, "page_in_minor") >= 1);
}

#[test]
fn two_tours_take_the_same_faults() {
    let kinds = |report: &Value| {
        let faults = report["guest"]["faults"].as_array().expect("faults").clone();
        faults.iter().map(|fault| fault["count"].clone()).collect::<Vec<_>>()
    };
    let (first, second) = (tour().1, tour().1);
    assert_eq!(kinds(&first), kinds(&second));
    assert_eq!(first["guest"]["frames"], second["guest"]["frames"]);
}

#[test]
fn the_exit_status_is_the_programs() {
    let (outcome, report) = run(&programs::exit_42(), &[]);
    expect_clean(&outcome, &report, 42);
}

#[test]
fn guests_of_many_sizes_boot() {
    for size in ["16M", "33M", "128M", "1G", "4G"] {
        let (outcome, report) = run(&programs::exit_42(), &["--mem", size]);
        if outcome.stderr.contains("is more than this host's memory") {
            // A small host, such as the emulated one, says so instead.
            outcome.expect(125, &[size.trim_end_matches('G'), "GiB"]);
            continue;
        }
        expect_clean(&outcome, &report, 42);
    }
}

/// A program that does `what` ends by `signal`, and nothing else happens.
fn ends_by(program: &[u8], signal: i32, kind: Option<&str>) {
    let (outcome, report) = run(program, &[]);
    expect_clean(&outcome, &report, 128 + signal);
    if let Some(kind) = kind {
        assert_eq!(faults(&report, kind), 1, "{report:#}");
    }
}

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGFPE: i32 = 8;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;

#[test]
fn forbidden_memory_ends_a_program_and_is_counted() {
    ends_by(&programs::read_null(), SIGSEGV, Some("no_mapping"));
    ends_by(&programs::write_code(), SIGSEGV, Some("protection_violation"));
    ends_by(&programs::execute_data(), SIGSEGV, Some("protection_violation"));
    ends_by(&programs::read_kernel(), SIGSEGV, Some("no_mapping"));
    ends_by(&programs::read_physical(), SIGSEGV, Some("no_mapping"));
    ends_by(&programs::jump_to_kernel(), SIGSEGV, Some("no_mapping"));
    ends_by(&programs::overflow_stack(), SIGSEGV, Some("no_mapping"));
}

#[test]
fn privileged_and_invalid_instructions_end_a_program() {
    ends_by(&programs::halt(), SIGSEGV, None);
    ends_by(&programs::load_cr3(), SIGSEGV, None);
    ends_by(&programs::write_port(), SIGSEGV, None);
    ends_by(&programs::jump_not_canonical(), SIGSEGV, None);
    ends_by(&programs::invalid_instruction(), SIGILL, None);
    ends_by(&programs::divide_by_zero(), SIGFPE, None);
    ends_by(&programs::breakpoint(), SIGTRAP, None);
}

#[test]
fn system_calls_with_nonsense_only_fail() {
    let (outcome, report) = run(&programs::bad_calls(), &[]);
    expect_clean(&outcome, &report, 0);
    assert!(outcome.stderr.contains("system call 100000"), "{}", outcome.stderr);
}

#[test]
fn a_program_that_spins_is_stopped_by_its_time_limit() {
    let (outcome, _) = run(&programs::spin(), &["--timeout", "1"]);
    assert_eq!(outcome.status, 124, "{}", outcome.stderr);
    outcome.within(20);
}

#[test]
fn a_program_that_takes_all_memory_ends_and_the_kernel_does_not() {
    let (outcome, report) = run(&programs::take_all_memory(), &["--mem", "16M"]);
    expect_clean(&outcome, &report, 128 + SIGKILL);
    assert!(outcome.stderr.contains("out of memory"), "{}", outcome.stderr);
}

#[test]
fn a_fork_bomb_leaves_a_lab_that_answers() {
    let (outcome, _) = run(&programs::fork_bomb(), &["--mem", "32M", "--timeout", "6"]);
    assert_eq!(outcome.status, 124, "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome.within(40);
}

/// A kernel that ends badly in a way that is known by name.
fn provoked(how: &str) -> Outcome {
    let mut lab = Lab::new(&["tour", "--timeout", "20"]);
    lab.command.arg("--kernel-args").arg(format!("provoke={how}"));
    lab.run()
}

#[test]
fn a_kernel_that_panics_says_what_and_where_by_name_and_line() {
    let outcome = provoked("panic");
    outcome.expect(125, &["provoked on purpose", "provoke.rs", "pagelab_hal::provoke"]);
}

#[test]
fn a_page_fault_of_the_kernel_is_reported_with_address_and_walk() {
    let outcome = provoked("fault");
    outcome.expect(125, &["page fault in ring 0", "0xffffe00000000000", "provoke.rs"]);
}

#[test]
fn a_kernel_stack_overflow_is_a_report_and_not_a_reset() {
    let outcome = provoked("overflow");
    outcome.expect(125, &["double fault", "overflow"]);
}

#[test]
fn a_reset_is_called_a_triple_fault() {
    let outcome = provoked("reset");
    outcome.expect(125, &["triple fault"]);
}
