//! The kernel under another VMM: QEMU boots it by its PVH note, without any of
//! the lab's devices.

mod common;

use std::process::{Command, Stdio};

use common::Lab;

#[test]
fn qemu_boots_the_kernel_by_its_note_and_it_powers_off() {
    const QEMU: &str = "qemu-system-x86_64";
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("kernel.elf");
    let mut lab = Lab::new(&["kernel"]);
    lab.command.arg(&kernel);
    lab.run().expect(0, &[]);
    let found = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        println!("NOT RUN: this host has no {QEMU}");
        return;
    }
    let output = Command::new("timeout")
        .args(["60", QEMU, "-accel", "tcg", "-m", "64", "-display", "none", "-serial", "stdio"])
        .args(["-no-reboot", "-kernel"])
        .arg(&kernel)
        .stdin(Stdio::null())
        .output()
        .expect("QEMU runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?}: {said}", output.status);
    assert!(said.contains("no program was given"), "{said}");
}
