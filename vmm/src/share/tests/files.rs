//! What the requests do, compared with what the host then sees.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::client::{Client, body, ended};
use crate::share::abi::{
    AccessIn, AttrOut, EntryOut, FATTR_ATIME, FATTR_MODE, FATTR_MTIME, FATTR_SIZE, FATTR_UID,
    FallocateIn, FlushIn, InitIn, InitOut, LinkIn, LseekIn, LseekOut, MkdirIn, MknodIn, Operation,
    ROOT, Rename2In, RenameIn, SetAttrIn, StatfsOut,
};
use crate::share::server::ServerOptions;

#[test]
fn a_session_begins_with_versions_and_limits() {
    let mut client = Client::new();
    let init = |major| InitIn { major, minor: 38, max_readahead: 1 << 30, flags: u32::MAX };
    let answer: InitOut = client.ask(Operation::Init, 0, init(7).as_bytes()).unwrap();
    assert_eq!((answer.major, answer.minor, answer.max_write), (7, 31, 2 << 20));
    assert_eq!(answer.max_pages, 512);
    assert_eq!(answer.flags, 1 << 3 | 1 << 5 | 1 << 13 | 1 << 22);
    let newer: InitOut = client.ask(Operation::Init, 0, init(8).as_bytes()).unwrap();
    assert_eq!((newer.major, newer.max_write), (7, 0));
    assert_eq!(client.call(Operation::Init, 0, init(6).as_bytes()), Err(Errno::PROTO));
}

#[test]
fn files_are_made_written_and_read() {
    let mut client = Client::new();
    let (node, fh) = client.create(ROOT, "data", O_RDWR | O_EXCL).unwrap();
    assert_eq!(client.write(fh, 0, b"hello, world"), Ok(12));
    assert_eq!(client.write(fh, 20, b"end"), Ok(3));
    assert_eq!(client.read(fh, 7, 5).unwrap(), b"world");
    assert_eq!(client.read(fh, 18, 100).unwrap(), b"\0\0end");
    assert_eq!(client.read(fh, 23, 100).unwrap(), b"");
    assert_eq!(client.fsync(fh, 0), Ok(vec![]));
    assert_eq!(client.fsync(fh, 1), Ok(vec![]));
    let flush = FlushIn { fh, ..FlushIn::default() };
    assert_eq!(client.call(Operation::Flush, node, flush.as_bytes()), Ok(vec![]));
    let path = client.path().join("data");
    assert_eq!(fs::read(&path).unwrap(), b"hello, world\0\0\0\0\0\0\0\0end");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(client.create(ROOT, "data", O_RDWR | O_EXCL), Err(Errno::EXIST));
    let (again, other) = client.create(ROOT, "data", O_RDWR | O_TRUNC).unwrap();
    assert_eq!((again, fs::metadata(&path).unwrap().len()), (node, 0));
    for fh in [fh, other] {
        assert_eq!(client.release(fh), Ok(vec![]));
        assert_eq!(client.read(fh, 0, 1), Err(Errno::BADF));
        assert_eq!(client.release(fh), Err(Errno::BADF));
    }
    assert_eq!(client.server.statistics().bytes_written(), 15);
    assert_eq!(client.server.statistics().bytes_read(), 10);
}

#[test]
fn what_is_open_for_writing_can_be_read_by_the_cache() {
    let mut client = Client::new();
    fs::write(client.path().join("f"), b"abc").unwrap();
    let node = client.find(ROOT, "f").unwrap();
    let fh = client.open(node, O_WRONLY | libc::O_APPEND).unwrap();
    assert_eq!(client.write(fh, 1, b"X"), Ok(1));
    assert_eq!(client.read(fh, 0, 10).unwrap(), b"aXc");
    let reader = client.open(node, O_RDONLY).unwrap();
    assert_eq!(client.write(reader, 0, b"X"), Err(Errno::BADF));
}

#[test]
fn attributes_are_the_hosts_but_for_owners() {
    let mut client = Client::new();
    fs::write(client.path().join("f"), vec![1; 5000]).unwrap();
    let host = fs::metadata(client.path().join("f")).unwrap();
    let node = client.find(ROOT, "f").unwrap();
    let attr = client.attributes(node).unwrap();
    assert_eq!((attr.size, attr.ino, attr.mode), (5000, host.ino(), host.mode()));
    assert_eq!((attr.uid, attr.gid, attr.blocks), (0, 0, host.blocks()));
    assert_eq!(attr.mtime, host.mtime().cast_unsigned());
}

fn set(valid: u32) -> SetAttrIn {
    SetAttrIn { valid, ..SetAttrIn::default() }
}

#[test]
fn attributes_can_be_changed() {
    let mut client = Client::new();
    let path = client.path().join("f");
    fs::write(&path, b"0123456789").unwrap();
    let node = client.find(ROOT, "f").unwrap();
    let mut change = |change: SetAttrIn| {
        client.ask::<AttrOut>(Operation::SetAttr, node, change.as_bytes()).map(|out| out.attr)
    };
    assert_eq!(change(SetAttrIn { size: 4, ..set(FATTR_SIZE) }).unwrap().size, 4);
    assert_eq!(fs::read(&path).unwrap(), b"0123");
    let mode = change(SetAttrIn { mode: 0o106_750, ..set(FATTR_MODE) }).unwrap().mode;
    assert_eq!(mode, 0o100_750, "set-ID bits are not the guest's to give");
    let times = SetAttrIn {
        atime: 1,
        atimensec: 2,
        mtime: 3,
        mtimensec: 4,
        ..set(FATTR_ATIME | FATTR_MTIME)
    };
    let attr = change(times).unwrap();
    assert_eq!((attr.atime, attr.atimensec, attr.mtime, attr.mtimensec), (1, 2, 3, 4));
    assert!(change(set(FATTR_UID)).is_ok());
    assert_eq!(change(SetAttrIn { uid: 1000, ..set(FATTR_UID) }), Err(Errno::PERM));
    assert_eq!(change(SetAttrIn { size: u64::MAX, ..set(FATTR_SIZE) }), Err(Errno::INVAL));
    let folder = set(FATTR_SIZE);
    assert_eq!(client.call(Operation::SetAttr, ROOT, folder.as_bytes()), Err(Errno::ISDIR));
}

#[test]
fn folders_are_made_listed_and_removed() {
    let mut client = Client::new();
    let made: EntryOut = client
        .ask(Operation::Mkdir, ROOT, &body(&MkdirIn { mode: 0o777, umask: 0 }, &["d"]))
        .unwrap();
    assert_eq!(made.attr.mode, 0o40_777, "pagelab's umask does not count");
    for number in 0..100 {
        fs::write(client.path().join(format!("d/file-{number}")), b"").unwrap();
    }
    fs::create_dir(client.path().join("d/sub")).unwrap();
    symlink("nowhere", client.path().join("d/link")).unwrap();
    for (size, plus) in [(1 << 20, false), (1 << 20, true), (300, false), (300, true)] {
        let entries = client.list(made.nodeid, size, plus).unwrap();
        let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names.len(), 104, "{size} {plus}");
        names.dedup();
        assert_eq!((names.len(), names[0], names[1]), (104, ".", ".."));
        for entry in &entries {
            let kind = match entry.name.as_str() {
                "." | ".." | "sub" => 4,
                "link" => 10,
                _ => 8,
            };
            assert_eq!(entry.kind, kind, "{}", entry.name);
            assert_eq!(entry.node != 0, plus && !entry.name.starts_with('.'), "{}", entry.name);
        }
    }
    assert_eq!(client.list(made.nodeid, 20, false), Err(Errno::INVAL));
    assert_eq!(client.call(Operation::Rmdir, ROOT, &ended("d")), Err(Errno::NOTEMPTY));
    assert_eq!(client.call(Operation::Unlink, made.nodeid, &ended("link")), Ok(vec![]));
    assert_eq!(client.call(Operation::Unlink, made.nodeid, &ended("sub")), Err(Errno::ISDIR));
    assert_eq!(client.call(Operation::Rmdir, made.nodeid, &ended("sub")), Ok(vec![]));
    assert_eq!(client.find(made.nodeid, "sub"), Err(Errno::NOENT));
}

#[test]
fn links_of_both_kinds_are_made_and_read() {
    let mut client = Client::new();
    fs::write(client.path().join("f"), b"x").unwrap();
    let link: EntryOut =
        client.ask(Operation::Symlink, ROOT, &[ended("s"), ended("../../f")].concat()).unwrap();
    assert_eq!(client.call(Operation::ReadLink, link.nodeid, b"").unwrap(), b"../../f");
    assert_eq!(fs::read_link(client.path().join("s")).unwrap().to_str(), Some("../../f"));
    let file = client.find(ROOT, "f").unwrap();
    assert_eq!(client.call(Operation::ReadLink, file, b""), Err(Errno::INVAL));
    let hard: EntryOut =
        client.ask(Operation::Link, ROOT, &body(&LinkIn { oldnodeid: file }, &["h"])).unwrap();
    assert_eq!((hard.nodeid, hard.attr.nlink), (file, 2));
    let of_link = body(&LinkIn { oldnodeid: link.nodeid }, &["s2"]);
    let second: EntryOut = client.ask(Operation::Link, ROOT, &of_link).unwrap();
    assert_eq!(second.nodeid, link.nodeid);
    assert!(fs::symlink_metadata(client.path().join("s2")).unwrap().is_symlink());
}

#[test]
fn nodes_are_files_and_pipes_and_nothing_else() {
    let mut client = Client::new();
    let mut make = |mode, name: &str| {
        let head = MknodIn { mode, rdev: 0x103, umask: 0, padding: 0 };
        client
            .ask::<EntryOut>(Operation::Mknod, ROOT, &body(&head, &[name]))
            .map(|out| out.attr.mode)
    };
    assert_eq!(make(0o100_644, "file"), Ok(0o100_644));
    assert_eq!(make(0o644, "plain"), Ok(0o100_644));
    assert_eq!(make(0o10_600, "pipe"), Ok(0o10_600));
    for (mode, name) in [(0o20_666, "char"), (0o60_666, "block"), (0o140_666, "socket")] {
        assert_eq!(make(mode, name), Err(Errno::PERM), "{name}");
    }
    assert!(fs::metadata(client.path().join("pipe")).unwrap().file_type().is_fifo());
    // A pipe is the guest's own business: opening it here could wait for ever.
    let pipe = client.find(ROOT, "pipe").unwrap();
    for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
        assert_eq!(client.open(pipe, flags), Err(Errno::INVAL));
    }
    assert_eq!(client.create(ROOT, "pipe", O_RDWR | O_CREAT), Err(Errno::INVAL));
}

#[test]
fn entries_are_renamed_and_exchanged() {
    let mut client = Client::new();
    for name in ["a", "b"] {
        fs::write(client.path().join(name), name).unwrap();
    }
    fs::create_dir(client.path().join("d")).unwrap();
    let folder = client.find(ROOT, "d").unwrap();
    let text = |client: &Client, name: &str| fs::read_to_string(client.path().join(name)).unwrap();
    let rename = body(&RenameIn { newdir: folder }, &["a", "moved"]);
    assert_eq!(client.call(Operation::Rename, ROOT, &rename), Ok(vec![]));
    assert_eq!(text(&client, "d/moved"), "a");
    let mut rename2 = |newdir, flags, names: &[&str]| {
        let head = Rename2In { newdir, flags, padding: 0 };
        client.call(Operation::Rename2, ROOT, &body(&head, names))
    };
    assert_eq!(rename2(folder, 1, &["b", "moved"]), Err(Errno::EXIST));
    assert_eq!(rename2(folder, 2, &["b", "moved"]), Ok(vec![]));
    for flags in [4, 3, 8, u32::MAX] {
        assert_eq!(rename2(ROOT, flags, &["b", "c"]), Err(Errno::INVAL), "{flags}");
    }
    assert_eq!((text(&client, "b"), text(&client, "d/moved")), ("a".to_owned(), "b".to_owned()));
}

#[test]
fn room_is_set_aside_holes_are_found_and_file_systems_described() {
    let mut client = Client::new();
    let (node, fh) = client.create(ROOT, "f", O_RDWR).unwrap();
    let mut allocate = |mode, offset, length| {
        let wanted = FallocateIn { fh, offset, length, mode, padding: 0 };
        client.call(Operation::Fallocate, node, wanted.as_bytes())
    };
    assert_eq!(allocate(0, 0, 1 << 20), Ok(vec![]));
    assert_eq!(allocate(3, 4096, 4096), Ok(vec![]));
    assert_eq!(allocate(8, 0, 4096), Err(Errno::OPNOTSUPP));
    assert_eq!(allocate(0, 0, 0), Err(Errno::INVAL));
    assert_eq!(client.attributes(node).unwrap().size, 1 << 20);
    assert_eq!(client.write(fh, 2 << 20, b"x"), Ok(1));
    let mut seek = |whence, offset| {
        let wanted = LseekIn { fh, offset, whence, padding: 0 };
        client.ask::<LseekOut>(Operation::Lseek, node, wanted.as_bytes()).map(|out| out.offset)
    };
    assert_eq!(seek(4, (1 << 20) + 4096), Ok((1 << 20) + 4096));
    assert!(seek(3, 1 << 20).unwrap() <= 2 << 20);
    assert_eq!(seek(3, 3 << 20), Err(Errno::NXIO));
    assert_eq!(seek(3, u64::MAX), Err(Errno::NXIO));
    assert_eq!(seek(0, 0), Err(Errno::INVAL));
    let described: StatfsOut = client.ask(Operation::Statfs, ROOT, b"").unwrap();
    assert!(described.blocks > 0 && described.namelen >= 255);
    assert_eq!(client.call(Operation::SyncFs, ROOT, &[0; 8]), Ok(vec![]));
}

#[test]
fn a_read_only_share_changes_nothing() {
    let mut client = Client::with(ServerOptions {
        read_only: true,
        descriptors: 100,
        ..ServerOptions::default()
    });
    fs::write(client.path().join("f"), b"x").unwrap();
    fs::create_dir(client.path().join("d")).unwrap();
    let file = client.find(ROOT, "f").unwrap();
    let reader = client.open(file, O_RDONLY).unwrap();
    assert_eq!(client.read(reader, 0, 1).unwrap(), b"x");
    let mut refused = |operation, body: &[u8]| {
        assert_eq!(client.call(operation, ROOT, body), Err(Errno::ROFS), "{operation:?}");
    };
    for operation in Operation::ALL.iter().copied().filter(|operation| operation.info().changes) {
        refused(operation, &[0; 100]);
    }
    refused(Operation::Unlink, &ended("f"));
    refused(Operation::Rmdir, &ended("d"));
    refused(Operation::Mkdir, &body(&MkdirIn { mode: 0o777, umask: 0 }, &["n"]));
    refused(Operation::Symlink, b"n\0t\0");
    refused(Operation::Link, &body(&LinkIn { oldnodeid: file }, &["n"]));
    refused(Operation::Rename, &body(&RenameIn { newdir: ROOT }, &["f", "g"]));
    for flags in [O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, 3] {
        assert_eq!(client.open(file, flags), Err(Errno::ROFS), "{flags}");
    }
    assert_eq!(client.create(ROOT, "n", O_RDONLY), Err(Errno::ROFS));
    let write = AccessIn { mask: 2, padding: 0 };
    assert_eq!(client.call(Operation::Access, file, write.as_bytes()), Err(Errno::ROFS));
    let names: Vec<_> = client.list(ROOT, 4096, true).unwrap();
    assert_eq!(names.len(), 4);
    assert_eq!(fs::read(client.path().join("f")).unwrap(), b"x");
}

#[test]
fn a_session_that_ends_leaves_nothing_open() {
    let mut client = Client::new();
    let (node, fh) = client.create(ROOT, "f", O_RDWR).unwrap();
    assert_eq!(client.call(Operation::Destroy, 0, b""), Ok(vec![]));
    assert_eq!(client.attributes(node), Err(Errno::NOENT));
    assert_eq!(client.read(fh, 0, 1), Err(Errno::BADF));
    assert_eq!((client.server.nodes.len(), client.server.handles.len()), (1, 0));
    assert!(client.attributes(ROOT).is_ok());
}

#[test]
fn failures_on_purpose_strike_and_are_counted() {
    let faults = ["write:bad:ENOSPC:1", "lookup:gone:EIO", "fsync:*:EIO"];
    let mut client = Client::with(ServerOptions {
        faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
        descriptors: 100,
        ..ServerOptions::default()
    });
    let (good, good_fh) = client.create(ROOT, "good", O_RDWR).unwrap();
    let (bad, bad_fh) = client.create(ROOT, "bad", O_RDWR).unwrap();
    let write = |client: &mut Client, node, fh| {
        let head = crate::share::abi::TransferIn { fh, size: 1, ..Default::default() };
        client.call(Operation::Write, node, &[head.as_bytes(), b"x"].concat()).map(drop)
    };
    assert_eq!(write(&mut client, bad, bad_fh), Ok(()));
    assert_eq!(write(&mut client, bad, bad_fh), Err(Errno::NOSPC));
    assert_eq!(write(&mut client, good, good_fh), Ok(()));
    assert_eq!(client.find(ROOT, "gone"), Err(Errno::IO));
    assert_eq!(client.fsync(good_fh, 0), Err(Errno::IO));
    assert_eq!(client.server.statistics().errors(), 3);
}
