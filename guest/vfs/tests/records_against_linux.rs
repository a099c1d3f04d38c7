//! `struct stat`, `statx`, `statfs` and `linux_dirent64`, byte for byte as the
//! host's Linux fills them in.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use pagelab_vfs::Timespec;
use pagelab_vfs::abi::{Stat, Statfs, Statx, push_dirent64};
use pagelab_vfs::inode::{DeviceNumber, FileKind, FileSystemStatus, Metadata};
use zerocopy::IntoBytes;

/// A call that fills `bytes` at its third argument (`statx`: at its last).
fn filled(call: impl FnOnce(*mut u8, usize) -> libc::c_long, size: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; size];
    let result = call(bytes.as_mut_ptr(), bytes.len());
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    bytes
}

/// What the standard library read of the same inode.
fn metadata_of(found: &std::fs::Metadata, born: Timespec) -> Metadata {
    let time = |seconds, nanoseconds: i64| Timespec {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap(),
    };
    Metadata {
        ino: found.ino(),
        kind: FileKind::from_mode(found.mode()).unwrap(),
        permissions: u16::try_from(found.mode() & 0o7777).unwrap(),
        links: u32::try_from(found.nlink()).unwrap(),
        uid: found.uid(),
        gid: found.gid(),
        device: DeviceNumber(found.rdev()),
        size: found.size(),
        blocks: found.blocks(),
        block_size: u32::try_from(found.blksize()).unwrap(),
        accessed: time(found.atime(), found.atime_nsec()),
        modified: time(found.mtime(), found.mtime_nsec()),
        changed: time(found.ctime(), found.ctime_nsec()),
        born,
    }
}

/// A file, a directory, a device, a link: what `lstat` says of each.
const SUBJECTS: [&str; 4] = ["/etc/passwd", "/etc", "/dev/null", "/proc/self"];

#[test]
fn stat_is_the_same_record() {
    for path in SUBJECTS {
        let name = CString::new(path).unwrap();
        let theirs = filled(
            // SAFETY: the name ends in NUL and the buffer is a whole record.
            |bytes, _| unsafe { libc::syscall(libc::SYS_lstat, name.as_ptr(), bytes) },
            size_of::<Stat>(),
        );
        let found = std::fs::symlink_metadata(path).unwrap();
        let ours = Stat::new(&metadata_of(&found, Timespec::default()), DeviceNumber(found.dev()));
        // Something else may read the file in between.
        let atime = std::mem::offset_of!(Stat, atime);
        assert_eq!(ours.as_bytes()[..atime], theirs[..atime], "{path}");
        let mtime = std::mem::offset_of!(Stat, mtime);
        if path != "/proc/self" {
            assert_eq!(ours.as_bytes()[mtime..], theirs[mtime..], "{path}");
        }
    }
}

#[test]
fn statx_is_the_same_record() {
    for path in SUBJECTS {
        let name = CString::new(path).unwrap();
        let theirs = filled(
            // SAFETY: as above.
            |bytes, _| unsafe {
                libc::syscall(
                    libc::SYS_statx,
                    libc::AT_FDCWD,
                    name.as_ptr(),
                    libc::AT_SYMLINK_NOFOLLOW,
                    libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID,
                    bytes,
                )
            },
            size_of::<Statx>(),
        );
        let word = |at: usize| u64::from_le_bytes(theirs[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(theirs[at..at + 4].try_into().unwrap());
        let at = std::mem::offset_of!(Statx, btime);
        let born = Timespec { seconds: word(at).cast_signed(), nanoseconds: half(at + 8) };
        let found = std::fs::symlink_metadata(path).unwrap();
        let mount = word(std::mem::offset_of!(Statx, mnt_id));
        let device = DeviceNumber(found.dev());
        let mut ours = Statx::new(&metadata_of(&found, born), device, mount, false);
        // Which fields and attributes there are depends on the file system.
        ours.mask = half(0);
        ours.attributes = word(std::mem::offset_of!(Statx, attributes));
        ours.attributes_mask = word(std::mem::offset_of!(Statx, attributes_mask));
        let [atime, btime] =
            [std::mem::offset_of!(Statx, atime), std::mem::offset_of!(Statx, btime)];
        assert_eq!(ours.as_bytes()[..atime], theirs[..atime], "{path}");
        let end = std::mem::offset_of!(Statx, dio);
        if path != "/proc/self" {
            assert_eq!(ours.as_bytes()[btime..end], theirs[btime..end], "{path}");
        }
    }
}

#[test]
fn statfs_is_the_same_record() {
    let name = CString::new("/proc").unwrap();
    let theirs = filled(
        // SAFETY: as above.
        |bytes, _| unsafe { libc::syscall(libc::SYS_statfs, name.as_ptr(), bytes) },
        size_of::<Statfs>(),
    );
    let word = |at: usize| u64::from_le_bytes(theirs[at..at + 8].try_into().unwrap());
    let status = FileSystemStatus {
        magic: word(0),
        block_size: word(8),
        blocks: word(16),
        blocks_free: word(24),
        files: word(40),
        files_free: word(48),
    };
    assert_eq!(status.magic, u64::from(pagelab_vfs::abi::PROC_SUPER_MAGIC));
    let dev = std::fs::metadata("/proc").unwrap().dev();
    let flags = u32::try_from(word(std::mem::offset_of!(Statfs, flags))).unwrap();
    let mut ours = Statfs::new(&status, DeviceNumber(dev), flags & !0x20);
    // How a number of the file system is made of its device differs.
    ours.fsid = [0; 2];
    let mut theirs = theirs;
    let fsid = std::mem::offset_of!(Statfs, fsid);
    theirs[fsid..fsid + 8].fill(0);
    assert_eq!(ours.as_bytes(), theirs);
}

#[test]
fn getdents64_gives_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    for length in 1..40 {
        File::create(directory.path().join("n".repeat(length))).unwrap();
    }
    std::fs::create_dir(directory.path().join("directory")).unwrap();
    std::os::unix::fs::symlink("x", directory.path().join("link")).unwrap();
    let open = File::open(directory.path()).unwrap();
    let mut count = 0;
    let theirs = filled(
        |bytes, size| {
            // SAFETY: the descriptor is open and the buffer as long as said.
            count = unsafe { libc::syscall(libc::SYS_getdents64, open.as_raw_fd(), bytes, size) };
            count
        },
        8192,
    );
    let theirs = &theirs[..usize::try_from(count).unwrap()];
    let mut ours = Vec::new();
    let mut names = 0;
    while ours.len() < theirs.len() {
        let record = &theirs[ours.len()..];
        let ino = u64::from_le_bytes(record[..8].try_into().unwrap());
        let next = i64::from_le_bytes(record[8..16].try_into().unwrap());
        let name = record[19..].split(|byte| *byte == 0).next().unwrap();
        let path = directory.path().join(std::ffi::OsStr::from_bytes(name));
        let found = std::fs::symlink_metadata(path).unwrap();
        let kind = FileKind::from_mode(found.mode()).unwrap();
        let start = ours.len();
        assert!(push_dirent64(&mut ours, theirs.len(), ino, next, kind, name));
        // What Linux leaves behind the name's end it does not clear.
        let length = 19 + name.len() + 1;
        assert_eq!(ours[start..start + length], record[..length]);
        assert_eq!(ours[16 + start], record[16], "length of the record");
        names += 1;
    }
    assert_eq!(names, 43);
    assert_eq!(ours.len(), theirs.len());
}
