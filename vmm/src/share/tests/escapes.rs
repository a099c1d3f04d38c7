//! Ways out of the folder that must not be any.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use libc::{O_RDONLY, O_RDWR};
use rustix::io::Errno;

use super::client::{Client, body, ended};
use crate::share::abi::{LinkIn, MkdirIn, Operation, ROOT, RenameIn};
use crate::share::server::{Server, ServerOptions};

/// A client whose folder lies beside a secret.
fn beside_a_secret() -> Client {
    let mut client = Client::new();
    let inside = client.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(client.path().join("secret"), b"secret").unwrap();
    let options = ServerOptions { descriptors: 200, ..ServerOptions::default() };
    client.server = Server::new(&inside, options).unwrap();
    client
}

#[test]
fn names_that_are_paths_are_refused() {
    let mut client = beside_a_secret();
    fs::create_dir(client.path().join("inside/d")).unwrap();
    fs::write(client.path().join("inside/d/f"), b"").unwrap();
    let long = "x".repeat(256);
    let names = ["..", ".", "", "../secret", "/etc/passwd", "d/f", "d/", "/", "a/../../secret"];
    for name in names {
        assert_eq!(client.find(ROOT, name), Err(Errno::INVAL), "{name}");
        for operation in [Operation::Unlink, Operation::Rmdir] {
            assert_eq!(client.call(operation, ROOT, &ended(name)), Err(Errno::INVAL), "{name}");
        }
        let made = body(&MkdirIn { mode: 0o700, umask: 0 }, &[name]);
        assert_eq!(client.call(Operation::Mkdir, ROOT, &made), Err(Errno::INVAL), "{name}");
        assert_eq!(client.create(ROOT, name, O_RDWR), Err(Errno::INVAL), "{name}");
        let linked = [ended(name), ended("target")].concat();
        assert_eq!(client.call(Operation::Symlink, ROOT, &linked), Err(Errno::INVAL), "{name}");
        for names in [["d", name], [name, "d"]] {
            let moved = body(&RenameIn { newdir: ROOT }, &names);
            assert_eq!(client.call(Operation::Rename, ROOT, &moved), Err(Errno::INVAL), "{name}");
        }
        let node = client.find(ROOT, "d").unwrap();
        let linked = body(&LinkIn { oldnodeid: node }, &[name]);
        assert_eq!(client.call(Operation::Link, ROOT, &linked), Err(Errno::INVAL), "{name}");
    }
    assert_eq!(client.find(ROOT, &long), Err(Errno::NAMETOOLONG));
    assert_eq!(client.find(ROOT, &long[1..]), Err(Errno::NOENT));
    assert_eq!(fs::read(client.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn symbolic_links_are_never_followed() {
    let mut client = beside_a_secret();
    let secret = client.path().join("secret");
    let inside = client.path().join("inside");
    symlink(&secret, inside.join("absolute")).unwrap();
    symlink("../secret", inside.join("relative")).unwrap();
    symlink("..", inside.join("parent")).unwrap();
    symlink("/proc/self/root", inside.join("magic")).unwrap();
    for name in ["absolute", "relative", "parent", "magic"] {
        let node = client.find(ROOT, name).unwrap();
        assert_eq!(client.attributes(node).unwrap().mode & 0o170_000, 0o120_000, "{name}");
        for flags in [O_RDONLY, O_RDWR] {
            assert_eq!(client.open(node, flags), Err(Errno::LOOP), "{name}");
        }
        assert_eq!(client.create(ROOT, name, O_RDWR), Err(Errno::LOOP), "{name}");
        assert_eq!(client.find(node, "secret"), Err(Errno::NOTDIR), "{name}");
        assert_eq!(client.list(node, 4096, false), Err(Errno::NOTDIR), "{name}");
        let set = crate::share::abi::SetAttrIn { valid: 1, mode: 0o777, ..Default::default() };
        let answer = client.call(Operation::SetAttr, node, zerocopy::IntoBytes::as_bytes(&set));
        assert_eq!(answer, Err(Errno::OPNOTSUPP), "{name}");
    }
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn times_of_a_link_are_its_own() {
    let mut client = beside_a_secret();
    let secret = client.path().join("secret");
    symlink(&secret, client.path().join("inside/link")).unwrap();
    let before = fs::metadata(&secret).unwrap().modified().unwrap();
    let node = client.find(ROOT, "link").unwrap();
    let set = crate::share::abi::SetAttrIn { valid: 1 << 5, mtime: 5, ..Default::default() };
    assert!(client.call(Operation::SetAttr, node, zerocopy::IntoBytes::as_bytes(&set)).is_ok());
    assert_eq!(client.attributes(node).unwrap().mtime, 5);
    assert_eq!(fs::metadata(&secret).unwrap().modified().unwrap(), before);
}

/// Puts a folder and a symbolic link in each other's place, for ever.
fn swap_for_ever(inside: &Path, stop: &AtomicBool) {
    let (a, b) = (inside.join("swapped"), inside.join("spare"));
    while !stop.load(Ordering::Relaxed) {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, flags).unwrap();
    }
}

#[test]
fn a_folder_that_becomes_a_link_meanwhile_leads_nowhere() {
    let mut client = beside_a_secret();
    let inside = client.path().join("inside");
    fs::create_dir(inside.join("swapped")).unwrap();
    fs::write(inside.join("swapped/secret"), b"harmless").unwrap();
    symlink("..", inside.join("spare")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = thread::spawn({
        let (inside, stop) = (inside.clone(), Arc::clone(&stop));
        move || swap_for_ever(&inside, &stop)
    });
    let mut found = 0;
    for _ in 0..3000 {
        let Ok(node) = client.find(ROOT, "swapped") else { continue };
        if let Ok(file) = client.find(node, "secret") {
            let fh = client.open(file, O_RDONLY).unwrap();
            assert_eq!(client.read(fh, 0, 100).unwrap(), b"harmless");
            client.release(fh).unwrap();
            client.tell(Operation::Forget, file, &1u64.to_le_bytes());
            found += 1;
        }
        if let Ok((node, fh)) = client.create(node, "new", O_RDWR) {
            client.release(fh).unwrap();
            client.tell(Operation::Forget, node, &1u64.to_le_bytes());
        }
        client.tell(Operation::Forget, node, &1u64.to_le_bytes());
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(found > 0, "the folder was never seen as one");
    assert!(!client.path().join("new").exists());
}

#[test]
fn a_folder_that_is_moved_out_shows_nothing_above_it() {
    let mut client = beside_a_secret();
    fs::create_dir(client.path().join("inside/d")).unwrap();
    let node = client.find(ROOT, "d").unwrap();
    fs::rename(client.path().join("inside/d"), client.path().join("d")).unwrap();
    assert_eq!(client.find(node, ".."), Err(Errno::INVAL));
    let entries = client.list(node, 4096, true).unwrap();
    assert!(entries.iter().all(|entry| entry.node == 0));
}
