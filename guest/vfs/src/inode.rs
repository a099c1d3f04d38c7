//! The one border behind which every file system stands: tmpfs, /proc, and
//! later a folder of the host.
//!
//! A [`FileSystem`] hands out its root [`Inode`]; everything else follows from
//! there. Names of path components never are `.` or `..`, which the directory
//! tree of this crate ([`dentry`](crate::dentry)) answers itself, as it does
//! mount points, permissions, and the rules of POSIX that hold for all file
//! systems: a file system only has to do what it is told.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use crate::buffer::{Sink, Source};
use crate::errno::{Errno, Result};
use crate::executing::TextUse;
use crate::file::File;
use crate::lock::LockTable;
use crate::path::PathNode;
use crate::pipe::FifoSlot;
use crate::platform::Timespec;
use crate::store::{Advice, ObjectId};
use crate::write_errors::WriteErrors;

/// What kind of thing an inode is; the values are those of `d_type`, and
/// shifted left by 12 those of `st_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FileKind {
    /// None of the following: an event counter, for example.
    Anonymous = 0,
    /// A named or anonymous pipe.
    Fifo = 1,
    /// A character device.
    Character = 2,
    /// A directory.
    Directory = 4,
    /// A block device.
    Block = 6,
    /// A file with bytes.
    Regular = 8,
    /// A symbolic link.
    Symlink = 10,
    /// A socket.
    Socket = 12,
}

impl FileKind {
    /// The kind bits of `st_mode`.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }

    /// The kind with these bits in a mode.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match (mode >> 12) & 0xf {
            1 => Self::Fifo,
            2 => Self::Character,
            4 => Self::Directory,
            6 => Self::Block,
            8 => Self::Regular,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return None,
        })
    }
}

/// A device number, composed as `st_rdev` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber(pub u64);

impl DeviceNumber {
    /// The number with these parts.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        let (major, minor) = (major as u64, minor as u64);
        Self((minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32)
    }

    /// Its major part: which driver.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 32 bits")]
    pub const fn major(self) -> u32 {
        ((self.0 >> 8) & 0xfff | (self.0 >> 32) & 0xffff_f000) as u32
    }

    /// Its minor part: which of the driver's devices.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 32 bits")]
    pub const fn minor(self) -> u32 {
        (self.0 & 0xff | (self.0 >> 12) & 0xffff_ff00) as u32
    }
}

/// What `stat` tells of an inode, except the device number of its file system.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    /// Number within the file system.
    pub ino: u64,
    /// Kind.
    pub kind: FileKind,
    /// Permission bits, set-id and sticky bits.
    pub permissions: u16,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// For devices, which.
    pub device: DeviceNumber,
    /// Size in bytes.
    pub size: u64,
    /// Memory or disk used, in units of 512 bytes.
    pub blocks: u64,
    /// Good size for a transfer.
    pub block_size: u32,
    /// Last read.
    pub accessed: Timespec,
    /// Last change of the data.
    pub modified: Timespec,
    /// Last change of the data or of this.
    pub changed: Timespec,
    /// Made.
    pub born: Timespec,
}

impl Metadata {
    /// `st_mode`.
    #[must_use]
    pub const fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.permissions as u32
    }
}

/// What to change about an inode; the time of change is set with any of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes {
    /// New permission bits.
    pub permissions: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New time of last reading.
    pub accessed: Option<Timespec>,
    /// New time of last change of the data.
    pub modified: Option<Timespec>,
}

/// What to make in a directory.
#[derive(Clone, Copy, Debug)]
pub enum NewNode<'a> {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// The name of a socket.
    Socket,
    /// A character device.
    Character(DeviceNumber),
    /// A block device.
    Block(DeviceNumber),
}

/// One entry of a directory, as a file system lists it.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its inode's number.
    pub ino: u64,
    /// Its inode's kind.
    pub kind: FileKind,
    /// Where to go on after it: not 0, and below 2⁶³ − 2 so that the tree can put
    /// `.` and `..` before.
    pub next: u64,
}

/// Where a symbolic link leads.
#[derive(Debug)]
pub enum LinkTarget {
    /// To this path, taken from the link's directory.
    Text(Vec<u8>),
    /// Straight to a node, whatever its text says (`/proc/self/fd/3`).
    Node(PathNode),
}

/// How the tree may keep what it once looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Only this kernel changes the file system: keep.
    Keep,
    /// Others change it too: ask each time unless the inode is believed, and keep
    /// the tree's node as long as the inode stays the same.
    Revalidate,
    /// Entries come and go by themselves: keep nothing.
    Never,
}

/// What `statfs` tells.
#[derive(Clone, Copy, Debug)]
pub struct FileSystemStatus {
    /// Its number, such as `TMPFS_MAGIC`.
    pub magic: u64,
    /// Unit of the following.
    pub block_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// A file system that can be mounted.
pub trait FileSystem: Send + Sync {
    /// Its type as `/proc/mounts` shows it.
    fn name(&self) -> &'static str;

    /// Its root directory.
    fn root(&self) -> Arc<dyn Inode>;

    /// How much there is.
    fn status(&self) -> FileSystemStatus;

    /// How the tree may cache its entries.
    fn caching(&self) -> Caching;

    /// Brings everything to where it survives this kernel.
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// A file, directory, link or device, whatever its names.
///
/// The methods for other kinds than its own answer with the error Linux has
/// for it, which is what the provided ones do.
pub trait Inode: Any + Send + Sync {
    /// Everything about it.
    fn metadata(&self) -> Result<Metadata>;

    /// Its kind, which never changes.
    fn kind(&self) -> FileKind;

    /// Its number, which never changes.
    fn ino(&self) -> u64;

    /// With [`Caching::Revalidate`]: whether its name was looked up so lately
    /// that there is no need to ask again.
    fn is_believed(&self) -> bool {
        false
    }

    /// Its data may be read from now on in ways that are not seen: a mapping.
    fn note_access(&self) {}

    /// Its data is written from now on in ways that are not seen: through a
    /// mapping. What has a host behind it gets its times there, when it is written.
    fn note_write(&self) {}

    /// Changes attributes.
    fn change(&self, changes: &Changes) -> Result<()> {
        let _ = changes;
        Err(Errno::EPERM)
    }

    /// The entry `name` of this directory.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let _ = name;
        Err(Errno::ENOTDIR)
    }

    /// Makes an entry that is not there yet.
    fn create(&self, name: &[u8], node: NewNode<'_>, permissions: u16) -> Result<Arc<dyn Inode>> {
        let _ = (name, node, permissions);
        Err(Errno::EPERM)
    }

    /// Makes a regular file without a name (`O_TMPFILE`) that can or cannot be
    /// given one later.
    fn create_unnamed(&self, permissions: u16, linkable: bool) -> Result<Arc<dyn Inode>> {
        let _ = (permissions, linkable);
        Err(Errno::EOPNOTSUPP)
    }

    /// Gives `target`, of the same file system, one more name.
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let _ = (name, target);
        Err(Errno::EPERM)
    }

    /// Removes an entry that is no directory.
    fn unlink(&self, name: &[u8]) -> Result<()> {
        let _ = name;
        Err(Errno::EPERM)
    }

    /// One of its own names was removed, or given to another.
    fn name_is_gone(&self) {}

    /// Removes an empty directory.
    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let _ = name;
        Err(Errno::EPERM)
    }

    /// Moves the entry `from` to `to` in `directory`, of the same file system,
    /// replacing what is there (a directory only if empty), or exchanges both.
    fn rename(
        &self,
        from: &[u8],
        directory: &Arc<dyn Inode>,
        to: &[u8],
        exchange: bool,
    ) -> Result<()> {
        let _ = (from, directory, to, exchange);
        Err(Errno::EPERM)
    }

    /// Lists entries from `position` (0, or some entry's `next`) until `emit`
    /// says no.
    fn list(&self, position: u64, emit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<()> {
        let _ = (position, emit);
        Err(Errno::ENOTDIR)
    }

    /// The text of a symbolic link.
    fn read_link(&self) -> Result<Vec<u8>> {
        Err(Errno::EINVAL)
    }

    /// Where a symbolic link leads.
    fn follow(&self) -> Result<LinkTarget> {
        self.read_link().map(LinkTarget::Text)
    }

    /// Something that takes the place of the inode's own data once it is open:
    /// text made at opening, for example. The inode of an anonymous pipe gives
    /// an end of it.
    fn open(&self, flags: u32) -> Result<Option<Arc<dyn File>>> {
        let _ = flags;
        Ok(None)
    }

    /// Where the two sides of a named pipe meet.
    fn fifo(&self) -> Option<&FifoSlot> {
        None
    }

    /// The page-cache object with the data, for mappings.
    fn object(&self) -> Option<ObjectId> {
        None
    }

    /// Size of a regular file.
    fn size(&self) -> Result<u64> {
        Ok(self.metadata()?.size)
    }

    /// Reads data.
    fn read_at(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let _ = (offset, sink);
        Err(Errno::EINVAL)
    }

    /// Writes data.
    fn write_at(&self, offset: u64, source: &mut dyn Source) -> Result<usize> {
        let _ = (offset, source);
        Err(Errno::EINVAL)
    }

    /// Cuts or extends the data.
    fn truncate(&self, size: u64) -> Result<()> {
        let _ = size;
        Err(Errno::EINVAL)
    }

    /// Reserves memory for a range, growing the file unless `keep_size`.
    fn allocate(&self, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let _ = (offset, length, keep_size);
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a range a hole.
    fn punch_hole(&self, offset: u64, length: u64) -> Result<()> {
        let _ = (offset, length);
        Err(Errno::EOPNOTSUPP)
    }

    /// First offset from `offset` on with data (or, if `hole`, in a hole;
    /// the end of the file counts as one). `ENXIO` if there is none.
    fn seek(&self, offset: u64, hole: bool) -> Result<u64> {
        let size = self.size()?;
        if offset >= size { Err(Errno::ENXIO) } else { Ok(if hole { size } else { offset }) }
    }

    /// The locks on it; with `make`, also if there never was one. `None`: it
    /// cannot be locked, or (without `make`) is not.
    fn locks(&self, make: bool) -> Option<&LockTable> {
        let _ = make;
        None
    }

    /// A descriptor that could write is closed: changed data goes to where others
    /// see it.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Errors of writing data after the calls that changed it.
    fn write_errors(&self) -> Option<Arc<WriteErrors>> {
        None
    }

    /// How a range of the data will be used (length 0: to its end).
    fn advise(&self, offset: u64, length: u64, advice: Advice) {
        let _ = (offset, length, advice);
    }

    /// Who writes or executes it; `None` if nobody can.
    fn text_use(&self) -> Option<&TextUse> {
        None
    }

    /// Brings the data (and, unless `data_only`, the attributes) to where they
    /// survive this kernel.
    fn sync(&self, data_only: bool) -> Result<()> {
        let _ = data_only;
        Ok(())
    }
}
