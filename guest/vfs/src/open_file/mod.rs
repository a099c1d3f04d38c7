//! Open files: what a descriptor stands for.
//!
//! An [`OpenFile`] is shared by all descriptors that `dup` and `fork` made of
//! it: one position, one set of flags. Its operations never sleep. Where one
//! returns `EAGAIN` and the file is not [`nonblocking`](OpenFile::is_nonblocking),
//! the caller sleeps on [`wait_channel`](OpenFile::wait_channel) and calls
//! again; a write that took only part of its source goes on the same way, which
//! [`write_all`](OpenFile::write_all) does, as [`read_some`](OpenFile::read_some)
//! does for reading. `EPIPE` goes with a `SIGPIPE`, which is the caller's to send.
//!
//! The position is read before and stored after a transfer, without a lock
//! held in between, so that a transfer may fault.

mod copy;
mod data;
mod directory;
mod locking;

use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::abi::{
    O_ACCMODE, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECT, O_EXCL, O_NOATIME, O_NOCTTY, O_NONBLOCK,
    O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY,
};
use crate::errno::{Errno, Result};
use crate::executing::TextUse;
use crate::file::{File, IoctlArgument};
use crate::inode::{FileKind, Inode};
use crate::path::PathNode;
use crate::pipe::{Pipe, PipeEnd};
use crate::platform::{Readiness, WaitChannel};
use crate::write_errors::ErrorsSeen;

pub use copy::copy;
pub use data::Whence;
pub use locking::FLOCK_SIZE;

/// What Linux always sets for files opened by a 64-bit program.
pub(crate) const O_LARGEFILE: u32 = 0o100_000;

/// Flags that concern only the opening.
const OPENING_ONLY: u32 = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;

/// Flags that `F_SETFL` changes.
const CHANGEABLE: u32 = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

/// An open file description.
pub struct OpenFile {
    node: PathNode,
    file: Option<Arc<dyn File>>,
    flags: AtomicU32,
    position: AtomicU64,
    /// Whether it may hold locks, to give back when it closes.
    locked: AtomicBool,
    errors_seen: ErrorsSeen,
    /// Nothing was written since [`OpenFile::flush`].
    flushed: AtomicBool,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.flushed.load(Ordering::Relaxed) {
            // What cannot be written is remembered with the file.
            let _ = self.flush();
        }
        self.release_locks();
        if let Some(users) = self.written_text() {
            users.remove_writer();
        }
    }
}

impl OpenFile {
    /// An open file at `node`. `file` stands in for the inode's own data.
    #[must_use]
    pub fn new(node: PathNode, file: Option<Arc<dyn File>>, flags: u32) -> Arc<Self> {
        let stays = flags & !OPENING_ONLY;
        let anonymous = node.dentry.parent().is_none() && !node.dentry.is_directory();
        let large = if flags & O_PATH != 0 || anonymous { 0 } else { O_LARGEFILE };
        let errors_seen = node.inode().write_errors().map(|errors| errors.now());
        let open = Self {
            node,
            file,
            flags: AtomicU32::new(stays | large),
            position: AtomicU64::new(0),
            locked: AtomicBool::new(false),
            flushed: AtomicBool::new(false),
            errors_seen: errors_seen.unwrap_or_default(),
        };
        if let Some(users) = open.written_text() {
            users.add_writer();
        }
        Arc::new(open)
    }

    /// Who writes or executes the file, if this is somebody who writes.
    fn written_text(&self) -> Option<&TextUse> {
        if self.is_writable() { self.inode().text_use() } else { None }
    }

    /// Where it was opened.
    #[must_use]
    pub const fn node(&self) -> &PathNode {
        &self.node
    }

    /// Its inode.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.node.inode()
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.node.dentry.kind()
    }

    /// `F_GETFL`.
    #[must_use]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// `F_SETFL`.
    pub fn set_flags(&self, flags: u32) -> Result<()> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        let kept = self.flags() & !CHANGEABLE;
        self.flags.store(kept | flags & CHANGEABLE, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the program would rather get `EAGAIN` than wait.
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }

    /// Whether it was opened with `O_PATH` and only names a place.
    #[must_use]
    pub fn is_path_only(&self) -> bool {
        self.flags() & O_PATH != 0
    }

    /// Whether it can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        matches!(self.flags() & (O_ACCMODE | O_PATH), O_RDONLY | O_RDWR)
    }

    /// Whether it can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        matches!(self.flags() & (O_ACCMODE | O_PATH), O_WRONLY | O_RDWR)
    }

    /// What it is ready for; regular files and directories are for everything.
    #[must_use]
    pub fn poll(&self) -> Readiness {
        match &self.file {
            Some(file) => file.poll(),
            None => Readiness::READ | Readiness::WRITE,
        }
    }

    /// Where to wait until it is ready; `None` if it always is.
    #[must_use]
    pub fn wait_channel(&self) -> Option<WaitChannel> {
        self.file.as_ref()?.wait_channel()
    }

    /// While opening one end of a named pipe has to wait for the other (unless
    /// it was opened `O_NONBLOCK`): where to wait.
    #[must_use]
    pub fn peer_missing(&self) -> Option<WaitChannel> {
        let end = self.behaviour::<PipeEnd>()?;
        if self.is_nonblocking() || !end.peer_missing() { None } else { end.wait_channel() }
    }

    /// The pipe, if it is an end of one.
    #[must_use]
    pub fn pipe(&self) -> Option<&Arc<Pipe>> {
        self.behaviour::<PipeEnd>().map(PipeEnd::pipe)
    }

    /// What stands in for the inode's data, if it is a `T`.
    #[must_use]
    pub fn behaviour<T: File>(&self) -> Option<&T> {
        let file: &dyn Any = &**self.file.as_ref()?;
        file.downcast_ref()
    }

    /// `ioctl`, as far as the file itself answers it.
    pub fn ioctl(&self, request: u32, argument: &mut dyn IoctlArgument) -> Result<i64> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        match &self.file {
            Some(file) => file.ioctl(request, argument),
            None => Err(Errno::ENOTTY),
        }
    }

    fn check_readable(&self) -> Result<()> {
        if self.is_readable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    fn check_writable(&self) -> Result<()> {
        if self.is_writable() { Ok(()) } else { Err(Errno::EBADF) }
    }
}

impl core::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OpenFile({:?}, {:#o})", self.node, self.flags())
    }
}
