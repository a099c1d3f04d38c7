//! The command line and the outside of a lab: arguments that make no sense, a
//! host without KVM, signals, limits, and what a lab costs.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::elf::Elf;
use common::{Lab, guests};

fn hanging(options: &[&str]) -> Lab {
    Lab::with_kernel(&guests::kernel(guests::hang()), options)
}

#[test]
fn sizes_that_cannot_work_are_refused_with_the_reason() {
    let refused = |size: &str, reason: &str| {
        let outcome = hanging(&["--mem", size]).run();
        outcome.expect(2, &["--mem", reason]);
        outcome.within(10);
    };
    refused("lots", "is not a size");
    refused("-1", "is not a size");
    refused("1.5G", "is not a size");
    refused("0", "a guest without memory cannot start");
    refused("4K", "4 KiB is too little");
    refused("16777217", "not whole pages");
    refused("18446744073709551616", "more than any machine can address");
    refused("99999999999G", "more than any machine can address");
    refused("17592186044416", "more than a guest can address");
    let outcome = hanging(&["--mem", "10000G"]).run();
    outcome.expect(125, &["--mem: 9.7 TiB is more than this host's memory of"]);
}

#[test]
fn the_least_memory_is_enough_and_so_is_more_than_the_hole() {
    let kernel = guests::kernel(guests::power_off());
    Lab::with_kernel(&kernel, &["--mem", "16M"]).run().expect(7, &[]);
    // Where the host has so little, it must say that instead.
    let outcome = Lab::with_kernel(&kernel, &["--mem", "4G"]).run();
    if outcome.status != 7 {
        outcome.expect(125, &["4 GiB is more than this host's memory"]);
    }
}

#[test]
fn a_host_without_kvm_is_told_what_to_do() {
    let with_device = |path: &str| {
        let mut lab = hanging(&[]);
        lab.command.env("PAGELAB_KVM", path);
        lab.run()
    };
    let missing = with_device("/nonexistent/kvm");
    missing.expect(125, &["there is no /nonexistent/kvm", "modprobe"]);
    // Not even root may open this file for writing.
    let forbidden = with_device("/sys/devices/system/cpu/online");
    forbidden.expect(125, &["no permission to open", "usermod -aG kvm", "udev"]);
    with_device("/dev/null").expect(125, &["/dev/null is not KVM"]);
    with_device("/tmp").expect(125, &["/tmp cannot be opened"]);
}

#[test]
fn programs_that_cannot_run_are_refused_before_the_boot() {
    let refused = |path: &Path, status: i32, reason: &str| {
        let mut lab = Lab::new(&["run"]);
        lab.command.arg(path);
        lab.run().expect(status, &[reason]);
    };
    let lab = Lab::new(&[]);
    let arm = Elf { machine: 183, ..Elf::of_code(&[0]) }.build();
    let narrow = Elf { class: 1, machine: 3, ..Elf::of_code(&[0]) }.build();
    let files = [
        (lab.file("text", b"hello"), 126, "is not an ELF program (it begins with ‘hello’)"),
        (lab.file("script", b"#!/bin/sh\n"), 126, "is a script"),
        (lab.file("empty", b""), 126, "is empty"),
        (lab.file("arm", &arm), 126, "64-bit Arm"),
        (lab.file("narrow", &narrow), 126, "32-bit program"),
        ("/nonexistent/program".into(), 127, "there is no file /nonexistent/program"),
        ("/tmp".into(), 126, "/tmp is a directory"),
        ("/dev/zero".into(), 126, "not a regular file"),
    ];
    for (path, status, reason) in files {
        refused(&path, status, reason);
    }
    Lab::new(&["run"]).run().expect(2, &["PROGRAM"]);
    let missing = Lab::new(&["run", "--kernel", "/nonexistent/kernel", "x"]);
    missing.run().expect(127, &["there is no file x"]);
    let missing = Lab::new(&["run", "--kernel", "/nonexistent/kernel"]);
    missing.run().expect(125, &["--kernel: there is no file /nonexistent/kernel"]);
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (options, reason) in [
        (["--timeout", "soon"], "not a number of seconds"),
        (["--timeout", "0"], "not a number of seconds above zero"),
        (["--timeout", "-1"], "--timeout"),
        (["--timeout", "1e300"], "not a number of seconds"),
        (["--env", "NAME"], "write NAME=VALUE"),
        (["--env", "=value"], "write NAME=VALUE"),
        (["--unknown", "1"], "unexpected argument '--unknown'"),
    ] {
        let mut lab = Lab::new(&["run"]);
        lab.command.args(options).arg("--").arg("program");
        lab.run().expect(2, &[reason]);
    }
}

#[test]
fn the_help_shows_examples_and_variables() {
    let outcome = Lab::new(&["--help"]).run();
    outcome.expect(0, &[]);
    let text = String::from_utf8(outcome.stdout).unwrap();
    for part in ["Examples:", "pagelab run", "PAGELAB_KVM", "PAGELAB_LOG", "Exit status"] {
        assert!(text.contains(part), "‘{part}’ is not in:\n{text}");
    }
}

#[test]
fn options_behind_the_program_are_the_programs_own() {
    for arguments in [&["x", "--mem", "bad"][..], &["--", "x", "--json"], &["--", "-x", "-y"]] {
        let mut lab = Lab::new(&["run"]);
        lab.command.args(arguments);
        lab.run().expect(127, &["there is no file", "x"]);
    }
}

/// Waits until the guest runs: its thread has a name of its own.
fn wait_for_guest(pid: u32) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let mut names = threads.map(|thread| fs::read_to_string(thread.path().join("comm")));
        if names.any(|name| name.is_ok_and(|name| name == "vcpu0\n")) {
            thread::sleep(Duration::from_millis(20));
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("no guest runs in process {pid}");
}

#[test]
fn signals_stop_a_running_guest_at_once() {
    let signals = [
        ("TERM", 143, "SIGTERM"),
        ("INT", 130, "SIGINT"),
        ("HUP", 129, "SIGHUP"),
        ("QUIT", 131, "SIGQUIT"),
    ];
    for (signal, status, name) in signals {
        let running = hanging(&[]).start();
        let pid = running.child.id();
        wait_for_guest(pid);
        let sent = Instant::now();
        let kill = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
        assert!(kill.unwrap().success());
        let outcome = running.finish();
        outcome.expect(status, &["stopped by", name]);
        assert!(sent.elapsed() < Duration::from_secs(5), "{:?}", sent.elapsed());
    }
}

#[test]
fn a_lab_costs_little_memory_beyond_its_guest() {
    // Mostly its own code: the host maps what lies around the pages in use, too.
    const MOST_KIB: u64 = 6 * 1024;
    // Boot information, tables, an image of one page; a host may use one large
    // page for them.
    const MOST_GUEST_KIB: u64 = 3 * 1024;
    let running = hanging(&["--mem", "256M", "--timeout", "20"]).start();
    let pid = running.child.id();
    wait_for_guest(pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (own, guest) = (kib("RssAnon:") + kib("RssFile:"), kib("RssShmem:"));
    Command::new("kill").arg(pid.to_string()).status().unwrap();
    running.finish();
    assert!(own <= MOST_KIB, "pagelab itself: {own} KiB");
    assert!(guest <= MOST_GUEST_KIB, "a guest that touches nothing: {guest} KiB");
}

#[test]
fn the_json_report_says_how_it_ended() {
    let kernel = guests::kernel(guests::power_off());
    let outcome = Lab::with_kernel(&kernel, &["--json", "-"]).run();
    outcome.expect(7, &[]);
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(report["exit_status"], 7);
    assert_eq!(report["port_exits"], 1);
    assert!(report["guest"].is_null());
    let outcome = Lab::with_kernel(&kernel, &["--json", "/nonexistent/report"]).run();
    outcome.expect(125, &["cannot write /nonexistent/report"]);
}
