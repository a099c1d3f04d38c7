//! Reading, writing, seeking, cutting.

use core::sync::atomic::Ordering;

use super::OpenFile;
use crate::abi::{
    FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, O_APPEND, O_DSYNC, O_SYNC, SEEK_CUR, SEEK_DATA,
    SEEK_END, SEEK_HOLE, SEEK_SET,
};
use crate::buffer::{Sink, Source};
use crate::errno::{Errno, Result};
use crate::executing::TextUse;
use crate::file::Seeking;
use crate::inode::FileKind;
use crate::path::PathNode;
use crate::platform::{Readiness, WaitChannel};
use crate::store::{Advice, MAX_FILE_SIZE};

/// What an offset of `lseek` counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// The start.
    Set,
    /// The position.
    Current,
    /// The end.
    End,
    /// The start; go on to the next data.
    Data,
    /// The start; go on to the next hole.
    Hole,
}

impl Whence {
    /// The meaning of the argument of `lseek`.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            SEEK_SET => Self::Set,
            SEEK_CUR => Self::Current,
            SEEK_END => Self::End,
            SEEK_DATA => Self::Data,
            SEEK_HOLE => Self::Hole,
            _ => return None,
        })
    }
}

/// The offset of a positioned transfer.
fn checked_offset(offset: i64) -> Result<u64> {
    u64::try_from(offset).map_err(|_| Errno::EINVAL)
}

impl OpenFile {
    pub(super) fn seeking(&self) -> Seeking {
        match &self.file {
            Some(file) => file.seeking(),
            None => Seeking::Positioned,
        }
    }

    fn check_positioned(&self) -> Result<()> {
        match self.seeking() {
            _ if self.is_path_only() => Err(Errno::EBADF),
            Seeking::Stream => Err(Errno::ESPIPE),
            _ => Ok(()),
        }
    }

    /// `read` and `readv`: from the position, which moves on.
    pub fn read(&self, sink: &mut dyn Sink) -> Result<usize> {
        self.check_readable()?;
        let position = self.position.load(Ordering::Relaxed);
        let moved = self.read_from(position, sink)?;
        if moved > 0 {
            self.position.store(position + moved as u64, Ordering::Relaxed);
        }
        Ok(moved)
    }

    /// For a file whose reads end after a time without bytes (see
    /// [`File::read_timeout`](crate::file::File::read_timeout)): that time.
    #[must_use]
    pub fn read_timeout(&self) -> Option<u8> {
        self.file.as_ref()?.read_timeout()
    }

    /// The read after that time has passed: what there is.
    pub fn read_now(&self, sink: &mut dyn Sink) -> Result<usize> {
        self.check_readable()?;
        match &self.file {
            Some(file) => file.read_now(0, sink),
            None => self.read(sink),
        }
    }

    /// Reads, sleeping in `wait` until there is something, unless the file is
    /// nonblocking. `wait` gets the longest time to sleep in tenths of a second,
    /// if there is one, and says `false` when it has passed, or fails when a
    /// signal came.
    pub fn read_some(
        &self,
        sink: &mut dyn Sink,
        wait: &mut dyn FnMut(WaitChannel, Option<u8>) -> Result<bool>,
    ) -> Result<usize> {
        loop {
            match self.read(sink) {
                Err(Errno::EAGAIN) if !self.is_nonblocking() => {}
                result => return result,
            }
            let channel = self.wait_channel().ok_or(Errno::EAGAIN)?;
            if !wait(channel, self.read_timeout())? {
                return self.read_now(sink);
            }
        }
    }

    /// `pread` and `preadv`.
    pub fn read_at(&self, offset: i64, sink: &mut dyn Sink) -> Result<usize> {
        let offset = checked_offset(offset)?;
        self.check_positioned()?;
        self.check_readable()?;
        self.read_from(offset, sink)
    }

    pub(super) fn read_from(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        if let Some(file) = &self.file {
            return file.read(offset, sink);
        }
        if self.kind() == FileKind::Directory {
            return Err(Errno::EISDIR);
        }
        check_end(offset, sink.remaining())?;
        self.inode().read_at(offset, sink)
    }

    /// `write` and `writev`: at the position, which moves on.
    pub fn write(&self, source: &mut dyn Source) -> Result<usize> {
        self.check_writable()?;
        let position = self.position.load(Ordering::Relaxed);
        let (offset, moved) = self.write_to(position, source)?;
        if moved > 0 {
            self.position.store(offset + moved as u64, Ordering::Relaxed);
        }
        Ok(moved)
    }

    /// `pwrite` and `pwritev`. As on Linux, `O_APPEND` wins over the offset.
    pub fn write_at(&self, offset: i64, source: &mut dyn Source) -> Result<usize> {
        let offset = checked_offset(offset)?;
        self.check_positioned()?;
        self.check_writable()?;
        Ok(self.write_to(offset, source)?.1)
    }

    /// Writes; returns where and how many bytes.
    pub(super) fn write_to(&self, offset: u64, source: &mut dyn Source) -> Result<(u64, usize)> {
        if let Some(file) = &self.file {
            return Ok((offset, file.write(offset, source)?));
        }
        let wanted = source.remaining();
        check_end(offset, wanted)?;
        if wanted == 0 {
            return Ok((offset, 0));
        }
        let append = self.flags() & O_APPEND != 0;
        let offset = if append { self.inode().size()? } else { offset };
        if offset >= MAX_FILE_SIZE {
            return Err(Errno::EFBIG);
        }
        self.flushed.store(false, Ordering::Relaxed);
        let moved = self.inode().write_at(offset, source)?;
        if self.flags() & O_DSYNC != 0 && moved > 0 {
            self.sync(self.flags() & O_SYNC != O_SYNC)?;
        }
        Ok((offset, moved))
    }

    /// Writes everything, sleeping in `wait` wherever the file is full, unless
    /// it is nonblocking. `wait` returns an error when a signal came; bytes
    /// already written then count more than the error.
    pub fn write_all(
        &self,
        source: &mut dyn Source,
        wait: &mut dyn FnMut(WaitChannel, Readiness) -> Result<()>,
    ) -> Result<usize> {
        let mut done = 0;
        loop {
            let step = self.write(source);
            done += step.unwrap_or(0);
            let blocked = match step {
                Ok(0) => false,
                Ok(_) => source.remaining() > 0 && self.file.is_some(),
                Err(error) => error == Errno::EAGAIN,
            };
            let channel = match self.wait_channel() {
                Some(channel) if blocked && !self.is_nonblocking() => channel,
                _ if done > 0 => return Ok(done),
                _ => return step,
            };
            // A short step may also have ended at a page that cannot be read:
            // then there is room, and the next step says EFAULT.
            if self.poll().contains(Readiness::WRITE) && step.is_ok() {
                continue;
            }
            if let Err(error) = wait(channel, Readiness::WRITE) {
                return if done > 0 { Ok(done) } else { Err(error) };
            }
        }
    }

    /// `lseek`.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        match self.seeking() {
            Seeking::Stream => return Err(Errno::ESPIPE),
            Seeking::Ignored => return Ok(0),
            Seeking::Positioned => {}
        }
        let directory = self.kind() == FileKind::Directory;
        let position = self.position.load(Ordering::Relaxed);
        let base = match whence {
            Whence::Set => 0,
            Whence::Current => position,
            _ if directory => return Err(Errno::EINVAL),
            Whence::End => self.inode().size()?,
            Whence::Data | Whence::Hole => {
                let from = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
                let found = self.inode().seek(from, whence == Whence::Hole)?;
                self.position.store(found, Ordering::Relaxed);
                return Ok(found);
            }
        };
        let target = base.checked_add_signed(offset).filter(|target| *target <= MAX_FILE_SIZE);
        let target = target.ok_or(Errno::EINVAL)?;
        self.position.store(target, Ordering::Relaxed);
        Ok(target)
    }

    /// `ftruncate`.
    pub fn truncate(&self, size: i64) -> Result<()> {
        let size = checked_offset(size)?;
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        if !self.is_writable() || self.kind() != FileKind::Regular || self.file.is_some() {
            return Err(Errno::EINVAL);
        }
        self.inode().truncate(size)
    }

    /// `fallocate`.
    pub fn allocate(&self, mode: u32, offset: i64, length: i64) -> Result<()> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let (Ok(start), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
            return Err(Errno::EINVAL);
        };
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let punch = match mode {
            0 | FALLOC_FL_KEEP_SIZE => false,
            mode if mode == FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE => true,
            _ => return Err(Errno::EOPNOTSUPP),
        };
        self.check_writable()?;
        match self.kind() {
            FileKind::Fifo => return Err(Errno::ESPIPE),
            FileKind::Directory => return Err(Errno::EISDIR),
            FileKind::Regular => {}
            _ => return Err(Errno::ENODEV),
        }
        if start + length > MAX_FILE_SIZE {
            return Err(Errno::EFBIG);
        }
        if punch {
            self.inode().punch_hole(start, length)
        } else {
            self.inode().allocate(start, length, mode & FALLOC_FL_KEEP_SIZE != 0)
        }
    }

    /// `fsync`, `fdatasync`.
    pub fn sync(&self, data_only: bool) -> Result<()> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        match self.kind() {
            FileKind::Regular | FileKind::Directory => {
                let synced = self.inode().sync(data_only);
                self.write_errors().and(synced)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// A descriptor is closed. What cannot be written is this caller's to hear.
    pub fn flush(&self) -> Result<()> {
        if !self.is_writable() || self.kind() != FileKind::Regular || self.file.is_some() {
            return Ok(());
        }
        self.flushed.store(true, Ordering::Relaxed);
        let flushed = self.inode().flush();
        self.write_errors().and(flushed)
    }

    /// `posix_fadvise`, `readahead`.
    pub fn advise(&self, offset: i64, length: i64, advice: Advice) -> Result<()> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let offset = u64::try_from(offset).unwrap_or(0);
        let length = u64::try_from(length).map_err(|_| Errno::EINVAL)?;
        if self.kind() == FileKind::Regular && self.file.is_none() {
            self.inode().advise(offset, length, advice);
        }
        Ok(())
    }

    /// Errors of writing that this open file was not told of yet.
    fn write_errors(&self) -> Result<()> {
        self.inode().write_errors().map_or(Ok(()), |errors| errors.tell(&self.errors_seen))
    }
}

/// `EOVERFLOW` if a transfer would end beyond what an offset can say.
fn check_end(offset: u64, length: usize) -> Result<()> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= MAX_FILE_SIZE => Ok(()),
        _ => Err(Errno::EOVERFLOW),
    }
}

impl PathNode {
    /// `truncate`.
    pub fn truncate(&self, size: i64) -> Result<()> {
        let size = checked_offset(size)?;
        match self.dentry.kind() {
            FileKind::Directory => return Err(Errno::EISDIR),
            FileKind::Regular => {}
            _ => return Err(Errno::EINVAL),
        }
        self.mount.writable()?;
        self.inode().text_use().map_or(Ok(()), TextUse::check_writable)?;
        self.inode().truncate(size)
    }
}
