//! The kernel under another VMM: QEMU boots it by its PVH note, without any of
//! the lab's devices.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Lab;

/// Boots the kernel with these options of QEMU's; none if the host has no QEMU.
fn boot(options: &[&str]) -> Option<Output> {
    const QEMU: &str = "qemu-system-x86_64";
    let folder = tempfile::tempdir().expect("a folder");
    let kernel = folder.path().join("kernel.elf");
    let mut lab = Lab::new(&["kernel"]);
    lab.command.arg(&kernel);
    lab.run().expect(0, &[]);
    let found = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        println!("NOT RUN: this host has no {QEMU}");
        return None;
    }
    let output = Command::new("timeout")
        .args(["60", QEMU, "-accel", "tcg", "-m", "64", "-display", "none", "-serial", "stdio"])
        .args(["-no-reboot", "-kernel"])
        .arg(&kernel)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("QEMU runs");
    assert!(output.status.success(), "{:?}", output.status);
    Some(output)
}

#[test]
fn qemu_boots_the_kernel_by_its_note_and_it_powers_off() {
    let Some(output) = boot(&[]) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("no program was given"), "{said}");
}

/// The first module is a program, what follows `--` its arguments.
#[test]
fn a_program_under_qemu_is_given_its_words() {
    let programs = std::env::var_os("PAGELAB_PROGRAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/programs"),
        PathBuf::from,
    );
    let tester = programs.join("difftest");
    let words = ["--seed", "3", "--programs", "2", "--hash-only"];
    let line = format!("log=error -- {}", words.join(" "));
    let initrd = tester.to_str().expect("a path of text");
    let Some(output) = boot(&["-initrd", initrd, "-append", &line]) else { return };
    let here = Command::new(&tester).args(words).output().expect("scripts/programs builds it");
    let here = String::from_utf8_lossy(&here.stdout).into_owned();
    assert!(here.starts_with("3 ") && here.contains("\n4 "), "{here}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).replace('\r', ""), here);
}
