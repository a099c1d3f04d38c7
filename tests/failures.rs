//! What goes wrong with shared folders, and what a program learns of it: the same
//! errno or signal as from Linux. Where this machine's Linux can be brought into
//! the same trouble, one script is played in both places.
//!
//! `scripts/programs` builds the program before.

mod common;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::actor::{Actor, folder};

/// Longer than a lab believes attributes of the host's files.
const NO_LONGER_BELIEVED: Duration = Duration::from_millis(1100);

/// Plays the same on this machine's Linux and in a lab, each with a folder that
/// was prepared alike.
fn on_both(prepare: impl Fn(&Path), play: impl Fn(&mut Actor, &Path)) {
    for lab in [false, true] {
        println!("{}", if lab { "in a lab:" } else { "on Linux:" });
        let folder = folder();
        prepare(folder.path());
        let mut actor = if lab {
            Actor::start(folder.path(), &["--readahead", "1", "--fault-around", "1"])
        } else {
            Actor::on_linux(folder.path())
        };
        play(&mut actor, folder.path());
        actor.end();
    }
}

/// Whether programs can be given mounts of their own; says so if not.
fn can_mount() -> bool {
    let script = "mount -t tmpfs -o size=64k none /mnt";
    let tried = Command::new("unshare").args(["-rm", "sh", "-ec", script]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        println!("NOT RUN: this host lets nobody mount in a namespace of his own");
    }
    can
}

#[test]
fn a_disk_that_is_really_full() {
    const ROOM: &str = "256k";
    if !can_mount() {
        return;
    }
    for lab in [false, true] {
        println!("{}", if lab { "in a lab:" } else { "on Linux:" });
        let folder = folder();
        let path = folder.path().display();
        let mounts = format!(
            "mount -t tmpfs -o size={ROOM} none {path} && head -c 255000 /dev/zero >{path}/other"
        );
        let mut actor = Actor::with_mounts(&mounts, folder.path(), lab);
        // What is written through, and what is asked for beforehand, fails at once.
        actor.play(
            "open 0 /s/a +cs -> 0
             write 0 0 4096 a -> 4096
             write 0 4096 4096 b -> ENOSPC
             allocate 0 0 400000 -> ENOSPC
             cut 0 4096 -> 0
             read 0 0 3 -> ax3
             size 0 -> 4096
             close 0 -> 0",
        );
        if lab {
            full_behind_the_cache(&mut actor, folder.path());
        }
        actor.end();
    }
}

/// What is written to memory first fails when it is brought to the disk, as with
/// Linux's clients of file servers; it stays, and is written when there is room.
fn full_behind_the_cache(actor: &mut Actor, folder: &Path) {
    actor.play(
        "open 1 /s/b +c -> 0
         write 1 0 150000 b -> 150000
         fsync 1 -> ENOSPC
         map 1 0 4096 s w -> 0
         store 1 100 m -> m
         read 1 149998 9 -> bx2",
    );
    let other = actor.reach(folder, "other");
    OpenOptions::new().write(true).open(other).expect("the file").set_len(0).expect("cut");
    actor.play("fsync 1 -> 0");
    let mut expected = vec![b'b'; 150_000];
    expected[100] = b'm';
    let written = fs::read(actor.reach(folder, "b")).expect("the file");
    assert!(written == expected, "not all is there: {} bytes", written.len());
    actor.play("close 1 -> 0");
}

#[test]
fn a_folder_that_is_read_only_for_everybody() {
    if !can_mount() {
        return;
    }
    for lab in [false, true] {
        println!("{}", if lab { "in a lab:" } else { "on Linux:" });
        let folder = folder();
        fs::write(folder.path().join("a"), "text").expect("a file");
        let path = folder.path().display();
        let mounts = format!("mount --bind {path} {path} && mount -o remount,ro,bind {path}");
        let mut actor = Actor::with_mounts(&mounts, folder.path(), lab);
        refused(&mut actor);
        actor.end();
    }
}

#[test]
fn a_folder_that_is_read_only_for_the_lab() {
    let folder = folder();
    fs::write(folder.path().join("a"), "text").expect("a file");
    let mut actor = Actor::with_access(folder.path(), ":ro", &[]);
    refused(&mut actor);
    actor.end();
    assert_eq!(fs::read(folder.path().join("a")).expect("the file"), b"text");
}

/// Whatever would change a folder with a file `a`.
fn refused(actor: &mut Actor) {
    actor.play(
        "open 0 /s/a + -> EROFS
         open 0 /s/a wt -> EROFS
         open 0 /s/new wc -> EROFS
         remove /s/a -> EROFS
         move /s/a /s/b -> EROFS
         make /s/folder -> EROFS
         open 0 /s/a r -> 0
         write 0 0 1 x -> EBADF
         cut 0 0 -> EINVAL
         map 0 0 4096 s w -> EACCES
         map 0 0 4096 p w -> 0
         load 0 0 -> t
         store 0 0 p -> p
         read 0 0 4 -> t e x t",
    );
}

#[test]
fn a_file_that_others_cut_while_it_is_mapped() {
    let prepare = |folder: &Path| fs::write(folder.join("a"), vec![b'l'; 40_000]).expect("a file");
    on_both(prepare, |actor, folder| {
        actor.play(
            "open 0 /s/a + -> 0
             map 0 0 40000 s r -> 0
             load 0 100 -> l
             load 0 20000 -> l",
        );
        let file = OpenOptions::new().write(true).open(folder.join("a")).expect("the file");
        file.set_len(5000).expect("cut");
        thread::sleep(NO_LONGER_BELIEVED);
        actor.play(
            "size 0 -> 5000
             load 0 20000 -> SIGBUS
             load 0 30000 -> SIGBUS
             load 0 4500 -> l
             load 0 5100 -> 0
             read 0 4999 100 -> l
             read 0 5000 100 -> nothing",
        );
    });
}

#[test]
fn a_file_that_others_make_longer_while_it_is_mapped() {
    let prepare = |folder: &Path| fs::write(folder.join("a"), vec![b's'; 5000]).expect("a file");
    on_both(prepare, |actor, folder| {
        actor.play(
            "open 0 /s/a r -> 0
             map 0 0 16384 s r -> 0
             load 0 4999 -> s
             load 0 5000 -> 0
             load 0 9000 -> SIGBUS
             read 0 4998 10 -> sx2",
        );
        let mut longer = vec![b's'; 5000];
        longer.extend([b'n'; 7000]);
        fs::write(folder.join("a"), longer).expect("the file");
        thread::sleep(NO_LONGER_BELIEVED);
        // Who reads past the end that was, or asks, learns of the new one.
        actor.play(
            "read 0 4998 10 -> sx2 nx8
             size 0 -> 12000
             load 0 5000 -> n
             load 0 9000 -> n
             load 0 12000 -> 0
             load 0 12288 -> SIGBUS",
        );
    });
}

#[test]
fn a_file_that_others_delete_while_it_is_mapped() {
    let prepare = |folder: &Path| fs::write(folder.join("a"), vec![b'd'; 20_000]).expect("a file");
    on_both(prepare, |actor, folder| {
        actor.play(
            "open 0 /s/a + -> 0
             map 0 0 20000 s w -> 0
             load 0 0 -> d",
        );
        fs::remove_file(folder.join("a")).expect("the file goes");
        thread::sleep(NO_LONGER_BELIEVED);
        actor.play(
            "load 0 10000 -> d
             store 0 15000 x -> x
             msync 0 -> 0
             read 0 14999 3 -> d x d
             open 1 /s/a r -> ENOENT
             remove /s/a -> ENOENT
             size 0 -> 20000
             cut 0 4096 -> 0
             load 0 10000 -> SIGBUS",
        );
    });
}

#[test]
fn a_folder_that_goes_while_it_is_used() {
    let prepare = |folder: &Path| {
        fs::create_dir(folder.join("f")).expect("a folder");
        fs::write(folder.join("f/a"), vec![b'g'; 20_000]).expect("a file");
    };
    on_both(prepare, |actor, folder| {
        actor.play(
            "open 0 /s/f/a + -> 0
             map 0 0 20000 s w -> 0
             load 0 0 -> g",
        );
        fs::remove_dir_all(folder).expect("the folder goes");
        thread::sleep(NO_LONGER_BELIEVED);
        actor.play(
            "load 0 10000 -> g
             store 0 15000 x -> x
             msync 0 -> 0
             read 0 14999 3 -> g x g
             write 0 20000 2 n -> 2
             fsync 0 -> 0
             size 0 -> 20002
             open 1 /s/f/a r -> ENOENT
             open 1 /s/f/b wc -> ENOENT
             open 1 /s/b wc -> ENOENT
             make /s/c -> ENOENT
             move /s/f /s/g -> ENOENT
             close 0 -> 0",
        );
    });
}

#[test]
fn a_server_that_fails_in_the_middle_of_reading() {
    let folder = folder();
    fs::write(folder.path().join("a"), vec![b'r'; 20_000]).expect("a file");
    let options = ["--readahead", "1", "--fault-around", "1", "--share-fault", "read:a:EIO:2"];
    let mut actor = Actor::start(folder.path(), &options);
    actor.play(
        "open 0 /s/a r -> 0
         map 0 0 20000 s r -> 0
         load 0 0 -> r
         load 0 4096 -> r
         load 0 8192 -> SIGBUS
         load 0 4097 -> r
         read 0 0 20000 -> rx8192
         read 0 8192 10 -> EIO",
    );
    actor.end();
}

#[test]
fn a_server_that_fails_in_the_middle_of_writing() {
    let folder = folder();
    let fault = ["--share-fault", "write:a:EIO:1"];
    let mut actor = Actor::start(folder.path(), &fault);
    actor.play(
        "open 0 /s/a +c -> 0
         open 1 /s/a + -> 0
         write 0 0 4096 1 -> 4096
         fsync 0 -> 0
         map 0 0 4096 s w -> 0
         store 0 1 x -> x
         msync 0 -> EIO
         fsync 0 -> EIO
         fsync 1 -> EIO
         load 0 1 -> x
         close 1 -> EIO",
    );
    actor.kill();
    assert!(fs::read(folder.path().join("a")).expect("the file") == vec![b'1'; 4096]);
}
