//! What an open file can do that is not an inode with data in a page store:
//! a pipe, a terminal, a device, a text of /proc.

use crate::buffer::{Sink, Source};
use crate::errno::{Errno, Result};
use crate::platform::{Readiness, WaitChannel};
use core::any::Any;

/// How `lseek` behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeking {
    /// `ESPIPE`.
    Stream,
    /// Offsets mean something.
    Positioned,
    /// Any seek succeeds and ends at 0 (`/dev/null`).
    Ignored,
}

/// The argument of an `ioctl`: a value, or a pointer to user memory.
pub trait IoctlArgument {
    /// The argument itself.
    fn value(&self) -> u64;

    /// Fills `bytes` from user memory at the argument.
    fn read(&mut self, bytes: &mut [u8]) -> Result<()>;

    /// Copies `bytes` to user memory at the argument.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Behaviour of an open file that is more than its inode's data.
pub trait File: Any + Send + Sync {
    /// Reads, at `offset` if offsets mean something. `EAGAIN`: not yet.
    fn read(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize>;

    /// Writes. `EAGAIN`: not yet; fewer bytes than given: the rest not yet.
    fn write(&self, offset: u64, source: &mut dyn Source) -> Result<usize>;

    /// How it seeks.
    fn seeking(&self) -> Seeking {
        Seeking::Stream
    }

    /// What it is ready for.
    fn poll(&self) -> Readiness {
        Readiness::READ | Readiness::WRITE
    }

    /// Where to wait until it is; `None` if it always is.
    fn wait_channel(&self) -> Option<WaitChannel> {
        None
    }

    /// How long a read waits before it takes what there is, in tenths of a
    /// second; `None`: as long as it takes. (A terminal's `VTIME`.)
    fn read_timeout(&self) -> Option<u8> {
        None
    }

    /// The read after that time has passed.
    fn read_now(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        self.read(offset, sink)
    }

    /// Device control.
    fn ioctl(&self, request: u32, argument: &mut dyn IoctlArgument) -> Result<i64> {
        let _ = (request, argument);
        Err(Errno::ENOTTY)
    }
}
