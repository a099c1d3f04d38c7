//! Virtio devices in a real virtual machine: notifications and interrupts through
//! KVM, guests of bad will, and what is wrong with options.

mod common;

use std::fs;

use common::{Lab, guests};

fn run(code: &[u8], options: &[&str]) -> common::Outcome {
    Lab::with_kernel(&guests::with_identity_tables(code), options).run()
}

#[test]
fn a_driver_and_a_disk_understand_each_other() {
    run(guests::virtio_disk_name(), &["--swap", "1M", "--timeout", "20"]).expect(0, &[]);
}

#[test]
fn without_devices_nothing_answers() {
    run(guests::virtio_disk_name(), &["--timeout", "20"]).expect(1, &[]);
}

#[test]
fn a_chain_without_end_needs_a_reset() {
    let message = "a virtio device stops until the guest resets it: the chain from descriptor 0";
    run(guests::virtio_loop(), &["--swap", "1M", "--timeout", "20"]).expect(0, &[message]);
    let folder = tempfile::tempdir().unwrap();
    let share = format!("{}:/x", folder.path().display());
    run(guests::virtio_loop(), &["--share", &share, "--timeout", "20"]).expect(0, &[message]);
}

#[test]
fn a_flood_of_requests_is_stopped() {
    let options = ["--swap", "1M", "--timeout", "0.5", "--log", "error"];
    let outcome = run(guests::virtio_flood(), &options);
    outcome.expect(124, &["time limit"]);
    outcome.within(20);
}

#[test]
fn garbage_to_all_registers_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let share = format!("{}:/x", folder.path().display());
    let options = ["--swap", "1M", "--share", &share, "--timeout", "50", "--log", "error"];
    run(guests::virtio_garbage(), &options).expect(0, &[]);
}

#[test]
fn swap_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = guests::with_identity_tables(guests::virtio_disk_name());
    let mut lab = Lab::with_kernel(&kernel, &["--swap", "1G", "--timeout", "20", "--json", "-"]);
    lab.command.env("TMPDIR", folder.path());
    let outcome = lab.run();
    outcome.expect(0, &[]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(report["swap"]["size"], 1u64 << 30);
    assert_eq!(report["swap"]["errors"], 0);
}

#[test]
fn a_folder_that_swap_cannot_be_in_is_named() {
    let kernel = guests::kernel(guests::power_off());
    let mut lab = Lab::with_kernel(&kernel, &["--swap", "1M"]);
    lab.command.env("TMPDIR", "/nonexistent");
    lab.run().expect(125, &["cannot create swap space", "/nonexistent"]);
}

/// `pagelab run` with options that it refuses.
fn refused(options: &[&str], status: i32, texts: &[&str]) {
    let outcome = Lab::with_kernel(&guests::kernel(guests::power_off()), options).run();
    outcome.expect(status, texts);
}

#[test]
fn options_that_cannot_be_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let at = |place: &str| format!("{path}:{place}");
    fs::write(folder.path().join("file"), b"").unwrap();
    refused(&["--share", "/nonexistent"], 125, &["--share: /nonexistent: No such file"]);
    refused(&["--share", &format!("{path}/file")], 125, &["file is not a folder"]);
    refused(&["--share", &at("/a"), "--share", &at("/a")], 125, &["two folders at /a"]);
    refused(&["--share", &at("/a/b"), "--share", &at("/a")], 125, &["/a/b lies inside /a"]);
    let many: Vec<String> = (0..9).map(|n| at(&format!("/d{n}"))).collect();
    let many: Vec<&str> = many.iter().flat_map(|share| ["--share", share.as_str()]).collect();
    refused(&many, 125, &["9 devices", "more than 8"]);
    refused(&["--share", &at("/a/../b")], 2, &["has ‘..’ in it"]);
    refused(&["--share", &at("relative")], 2, &["neither a path of the guest"]);
    refused(&["--share", ""], 2, &["DIR[:GUESTDIR][:ro]"]);
    refused(&["--swap", "0"], 2, &["not whole pages"]);
    refused(&["--swap", "4095"], 2, &["not whole pages"]);
    refused(&["--swap", "much"], 2, &["not a size"]);
    refused(&["--swap", "2048G"], 2, &["too much"]);
    refused(&["--readahead", "0"], 2, &["--readahead"]);
    refused(&["--fault-around", "513"], 2, &["--fault-around"]);
    refused(&["--share-fault", "paint:x:EIO"], 2, &["no operation ‘paint’"]);
}
