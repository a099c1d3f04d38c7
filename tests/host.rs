//! `pagelab host` as a user runs it: on this machine's KVM, and where there is
//! none, no permission for it, or something else in its place.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn host(device: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(common::binary());
    command.arg("host").args(arguments).env_remove("PAGELAB_KVM");
    if let Some(device) = device {
        command.env("PAGELAB_KVM", device);
    }
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_probe_finds_out_everything_about_this_host() {
    let output = host(None, &["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let probes = report["probes"].as_object().unwrap();
    for (name, finding) in probes {
        assert!(finding.get("unknown").is_none(), "{name}: {finding}");
    }
    assert_eq!(report["api_version"], 12);
    assert_eq!(probes["string_output"]["bytes"], 64);
    let instructions = &probes["kernel_instructions"];
    let count: usize = ["work", "absent", "not_emulated"]
        .iter()
        .map(|list| instructions[list].as_array().unwrap().len())
        .sum();
    assert_eq!(count, 16, "{instructions}");
    if probes["ring_zero"]["emulated"] == true {
        assert!(probes["ring_zero"]["cycles_per_instruction"].as_f64().unwrap() > 50.0);
    }
    assert!(probes["exit"]["nanoseconds"].as_f64().unwrap() > 100.0);
}

#[test]
fn text_is_aligned_and_plain_when_no_terminal_reads_it() {
    let output = host(None, &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("This host's KVM"));
    assert!(text.contains("The lab can run here."));
    assert!(!text.contains('\x1b'));
}

#[test]
fn a_missing_device_gets_advice_and_its_own_status() {
    let folder = tempfile::tempdir().unwrap();
    let output = host(Some(&folder.path().join("kvm")), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("KVM is not available here"), "{}", stderr(&output));
    assert!(stderr(&output).contains("modprobe"));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_refusal_gets_advice_and_its_own_status() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let device = folder.path().join("kvm");
    fs::write(&device, "").unwrap();
    fs::set_permissions(&device, PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = host(Some(&device), &[]);
    // The administrator may open everything: become nobody. The binary may lie
    // where nobody may look, so it is run from a copy.
    if fs::File::open(&device).is_ok() {
        let copy = folder.path().join("pagelab");
        fs::copy(common::binary(), &copy).unwrap();
        command = Command::new(copy);
        command.arg("host").env("PAGELAB_KVM", &device).uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("mode 0000"), "{}", stderr(&output));
    assert!(stderr(&output).contains("usermod -aG kvm"));
}

#[test]
fn a_file_that_is_not_kvm_is_refused_in_json_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = host(Some(file.path()), &["--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["error"].as_str().unwrap().contains("is not KVM"));
    assert!(!answer["advice"].as_array().unwrap().is_empty());
}
