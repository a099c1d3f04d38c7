//! The driver and the tester together, on this machine's Linux alone: against
//! itself, where they must agree, and against itself made wrong, where they
//! must not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds the tester in this test's own folder.
fn tester(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/programs");
    let status = Command::new(script)
        .arg("difftest")
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .expect("scripts/programs can be started");
    assert!(status.success(), "scripts/programs: {status}");
    target.join("programs/difftest")
}

fn driver(program: &Path, options: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_difftest"))
        .arg("--program")
        .arg(program)
        .args(options)
        .output()
        .expect("the driver can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[test]
fn linux_agrees_with_itself() {
    let (output, text) = driver(&tester("agree"), &["--seeds", "300", "--programs", "100"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.starts_with("300 programs, 18000 agreeing operations, 0 programs differ"),
        "{text}"
    );
}

#[test]
fn linux_agrees_with_itself_about_files() {
    let options = ["--files", "--seeds", "200", "--programs", "100"];
    let (output, text) = driver(&tester("files"), &options);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("200 programs, ") && text.contains(" 0 programs differ"), "{text}");
}

#[test]
fn a_folder_that_others_change_is_a_difference() {
    // The lab's programs find their folder at another name than its own, where
    // they leave nothing behind for the driver to see.
    let other = tempfile::tempdir().expect("a folder");
    let elsewhere = other.path().to_str().expect("a path of text");
    let lab = "env FOLDER={folder}";
    let options = ["--files", "--lab", lab, "--lab-files", elsewhere, "--seeds", "1"];
    let (output, text) = driver(&tester("elsewhere"), &options);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("linux | leaves 1/a "), "{text}");
}

#[test]
fn a_wrong_kernel_is_found_out_and_the_program_shrunk() {
    let (output, text) = driver(&tester("break"), &["--break-lab", "--seeds", "100"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let program: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.contains("smallest program"))
        .skip(1)
        .take_while(|line| !line.starts_with("transcripts:"))
        .collect();
    // A mapping, a write or the like, the call that went wrong, a look.
    assert!((2..=5).contains(&program.len()), "{text}");
    assert!(program.iter().any(|line| line.contains("DONTNEED")), "{text}");
}

#[test]
fn a_lab_that_dies_is_a_difference() {
    let (output, text) =
        driver(&tester("dies"), &["--lab", "false", "--seeds", "10", "--max-differences", "1"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("exit status 1"), "{text}");
}

#[test]
fn a_lab_that_hangs_is_a_difference() {
    // This follows the tester's binary and its options, as files, for ever.
    let lab = "tail -n 0 -f /dev/null --";
    let (output, text) = driver(&tester("hangs"), &["--lab", lab, "--ops", "1", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("stopped after the time limit"), "{text}");
}

#[test]
fn a_lab_that_cannot_be_started_is_an_error() {
    let (output, _) = driver(&tester("error"), &["--lab", "/nonexistent/pagelab run --"]);
    assert_eq!(output.status.code(), Some(2));
}
