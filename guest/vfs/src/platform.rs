//! What the file system needs from the kernel around it: time, randomness, and
//! a way to say that somebody who sleeps should look again.
//!
//! Nothing in this crate sleeps. An operation that cannot go on returns
//! [`Errno::EAGAIN`](crate::Errno::EAGAIN); the caller who is willing to wait
//! asks the file for its [`WaitChannel`], sleeps until the kernel's
//! [`Platform::wake`] is called for that channel, and tries again.

use bitflags::bitflags;
use core::sync::atomic::{AtomicU64, Ordering};

/// A moment or a span: seconds and nanoseconds, the latter below 10⁹.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespec {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanoseconds: u32,
}

bitflags! {
    /// What a file is ready for, in the bits of `poll`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Readiness: u16 {
        /// `POLLIN | POLLRDNORM`'s first bit: reading does not block.
        const READ = 0x001;
        /// `POLLOUT`: writing does not block.
        const WRITE = 0x004;
        /// `POLLERR`: for the write end of a pipe, no reader is left.
        const ERROR = 0x008;
        /// `POLLHUP`: for the read end of a pipe, no writer is left.
        const HANG_UP = 0x010;
    }
}

/// Names a set of sleepers. Each pipe, event counter and terminal has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaitChannel(pub u64);

impl WaitChannel {
    /// A channel nobody else has.
    #[must_use]
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The kernel around the file system.
pub trait Platform: Send + Sync {
    /// The time of day, for time stamps. Called once for each operation that
    /// stamps something.
    fn now(&self) -> Timespec;

    /// Fills `bytes` with random numbers.
    fn fill_random(&self, bytes: &mut [u8]);

    /// Whoever sleeps on `channel` for any of `ready` should try again.
    fn wake(&self, channel: WaitChannel, ready: Readiness);
}
