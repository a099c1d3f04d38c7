//! `pagelab bench boot` as a user runs it.

mod common;

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(common::binary());
    command.args(["bench", "boot", "--runs", "1"]).args(arguments);
    command
}

#[test]
fn a_boot_is_measured_from_exec_to_exit() {
    let output = bench(&["--no-qemu", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let times = &report["lab"]["times"];
    let median = |name: &str| times[name]["median"].as_f64().unwrap_or_else(|| panic!("{name}"));
    let moments =
        ["to_main", "to_ready", "to_kernel", "to_kernel_ready", "to_power_off", "to_exit"];
    for pair in moments.windows(2) {
        assert!(median(pair[0]) < median(pair[1]), "{pair:?}: {times:#}");
    }
    assert!(median("to_main") > 0.0);
    let memory = &report["lab"]["memory"];
    assert!(memory["guest_ram_kib"].as_u64().unwrap() > 100, "{memory}");
    assert!(memory["anonymous_kib"].as_u64().unwrap() < 5 << 10, "{memory}");
    assert_eq!(report["qemu"].as_array().unwrap().len(), 0);
    assert!(report["qemu_times_slower"].is_null());
}

#[test]
fn without_qemu_that_is_said() {
    let output = bench(&[]).env("PATH", "/nonexistent").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("qemu-system-x86_64 is not installed"), "{text}");
    assert!(text.contains("No comparison"), "{text}");
}

#[test]
fn no_runs_at_all_are_refused() {
    let mut command = Command::new(common::binary());
    let output = command.args(["bench", "boot", "--runs", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_lab_that_cannot_boot_is_an_error_with_its_words() {
    let output = bench(&["--no-qemu"]).env("PAGELAB_KVM", "/nonexistent/kvm").output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("a lab ended with") && text.contains("/nonexistent/kvm"), "{text}");
}

#[test]
fn the_debug_port_is_measured_beside_a_debugger() {
    let output = Command::new(common::binary())
        .args(["bench", "debug", "--runs", "1", "--mapped", "8", "--touched", "4", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let clients = &report["clients"];
    for way in ["alone", "polled", "watched"] {
        let time = &clients[way]["processor_ms"]["median"];
        assert!(time.as_f64() > Some(0.0), "{way}: {report:#}");
    }
    // Its pages, and what else is in the same tables: whole tables are read.
    let dump = &clients["dump"];
    let entries = dump["packets"]["entries"].as_u64().unwrap();
    assert!(entries >= 1024 && entries.is_multiple_of(256), "{dump}");
    assert_eq!(dump["entries"].as_u64(), Some(entries), "{dump}");
    let gdb = &dump["gdb"]["entries"];
    assert!(gdb.as_u64() == Some(entries) || dump["without_gdb_because"].is_string(), "{dump}");
}
