//! The host's own programs, dynamically linked, out of a folder of the host that
//! is the root of the guest: their output is what they print on the host.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use common::{Lab, binary, programs_folder};

/// What is executed, each a line that shells understand; all of them are on any
/// machine that can build this.
const LINES: &[&str] = &[
    "ls -l /usr",
    "ls -1 /usr/bin | sort | head -20",
    "stat -c '%n %F %s %a %h' /usr /bin/sh /bin/cat",
    "readlink -f /bin/sh",
    "sort -r /etc/passwd | cut -d: -f1,7 | uniq",
    "for n in 3 1 2; do echo $n; done | sort -n | tr '\\n' ' '",
    "cat <(echo through a pipe without a name)",
    "grep -c . /etc/passwd; wc -c < /bin/bash",
    "md5sum /bin/cat /bin/bash | cut -c1-32",
    "find /etc/ld.so.conf.d -type f | sort",
    "(exit 3); echo $?; no-such-program 2>/dev/null; echo $?",
    "test -x /bin/sh && echo executable",
];

/// Runs a shell in a lab whose root is the host's.
fn in_lab(options: &[&str], script: &str) -> Output {
    let mut command = Command::new(binary());
    command.env_remove("PAGELAB_LOG");
    command.args(["run", "--log", "error", "--timeout", "300", "--mem", "256M"]);
    command.args(["--share", "/:/:ro"]).args(options);
    command.args(["--env", "PATH=/usr/bin:/bin", "--env", "LC_ALL=C", "--env", "HOME=/"]);
    command.args(["--", "/bin/bash", "--norc", "--noprofile", "-c", script]);
    command.output().expect("pagelab starts")
}

/// Whether this host has programs and their libraries; says if not. A host that is
/// made for one purpose, as the emulated one is, may have none.
fn host_has_programs() -> bool {
    let there = Path::new("/bin/bash").exists() && Path::new("/lib64").exists();
    if !there {
        eprintln!("NOT RUN: this host has no /bin/bash and no libraries in /lib64");
    }
    there
}

fn on_host(script: &str) -> Output {
    let mut command = Command::new("/bin/bash");
    command.env_clear().envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C"), ("HOME", "/")]);
    command.current_dir("/").args(["--norc", "--noprofile", "-c", script]);
    command.output().expect("bash starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of the host, and the option that gives it to a lab at `/run/s`: a
/// place that no host has to have.
fn folder(access: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let option = format!("{}:/run/s{access}", folder.path().display());
    (folder, option)
}

fn executable(path: &Path, contents: &[u8]) {
    fs::write(path, contents).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn programs_of_the_host_print_what_they_print_there() {
    if !host_has_programs() {
        return;
    }
    let script = LINES.join("\n");
    let (here, there) = (on_host(&script), in_lab(&[], &script));
    assert_eq!(text(&there.stdout), text(&here.stdout), "{}", text(&there.stderr));
    assert_eq!(there.status.code(), here.status.code());
}

#[test]
fn scripts_and_what_is_no_program_are_told_apart() {
    if !host_has_programs() {
        return;
    }
    let (folder, option) = folder("");
    let place = |name: &str| folder.path().join(name);
    executable(&place("script"), b"#!/bin/bash -x\necho \"$0 $1\"\n");
    executable(&place("through"), b"#!/run/s/script of its own\n");
    executable(&place("missing"), b"#!/no/such/interpreter\n");
    executable(&place("text"), b"echo as a shell does it\n");
    executable(&place("cut"), &fs::read("/usr/bin/cat").expect("a program")[..40]);
    fs::write(place("data"), b"#!/bin/sh\n").expect("a file");
    symlink("script", place("link")).expect("a link");
    // A program whose interpreter is no library.
    let mut broken = fs::read("/usr/bin/cat").expect("a program");
    let name = b"/lib64/ld-linux-x86-64.so.2\0";
    let at = broken.windows(name.len()).position(|window| window == name);
    let at = at.expect("the interpreter's name");
    broken[at..at + 13].copy_from_slice(b"/run/s/data\0\0");
    executable(&place("broken"), &broken);
    let script = "
        cd /run/s; ./script one 2>&1; ./link two 2>&1; ./through three 2>&1
        for name in missing data cut broken nothing; do ./$name >/dev/null 2>&1; echo $name $?; done
        chmod +x data; ./broken 2>&1 | tr '\\0' '?'
        ./text";
    let done = in_lab(&["--share", &option], script);
    let expected = "\
        + echo './script one'\n./script one\n\
        + echo './link two'\n./link two\n\
        /bin/bash: line 3: ./script: cannot execute: required file not found\n";
    // Which interpreter a script's interpreter got is for the next test to say.
    let said = text(&done.stdout);
    assert!(said.starts_with(&expected[..expected.find("/bin/bash:").unwrap()]), "{said}");
    for line in ["missing 127", "data 126", "cut 126", "broken 126", "nothing 127"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("as a shell does it"), "{said}");
    assert!(said.contains("corrupted shared library"), "{said}");
}

#[test]
fn a_read_only_root_is_not_changed_and_what_is_not_kept_is_in_memory() {
    if !host_has_programs() {
        return;
    }
    let (folder, option) = folder("");
    let script = "
        touch /etc/new 2>&1 | cut -d: -f3; rm /etc/passwd 2>&1 | cut -d: -f3
        echo kept > /run/s/kept; echo not > /tmp/f && cat /tmp/f; echo x > /dev/shm/f && echo shm
        cut -d' ' -f1-4 /proc/mounts; head -1 /proc/1/mounts | cut -d' ' -f3
        cd /run/s && mkdir -p a/b && mv kept a/b && ln -s a/b l && ls -l l/kept | cut -c1-10";
    let done = in_lab(&["--share", &option], script);
    let expected = "\x20Read-only file system
 Read-only file system
not
shm
share0 / virtiofs ro,relatime
devtmpfs /dev devtmpfs rw,relatime
tmpfs /dev/shm tmpfs rw,relatime
proc /proc proc rw,relatime
tmpfs /tmp tmpfs rw,relatime
tmpfs /run tmpfs rw,relatime
share1 /run/s virtiofs rw,relatime
virtiofs
-rw-r--r--
";
    assert_eq!(text(&done.stdout), expected, "{}", text(&done.stderr));
    assert_eq!(fs::read(folder.path().join("a/b/kept")).expect("the file"), b"kept\n");
    assert!(!Path::new("/etc/new").exists());
}

#[test]
fn a_library_is_in_memory_once_for_all_who_use_it() {
    if !host_has_programs() {
        return;
    }
    // Four processes at once, each with the C library mapped.
    let script = "
        for n in 1 2 3 4; do sleep 3 & done
        before=$(grep ^Cached: /proc/meminfo | tr -dc 0-9)
        sleep 1 & sleep 1
        after=$(grep ^Cached: /proc/meminfo | tr -dc 0-9)
        echo $((after - before < 1000)); kill %1 %2 %3 %4; wait";
    let done = in_lab(&[], script);
    assert_eq!(text(&done.stdout), "1\n", "{}", text(&done.stderr));
}

#[test]
fn two_processes_run_the_same_frames_of_a_library() {
    if !host_has_programs() {
        return;
    }
    let program = programs_folder().join("dynamic/library");
    let mut lab =
        Lab::new(&["run", "--log", "error", "--timeout", "50", "--share", "/:/:ro", "--"]);
    lab.command.arg(&program);
    lab.run().expect(0, &[]);
}
