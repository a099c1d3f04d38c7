//! Where the guest's output goes: the host's standard output and error.
//!
//! Bytes go from guest memory straight into `write(2)`. A reader that does not
//! read makes the guest wait, as it would make any program wait, but must not
//! keep the lab from being stopped: a signal interrupts the call, and then
//! [`HostOutput`] looks at the stop flag; once that is set, it never waits again.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{VolatileMemoryError, VolatileSlice, WriteVolatile};

/// A stream of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// Takes the guest's output.
pub trait Output: Send {
    /// Writes all of `bytes`, or fails.
    ///
    /// # Errors
    ///
    /// What the host's stream said.
    fn write(&mut self, stream: Stream, bytes: &VolatileSlice<'_>) -> io::Result<()>;
}

/// The host's standard output and error.
#[derive(Clone, Debug)]
pub struct HostOutput {
    output: Arc<File>,
    error: Arc<File>,
    stop: Arc<AtomicBool>,
}

/// How long to wait for a stream that someone else made non-blocking.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

impl HostOutput {
    /// The streams of this process. Once `stop` is set, what they do not take
    /// without waiting is dropped.
    ///
    /// # Errors
    ///
    /// If the streams cannot be duplicated.
    pub fn new(stop: Arc<AtomicBool>) -> io::Result<Self> {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        let error = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self { output: Arc::new(output.into()), error: Arc::new(error.into()), stop })
    }

    /// Whether standard error takes a line without waiting.
    #[must_use]
    pub fn would_take_line(&self) -> bool {
        takes_more(&self.error)
    }

    /// Whether the lab is to stop, so that nothing may wait any more.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Whether a write to `file` would not wait.
fn takes_more(file: &File) -> bool {
    let mut ready = [PollFd::new(file, PollFlags::OUT)];
    poll(&mut ready, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

impl Output for HostOutput {
    fn write(&mut self, stream: Stream, bytes: &VolatileSlice<'_>) -> io::Result<()> {
        let mut file: &File = match stream {
            Stream::Output => &self.output,
            Stream::Error => &self.error,
        };
        let mut rest = bytes.offset(0).map_err(io::Error::other)?;
        while !rest.is_empty() {
            if self.is_stopping() && !takes_more(file) {
                return Ok(());
            }
            match file.write_volatile(&rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.offset(written).map_err(io::Error::other)?,
                Err(VolatileMemoryError::IOError(error)) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => thread::sleep(BUSY_PAUSE),
                    _ => return Err(error),
                },
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }
}

/// Output kept in memory, for tests.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) output: Arc<std::sync::Mutex<Vec<u8>>>,
    pub(crate) error: Arc<std::sync::Mutex<Vec<u8>>>,
    pub(crate) fails_with: Option<io::ErrorKind>,
}

#[cfg(test)]
impl Output for Recorded {
    fn write(&mut self, stream: Stream, bytes: &VolatileSlice<'_>) -> io::Result<()> {
        if let Some(kind) = self.fails_with {
            return Err(kind.into());
        }
        let mut copy = vec![0; bytes.len()];
        bytes.copy_to(&mut copy);
        let sink = match stream {
            Stream::Output => &self.output,
            Stream::Error => &self.error,
        };
        sink.lock().unwrap().extend(copy);
        Ok(())
    }
}
