//! A program's buffers as files see them: one range of its memory, or several
//! (`readv`), read or filled from the start on.

use alloc::sync::Arc;
use alloc::vec::{self, Vec};
use core::ops::Range;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::layout::USER_END;
use pagelab_mm::AddressSpace;
use pagelab_mm::user::Partial;
use pagelab_vfs::abi::TRANSFER_MAX;
use pagelab_vfs::{Errno, Sink, Source};

use crate::memory::memory;
use crate::process::scheduler;
use crate::process::space::Space;
use crate::user;

/// Most ranges of one call (`IOV_MAX`).
const MOST_RANGES: usize = 1024;

/// A buffer of the current program, with a place in it that moves on.
pub struct UserBuffer {
    space: Arc<Space>,
    /// Where the current range goes on, and how much of it is left.
    at: u64,
    left: usize,
    /// The ranges after it.
    rest: vec::IntoIter<(u64, usize)>,
    total: usize,
}

impl UserBuffer {
    /// One range.
    ///
    /// # Errors
    ///
    /// EFAULT if it does not lie in the program's half.
    pub fn new(address: u64, length: u64) -> Result<Self, Errno> {
        let length = usize::try_from(length).unwrap_or(TRANSFER_MAX).min(TRANSFER_MAX);
        check_range(address, length)?;
        Ok(Self {
            space: scheduler::current().process.space(),
            at: address,
            left: length,
            rest: Vec::new().into_iter(),
            total: length,
        })
    }

    /// The ranges of `count` `struct iovec` at `vector`.
    ///
    /// # Errors
    ///
    /// EINVAL if there are too many or they are too long, EFAULT.
    pub fn from_vector(vector: u64, count: u64) -> Result<Self, Errno> {
        let count = usize::try_from(count).ok().filter(|&count| count <= MOST_RANGES);
        let count = count.ok_or(Errno::EINVAL)?;
        let mut ranges = Vec::with_capacity(count);
        let mut total = 0;
        for index in 0..count as u64 {
            let [address, length]: [u64; 2] = user::read(GuestVirt(vector + 16 * index))?;
            if i64::try_from(length).is_err() {
                return Err(Errno::EINVAL);
            }
            let length = usize::try_from(length).unwrap_or(TRANSFER_MAX).min(TRANSFER_MAX - total);
            check_range(address, length)?;
            total += length;
            ranges.push((address, length));
        }
        let space = scheduler::current().process.space();
        Ok(Self { space, at: 0, left: 0, rest: ranges.into_iter(), total })
    }

    /// What is left of the range it is in, which is not empty unless nothing is
    /// left at all.
    fn current_range(&mut self) -> (u64, usize) {
        while self.left == 0 {
            let Some((address, length)) = self.rest.next() else { break };
            (self.at, self.left) = (address, length);
        }
        (self.at, self.left)
    }

    fn advance(&mut self, count: usize) {
        self.at += count as u64;
        self.left -= count;
        self.total -= count;
    }

    /// Calls `access` for piece after piece of the next `count` bytes, bringing
    /// in pages; returns how many bytes were done.
    fn each_piece(
        &mut self,
        count: usize,
        mut access: impl FnMut(&mut AddressSpace, GuestVirt, Range<usize>) -> Result<(), Partial>,
    ) -> usize {
        let count = count.min(self.total);
        let mut done = 0;
        while done < count {
            let (at, left) = self.current_range();
            let piece = left.min(count - done);
            let result = access(&mut self.space.lock(), GuestVirt(at), done..done + piece);
            let (moved, error) = match result {
                Ok(()) => (piece, None),
                Err(partial) => (partial.done, Some(partial.error)),
            };
            self.advance(moved);
            done += moved;
            if error.is_some_and(|error| user::mend(error).is_err()) {
                break;
            }
        }
        done
    }

    /// Calls `visit` with address space and place of the next `count` bytes, at
    /// most, of the range it is in, and moves on by what `visit` says was used.
    pub fn take_in_place<R>(
        &mut self,
        count: usize,
        visit: impl FnOnce(&Space, GuestVirt, usize) -> (usize, R),
    ) -> R {
        let (at, left) = self.current_range();
        let (used, result) = visit(&self.space, GuestVirt(at), left.min(count));
        self.advance(used.min(left));
        result
    }
}

impl Sink for UserBuffer {
    fn remaining(&self) -> usize {
        self.total
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        self.each_piece(bytes.len(), |space, at, piece| {
            space.write_user(memory(), at, &bytes[piece])
        })
    }
}

impl Source for UserBuffer {
    fn remaining(&self) -> usize {
        self.total
    }

    fn take(&mut self, bytes: &mut [u8]) -> usize {
        self.each_piece(bytes.len(), |space, at, piece| {
            space.read_user(memory(), at, &mut bytes[piece])
        })
    }

    fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.total);
        let mut done = 0;
        while done < count {
            let (_, left) = self.current_range();
            let piece = left.min(count - done);
            self.advance(piece);
            done += piece;
        }
        done
    }
}

/// As on Linux, where a range ends is checked before anything is done.
fn check_range(address: u64, length: usize) -> Result<(), Errno> {
    match address.checked_add(length as u64) {
        Some(end) if end <= USER_END.0 => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}
