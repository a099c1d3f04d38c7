//! The driver's half of a split virtio queue, with one request in it at a time.
//!
//! ```text
//! 0x000  128 descriptors: address, length, flags, next (always the one after)
//! 0x800  available ring: flags, index, 128 heads (always 0)
//! 0xa00  used ring: flags, index, 128 × (head, bytes written)
//! ```
//!
//! Nothing here touches hardware: the page that the queue lies in is reached through
//! [`QueueMemory`], which is a frame in the guest and a vector in the tests. The
//! device may write anything into it at any time. Of that only the used ring is ever
//! read, each word once, and believed only if it is the one answer that there can
//! be: to the request that was offered, of no more bytes than there was room for.
//! After the first other one the queue is broken, and nothing is offered any more.

#![no_std]
#![forbid(unsafe_code)]

use core::sync::atomic::{Ordering, fence};

/// Descriptors of the queue.
pub const SIZE: u16 = 128;

/// Where the available ring is in the queue's page. The descriptors are in front.
pub const AVAILABLE: u64 = 0x800;
/// Where the used ring is.
pub const USED: u64 = 0xa00;

/// In both rings: the index, and the entries. Flags come first.
const INDEX: u64 = 2;
const ENTRIES: u64 = 4;
/// Flag of the available ring: the device need not interrupt.
const NO_INTERRUPT: u16 = 1;

/// Flags of a descriptor.
const HAS_NEXT: u64 = 1;
const DEVICE_WRITES: u64 = 2;

const PAGE_SIZE: u64 = 4096;
const _: () = assert!(16 * SIZE as u64 <= AVAILABLE && SIZE.is_power_of_two());
const _: () = assert!(AVAILABLE + ENTRIES + 2 * SIZE as u64 <= USED);
const _: () = assert!(USED + ENTRIES + 8 * SIZE as u64 <= PAGE_SIZE);

/// The page that the queue lies in, zero at first. Offsets are inside it and
/// aligned; each call is one access that is not left out.
pub trait QueueMemory {
    /// Two bytes.
    fn read_u16(&self, offset: u64) -> u16;
    /// Four bytes.
    fn read_u32(&self, offset: u64) -> u32;
    /// Two bytes.
    fn write_u16(&mut self, offset: u64, value: u16);
    /// Eight bytes.
    fn write_u64(&mut self, offset: u64, value: u64);
}

/// Physical memory that is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its address.
    pub address: u64,
    /// Its length in bytes.
    pub length: u32,
    /// The device writes it, and does not read it.
    pub device_writes: bool,
}

/// A request could not be made, or its answer not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// No pieces, or more than the queue has descriptors.
    TooLong,
    /// The device wrote something else than the answer.
    Nonsense,
}

/// The queue.
pub struct Queue<M> {
    memory: M,
    /// How many requests were offered, and how many used.
    offered: u16,
    used: u16,
    /// Descriptors of the request that is being written, and the last one's second
    /// half.
    count: u16,
    last: u64,
    /// How many bytes the device may write for it.
    room: usize,
    broken: bool,
}

impl<M: QueueMemory> Queue<M> {
    /// An empty queue.
    pub fn new(memory: M) -> Self {
        let mut queue =
            Self { memory, offered: 0, used: 0, count: 0, last: 0, room: 0, broken: false };
        queue.keep_interrupts_back();
        queue
    }

    /// Where it lies.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Begins a request.
    ///
    /// # Errors
    ///
    /// [`QueueError::Nonsense`] if an answer was nonsense before.
    pub fn begin(&mut self) -> Result<(), QueueError> {
        (self.count, self.room) = (0, 0);
        if self.broken { Err(QueueError::Nonsense) } else { Ok(()) }
    }

    /// Adds a piece to the request. What the device reads has to come first.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooLong`] if there is no descriptor for it.
    pub fn add(&mut self, piece: Piece) -> Result<(), QueueError> {
        if self.count == SIZE {
            return Err(QueueError::TooLong);
        }
        let number = u64::from(self.count);
        self.count += 1;
        let mut flags = HAS_NEXT;
        if piece.device_writes {
            flags |= DEVICE_WRITES;
            self.room += piece.length as usize;
        }
        let next = u64::from(self.count % SIZE);
        self.last = u64::from(piece.length) | flags << 32 | next << 48;
        self.memory.write_u64(16 * number, piece.address);
        self.memory.write_u64(16 * number + 8, self.last);
        Ok(())
    }

    /// Ends the request and makes it available.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooLong`] if it has no pieces.
    pub fn offer(&mut self) -> Result<(), QueueError> {
        let last = self.count.checked_sub(1).ok_or(QueueError::TooLong)?;
        self.memory.write_u64(16 * u64::from(last) + 8, self.last & !(HAS_NEXT << 32));
        self.offered = self.offered.wrapping_add(1);
        fence(Ordering::Release);
        self.memory.write_u16(AVAILABLE + INDEX, self.offered);
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Whether the device has used something, or says so.
    pub fn has_used(&self) -> bool {
        self.memory.read_u16(USED + INDEX) != self.used
    }

    /// Takes the answer: how many bytes the device says it wrote, which are no
    /// more than it could.
    ///
    /// # Errors
    ///
    /// [`QueueError::Nonsense`] if it is none, and from then on.
    pub fn take_used(&mut self) -> Result<usize, QueueError> {
        fence(Ordering::Acquire);
        let index = self.memory.read_u16(USED + INDEX);
        let entry = USED + ENTRIES + 8 * u64::from(self.used % SIZE);
        let head = self.memory.read_u32(entry);
        let written = self.memory.read_u32(entry + 4) as usize;
        self.used = self.used.wrapping_add(1);
        self.keep_interrupts_back();
        let is_the_answer = index == self.offered && index == self.used && head == 0;
        if self.broken || !is_the_answer || written > self.room {
            self.broken = true;
            return Err(QueueError::Nonsense);
        }
        Ok(written)
    }

    /// The device may interrupt when it uses what is offered now.
    pub fn want_interrupt(&mut self) {
        self.memory.write_u16(AVAILABLE, 0);
        fence(Ordering::SeqCst);
    }

    /// The device need not interrupt.
    fn keep_interrupts_back(&mut self) {
        self.memory.write_u16(AVAILABLE, NO_INTERRUPT);
    }
}
