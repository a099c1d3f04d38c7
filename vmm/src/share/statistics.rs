//! What a share did, counted while it does it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::abi::{OPERATIONS, Operation};

/// Counters of a share.
#[derive(Debug)]
pub struct ShareStatistics {
    requests: [AtomicU64; OPERATIONS.len()],
    unknown: AtomicU64,
    errors: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Default for ShareStatistics {
    fn default() -> Self {
        Self {
            requests: [const { AtomicU64::new(0) }; OPERATIONS.len()],
            unknown: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
        }
    }
}

impl ShareStatistics {
    /// A request came; none of the known operations if `None`.
    pub(super) fn count(&self, operation: Option<Operation>) {
        let counter = match operation {
            Some(operation) => &self.requests[operation as usize],
            None => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered by an error.
    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Content went to the guest.
    pub(super) fn count_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Content came from the guest.
    pub(super) fn count_written(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The operations that were asked for, with how often.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let known = OPERATIONS.iter().zip(&self.requests).map(|(info, count)| (info.name, count));
        known
            .chain([("unknown", &self.unknown)])
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }

    /// Requests that were answered by an error.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Content that went to the guest.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Content that came from the guest.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }
}
