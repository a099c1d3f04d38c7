//! Open files: reading, writing, and making it last.
//!
//! Content goes between the file and guest memory without a copy in between.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;

use super::MAX_TRANSFER;
use super::abi::{
    FSYNC_DATA_ONLY, FallocateIn, FlushIn, FsyncIn, LseekIn, LseekOut, OpenIn, OpenOut, ReleaseIn,
    TransferIn, WriteOut,
};
use super::handles::HandleKind;
use super::request::{Answer, Body};
use super::server::Server;
use crate::memory::scatter::Scatter;

/// Flags of `open` that make sense here. Appending is the guest's business: it
/// says where each write goes.
const PASSED_ON: OFlags = OFlags::TRUNC.union(OFlags::SYNC).union(OFlags::DSYNC);

impl Server {
    /// Opens a node that the guest knows.
    pub(super) fn open_node(&self, node: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        let node = self.nodes.get(node)?;
        match node.kind {
            FileType::RegularFile => {}
            FileType::Directory => return Err(Errno::ISDIR),
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::INVAL),
        }
        let access = flags & OFlags::ACCMODE;
        let writes = access != OFlags::RDONLY || flags.contains(OFlags::TRUNC);
        if writes && self.read_only {
            return Err(Errno::ROFS);
        }
        let others = flags & PASSED_ON;
        if access == OFlags::WRONLY {
            // The guest's page cache reads what surrounds a part that is written.
            match self.descriptors.reopen(node.descriptor(), others | OFlags::RDWR) {
                Err(Errno::ACCESS) => {}
                result => return result,
            }
        }
        self.descriptors.reopen(node.descriptor(), others | access)
    }

    pub(super) fn open(&mut self, node: u64, body: &mut Body) -> Result<Answer, Errno> {
        let OpenIn { flags, .. } = body.structure()?;
        self.handles.has_room()?;
        let file = self.open_node(node, OFlags::from_bits_retain(flags))?;
        let fh = self.handles.add(HandleKind::File, file)?;
        Ok(Answer::structure(&OpenOut { fh, open_flags: 0, padding: 0 }))
    }

    pub(super) fn read(&self, body: &mut Body, mut room: Scatter<'_>) -> Result<Answer, Errno> {
        let TransferIn { fh, offset, size, .. } = body.structure()?;
        let file = self.handles.get(HandleKind::File, fh)?;
        let count = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        if size > MAX_TRANSFER || count > room.len() {
            return Err(Errno::INVAL);
        }
        let read = room.take_front(count).read_from(file, offset).map_err(errno)?;
        self.statistics.count_read(read);
        Ok(Answer::InPlace(read))
    }

    pub(super) fn write(&self, body: &mut Body, content: &Scatter<'_>) -> Result<Answer, Errno> {
        let TransferIn { fh, offset, size, .. } = body.structure()?;
        let file = self.handles.get(HandleKind::File, fh)?;
        let count = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        if size > MAX_TRANSFER || count > content.len() {
            return Err(Errno::INVAL);
        }
        let bytes = content.clone().take_front(count);
        let written = bytes.write_to(file, offset).map_err(errno)?;
        self.statistics.count_written(written);
        let size = u32::try_from(written).map_err(|_| Errno::INVAL)?;
        Ok(Answer::structure(&WriteOut { size, padding: 0 }))
    }

    pub(super) fn flush(&self, body: &mut Body) -> Result<Answer, Errno> {
        let FlushIn { fh, .. } = body.structure()?;
        // Every write went to the host's kernel at once.
        self.handles.get(HandleKind::File, fh)?;
        Ok(Answer::done())
    }

    pub(super) fn release(&mut self, body: &mut Body) -> Result<Answer, Errno> {
        let ReleaseIn { fh, .. } = body.structure()?;
        self.handles.close(HandleKind::File, fh)?;
        Ok(Answer::done())
    }

    pub(super) fn fsync(&self, body: &mut Body) -> Result<Answer, Errno> {
        self.sync_handle(HandleKind::File, body)
    }

    pub(super) fn sync_handle(&self, kind: HandleKind, body: &mut Body) -> Result<Answer, Errno> {
        let FsyncIn { fh, fsync_flags, .. } = body.structure()?;
        let descriptor = self.handles.get(kind, fh)?;
        if fsync_flags & FSYNC_DATA_ONLY != 0 {
            rustix::fs::fdatasync(descriptor)?;
        } else {
            rustix::fs::fsync(descriptor)?;
        }
        Ok(Answer::done())
    }

    pub(super) fn fallocate(&self, body: &mut Body) -> Result<Answer, Errno> {
        let FallocateIn { fh, offset, length, mode, .. } = body.structure()?;
        let file = self.handles.get(HandleKind::File, fh)?;
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        let allowed =
            FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !allowed.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        rustix::fs::fallocate(file, mode, offset, length)?;
        Ok(Answer::done())
    }

    pub(super) fn lseek(&self, body: &mut Body) -> Result<Answer, Errno> {
        const SEEK_DATA: u32 = 3;
        const SEEK_HOLE: u32 = 4;
        let LseekIn { fh, offset, whence, .. } = body.structure()?;
        let file = self.handles.get(HandleKind::File, fh)?;
        // Beyond what the host's kernel can be asked for, no file has anything.
        if i64::try_from(offset).is_err() {
            return Err(Errno::NXIO);
        }
        let place = match whence {
            SEEK_DATA => SeekFrom::Data(offset),
            SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(Answer::structure(&LseekOut { offset: rustix::fs::seek(file, place)? }))
    }
}

/// The host's error as a number for the guest.
fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
