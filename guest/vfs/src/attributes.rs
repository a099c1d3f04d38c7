//! Changing what `stat` shows: `chmod`, `chown`, `utimensat`; and `readlink`.

use alloc::vec::Vec;

use crate::abi::{UTIME_NOW, UTIME_OMIT};
use crate::errno::{Errno, Result};
use crate::inode::{Changes, FileKind};
use crate::path::PathNode;
use crate::platform::Timespec;
use crate::tree::Vfs;

/// A time as `utimensat` takes it: seconds and nanoseconds, the latter perhaps
/// `UTIME_NOW` or `UTIME_OMIT`.
#[derive(Clone, Copy, Debug)]
pub struct NewTime {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, or one of the two.
    pub nanoseconds: i64,
}

impl NewTime {
    /// The time, or `None` if it stays as it is.
    fn resolve(self, now: impl FnOnce() -> Timespec) -> Result<Option<Timespec>> {
        match u32::try_from(self.nanoseconds) {
            Ok(UTIME_NOW) => Ok(Some(now())),
            Ok(UTIME_OMIT) => Ok(None),
            Ok(nanoseconds) if nanoseconds < 1_000_000_000 => {
                Ok(Some(Timespec { seconds: self.seconds, nanoseconds }))
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

impl PathNode {
    /// `chmod`; a symbolic link has no permissions to change.
    pub fn change_mode(&self, mode: u32) -> Result<()> {
        if self.dentry.kind() == FileKind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        self.mount.writable()?;
        let permissions = Some((mode & 0o7777) as u16);
        self.inode().change(&Changes { permissions, ..Changes::default() })
    }

    /// `chown`; `u32::MAX` leaves owner or group as it is. As on Linux the
    /// set-id bits of what can be executed do not survive it.
    pub fn change_owner(&self, uid: u32, gid: u32) -> Result<()> {
        self.mount.writable()?;
        let keep = |id: u32| (id != u32::MAX).then_some(id);
        let mut permissions = None;
        if !self.dentry.is_directory() && (keep(uid).is_some() || keep(gid).is_some()) {
            let old = self.inode().metadata()?.permissions;
            let group = if old & 0o010 != 0 { 0o2000 } else { 0 };
            permissions = Some(old & !(0o4000 | group));
        }
        let (uid, gid) = (keep(uid), keep(gid));
        self.inode().change(&Changes { permissions, uid, gid, ..Changes::default() })
    }

    /// What `readlink` gives; not cut to the caller's buffer yet.
    pub fn read_link(&self) -> Result<Vec<u8>> {
        self.inode().read_link()
    }
}

impl Vfs {
    /// `utimensat` on a node: last reading, last change; `None` sets both to
    /// now.
    pub fn set_times(&self, node: &PathNode, times: Option<[NewTime; 2]>) -> Result<()> {
        let now = || self.platform().now();
        let (accessed, modified) = match times {
            None => {
                let now = Some(now());
                (now, now)
            }
            Some([accessed, modified]) => (accessed.resolve(now)?, modified.resolve(now)?),
        };
        if accessed.is_none() && modified.is_none() {
            return Ok(());
        }
        node.mount.writable()?;
        node.inode().change(&Changes { accessed, modified, ..Changes::default() })
    }
}
