//! An end of a pipe.

use alloc::sync::Arc;

use super::Pipe;
use crate::buffer::{Sink, Source};
use crate::errno::{Errno, Result};
use crate::file::{File, IoctlArgument};
use crate::platform::{Readiness, WaitChannel};

/// `FIONREAD`.
const FIONREAD: u32 = linux_raw_sys::ioctl::FIONREAD;

/// One end, or both in one (a named pipe opened for reading and writing).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// If nobody had the other side open when this one was opened: how often it
    /// had been opened until then.
    waits_since: Option<u64>,
}

impl PipeEnd {
    pub(super) fn open(pipe: Arc<Pipe>, reads: bool, writes: bool, waits: bool) -> Self {
        let mut state = pipe.state.lock();
        let waits_since = match (reads, writes) {
            (true, false) if waits && state.writers == 0 => Some(state.writer_openings),
            (false, true) if waits && state.readers == 0 => Some(state.reader_openings),
            _ => None,
        };
        state.readers += usize::from(reads);
        state.writers += usize::from(writes);
        state.reader_openings += u64::from(reads);
        state.writer_openings += u64::from(writes);
        drop(state);
        // Whoever waits in `open` for this side.
        pipe.wake(Readiness::READ | Readiness::WRITE);
        Self { pipe, reads, writes, waits_since }
    }

    /// The pipe itself.
    #[must_use]
    pub const fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }

    /// Whether nobody has opened the other side since, if nobody had before.
    #[must_use]
    pub fn peer_missing(&self) -> bool {
        let Some(since) = self.waits_since else { return false };
        let state = self.pipe.state.lock();
        let openings = if self.reads { state.writer_openings } else { state.reader_openings };
        openings == since
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= usize::from(self.reads);
        state.writers -= usize::from(self.writes);
        let last = state.readers == 0 || state.writers == 0;
        drop(state);
        if last {
            self.pipe.wake(Readiness::all());
        }
    }
}

impl File for PipeEnd {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        self.pipe.read(sink)
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        self.pipe.write(source)
    }

    fn poll(&self) -> Readiness {
        self.pipe.readiness(self.reads, self.writes)
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.pipe.channel)
    }

    fn ioctl(&self, request: u32, argument: &mut dyn IoctlArgument) -> Result<i64> {
        if request != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let length = u32::try_from(self.pipe.length()).unwrap_or(u32::MAX);
        argument.write(&length.to_le_bytes())?;
        Ok(0)
    }
}
