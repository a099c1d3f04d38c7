//! Where bytes go to and come from: user memory, in the kernel.
//!
//! A [`Sink`] or [`Source`] is a cursor over one or several ranges (an iovec is
//! one sink). Copying can stop early, because a page of user memory cannot be
//! touched; then the method moved fewer bytes than it could have, and the
//! operation ends with what was moved so far, or `EFAULT` if that is nothing:
//! see [`moved_or_fault`].

use alloc::vec::Vec;

use crate::errno::{Errno, Result};

/// Takes bytes: the buffer of a `read`.
pub trait Sink {
    /// How many bytes it still takes.
    fn remaining(&self) -> usize;

    /// Copies up to `remaining()` of `bytes` and moves on; returns how many.
    /// Fewer than `min(bytes.len(), remaining())` means a fault.
    fn put(&mut self, bytes: &[u8]) -> usize;

    /// As [`put`](Self::put), with `count` zeros.
    fn put_zeros(&mut self, count: usize) -> usize {
        const ZEROS: [u8; 512] = [0; 512];
        let count = count.min(self.remaining());
        let mut done = 0;
        while done < count {
            let step = (count - done).min(ZEROS.len());
            let moved = self.put(&ZEROS[..step]);
            done += moved;
            if moved < step {
                break;
            }
        }
        done
    }
}

/// Gives bytes: the buffer of a `write`.
pub trait Source {
    /// How many bytes it still gives.
    fn remaining(&self) -> usize;

    /// Fills `bytes` with up to `remaining()` bytes and moves on; returns how
    /// many. Fewer than `min(bytes.len(), remaining())` means a fault.
    fn take(&mut self, bytes: &mut [u8]) -> usize;

    /// Appends up to `limit` bytes to `bytes`, so that nobody has to clear
    /// memory that is overwritten at once; otherwise as [`take`](Self::take).
    fn append_to(&mut self, bytes: &mut Vec<u8>, limit: usize) -> usize {
        let mut chunk = [0; 256];
        let limit = limit.min(self.remaining());
        let mut done = 0;
        while done < limit {
            let step = (limit - done).min(chunk.len());
            let moved = self.take(&mut chunk[..step]);
            bytes.extend_from_slice(&chunk[..moved]);
            done += moved;
            if moved < step {
                break;
            }
        }
        done
    }

    /// Passes over up to `count` bytes without looking at them.
    fn skip(&mut self, count: usize) -> usize;
}

/// The result of an operation that moved `moved` of `wanted` bytes: what was
/// moved, or `EFAULT` if something was wanted and nothing could be moved.
pub const fn moved_or_fault(moved: usize, wanted: usize) -> Result<usize> {
    if moved == 0 && wanted > 0 { Err(Errno::EFAULT) } else { Ok(moved) }
}

/// A sink over kernel memory.
#[derive(Debug)]
pub struct SliceSink<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl<'a> SliceSink<'a> {
    /// A sink that fills `bytes` from its start.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, used: 0 }
    }

    /// How many bytes were put.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }
}

impl Sink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.used
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let free = &mut self.bytes[self.used..];
        let count = bytes.len().min(free.len());
        free[..count].copy_from_slice(&bytes[..count]);
        self.used += count;
        count
    }

    fn put_zeros(&mut self, count: usize) -> usize {
        let free = &mut self.bytes[self.used..];
        let count = count.min(free.len());
        free[..count].fill(0);
        self.used += count;
        count
    }
}

/// A source over kernel memory.
#[derive(Debug)]
pub struct SliceSource<'a> {
    bytes: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// A source that gives `bytes` from its start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }
}

impl Source for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn take(&mut self, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        bytes[..count].copy_from_slice(now);
        self.bytes = later;
        count
    }

    fn append_to(&mut self, bytes: &mut Vec<u8>, limit: usize) -> usize {
        let (now, later) = self.bytes.split_at(limit.min(self.bytes.len()));
        bytes.extend_from_slice(now);
        self.bytes = later;
        now.len()
    }

    fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.bytes.len());
        self.bytes = &self.bytes[count..];
        count
    }
}

/// A sink that takes at most `limit` bytes of another.
pub(crate) struct Limited<'a> {
    pub(crate) inner: &'a mut dyn Sink,
    pub(crate) limit: usize,
}

impl Sink for Limited<'_> {
    fn remaining(&self) -> usize {
        self.inner.remaining().min(self.limit)
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let moved = self.inner.put(&bytes[..bytes.len().min(self.limit)]);
        self.limit -= moved;
        moved
    }

    fn put_zeros(&mut self, count: usize) -> usize {
        let moved = self.inner.put_zeros(count.min(self.limit));
        self.limit -= moved;
        moved
    }
}
