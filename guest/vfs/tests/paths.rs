//! Mounts, working directories, links, devices, descriptors.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::Lab;
use pagelab_vfs::abi::{
    AT_FDCWD, O_APPEND, O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY, O_RDWR, O_TMPFILE,
    O_TRUNC, O_WRONLY, RENAME_EXCHANGE,
};
use pagelab_vfs::attributes::NewTime;
use pagelab_vfs::buffer::{SliceSink, SliceSource};
use pagelab_vfs::executing::Executing;
use pagelab_vfs::memfs::MemFs;
use pagelab_vfs::store::vec_store::VecStore;
use pagelab_vfs::{
    Errno, FdTable, FileSystem, FsContext, Lookup, OpenFile, OpenHow, PathNode, Result, Vfs, devfs,
};
use proptest::prelude::*;

fn make_directories(lab: &Lab, paths: &[&str]) {
    for path in paths {
        lab.vfs.make_directory(&lab.context, None, path.as_bytes(), 0o755).unwrap();
    }
}

fn open(vfs: &Vfs, context: &FsContext, path: &str, flags: u32) -> Result<Arc<OpenFile>> {
    vfs.open(context, None, path.as_bytes(), OpenHow { flags, mode: 0o644 })
}

fn at(lab: &Lab, path: &str) -> PathNode {
    lab.vfs.resolve(&lab.context, None, path.as_bytes(), Lookup::FOLLOW).unwrap()
}

fn path_of(context: &FsContext) -> Result<String> {
    context.working_directory().map(|path| String::from_utf8(path).unwrap())
}

fn new_tmpfs(lab: &Lab) -> Arc<MemFs<VecStore>> {
    let platform = lab.platform.clone();
    Arc::new(MemFs::new("tmpfs", lab.store.clone(), platform, 0o1777, 100).unwrap())
}

#[test]
fn what_is_executed_is_not_written() {
    let lab = Lab::new();
    let writer = open(&lab.vfs, &lab.context, "/program", O_CREAT | O_WRONLY).unwrap();
    let node = at(&lab, "/program");
    assert_eq!(Executing::start(node.inode()).err(), Some(Errno::ETXTBSY));
    drop(writer);
    let first = Executing::start(node.inode()).unwrap();
    let second = first.clone();
    drop(first);
    let refused = |flags| open(&lab.vfs, &lab.context, "/program", flags).err();
    assert_eq!(refused(O_WRONLY), Some(Errno::ETXTBSY));
    assert_eq!(refused(O_RDWR), Some(Errno::ETXTBSY));
    assert_eq!(refused(O_RDONLY | O_TRUNC), Some(Errno::ETXTBSY));
    assert_eq!(refused(O_RDONLY), None);
    assert_eq!(node.truncate(0).err(), Some(Errno::ETXTBSY));
    drop(second);
    assert_eq!(refused(O_RDWR), None);
    assert_eq!(node.truncate(0), Ok(()));
}

#[test]
fn walks_cross_mounts_in_both_directions() {
    let mut lab = Lab::new();
    make_directories(&lab, &["/a", "/a/m"]);
    lab.vfs.mount(at(&lab, "/a/m"), "one", new_tmpfs(&lab), false).unwrap();
    make_directories(&lab, &["/a/m/inner", "/a/m/inner/n"]);
    lab.vfs.mount(at(&lab, "/a/m/inner/n"), "two", new_tmpfs(&lab), false).unwrap();
    make_directories(&lab, &["/a/m/inner/n/deep"]);
    lab.vfs.change_directory(&mut lab.context, b"/a/m/inner/n/deep").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "/a/m/inner/n/deep");
    lab.vfs.change_directory(&mut lab.context, b"../..").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "/a/m/inner");
    lab.vfs.change_directory(&mut lab.context, b"../../m/../..").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "/");
    let devices: Vec<u64> =
        ["/a", "/a/m", "/a/m/inner/n"].map(|path| at(&lab, path).stat().unwrap().dev).to_vec();
    assert!(devices[0] != devices[1] && devices[1] != devices[2]);
    assert_eq!(at(&lab, "/a/m/inner/n/..").stat().unwrap().dev, devices[1]);

    // Nothing moves or links from one file system to another, and no mount
    // point goes away.
    let rename = |old: &str, new: &str, flags| {
        let (old, new) = ((None, old.as_bytes()), (None, new.as_bytes()));
        lab.vfs.rename(&lab.context, old, new, flags)
    };
    open(&lab.vfs, &lab.context, "/file", O_CREAT | O_WRONLY).unwrap();
    assert_eq!(rename("/file", "/a/m/file", 0), Err(Errno::EXDEV));
    let file = at(&lab, "/file");
    let linked = lab.vfs.make_link(&lab.context, &file, None, b"/a/m/file");
    assert_eq!(linked, Err(Errno::EXDEV));
    assert_eq!(rename("/a/m", "/b", 0), Err(Errno::EBUSY));
    assert_eq!(rename("/file", "/a/m", RENAME_EXCHANGE), Err(Errno::EBUSY));
    assert_eq!(lab.vfs.remove_directory(&lab.context, None, b"/a/m"), Err(Errno::EBUSY));
    // But what lies above a mount point may be renamed.
    assert_eq!(rename("/a", "/b", 0), Ok(()));
    lab.vfs.change_directory(&mut lab.context, b"/b/m/inner/n").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "/b/m/inner/n");
}

#[test]
fn a_mount_in_use_stays() {
    let lab = Lab::new();
    make_directories(&lab, &["/m"]);
    lab.vfs.mount(at(&lab, "/m"), "one", new_tmpfs(&lab), false).unwrap();
    let file = open(&lab.vfs, &lab.context, "/m/file", O_CREAT | O_RDWR).unwrap();
    assert_eq!(lab.vfs.unmount(at(&lab, "/m")), Err(Errno::EBUSY));
    drop(file);
    assert_eq!(lab.vfs.unmount(at(&lab, "/m")), Ok(()));
    assert_eq!(open(&lab.vfs, &lab.context, "/m/file", O_RDONLY).err(), Some(Errno::ENOENT));
    assert_eq!(lab.vfs.unmount(at(&lab, "/m")), Err(Errno::EINVAL));
    assert_eq!(lab.store.objects(), 0, "the file went with its file system");
}

#[test]
fn nothing_changes_through_a_read_only_mount() {
    let lab = Lab::new();
    make_directories(&lab, &["/m"]);
    let tmpfs = new_tmpfs(&lab);
    let new = pagelab_vfs::inode::NewNode::Regular;
    tmpfs.root().create(b"file", new, 0o644).unwrap();
    lab.vfs.mount(at(&lab, "/m"), "one", tmpfs, true).unwrap();
    let (vfs, context) = (&lab.vfs, &lab.context);
    let erofs = Some(Errno::EROFS);
    assert!(open(vfs, context, "/m/file", O_RDONLY).is_ok());
    assert_eq!(open(vfs, context, "/m/file", O_RDWR).err(), erofs);
    assert_eq!(open(vfs, context, "/m/new", O_CREAT | O_RDONLY).err(), erofs);
    assert_eq!(vfs.make_directory(context, None, b"/m/d", 0o755).err(), erofs);
    assert_eq!(vfs.make_directory(context, None, b"/m/file", 0o755), Err(Errno::EEXIST));
    assert_eq!(vfs.unlink(context, None, b"/m/file").err(), erofs);
    assert_eq!(at(&lab, "/m/file").change_mode(0o600).err(), erofs);
    assert_eq!(at(&lab, "/m/file").truncate(0).err(), erofs);
    assert_eq!(vfs.access(&at(&lab, "/m/file"), 2).err(), erofs);
    assert_eq!(vfs.access(&at(&lab, "/m/file"), 1), Err(Errno::EACCES));
    let unnamed = open(vfs, context, "/m", O_TMPFILE | O_RDWR).err();
    assert_eq!(unnamed, erofs);
}

#[test]
fn a_changed_root_is_not_left() {
    let mut lab = Lab::new();
    make_directories(&lab, &["/jail", "/jail/inner", "/outside"]);
    lab.vfs.make_symlink(&lab.context, b"/inner", None, b"/jail/link").unwrap();
    lab.vfs.change_directory(&mut lab.context, b"/outside").unwrap();
    lab.vfs.change_root(&mut lab.context, b"/jail").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "(unreachable)/outside");
    lab.vfs.change_directory(&mut lab.context, b"/../../inner/../../link").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "/inner");
}

#[test]
fn a_removed_working_directory_is_a_dead_end() {
    let mut lab = Lab::new();
    make_directories(&lab, &["/d"]);
    lab.vfs.change_directory(&mut lab.context, b"/d").unwrap();
    lab.vfs.remove_directory(&lab.context, None, b"/d").unwrap();
    assert_eq!(path_of(&lab.context), Err(Errno::ENOENT));
    assert_eq!(open(&lab.vfs, &lab.context, "f", O_CREAT | O_RDWR).err(), Some(Errno::ENOENT));
    assert!(open(&lab.vfs, &lab.context, ".", O_RDONLY).is_ok());
    lab.vfs.change_directory(&mut lab.context, b"..").unwrap();
    assert_eq!(path_of(&lab.context).unwrap(), "/");
}

#[test]
fn the_fortyfirst_link_is_one_too_many() {
    let lab = Lab::new();
    make_directories(&lab, &["/end"]);
    let mut target = "/end".to_owned();
    for index in 0..41 {
        let link = format!("/l{index}");
        lab.vfs.make_symlink(&lab.context, target.as_bytes(), None, link.as_bytes()).unwrap();
        target = link;
    }
    let follow =
        |path: &str| lab.vfs.resolve(&lab.context, None, path.as_bytes(), Lookup::FOLLOW).map(drop);
    assert_eq!(follow("/l39"), Ok(()));
    assert_eq!(follow("/l40"), Err(Errno::ELOOP));
    assert_eq!(follow("/l38/../l0"), Ok(()), "39 and one more");
    assert_eq!(follow("/l39/../l0"), Err(Errno::ELOOP), "40 and one more");
    lab.vfs.make_symlink(&lab.context, b"self", None, b"/self").unwrap();
    assert_eq!(follow("/self"), Err(Errno::ELOOP));
    let opened = open(&lab.vfs, &lab.context, "/l0", O_RDONLY | O_NOFOLLOW);
    assert_eq!(opened.err(), Some(Errno::ELOOP));
}

#[test]
fn a_very_deep_tree_does_not_take_the_stack() {
    let mut lab = Lab::new();
    for _ in 0..100_000 {
        lab.vfs.make_directory(&lab.context, None, b"d", 0o755).unwrap();
        lab.vfs.change_directory(&mut lab.context, b"d").unwrap();
    }
    assert_eq!(path_of(&lab.context), Err(Errno::ENAMETOOLONG));
    lab.context.cwd = lab.vfs.root();
    assert_eq!(lab.vfs.prune(), 100_000);
    assert_eq!(lab.root_fs.inodes(), 100_001);
    // Letting go of the inodes, which are a chain of their own, works as well.
    drop(lab);
}

#[test]
fn devices_do_what_they_are_known_for() {
    let lab = Lab::new();
    make_directories(&lab, &["/dev"]);
    let platform: Arc<dyn pagelab_vfs::Platform> = lab.platform.clone();
    devfs::mount(&lab.vfs, at(&lab, "/dev"), &lab.store, &platform, 100).unwrap();
    let open = |path: &str| open(&lab.vfs, &lab.context, path, O_RDWR).unwrap();
    let read = |file: &OpenFile| {
        let mut bytes = [0xaa; 700];
        file.read(&mut SliceSink::new(&mut bytes)).map(|count| bytes[..count].to_vec())
    };
    let write = |file: &OpenFile| file.write(&mut SliceSource::new(b"some"));
    let (null, zero, full) = (open("/dev/null"), open("/dev/zero"), open("/dev/full"));
    assert_eq!(read(&null), Ok(vec![]));
    assert_eq!(write(&null), Ok(4));
    assert_eq!(read(&zero), Ok(vec![0; 700]));
    assert_eq!(write(&zero), Ok(4));
    assert_eq!(read(&full), Ok(vec![0; 700]));
    assert_eq!(write(&full), Err(Errno::ENOSPC));
    assert_eq!(read(&open("/dev/urandom")).unwrap().len(), 700);
    let stat = null.node().stat().unwrap();
    assert_eq!((stat.mode, stat.rdev), (0o020_666, 0x103));
    assert_eq!(at(&lab, "/dev/shm").statfs().kind, 0x0102_1994);
    let console = lab.vfs.open(&lab.context, None, b"/dev/console", OpenHow::READ);
    assert_eq!(console.err(), Some(Errno::ENXIO), "the kernel has not registered it");
}

#[test]
fn an_unnamed_file_can_get_a_name() {
    let lab = Lab::new();
    let file = open(&lab.vfs, &lab.context, "/", O_TMPFILE | O_RDWR).unwrap();
    file.write(&mut SliceSource::new(b"data")).unwrap();
    assert_eq!(file.node().stat().unwrap().nlink, 0);
    lab.vfs.make_link(&lab.context, file.node(), None, b"/named").unwrap();
    assert_eq!(at(&lab, "/named").stat().unwrap().size, 4);
    lab.vfs.unlink(&lab.context, None, b"/named").unwrap();
    assert_eq!(lab.store.objects(), 1, "still open");
    drop(file);
    assert_eq!(lab.store.objects(), 0);
    let secret = open(&lab.vfs, &lab.context, "/", O_TMPFILE | O_RDWR | pagelab_vfs::abi::O_EXCL);
    let linked = lab.vfs.make_link(&lab.context, secret.unwrap().node(), None, b"/named");
    assert_eq!(linked, Err(Errno::ENOENT));
    assert_eq!(open(&lab.vfs, &lab.context, "/", O_TMPFILE).err(), Some(Errno::EINVAL));
}

#[test]
fn a_memory_file_is_shown_by_its_label() {
    let lab = Lab::new();
    make_directories(&lab, &["/m"]);
    lab.vfs.mount(at(&lab, "/m"), "one", new_tmpfs(&lab), false).unwrap();
    let file = lab.vfs.memory_file(&at(&lab, "/m"), b"mine").unwrap();
    assert_eq!(file.write(&mut SliceSource::new(b"data")), Ok(4));
    let shown = file.node().display(&lab.vfs.root());
    assert_eq!(String::from_utf8(shown).unwrap(), "/memfd:mine (deleted)");
    assert_eq!((file.flags(), file.node().stat().unwrap().mode), (0o100_002, 0o100_777));
    let too_long = lab.vfs.memory_file(&at(&lab, "/m"), &[b'x'; 250]);
    assert_eq!(too_long.err(), Some(Errno::EINVAL));
    drop(file);
    assert_eq!(lab.store.objects(), 0);
}

#[test]
fn contradictory_flags_are_refused() {
    let lab = Lab::new();
    for flags in [O_CREAT | O_DIRECTORY, O_TMPFILE | O_RDONLY, O_TMPFILE | O_RDWR | O_CREAT] {
        let opened = open(&lab.vfs, &lab.context, "/new", flags);
        assert_eq!(opened.err(), Some(Errno::EINVAL), "{flags:#o}");
    }
    // With O_PATH the others do not count.
    let opened = open(&lab.vfs, &lab.context, "/", O_PATH | O_CREAT | O_RDWR | O_DIRECTORY);
    assert_eq!(opened.unwrap().flags(), O_PATH | O_DIRECTORY);
}

#[test]
fn times_follow_what_happens() {
    let lab = Lab::new();
    let file = open(&lab.vfs, &lab.context, "/f", O_CREAT | O_RDWR).unwrap();
    let stat = || at(&lab, "/f").stat().unwrap();
    let made = stat();
    file.write(&mut SliceSource::new(b"data")).unwrap();
    let written = stat();
    assert!(written.mtime > made.mtime && written.ctime == written.mtime);
    assert_eq!(written.atime, made.atime);
    let mut bytes = [0; 4];
    file.read_at(0, &mut SliceSink::new(&mut bytes)).unwrap();
    let read = stat();
    assert!(read.atime > written.mtime && read.mtime == written.mtime);
    file.read_at(0, &mut SliceSink::new(&mut bytes)).unwrap();
    assert_eq!(stat().atime, read.atime, "relatime: already later than the change");

    let set = |first, second| {
        let new = |nanoseconds| NewTime { seconds: 77, nanoseconds };
        lab.vfs.set_times(&at(&lab, "/f"), Some([new(first), new(second)]))
    };
    set(5, 0x3fff_fffe).unwrap();
    assert_eq!((stat().atime, stat().mtime), ([77, 5], written.mtime));
    let before = lab.platform.wakes.load(Ordering::Relaxed);
    assert_eq!(set(1_000_000_000, 0), Err(Errno::EINVAL));
    assert_eq!(set(-1, 0), Err(Errno::EINVAL));
    assert_eq!(before, lab.platform.wakes.load(Ordering::Relaxed));
    set(0x3fff_ffff, 0).unwrap();
    assert!(stat().atime[0] != 77);
    assert_eq!(stat().mtime, [77, 0]);
}

#[test]
fn an_owner_can_change_and_set_id_bits_go() {
    let lab = Lab::new();
    drop(open(&lab.vfs, &lab.context, "/f", O_CREAT | O_RDWR).unwrap());
    let node = at(&lab, "/f");
    node.change_mode(0o6755).unwrap();
    node.change_owner(5, u32::MAX).unwrap();
    let stat = node.stat().unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode), (5, 0, 0o100_755));
    make_directories(&lab, &["/d"]);
    at(&lab, "/d").change_owner(0, 9).unwrap();
    at(&lab, "/d").change_mode(0o2755).unwrap();
    make_directories(&lab, &["/d/sub"]);
    let stat = at(&lab, "/d/sub").stat().unwrap();
    assert_eq!((stat.gid, stat.mode), (9, 0o042_755), "the group is inherited");
}

#[test]
fn programs_have_to_be_executable_files() {
    let lab = Lab::new();
    make_directories(&lab, &["/d"]);
    drop(open(&lab.vfs, &lab.context, "/f", O_CREAT | O_RDWR).unwrap());
    let find = |path: &str| {
        let how = Lookup::FOLLOW;
        lab.vfs.executable(&lab.context, None, path.as_bytes(), how).map(drop)
    };
    assert_eq!(find("/f"), Err(Errno::EACCES));
    at(&lab, "/f").change_mode(0o010).unwrap();
    assert_eq!(find("/f"), Ok(()));
    assert_eq!(find("/d"), Err(Errno::EACCES));
    assert_eq!(find("/f/x"), Err(Errno::ENOTDIR));
    assert_eq!(find("/none"), Err(Errno::ENOENT));
}

#[test]
fn appending_goes_to_the_end_wherever_the_position_is() {
    let lab = Lab::new();
    let one = open(&lab.vfs, &lab.context, "/f", O_CREAT | O_RDWR | O_APPEND).unwrap();
    let two = open(&lab.vfs, &lab.context, "/f", O_RDWR | O_APPEND).unwrap();
    for (file, text) in [(&one, "a"), (&two, "bb"), (&one, "ccc")] {
        file.write(&mut SliceSource::new(text.as_bytes())).unwrap();
    }
    let mut bytes = [0; 10];
    assert_eq!(two.read_at(0, &mut SliceSink::new(&mut bytes)), Ok(6));
    assert_eq!(&bytes[..6], b"abbccc");
}

#[test]
fn memory_that_is_used_up_is_enospc() {
    let platform = Arc::new(common::TestPlatform::default());
    let store = Arc::new(VecStore::with_limit(2));
    let tmpfs = MemFs::new("tmpfs", store, platform.clone(), 0o755, 2).unwrap();
    let vfs = Vfs::new(platform, Arc::new(tmpfs));
    let context = FsContext::at(vfs.root());
    let file = open(&vfs, &context, "/f", O_CREAT | O_RDWR).unwrap();
    assert_eq!(file.write(&mut SliceSource::new(&[1; 10_000])), Ok(8192));
    assert_eq!(file.write(&mut SliceSource::new(&[1; 10])), Err(Errno::ENOSPC));
    assert_eq!(vfs.root().statfs().bfree, 0);
}

fn some_file(lab: &Lab) -> Arc<OpenFile> {
    open(&lab.vfs, &lab.context, "/", O_RDONLY | O_DIRECTORY).unwrap()
}

#[test]
fn start_of_a_walk() {
    let lab = Lab::new();
    let mut table = FdTable::new();
    table.insert(some_file(&lab), false, 0, 10).unwrap();
    assert!(table.start(AT_FDCWD, b"x").unwrap().is_none());
    assert!(table.start(99, b"/x").unwrap().is_none(), "not even looked at");
    assert!(table.start(0, b"x").unwrap().is_some());
    assert_eq!(table.start(99, b"x").err(), Some(Errno::EBADF));
    let path_only = open(&lab.vfs, &lab.context, "/", O_PATH).unwrap();
    let number = table.insert(path_only, false, 0, 10).unwrap();
    assert!(table.get(number).is_ok());
    assert_eq!(table.get_open(number).err(), Some(Errno::EBADF));
}

#[derive(Clone, Debug)]
enum TableOp {
    Insert { minimum: usize, mark: bool },
    Remove(i32),
    Duplicate { from: i32, minimum: i32 },
    DuplicateTo { from: i32, to: i32, mark: bool },
    Mark(i32, bool),
    CloseRange { first: u32, last: u32, only_mark: bool },
    Exec,
}

fn table_op() -> impl Strategy<Value = TableOp> {
    let number = -2..200_i32;
    prop_oneof![
        8 => (prop_oneof![9 => Just(0_usize), 1 => 0..220_usize], any::<bool>())
            .prop_map(|(minimum, mark)| TableOp::Insert { minimum, mark }),
        4 => number.clone().prop_map(TableOp::Remove),
        2 => (number.clone(), -1..210_i32)
            .prop_map(|(from, minimum)| TableOp::Duplicate { from, minimum }),
        2 => (number.clone(), number.clone(), any::<bool>())
            .prop_map(|(from, to, mark)| TableOp::DuplicateTo { from, to, mark }),
        1 => (number, any::<bool>()).prop_map(|(fd, mark)| TableOp::Mark(fd, mark)),
        1 => (0..210_u32, 0..210_u32, any::<bool>())
            .prop_map(|(first, last, only_mark)| TableOp::CloseRange { first, last, only_mark }),
        1 => Just(TableOp::Exec),
    ]
}

const LIMIT: usize = 200;

/// Does an operation to the model; the descriptor or number of files it gives.
fn model(model: &mut BTreeMap<i32, bool>, op: &TableOp) -> Result<i32> {
    let lowest = |model: &BTreeMap<i32, bool>, minimum: i32| {
        (minimum..200).find(|number| !model.contains_key(number)).ok_or(Errno::EMFILE)
    };
    match *op {
        TableOp::Insert { minimum, mark } => {
            let number = lowest(model, i32::try_from(minimum).unwrap())?;
            model.insert(number, mark);
            Ok(number)
        }
        TableOp::Remove(fd) => model.remove(&fd).map(|_| 0).ok_or(Errno::EBADF),
        TableOp::Duplicate { from, minimum } => {
            model.get(&from).ok_or(Errno::EBADF)?;
            if !(0..200).contains(&minimum) {
                return Err(Errno::EINVAL);
            }
            let number = lowest(model, minimum)?;
            model.insert(number, false);
            Ok(number)
        }
        TableOp::DuplicateTo { from, to, .. } if from == to => Err(Errno::EINVAL),
        TableOp::DuplicateTo { from, to, mark } => {
            model.get(&from).filter(|_| to >= 0).ok_or(Errno::EBADF)?;
            Ok(i32::from(model.insert(to, mark).is_some()))
        }
        TableOp::Mark(fd, mark) => {
            *model.get_mut(&fd).ok_or(Errno::EBADF)? = mark;
            Ok(0)
        }
        TableOp::CloseRange { first, last, .. } if first > last => Err(Errno::EINVAL),
        TableOp::CloseRange { first, last, only_mark } => {
            let inside = |fd: i32| (first..=last).contains(&fd.unsigned_abs());
            if only_mark {
                model.iter_mut().filter(|(fd, _)| inside(**fd)).for_each(|(_, mark)| *mark = true);
                return Ok(0);
            }
            let before = model.len();
            model.retain(|fd, _| !inside(*fd));
            Ok(i32::try_from(before - model.len()).unwrap())
        }
        TableOp::Exec => {
            let before = model.len();
            model.retain(|_, mark| !*mark);
            Ok(i32::try_from(before - model.len()).unwrap())
        }
    }
}

fn apply(table: &mut FdTable, file: &Arc<OpenFile>, op: &TableOp) -> Result<i32> {
    let count = |files: Vec<Arc<OpenFile>>| i32::try_from(files.len()).unwrap();
    match *op {
        TableOp::Insert { minimum, mark } => table.insert(file.clone(), mark, minimum, LIMIT),
        TableOp::Remove(fd) => table.remove(fd).map(|_| 0),
        TableOp::Duplicate { from, minimum } => table.duplicate(from, minimum, false, LIMIT),
        TableOp::DuplicateTo { from, to, mark } => {
            table.duplicate_to(from, to, mark, LIMIT).map(|old| i32::from(old.is_some()))
        }
        TableOp::Mark(fd, mark) => table.set_close_on_exec(fd, mark).map(|()| 0),
        TableOp::CloseRange { first, last, only_mark } => {
            table.close_range(first, last, only_mark).map(count)
        }
        TableOp::Exec => Ok(count(table.close_for_exec())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_descriptor_table_is_a_map(ops in prop::collection::vec(table_op(), 1..400)) {
        let lab = Lab::new();
        let file = some_file(&lab);
        let mut table = FdTable::new();
        let mut expected = BTreeMap::new();
        for op in &ops {
            prop_assert_eq!(apply(&mut table, &file, op), model(&mut expected, op), "{:?}", op);
        }
        let numbers: Vec<_> = table.iter().map(|(number, _)| number).collect();
        prop_assert_eq!(numbers, expected.keys().copied().collect::<Vec<_>>());
        for (number, mark) in &expected {
            prop_assert_eq!(table.close_on_exec(*number), Ok(*mark));
        }
        prop_assert_eq!(Arc::strong_count(&file), expected.len() + 1);
    }
}

/// A `struct flock` on `length` bytes from `start`.
fn flock(kind: u16, start: i64, length: i64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0..2].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&start.to_le_bytes());
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    bytes
}

#[test]
fn locks_belong_to_files_and_processes() {
    let lab = Lab::new();
    let one = open(&lab.vfs, &lab.context, "/f", O_CREAT | O_RDWR).unwrap();
    let two = open(&lab.vfs, &lab.context, "/f", O_RDONLY).unwrap();
    assert_eq!(one.lock_whole(2), Ok(()));
    assert_eq!(two.lock_whole(2 | 4), Err(Errno::EAGAIN));
    assert_eq!(two.lock_whole(1 | 2), Err(Errno::EINVAL));
    let channel = two.lock_channel();
    assert!(channel.is_some() && channel == one.lock_channel());
    let woken = lab.platform.wakes.load(Ordering::Relaxed);
    drop(one);
    assert!(lab.platform.wakes.load(Ordering::Relaxed) > woken);
    assert_eq!(two.lock_whole(2 | 4), Ok(()));

    let (get, set, read, write) = (5, 6, 0, 1);
    let three = open(&lab.vfs, &lab.context, "/f", O_RDWR).unwrap();
    assert_eq!(three.lock_record(set, &mut flock(write, 10, 10), 7), Ok(()));
    assert_eq!(two.lock_record(set, &mut flock(write, 0, 5), 8), Err(Errno::EBADF));
    assert_eq!(two.lock_record(set, &mut flock(read, 19, 5), 8), Err(Errno::EAGAIN));
    let mut answer = flock(read, 0, 0);
    assert_eq!(two.lock_record(get, &mut answer, 8), Ok(()));
    let mut expected = flock(write, 10, 10);
    expected[24] = 7;
    assert_eq!(answer, expected);
    two.release_process_locks(7);
    assert_eq!(two.lock_record(set, &mut flock(read, 19, 5), 8), Ok(()));
    let path_only = open(&lab.vfs, &lab.context, "/f", O_PATH).unwrap();
    assert_eq!(path_only.lock_whole(1), Err(Errno::EBADF));
}
