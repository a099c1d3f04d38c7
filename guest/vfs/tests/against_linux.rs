//! Random operations, done here and by the host's Linux: the same results.
//!
//! Both work below a deep chain of directories, so that `..` and links cannot
//! leave the part that both have.

mod common;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use common::Lab;
use pagelab_vfs::buffer::{SliceSink, SliceSource};
use pagelab_vfs::inode::{DeviceNumber, FileKind};
use pagelab_vfs::{Errno, Lookup, OpenFile, OpenHow, PathNode, Whence, abi};
use proptest::prelude::*;
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom};

/// How deep below the root the work is done.
const DEPTH: usize = 120;

#[derive(Clone, Debug)]
enum Op {
    Open { slot: usize, base: usize, path: String, flags: u32, mode: u32 },
    Close { slot: usize },
    Duplicate { from: usize, to: usize },
    Read { slot: usize, length: usize, offset: Option<i64> },
    Write { slot: usize, byte: u8, length: usize, offset: Option<i64> },
    Seek { slot: usize, offset: i64, whence: u32 },
    Truncate { slot: usize, size: i64 },
    TruncatePath { path: String, size: i64 },
    Allocate { slot: usize, mode: u32, offset: i64, length: i64 },
    List { slot: usize },
    MakeDirectory { base: usize, path: String, mode: u32 },
    MakeFifo { path: String, mode: u32 },
    RemoveDirectory { base: usize, path: String },
    Unlink { base: usize, path: String },
    Rename { old_base: usize, old: String, new: String, flags: u32 },
    Link { old: String, new_base: usize, new: String, follow: bool },
    Symlink { text: String, path: String },
    ReadLink { path: String },
    Stat { base: usize, path: String, follow: bool, empty: bool },
    StatSlot { slot: usize },
    ChangeMode { path: String, mode: u32 },
    Flags { slot: usize, set: Option<u32> },
    Access { path: String, mode: u32 },
}

const SLOTS: usize = 4;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => proptest::sample::select(vec!["a", "b", "c", "d", "l", "m"]).prop_map(String::from),
        2 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => (prop::collection::vec(name(), 1..4), prop::bool::weighted(0.15)).prop_map(
            |(names, slash)| {
                let path = names.join("/");
                let path = if slash { path + "/" } else { path };
                // An absolute path would leave the common part.
                path.trim_start_matches('/').to_owned()
            },
        ),
        1 => Just("n".repeat(256)),
        1 => Just("n".repeat(255)),
        1 => Just("a/".repeat(2048)),
    ]
}

fn slot() -> impl Strategy<Value = usize> {
    0..SLOTS
}

/// Mostly the common directory itself.
fn base() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(SLOTS), 1 => slot()]
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0..9000_i64, 1 => -9000..0_i64, 1 => 0..100_000_i64, 1 => Just(4096)]
}

fn open_flags() -> impl Strategy<Value = u32> {
    let access = proptest::sample::select(vec![abi::O_RDONLY, abi::O_WRONLY, abi::O_RDWR]);
    let others = [
        (0.5, abi::O_CREAT),
        (0.15, abi::O_EXCL),
        (0.2, abi::O_TRUNC),
        (0.15, abi::O_APPEND),
        (0.15, abi::O_DIRECTORY),
        (0.15, abi::O_NOFOLLOW),
        (0.1, abi::O_PATH),
        (0.05, abi::O_TMPFILE),
    ];
    others.into_iter().fold(access.boxed(), |flags, (chance, flag)| {
        (flags, prop::bool::weighted(chance))
            .prop_map(move |(flags, on)| if on { flags | flag } else { flags })
            .boxed()
    })
}

fn mode() -> impl Strategy<Value = u32> {
    // The owner keeps all rights, so that it makes no difference who tests.
    (0..0o100_u32).prop_map(|mode| mode | 0o700)
}

fn file_op() -> BoxedStrategy<Op> {
    prop_oneof![
        6 => (slot(), base(), path(), open_flags(), mode()).prop_map(
            |(slot, base, path, flags, mode)| Op::Open { slot, base, path, flags, mode }),
        1 => slot().prop_map(|slot| Op::Close { slot }),
        1 => (slot(), slot()).prop_map(|(from, to)| Op::Duplicate { from, to }),
        3 => (slot(), 0..6000_usize, prop::option::of(offset()))
            .prop_map(|(slot, length, offset)| Op::Read { slot, length, offset }),
        3 => (slot(), any::<u8>(), 0..6000_usize, prop::option::of(offset())).prop_map(
            |(slot, byte, length, offset)| Op::Write { slot, byte, length, offset }),
        2 => (slot(), offset(), 0..6_u32)
            .prop_map(|(slot, offset, whence)| Op::Seek { slot, offset, whence }),
        1 => (slot(), offset()).prop_map(|(slot, size)| Op::Truncate { slot, size }),
        1 => (path(), offset()).prop_map(|(path, size)| Op::TruncatePath { path, size }),
        1 => (slot(), proptest::sample::select(vec![0, 1, 2, 3]), offset(), offset()).prop_map(
            |(slot, mode, offset, length)| Op::Allocate { slot, mode, offset, length }),
        2 => slot().prop_map(|slot| Op::List { slot }),
        1 => slot().prop_map(|slot| Op::StatSlot { slot }),
        1 => (slot(), prop::option::of(proptest::sample::select(vec![
            0, abi::O_APPEND, abi::O_RDWR | abi::O_CREAT])))
            // Without O_NONBLOCK a named pipe would wait for ever.
            .prop_map(|(slot, set)| Op::Flags { slot, set: set.map(|set| set | abi::O_NONBLOCK) }),
    ]
    .boxed()
}

fn name_op() -> BoxedStrategy<Op> {
    let rename_flags = prop_oneof![
        4 => Just(0),
        1 => Just(abi::RENAME_NOREPLACE),
        2 => Just(abi::RENAME_EXCHANGE),
    ];
    prop_oneof![
        4 => (base(), path(), mode())
            .prop_map(|(base, path, mode)| Op::MakeDirectory { base, path, mode }),
        1 => (path(), mode()).prop_map(|(path, mode)| Op::MakeFifo { path, mode }),
        1 => (base(), path()).prop_map(|(base, path)| Op::RemoveDirectory { base, path }),
        1 => (base(), path()).prop_map(|(base, path)| Op::Unlink { base, path }),
        3 => (base(), path(), path(), rename_flags).prop_map(
            |(old_base, old, new, flags)| Op::Rename { old_base, old, new, flags }),
        2 => (path(), base(), path(), any::<bool>()).prop_map(
            |(old, new_base, new, follow)| Op::Link { old, new_base, new, follow }),
        3 => (path(), path()).prop_map(|(text, path)| Op::Symlink { text, path }),
        1 => path().prop_map(|path| Op::ReadLink { path }),
        2 => (base(), path(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(base, path, follow, empty)| Op::Stat { base, path, follow, empty }),
        1 => (path(), mode()).prop_map(|(path, mode)| Op::ChangeMode { path, mode }),
        1 => (path(), 0..9_u32).prop_map(|(path, mode)| Op::Access { path, mode }),
    ]
    .boxed()
}

/// What an operation showed, in a form that both sides can give.
type Outcome = Result<String, u16>;

fn shown(value: impl Debug) -> String {
    format!("{value:?}")
}

/// A path; a file that never had a name is shown with its inode's number.
fn without_number(path: &[u8]) -> String {
    let text = String::from_utf8(path.to_vec()).unwrap();
    match text.split_once("/#") {
        Some((directory, name)) => {
            format!("{directory}/#{}", name.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        None => text,
    }
}

/// Names and kinds of a listing.
fn listing(records: &[u8], into: &mut BTreeSet<(Vec<u8>, u8)>) {
    let mut rest = records;
    while !rest.is_empty() {
        let length = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
        let name = rest[19..length].split(|byte| *byte == 0).next().unwrap();
        assert!(into.insert((name.to_vec(), rest[18])), "listed twice");
        rest = &rest[length..];
    }
}

struct Ours {
    lab: Lab,
    base: PathNode,
    slots: Vec<Option<Arc<OpenFile>>>,
}

impl Ours {
    fn new() -> Self {
        let lab = Lab::new();
        let mut base = lab.vfs.root();
        for _ in 0..DEPTH {
            lab.vfs.make_directory(&lab.context, Some(&base), b"z", 0o755).unwrap();
            base = lab.vfs.resolve(&lab.context, Some(&base), b"z", Lookup::FOLLOW).unwrap();
        }
        Self { lab, base, slots: vec![None; SLOTS] }
    }

    fn file(&self, slot: usize) -> Result<&OpenFile, Errno> {
        self.slots[slot].as_deref().ok_or(Errno::EBADF)
    }

    fn start(&self, base: usize, path: &str) -> Result<PathNode, Errno> {
        if base == SLOTS {
            return Ok(self.base.clone());
        }
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        Ok(self.file(base)?.node().clone())
    }

    fn resolve(&self, path: &str, how: Lookup) -> Result<PathNode, Errno> {
        self.lab.vfs.resolve(&self.lab.context, Some(&self.base), path.as_bytes(), how)
    }

    fn stat(node: &PathNode) -> Result<String, Errno> {
        let stat = node.stat()?;
        let directory = FileKind::from_mode(stat.mode) == Some(FileKind::Directory);
        let size = if directory { 0 } else { stat.size };
        Ok(shown((stat.mode, stat.nlink, size)))
    }

    fn run(&mut self, op: &Op) -> Outcome {
        self.try_run(op).map_err(Errno::number)
    }

    fn try_run(&mut self, op: &Op) -> Result<String, Errno> {
        match op {
            Op::Open { slot, base, path, flags, mode } => {
                let start = self.start(*base, path)?;
                let how = OpenHow { flags: flags | abi::O_NONBLOCK, mode: *mode };
                let lab = &self.lab;
                let file = lab.vfs.open(&lab.context, Some(&start), path.as_bytes(), how)?;
                self.slots[*slot] = Some(file);
                Ok(String::new())
            }
            Op::Close { slot } => {
                self.slots[*slot].take().ok_or(Errno::EBADF).map(|_| String::new())
            }
            Op::Duplicate { from, to } => {
                self.file(*from)?;
                self.slots[*to] = self.slots[*from].clone();
                Ok(String::new())
            }
            Op::Read { slot, length, offset } => {
                let mut bytes = vec![0; *length];
                let mut sink = SliceSink::new(&mut bytes);
                let file = self.file(*slot)?;
                let count = match offset {
                    None => file.read(&mut sink)?,
                    Some(offset) => file.read_at(*offset, &mut sink)?,
                };
                bytes.truncate(count);
                Ok(shown(bytes))
            }
            Op::Write { slot, byte, length, offset } => {
                let bytes = vec![*byte; *length];
                let mut source = SliceSource::new(&bytes);
                let file = self.file(*slot)?;
                Ok(shown(match offset {
                    None => file.write(&mut source)?,
                    Some(offset) => file.write_at(*offset, &mut source)?,
                }))
            }
            Op::Seek { slot, offset, whence } => {
                let whence = Whence::from_number(*whence).ok_or(Errno::EINVAL);
                Ok(shown(self.file(*slot)?.seek(*offset, whence?)?))
            }
            Op::Truncate { slot, size } => Ok(shown(self.file(*slot)?.truncate(*size)?)),
            Op::TruncatePath { path, size } => {
                if *size < 0 {
                    return Err(Errno::EINVAL);
                }
                Ok(shown(self.resolve(path, Lookup::FOLLOW)?.truncate(*size)?))
            }
            Op::Allocate { slot, mode, offset, length } => {
                Ok(shown(self.file(*slot)?.allocate(*mode, *offset, *length)?))
            }
            Op::List { slot } => self.list(*slot),
            Op::StatSlot { slot } => {
                let node = self.file(*slot)?.node();
                let path = node.display(&self.lab.vfs.root());
                Ok(shown((Self::stat(node)?, without_number(&path))))
            }
            Op::Flags { slot, set } => {
                let file = self.file(*slot)?;
                if let Some(set) = set {
                    file.set_flags(*set)?;
                }
                Ok(shown(file.flags()))
            }
            _ => self.run_on_names(op),
        }
    }

    fn list(&self, slot: usize) -> Result<String, Errno> {
        let file = self.file(slot)?;
        // From the start, in records of various sizes.
        file.seek(0, Whence::Set).ok();
        let mut names = BTreeSet::new();
        for size in [1, 24, 120, 32, 48, 1000, 4096, 70_000, 70_000] {
            let mut bytes = vec![0; size];
            match file.list(&mut SliceSink::new(&mut bytes)) {
                Ok(0) => break,
                Ok(count) => listing(&bytes[..count], &mut names),
                Err(Errno::EINVAL) if size < 4096 => {}
                Err(error) => return Err(error),
            }
        }
        file.seek(0, Whence::Set)?;
        Ok(shown(names))
    }

    fn run_on_names(&mut self, op: &Op) -> Result<String, Errno> {
        let (vfs, context) = (&self.lab.vfs, &self.lab.context);
        match op {
            Op::MakeDirectory { base, path, mode } => {
                let start = self.start(*base, path)?;
                vfs.make_directory(context, Some(&start), path.as_bytes(), *mode)?;
            }
            Op::MakeFifo { path, mode } => vfs.make_node(
                context,
                Some(&self.base),
                path.as_bytes(),
                FileKind::Fifo.mode_bits() | mode,
                DeviceNumber::default(),
            )?,
            Op::RemoveDirectory { base, path } => {
                let start = self.start(*base, path)?;
                vfs.remove_directory(context, Some(&start), path.as_bytes())?;
            }
            Op::Unlink { base, path } => {
                let start = self.start(*base, path)?;
                vfs.unlink(context, Some(&start), path.as_bytes())?;
            }
            Op::Rename { old_base, old, new, flags } => {
                if old.is_empty() || new.is_empty() {
                    return Err(Errno::ENOENT);
                }
                let start = self.start(*old_base, old)?;
                let new = (Some(&self.base), new.as_bytes());
                vfs.rename(context, (Some(&start), old.as_bytes()), new, *flags)?;
            }
            Op::Link { old, new_base, new, follow } => {
                let how = Lookup { follow: *follow, allow_empty: false };
                let old = self.resolve(old, how)?;
                let start = self.start(*new_base, new)?;
                vfs.make_link(context, &old, Some(&start), new.as_bytes())?;
            }
            Op::Symlink { text, path } => {
                vfs.make_symlink(context, text.as_bytes(), Some(&self.base), path.as_bytes())?;
            }
            Op::ReadLink { path } => {
                return Ok(shown(self.resolve(path, Lookup::NO_FOLLOW)?.read_link()?));
            }
            Op::Stat { base, path, follow, empty } => {
                let start = match self.slots.get(*base) {
                    None => self.base.clone(),
                    Some(_) if path.is_empty() && !empty => return Err(Errno::ENOENT),
                    Some(_) => self.file(*base)?.node().clone(),
                };
                let how = Lookup { follow: *follow, allow_empty: *empty };
                return Self::stat(&vfs.resolve(context, Some(&start), path.as_bytes(), how)?);
            }
            Op::ChangeMode { path, mode } => {
                self.resolve(path, Lookup::FOLLOW)?.change_mode(*mode)?;
            }
            Op::Access { path, mode } => {
                if *mode > 7 {
                    return Err(Errno::EINVAL);
                }
                vfs.access(&self.resolve(path, Lookup::FOLLOW)?, *mode)?;
            }
            _ => unreachable!("not an operation on names"),
        }
        Ok(shown(()))
    }
}

struct Linux {
    _directory: tempfile::TempDir,
    base: OwnedFd,
    prefix: Vec<u8>,
    slots: Vec<Option<Arc<OwnedFd>>>,
}

type HostResult<T> = Result<T, rustix::io::Errno>;

impl Linux {
    fn new() -> Self {
        let shm = Path::new("/dev/shm");
        // What tmpfs alone does differently is best compared with tmpfs.
        let directory = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let path = directory.path().join("z/".repeat(DEPTH));
        std::fs::create_dir_all(&path).unwrap();
        let prefix = directory.path().as_os_str().as_bytes().to_vec();
        let base = fs::open(&path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        Self { _directory: directory, base, prefix, slots: vec![None; SLOTS] }
    }

    fn file(&self, slot: usize) -> HostResult<&OwnedFd> {
        self.slots[slot].as_deref().ok_or(rustix::io::Errno::BADF)
    }

    fn start(&self, base: usize, path: &str) -> HostResult<&OwnedFd> {
        if base == SLOTS {
            return Ok(&self.base);
        }
        if path.is_empty() {
            return Err(rustix::io::Errno::NOENT);
        }
        self.file(base)
    }

    fn stat(stat: &fs::Stat) -> String {
        let directory = stat.st_mode & 0o170_000 == 0o040_000;
        let size = if directory { 0 } else { stat.st_size };
        shown((stat.st_mode, stat.st_nlink, size))
    }

    fn run(&mut self, op: &Op) -> Outcome {
        self.try_run(op).map_err(|error| u16::try_from(error.raw_os_error()).unwrap())
    }

    fn try_run(&mut self, op: &Op) -> HostResult<String> {
        match op {
            Op::Open { slot, base, path, flags, mode } => {
                let start = self.start(*base, path)?;
                let flags = OFlags::from_bits_retain(flags | abi::O_NONBLOCK);
                let file = fs::openat(start, path, flags, Mode::from_bits_retain(*mode))?;
                self.slots[*slot] = Some(Arc::new(file));
                Ok(String::new())
            }
            Op::Close { slot } => {
                self.slots[*slot].take().ok_or(rustix::io::Errno::BADF).map(|_| String::new())
            }
            Op::Duplicate { from, to } => {
                self.file(*from)?;
                self.slots[*to] = self.slots[*from].clone();
                Ok(String::new())
            }
            Op::Read { slot, length, offset } => {
                let mut bytes = vec![0; *length];
                let file = self.file(*slot)?;
                let count = match offset {
                    None => rustix::io::read(file, &mut bytes[..])?,
                    Some(offset) => {
                        rustix::io::pread(file, &mut bytes[..], offset.cast_unsigned())?
                    }
                };
                bytes.truncate(count);
                Ok(shown(bytes))
            }
            Op::Write { slot, byte, length, offset } => {
                let bytes = vec![*byte; *length];
                let file = self.file(*slot)?;
                Ok(shown(match offset {
                    None => rustix::io::write(file, &bytes)?,
                    Some(offset) => rustix::io::pwrite(file, &bytes, offset.cast_unsigned())?,
                }))
            }
            Op::Seek { slot, offset, whence } => {
                let to = match whence {
                    0 => SeekFrom::Start(offset.cast_unsigned()),
                    1 => SeekFrom::Current(*offset),
                    2 => SeekFrom::End(*offset),
                    3 => SeekFrom::Data(offset.cast_unsigned()),
                    4 => SeekFrom::Hole(offset.cast_unsigned()),
                    _ => return self.file(*slot).and(Err(rustix::io::Errno::INVAL)),
                };
                Ok(shown(fs::seek(self.file(*slot)?, to)?))
            }
            Op::Truncate { slot, size } => {
                Ok(shown(fs::ftruncate(self.file(*slot)?, size.cast_unsigned())?))
            }
            Op::TruncatePath { path, size } => {
                if *size < 0 {
                    return Err(rustix::io::Errno::INVAL);
                }
                // There is no truncateat: through the descriptor's own path.
                if path.is_empty() {
                    return Err(rustix::io::Errno::NOENT);
                }
                self.truncate_path(path, *size)
            }
            Op::Allocate { slot, mode, offset, length } => {
                let flags = FallocateFlags::from_bits_retain(*mode);
                let (offset, length) = (offset.cast_unsigned(), length.cast_unsigned());
                Ok(shown(fs::fallocate(self.file(*slot)?, flags, offset, length)?))
            }
            Op::List { slot } => self.list(*slot),
            Op::StatSlot { slot } => {
                let file = self.file(*slot)?;
                let stat = Self::stat(&fs::fstat(file)?);
                let link = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(file));
                let path = std::fs::read_link(link).unwrap().into_os_string().into_vec();
                let path = path.strip_prefix(&self.prefix[..]).unwrap_or(&path);
                let path = if path.is_empty() { b"/" } else { path };
                Ok(shown((stat, without_number(path))))
            }
            Op::Flags { slot, set } => {
                let file = self.file(*slot)?;
                if let Some(set) = set {
                    fs::fcntl_setfl(file, OFlags::from_bits_retain(*set))?;
                }
                Ok(shown(fs::fcntl_getfl(file)?.bits()))
            }
            _ => self.run_on_names(op),
        }
    }

    fn truncate_path(&self, path: &str, size: i64) -> HostResult<String> {
        // What the walk says, then what truncate says of the node.
        let flags = OFlags::PATH;
        let node = fs::openat(&self.base, path, flags, Mode::empty())?;
        // A named pipe would wait for a reader.
        match fs::FileType::from_raw_mode(fs::fstat(&node)?.st_mode) {
            fs::FileType::Directory => return Err(rustix::io::Errno::ISDIR),
            fs::FileType::RegularFile => {}
            _ => return Err(rustix::io::Errno::INVAL),
        }
        let link = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&node));
        let file = fs::open(&link, OFlags::WRONLY, Mode::empty())?;
        Ok(shown(fs::ftruncate(file.as_fd(), size.cast_unsigned())?))
    }

    fn list(&self, slot: usize) -> HostResult<String> {
        let file = self.file(slot)?;
        fs::seek(file, SeekFrom::Start(0)).ok();
        let mut names = BTreeSet::new();
        let mut buffer = Vec::with_capacity(70_000);
        let mut entries = fs::RawDir::new(file, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let kind = entry.file_type().as_raw_mode() >> 12;
            assert!(
                names.insert((entry.file_name().to_bytes().to_vec(), u8::try_from(kind).unwrap()))
            );
        }
        fs::seek(file, SeekFrom::Start(0))?;
        Ok(shown(names))
    }

    fn run_on_names(&mut self, op: &Op) -> HostResult<String> {
        match op {
            Op::MakeDirectory { base, path, mode } => {
                fs::mkdirat(self.start(*base, path)?, path, Mode::from_bits_retain(*mode))?;
            }
            Op::MakeFifo { path, mode } => {
                let mode = Mode::from_bits_retain(*mode);
                fs::mknodat(&self.base, path, fs::FileType::Fifo, mode, 0)?;
            }
            Op::RemoveDirectory { base, path } => {
                fs::unlinkat(self.start(*base, path)?, path, AtFlags::REMOVEDIR)?;
            }
            Op::Unlink { base, path } => {
                fs::unlinkat(self.start(*base, path)?, path, AtFlags::empty())?;
            }
            Op::Rename { old_base, old, new, flags } => {
                if old.is_empty() || new.is_empty() {
                    return Err(rustix::io::Errno::NOENT);
                }
                let flags = RenameFlags::from_bits_retain(*flags);
                fs::renameat_with(self.start(*old_base, old)?, old, &self.base, new, flags)?;
            }
            Op::Link { old, new_base, new, follow } => {
                let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                // The old path is looked at first.
                let new_start = match self.start(*new_base, new) {
                    Ok(start) => start,
                    Err(error) => {
                        let flags =
                            if *follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
                        return fs::openat(&self.base, old, flags, Mode::empty()).and(Err(error));
                    }
                };
                fs::linkat(&self.base, old, new_start, new, flags)?;
            }
            Op::Symlink { text, path } => fs::symlinkat(text, &self.base, path)?,
            Op::ReadLink { path } => {
                let text = if path.is_empty() {
                    return Err(rustix::io::Errno::NOENT);
                } else {
                    fs::readlinkat(&self.base, path, Vec::new())?
                };
                return Ok(shown(text.to_bytes()));
            }
            Op::Stat { base, path, follow, empty } => {
                let start = match self.slots.get(*base) {
                    None => &self.base,
                    Some(_) if path.is_empty() && !empty => return Err(rustix::io::Errno::NOENT),
                    Some(_) => self.file(*base)?,
                };
                let mut flags = AtFlags::empty();
                flags.set(AtFlags::SYMLINK_NOFOLLOW, !follow);
                flags.set(AtFlags::EMPTY_PATH, *empty);
                return Ok(Self::stat(&fs::statat(start, path, flags)?));
            }
            Op::ChangeMode { path, mode } => {
                fs::chmodat(&self.base, path, Mode::from_bits_retain(*mode), AtFlags::empty())?;
            }
            Op::Access { path, mode } => {
                let access = fs::Access::from_bits_retain(*mode);
                if *mode > 7 {
                    return Err(rustix::io::Errno::INVAL);
                }
                fs::accessat(&self.base, path, access, AtFlags::empty())?;
            }
            _ => unreachable!("not an operation on names"),
        }
        Ok(shown(()))
    }
}

/// How many sequences; `PAGELAB_VFS_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PAGELAB_VFS_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn random_operations_end_as_on_linux(
        ops in prop::collection::vec(prop_oneof![file_op(), name_op()], 1..120),
    ) {
        rustix::process::umask(Mode::from_bits_retain(0o022));
        let mut ours = Ours::new();
        let mut linux = Linux::new();
        let mut reserved = false;
        for (index, op) in ops.iter().enumerate() {
            // Linux shows reserved pages as holes until they are written; here
            // they have zeroed frames, which are data.
            reserved |= matches!(op, Op::Allocate { mode: 0 | 1, .. });
            if reserved && matches!(op, Op::Seek { whence: 3 | 4, .. }) {
                continue;
            }
            // Before Linux 6.4 this made a file and then failed.
            let both = abi::O_CREAT | abi::O_DIRECTORY;
            let unnamed = abi::O_TMPFILE & !abi::O_DIRECTORY;
            if matches!(op, Op::Open { flags, .. }
                if flags & both == both && flags & (unnamed | abi::O_PATH) == 0)
            {
                continue;
            }
            let expected = linux.run(op);
            let actual = ours.run(op);
            prop_assert_eq!(actual, expected, "operation {}: {:?}", index, op);
        }
        check_no_leak(ours);
    }
}

/// When everything is removed nothing is left.
fn check_no_leak(ours: Ours) {
    let Ours { lab, base, slots } = ours;
    drop((base, slots));
    let Lab { store, root_fs, vfs, context, .. } = lab;
    drop((vfs, context));
    drop(root_fs);
    assert_eq!(store.objects(), 0, "objects of files that are gone");
}
