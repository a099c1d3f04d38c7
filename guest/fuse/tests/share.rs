//! A directory of this machine through the client, the file system and the tree.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use common::{Lab, PAGE};
use pagelab_fuse::protocol::Operation;
use pagelab_vfs::abi::{O_CREAT, O_EXCL, O_RDWR, O_TRUNC, O_WRONLY};
use pagelab_vfs::{Errno, FileSystem, Lookup};

fn stat_size(lab: &Lab, path: &str) -> u64 {
    let node = lab.vfs.resolve(&lab.context, None, path.as_bytes(), Lookup::NO_FOLLOW).unwrap();
    node.inode().metadata().unwrap().size
}

fn asked(lab: &Lab, operation: Operation) -> usize {
    let server = lab.server.lock().unwrap();
    server.asked.iter().filter(|number| **number == operation as u32).count()
}

#[test]
fn files_are_read_and_written_through() {
    let lab = Lab::new(|_| {});
    let text: Vec<u8> = (0..3 * PAGE + 100).map(|n| u8::try_from(n % 251).unwrap()).collect();
    fs::write(lab.host("old"), &text).unwrap();
    assert_eq!(lab.read("/s/old").unwrap(), text);
    lab.write("/s/new", O_WRONLY | O_CREAT, &text).unwrap();
    assert_eq!(fs::read(lab.host("new")).unwrap(), text);
    assert_eq!(fs::metadata(lab.host("new")).unwrap().mode() & 0o777, 0o644);
    lab.write("/s/new", O_RDWR | O_TRUNC, b"short").unwrap();
    assert_eq!(fs::read(lab.host("new")).unwrap(), b"short");
    assert_eq!(lab.read("/s/new").unwrap(), b"short");
    assert_eq!(lab.open("/s/new", O_WRONLY | O_CREAT | O_EXCL).unwrap_err(), Errno::EEXIST);
    assert_eq!(lab.read("/s/none").unwrap_err(), Errno::ENOENT);
    assert_eq!(lab.read("/s/old/below").unwrap_err(), Errno::ENOTDIR);
}

#[test]
fn what_the_host_changes_is_seen_at_the_next_open() {
    let lab = Lab::new(|server| server.belief = 1);
    fs::write(lab.host("f"), b"one").unwrap();
    assert_eq!(lab.read("/s/f").unwrap(), b"one");
    let open = lab.open("/s/f", 0).unwrap();
    fs::write(lab.host("f"), b"three and four").unwrap();
    lab.clock.ahead.fetch_add(1, Ordering::Relaxed);
    assert_eq!(lab.read("/s/f").unwrap(), b"three and four");
    assert_eq!(stat_size(&lab, "/s/f"), 14);
    // It is one file, so what was opened before sees it as well from then on.
    let mut bytes = [0; 20];
    let read = open.read_at(0, &mut pagelab_vfs::buffer::SliceSink::new(&mut bytes)).unwrap();
    assert_eq!(&bytes[..read], b"three and four");
    // Another file in its place is another file.
    fs::remove_file(lab.host("f")).unwrap();
    fs::write(lab.host("f"), b"new").unwrap();
    lab.clock.ahead.fetch_add(5, Ordering::Relaxed);
    assert_eq!(lab.read("/s/f").unwrap(), b"new");
    fs::remove_file(lab.host("f")).unwrap();
    lab.clock.ahead.fetch_add(5, Ordering::Relaxed);
    assert_eq!(lab.read("/s/f").unwrap_err(), Errno::ENOENT);
}

#[test]
fn growth_by_the_host_is_seen_once_nothing_is_believed_any_more() {
    const BELIEF: u64 = 1;
    let lab = Lab::new(|server| server.belief = BELIEF);
    fs::write(lab.host("log"), b"one ").unwrap();
    let open = lab.open("/s/log", 0).unwrap();
    let read = |offset| {
        let mut bytes = [0; 20];
        let mut sink = pagelab_vfs::buffer::SliceSink::new(&mut bytes);
        let read = open.read_at(offset, &mut sink).unwrap();
        bytes[..read].to_vec()
    };
    assert_eq!(read(0), b"one ");
    fs::write(lab.host("log"), b"one two ").unwrap();
    assert_eq!(read(4), b"", "what is believed is not asked for");
    assert_eq!(stat_size(&lab, "/s/log"), 4);
    lab.clock.ahead.fetch_add(BELIEF + 1, Ordering::Relaxed);
    assert_eq!(read(4), b"two ", "a read past the end asks");
    fs::write(lab.host("log"), b"one two three ").unwrap();
    lab.clock.ahead.fetch_add(BELIEF + 1, Ordering::Relaxed);
    assert_eq!(stat_size(&lab, "/s/log"), 14, "and so does who wants the size");
    assert_eq!(read(8), b"three ");
}

#[test]
fn names_are_made_moved_and_removed() {
    let lab = Lab::new(|_| {});
    let (vfs, context) = (&lab.vfs, &lab.context);
    vfs.make_directory(context, None, b"/s/d", 0o755).unwrap();
    lab.write("/s/d/f", O_WRONLY | O_CREAT, b"bytes").unwrap();
    vfs.make_symlink(context, b"d/f", None, b"/s/l").unwrap();
    assert_eq!(lab.read("/s/l").unwrap(), b"bytes");
    assert_eq!(fs::read_link(lab.host("l")).unwrap().to_str(), Some("d/f"));
    let node = vfs.resolve(context, None, b"/s/d/f", Lookup::FOLLOW).unwrap();
    vfs.make_link(context, &node, None, b"/s/hard").unwrap();
    assert_eq!(node.inode().metadata().unwrap().links, 2);
    vfs.rename(context, (None, b"/s/d/f"), (None, b"/s/g"), 0).unwrap();
    assert_eq!(lab.read("/s/g").unwrap(), b"bytes");
    assert_eq!(lab.read("/s/d/f").unwrap_err(), Errno::ENOENT);
    vfs.unlink(context, None, b"/s/g").unwrap();
    assert_eq!(lab.read("/s/hard").unwrap(), b"bytes");
    vfs.remove_directory(context, None, b"/s/d").unwrap();
    assert_eq!(lab.list("/s").unwrap(), ["hard", "l"]);
}

#[test]
fn listings_are_whole_however_they_come() {
    for (plus, huge) in [(false, false), (true, false), (false, true), (true, true)] {
        let lab = Lab::new(|server| {
            server.plus = plus;
            server.huge_positions = huge;
        });
        let mut names: Vec<_> = (0..700).map(|n| format!("file-{n}")).collect();
        for name in &names {
            fs::write(lab.host(name), name).unwrap();
        }
        names.sort();
        assert_eq!(lab.list("/s").unwrap(), names);
        assert_eq!(asked(&lab, Operation::ReadDirPlus), 0, "nobody wants attributes");
        for name in &names {
            assert_eq!(stat_size(&lab, &format!("/s/{name}")), name.len() as u64);
        }
        assert_eq!(lab.list("/s").unwrap(), names);
        assert_eq!(asked(&lab, Operation::ReadDirPlus) > 0, plus);
        lab.forget_all();
        assert_eq!((lab.share.inodes(), lab.server.lock().unwrap().held()), (0, 0));
    }
}

#[test]
fn nothing_is_kept_of_what_nobody_uses() {
    let lab = Lab::new(|server| server.plus = true);
    for name in ["a", "b"] {
        fs::write(lab.host(name), vec![1; 2 * PAGE]).unwrap();
    }
    let open = lab.open("/s/a", 0).unwrap();
    for _ in 0..3 {
        lab.read("/s/a").unwrap();
        lab.read("/s/b").unwrap();
    }
    lab.forget_all();
    assert_eq!((lab.share.inodes(), lab.server.lock().unwrap().held()), (1, 1));
    assert_eq!(lab.memory.used(), 2);
    drop(open);
    lab.forget_all();
    assert_eq!((lab.share.inodes(), lab.server.lock().unwrap().held()), (0, 0));
    assert_eq!(lab.memory.used(), 0);
}

#[test]
fn what_may_be_believed_is_not_asked_for_again() {
    let lab = Lab::new(|server| {
        server.belief = 1;
        server.no_open = true;
    });
    fs::write(lab.host("f"), b"text").unwrap();
    lab.read("/s/f").unwrap();
    let before = lab.requests.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert_eq!(stat_size(&lab, "/s/f"), 4);
    }
    assert_eq!(lab.requests.load(Ordering::Relaxed), before);
    assert_eq!(asked(&lab, Operation::Open), 1, "it said once that it needs no handles");
    lab.clock.ahead.fetch_add(2, Ordering::Relaxed);
    stat_size(&lab, "/s/f");
    assert_eq!(lab.requests.load(Ordering::Relaxed), before + 1);
}

#[test]
fn times_set_here_stay_although_pages_were_written_before() {
    let lab = Lab::new(|_| {});
    let file = lab.open("/s/f", O_RDWR | O_CREAT).unwrap();
    file.write(&mut pagelab_vfs::buffer::SliceSource::new(b"bytes")).unwrap();
    let changes = pagelab_vfs::inode::Changes {
        modified: Some(pagelab_vfs::Timespec { seconds: 1_000_000, nanoseconds: 5 }),
        ..Default::default()
    };
    file.inode().change(&changes).unwrap();
    file.sync(false).unwrap();
    assert_eq!(fs::metadata(lab.host("f")).unwrap().mtime(), 1_000_000);
    assert_eq!(file.inode().metadata().unwrap().modified.seconds, 1_000_000);
}

#[test]
fn a_file_system_says_how_much_there_is() {
    let lab = Lab::new(|_| {});
    let status = lab.share.status();
    assert_eq!((status.blocks, status.blocks_free, status.block_size), (100, 40, 4096));
    assert_eq!(lab.share.name(), "virtiofs");
}
