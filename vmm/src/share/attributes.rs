//! A node's attributes: telling them, changing them.
//!
//! To the guest everything belongs to its one user: owner and group are always 0.

use rustix::fs::{FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use super::abi::{
    Attr, AttrOut, FATTR_ATIME, FATTR_ATIME_NOW, FATTR_FH, FATTR_GID, FATTR_MODE, FATTR_MTIME,
    FATTR_MTIME_NOW, FATTR_SIZE, FATTR_UID, SetAttrIn,
};
use super::handles::HandleKind;
use super::request::{Answer, Body};
use super::server::Server;

/// How long the guest may believe what it was told.
pub(super) const VALID_SECONDS: u64 = 1;

/// Set-user-ID and set-group-ID.
pub(super) const SET_ID_BITS: u32 = 0o6000;

/// Attributes as the protocol has them.
#[allow(clippy::cast_sign_loss, reason = "times before 1970 keep their bits")]
pub(super) fn attributes(stat: &Stat) -> Attr {
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Attr {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        atime: stat.st_atime as u64,
        mtime: stat.st_mtime as u64,
        ctime: stat.st_ctime as u64,
        atimensec: narrow(stat.st_atime_nsec),
        mtimensec: narrow(stat.st_mtime_nsec),
        ctimensec: narrow(stat.st_ctime_nsec),
        mode: stat.st_mode,
        nlink: narrow(stat.st_nlink),
        uid: 0,
        gid: 0,
        rdev: narrow(stat.st_rdev),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}

impl Server {
    pub(super) fn get_attributes(&self, node: u64) -> Result<Answer, Errno> {
        let stat = self.nodes.get(node)?.stat()?;
        Ok(Answer::structure(&AttrOut {
            attr_valid: VALID_SECONDS,
            attr_valid_nsec: 0,
            dummy: 0,
            attr: attributes(&stat),
        }))
    }

    pub(super) fn set_attributes(&self, node: u64, body: &mut Body) -> Result<Answer, Errno> {
        let wanted: SetAttrIn = body.structure()?;
        let foreign = |bit, id| wanted.valid & bit != 0 && id != 0;
        if foreign(FATTR_UID, wanted.uid) || foreign(FATTR_GID, wanted.gid) {
            return Err(Errno::PERM);
        }
        if wanted.valid & FATTR_MODE != 0 {
            self.set_mode(node, wanted.mode)?;
        }
        if wanted.valid & FATTR_SIZE != 0 {
            self.set_size(node, &wanted)?;
        }
        if wanted.valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW) != 0 {
            self.set_times(node, &wanted)?;
        }
        self.get_attributes(node)
    }

    fn set_mode(&self, node: u64, mode: u32) -> Result<(), Errno> {
        let node = self.nodes.get(node)?;
        let allowed = match node.kind {
            FileType::Symlink => return Err(Errno::OPNOTSUPP),
            FileType::Directory => mode & 0o7777,
            // A program that would run as its owner on the host is not a guest's
            // to make.
            _ => mode & 0o7777 & !SET_ID_BITS,
        };
        self.descriptors.set_mode(node.descriptor(), Mode::from_raw_mode(allowed))
    }

    fn set_size(&self, node: u64, wanted: &SetAttrIn) -> Result<(), Errno> {
        if wanted.valid & FATTR_FH != 0
            && let Ok(file) = self.handles.get(HandleKind::File, wanted.fh)
        {
            match rustix::fs::ftruncate(file, wanted.size) {
                // Open for reading only: as if there were no handle.
                Err(Errno::INVAL | Errno::BADF) => {}
                result => return result,
            }
        }
        let node = self.nodes.get(node)?;
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        let file = self.descriptors.reopen(node.descriptor(), OFlags::WRONLY)?;
        rustix::fs::ftruncate(file, wanted.size)
    }

    fn set_times(&self, node: u64, wanted: &SetAttrIn) -> Result<(), Errno> {
        let node = self.nodes.get(node)?;
        let time = |given, now, seconds: u64, nanoseconds: u32| {
            if wanted.valid & now != 0 {
                Timespec { tv_sec: 0, tv_nsec: UTIME_NOW }
            } else if wanted.valid & given != 0 {
                Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.into() }
            } else {
                Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }
            }
        };
        let (atime, mtime) = (wanted.atime, wanted.mtime);
        let times = Timestamps {
            last_access: time(FATTR_ATIME, FATTR_ATIME_NOW, atime, wanted.atimensec),
            last_modification: time(FATTR_MTIME, FATTR_MTIME_NOW, mtime, wanted.mtimensec),
        };
        self.descriptors.set_times(node.descriptor(), &times)
    }
}
