//! Linux's binary interface for files: the constants, from the kernel's own
//! headers, and the records as bytes.

mod records;

pub use linux_raw_sys::general::{
    AT_EACCESS, AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_REMOVEDIR, AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
    FD_CLOEXEC, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_ACCMODE, O_APPEND, O_CLOEXEC, O_CREAT,
    O_DIRECT, O_DIRECTORY, O_DSYNC, O_EXCL, O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH,
    O_RDONLY, O_RDWR, O_SYNC, O_TMPFILE, O_TRUNC, O_WRONLY, PROC_SUPER_MAGIC, RENAME_EXCHANGE,
    RENAME_NOREPLACE, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET, TMPFS_MAGIC, UTIME_NOW,
    UTIME_OMIT,
};

pub use records::{Stat, Statfs, Statx, StatxTimestamp, push_dirent64};

/// The directory descriptor that means the working directory.
pub const AT_FDCWD: i32 = linux_raw_sys::general::AT_FDCWD;

/// Longest name of a path component.
pub const NAME_MAX: usize = 255;

/// Length that a path with its final NUL cannot exceed.
pub const PATH_MAX: usize = 4096;

/// Symbolic links followed in one walk before `ELOOP`.
pub const LINKS_MAX: u32 = 40;

/// Bytes a pipe takes whole or not at all.
pub const PIPE_BUF: usize = 4096;

/// Longest transfer of one `read` or `write`.
pub const TRANSFER_MAX: usize = 0x7fff_f000;
