//! Records that Linux copies to user memory, byte for byte (x86-64).

use alloc::vec::Vec;

use zerocopy::{Immutable, IntoBytes};

use crate::inode::{DeviceNumber, FileKind, FileSystemStatus, Metadata};
use crate::platform::Timespec;

/// `struct stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Stat {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of names.
    pub nlink: u64,
    /// Kind and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Always 0.
    pub pad: u32,
    /// Which device it is.
    pub rdev: u64,
    /// Size in bytes.
    pub size: i64,
    /// Good size for a transfer.
    pub blksize: i64,
    /// Blocks of 512 bytes.
    pub blocks: i64,
    /// Last read: seconds, nanoseconds.
    pub atime: [i64; 2],
    /// Last change of the data.
    pub mtime: [i64; 2],
    /// Last change.
    pub ctime: [i64; 2],
    /// Always 0.
    pub unused: [i64; 3],
}

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct StatxTimestamp {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds.
    pub nsec: u32,
    /// Always 0.
    pub reserved: i32,
}

/// `struct statx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Statx {
    /// Which fields are filled in.
    pub mask: u32,
    /// Good size for a transfer.
    pub blksize: u32,
    /// Attributes that hold.
    pub attributes: u64,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Kind and permissions.
    pub mode: u16,
    /// Always 0.
    pub spare0: u16,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Attributes that could hold.
    pub attributes_mask: u64,
    /// Last read.
    pub atime: StatxTimestamp,
    /// Made.
    pub btime: StatxTimestamp,
    /// Last change.
    pub ctime: StatxTimestamp,
    /// Last change of the data.
    pub mtime: StatxTimestamp,
    /// Which device it is.
    pub rdev_major: u32,
    /// Which device it is.
    pub rdev_minor: u32,
    /// Device number of the file system.
    pub dev_major: u32,
    /// Device number of the file system.
    pub dev_minor: u32,
    /// Number of the mount.
    pub mnt_id: u64,
    /// Alignment for direct I/O; none.
    pub dio: [u32; 2],
    /// Always 0.
    pub spare: [u64; 12],
}

/// `struct statfs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Statfs {
    /// Which file system.
    pub kind: i64,
    /// Unit of the following.
    pub bsize: i64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for everybody.
    pub bavail: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Number of the file system.
    pub fsid: [i32; 2],
    /// Longest name.
    pub namelen: i64,
    /// Unit of fragments.
    pub frsize: i64,
    /// Mount flags.
    pub flags: i64,
    /// Always 0.
    pub spare: [i64; 4],
}

/// `STATX_BASIC_STATS`, and the mount's number.
const STATX_FILLED: u32 =
    linux_raw_sys::general::STATX_BASIC_STATS | linux_raw_sys::general::STATX_MNT_ID;
const STATX_ATTR_MOUNT_ROOT: u64 = linux_raw_sys::general::STATX_ATTR_MOUNT_ROOT as u64;

/// The longest name, [`NAME_MAX`](super::NAME_MAX), as the record has it.
const NAME_MAX_SHOWN: i64 = 255;
const _: () = assert!(super::NAME_MAX == 255);

/// `ST_VALID`: the flags mean something.
const ST_VALID: i64 = 0x20;

const fn pair(time: Timespec) -> [i64; 2] {
    [time.seconds, time.nanoseconds as i64]
}

const fn stamp(time: Timespec) -> StatxTimestamp {
    StatxTimestamp { sec: time.seconds, nsec: time.nanoseconds, reserved: 0 }
}

impl Stat {
    /// The record for an inode of the file system with this device number.
    #[must_use]
    pub const fn new(inode: &Metadata, device: DeviceNumber) -> Self {
        Self {
            dev: device.0,
            ino: inode.ino,
            nlink: inode.links as u64,
            mode: inode.mode(),
            uid: inode.uid,
            gid: inode.gid,
            pad: 0,
            rdev: inode.device.0,
            size: inode.size.cast_signed(),
            blksize: inode.block_size as i64,
            blocks: inode.blocks.cast_signed(),
            atime: pair(inode.accessed),
            mtime: pair(inode.modified),
            ctime: pair(inode.changed),
            unused: [0; 3],
        }
    }
}

impl Statx {
    /// The record for an inode of the file system with this device number,
    /// under the mount `mount`, whose root it may be.
    #[must_use]
    pub const fn new(inode: &Metadata, device: DeviceNumber, mount: u64, is_root: bool) -> Self {
        let born_is_known = inode.born.seconds != 0 || inode.born.nanoseconds != 0;
        let born = if born_is_known { linux_raw_sys::general::STATX_BTIME } else { 0 };
        Self {
            mask: STATX_FILLED | born,
            blksize: inode.block_size,
            attributes: if is_root { STATX_ATTR_MOUNT_ROOT } else { 0 },
            nlink: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            mode: (inode.mode() & 0xffff) as u16,
            spare0: 0,
            ino: inode.ino,
            size: inode.size,
            blocks: inode.blocks,
            attributes_mask: STATX_ATTR_MOUNT_ROOT,
            atime: stamp(inode.accessed),
            btime: stamp(inode.born),
            ctime: stamp(inode.changed),
            mtime: stamp(inode.modified),
            rdev_major: inode.device.major(),
            rdev_minor: inode.device.minor(),
            dev_major: device.major(),
            dev_minor: device.minor(),
            mnt_id: mount,
            dio: [0; 2],
            spare: [0; 12],
        }
    }
}

impl Statfs {
    /// The record for a mounted file system.
    #[must_use]
    pub const fn new(status: &FileSystemStatus, device: DeviceNumber, flags: u32) -> Self {
        let bsize = status.block_size.cast_signed();
        Self {
            kind: status.magic.cast_signed(),
            bsize,
            blocks: status.blocks,
            bfree: status.blocks_free,
            bavail: status.blocks_free,
            files: status.files,
            ffree: status.files_free,
            fsid: [device.major().cast_signed(), device.minor().cast_signed()],
            namelen: NAME_MAX_SHOWN,
            frsize: bsize,
            flags: ST_VALID | flags as i64,
            spare: [0; 4],
        }
    }
}

/// Appends a `struct linux_dirent64` if the result stays within `limit` bytes;
/// says whether it did.
pub fn push_dirent64(
    out: &mut Vec<u8>,
    limit: usize,
    ino: u64,
    next: i64,
    kind: FileKind,
    name: &[u8],
) -> bool {
    let length = (19 + name.len() + 1).next_multiple_of(8);
    let start = out.len();
    let Ok(record_length) = u16::try_from(length) else { return false };
    if start + length > limit {
        return false;
    }
    out.extend_from_slice(&ino.to_le_bytes());
    out.extend_from_slice(&next.to_le_bytes());
    out.extend_from_slice(&record_length.to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(name);
    out.resize(start + length, 0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux_raw_sys::general as linux;

    #[test]
    fn records_have_linuxs_sizes() {
        assert_eq!(size_of::<Stat>(), size_of::<linux::stat>());
        assert_eq!(size_of::<Statx>(), size_of::<linux::statx>());
        assert_eq!(size_of::<Statfs>(), size_of::<linux::statfs>());
        assert_eq!(core::mem::offset_of!(Stat, rdev), core::mem::offset_of!(linux::stat, st_rdev));
        assert_eq!(
            core::mem::offset_of!(Stat, mtime),
            core::mem::offset_of!(linux::stat, st_mtime)
        );
        assert_eq!(
            core::mem::offset_of!(Statx, mnt_id),
            core::mem::offset_of!(linux::statx, stx_mnt_id)
        );
        assert_eq!(
            core::mem::offset_of!(Statx, mtime),
            core::mem::offset_of!(linux::statx, stx_mtime)
        );
    }

    #[test]
    fn a_directory_record_is_padded_to_eight_bytes() {
        let mut out = Vec::new();
        assert!(push_dirent64(&mut out, 100, 7, 3, FileKind::Regular, b"abcde"));
        assert_eq!(out.len(), 32);
        assert_eq!(out[16..19], [32, 0, 8]);
        assert_eq!(&out[19..25], b"abcde\0");
        assert!(!push_dirent64(&mut out, 60, 7, 4, FileKind::Regular, b"abcde"));
        assert_eq!(out.len(), 32);
    }
}
