//! A split queue in one frame, with one request in it at a time.
//!
//! ```text
//! 0x000  128 descriptors: address, length, flags, next (always the one after)
//! 0x800  available ring: flags, index, 128 heads (always 0)
//! 0xa00  used ring: flags, index, 128 × (head, bytes written)
//! ```

use core::sync::atomic::{Ordering, fence};

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_abi::layout::PHYSMAP_BASE;
use pagelab_mm::frames::Use;

use super::{Error, Readable, Writable};
use crate::memory::{self, Physical};

/// Descriptors of the queue.
pub(super) const SIZE: u16 = 128;

const AVAILABLE: u64 = 0x800;
const USED: u64 = 0xa00;
const INDEX: u64 = 2;
const ENTRIES: u64 = 4;
const NO_INTERRUPT: u16 = 1;

const HAS_NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;

const _: () = assert!(16 * SIZE as u64 <= AVAILABLE && SIZE.is_power_of_two());
const _: () = assert!(AVAILABLE + ENTRIES + 2 * SIZE as u64 <= USED);
const _: () = assert!(USED + ENTRIES + 8 * SIZE as u64 <= PAGE_SIZE);

#[repr(C)]
struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// The queue.
pub(super) struct Ring {
    frame: Frame,
    /// How many requests were offered, and how many used.
    offered: u16,
    used: u16,
    /// Descriptors of the request that is being written.
    count: u16,
}

impl Ring {
    pub(super) fn new() -> Option<Self> {
        let frame = memory::frames().alloc_zeroed(&Physical, Use::Kernel)?;
        let mut ring = Self { frame, offered: 0, used: 0, count: 0 };
        ring.keep_interrupts_back();
        Some(ring)
    }

    pub(super) const fn descriptors(&self) -> u64 {
        self.frame.start().0
    }

    pub(super) const fn available(&self) -> u64 {
        self.descriptors() + AVAILABLE
    }

    pub(super) const fn used(&self) -> u64 {
        self.descriptors() + USED
    }

    fn place<T>(&self, offset: u64) -> *mut T {
        (PHYSMAP_BASE + self.descriptors() + offset) as *mut T
    }

    fn read<T: Copy>(&self, offset: u64) -> T {
        // SAFETY: inside the ring's frame; used with integers only, aligned.
        unsafe { self.place::<T>(offset).read_volatile() }
    }

    fn write<T>(&mut self, offset: u64, value: T) {
        // SAFETY: as above.
        unsafe { self.place::<T>(offset).write_volatile(value) };
    }

    /// Writes the descriptors of a request; returns how many bytes the device
    /// may write.
    pub(super) fn fill(
        &mut self,
        readable: &[Readable<'_>],
        writable: &mut [Writable<'_>],
    ) -> Result<usize, Error> {
        self.count = 0;
        let mut room = 0;
        for piece in readable {
            match *piece {
                Readable::Bytes(bytes) => self.add_bytes(bytes.as_ptr(), bytes.len(), 0)?,
                Readable::Frames(frames, length) => self.add_frames(frames, length, 0)?,
            }
        }
        for piece in writable {
            room += match piece {
                Writable::Bytes(bytes) => {
                    self.add_bytes(bytes.as_mut_ptr(), bytes.len(), DEVICE_WRITES)?;
                    bytes.len()
                }
                Writable::Frames(frames, length) => {
                    self.add_frames(frames, *length, DEVICE_WRITES)?;
                    *length
                }
            };
        }
        self.end_chain()?;
        Ok(room)
    }

    /// Bytes of the kernel's own, page by page: a stack's pages are anywhere.
    fn add_bytes(&mut self, start: *const u8, length: usize, flags: u16) -> Result<(), Error> {
        let (mut at, mut left) = (start as u64, length as u64);
        while left > 0 {
            let piece = left.min(PAGE_SIZE - at % PAGE_SIZE);
            let physical = memory::physical_address(at as *const u8);
            self.add(physical.0, piece as u32, flags)?;
            at += piece;
            left -= piece;
        }
        Ok(())
    }

    /// Frames; those that follow each other in memory are one piece.
    fn add_frames(&mut self, frames: &[Frame], length: usize, flags: u16) -> Result<(), Error> {
        let mut left = length as u64;
        let mut rest = frames;
        while left > 0 {
            let (&first, _) = rest.split_first().ok_or(Error::TooLong)?;
            let run = rest.iter().zip(first.0..).take_while(|(frame, next)| frame.0 == *next);
            let run = run.count();
            let piece = left.min(run as u64 * PAGE_SIZE);
            self.add(first.start().0, piece as u32, flags)?;
            left -= piece;
            rest = &rest[run..];
        }
        Ok(())
    }

    fn add(&mut self, address: u64, length: u32, flags: u16) -> Result<(), Error> {
        if self.count == SIZE {
            return Err(Error::TooLong);
        }
        let number = self.count;
        self.count += 1;
        let (flags, next) = (flags | HAS_NEXT, self.count % SIZE);
        self.write(16 * u64::from(number), Descriptor { address, length, flags, next });
        Ok(())
    }

    fn end_chain(&mut self) -> Result<(), Error> {
        const FLAGS: u64 = 12;
        let last = self.count.checked_sub(1).ok_or(Error::TooLong)?;
        let flags = 16 * u64::from(last) + FLAGS;
        let value: u16 = self.read(flags);
        self.write(flags, value & !HAS_NEXT);
        Ok(())
    }

    /// Makes the request available.
    pub(super) fn offer(&mut self) {
        self.offered = self.offered.wrapping_add(1);
        fence(Ordering::Release);
        self.write(AVAILABLE + INDEX, self.offered);
        fence(Ordering::SeqCst);
    }

    /// Whether the device has used something.
    pub(super) fn has_used(&self) -> bool {
        self.read::<u16>(USED + INDEX) != self.used
    }

    /// Takes what was used: how many bytes the device says it wrote. `None` if it
    /// is not what was offered.
    pub(super) fn take_used(&mut self) -> Option<usize> {
        fence(Ordering::Acquire);
        let index: u16 = self.read(USED + INDEX);
        let entry = USED + ENTRIES + 8 * u64::from(self.used % SIZE);
        let (head, written): (u32, u32) = (self.read(entry), self.read(entry + 4));
        self.used = self.used.wrapping_add(1);
        self.keep_interrupts_back();
        (index == self.offered && index == self.used && head == 0).then_some(written as usize)
    }

    /// The device may interrupt when it uses what is offered now.
    pub(super) fn want_interrupt(&mut self) {
        self.write(AVAILABLE, 0_u16);
        fence(Ordering::SeqCst);
    }

    /// The device need not interrupt.
    fn keep_interrupts_back(&mut self) {
        self.write(AVAILABLE, NO_INTERRUPT);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        memory::frames().release(&Physical, self.frame);
    }
}
