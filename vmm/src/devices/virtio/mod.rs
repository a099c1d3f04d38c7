//! Virtio devices on the memory bus (virtio 1.2, "virtio over MMIO", version 2,
//! split queues).
//!
//! A device has two halves on two threads, with a small piece between them:
//!
//! ```text
//!   vCPU's thread                               worker's thread
//!   registers ──── link: status, command ─────▶ worker ──▶ queue ──▶ a device
//!       ▲                                          ▲  │
//!   bus │                    queue notify (ioeventfd) ▼ interrupt (irqfd)
//! ```
//!
//! * [`registers`]: the register file; knows nothing of queues' contents
//! * [`link`]: what both halves share; its lock is only ever held for moments,
//!   so that the vCPU never waits for a request and can always be stopped
//! * [`queue`]: one queue: its place in memory checked, its chains taken apart
//! * [`worker`]: one thread for all devices, with an event loop of its own. Not
//!   the main thread's: a request may take as long as the host's disk likes, and
//!   Ctrl-C and the time limit must not wait for it. A single thread, because the
//!   guest's kernel waits for each request anyway.
//! * [`fs`]: a shared folder (the FUSE server is [`crate::share`])
//! * [`block`]: a disk, for swap
//!
//! | a guest may… | and the device… |
//! | --- | --- |
//! | write registers in any order, width and state | ignores what the standard does not allow then |
//! | place a queue where no RAM is | refuses to start: `DEVICE_NEEDS_RESET` |
//! | give bad indices, loops, pieces outside RAM | stops with `DEVICE_NEEDS_RESET` before any of that request is done |
//! | change a chain while it is served | has read each descriptor once; memory stays the guest's own |
//! | reset while a request is on its way | finishes it, then says 0 as status |
//! | keep a queue full for ever | keeps one thread busy, which looks at the stop event between requests |

pub mod block;
pub mod fs;
pub mod link;
pub mod queue;
pub mod registers;
pub mod worker;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::memory::scatter::Scatter;

/// What a driver reads about a device before anything happens.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Virtio's number for the kind of device.
    pub kind: u32,
    /// Features beside those that all devices here have.
    pub features: u64,
    /// The configuration space; it never changes.
    pub config: Vec<u8>,
    /// Most descriptors of each queue, a power of two.
    pub queue_sizes: &'static [u16],
}

/// A request: what the driver gives, and room for what it gets.
#[derive(Debug, Default)]
pub struct Chain<'ram> {
    /// What the device may read.
    pub readable: Scatter<'ram>,
    /// What the device may write.
    pub writable: Scatter<'ram>,
}

/// What happens behind a device's queues. It lives on the worker's thread.
pub trait Backend: Send {
    /// What the driver is told.
    fn profile(&self) -> Profile;

    /// Serves a request from queue `queue`; says how many bytes were written to
    /// the start of the writable part.
    fn serve(&mut self, queue: usize, chain: Chain<'_>) -> u32;

    /// The driver starts anew: nothing of what it did before counts.
    fn reset(&mut self);
}
