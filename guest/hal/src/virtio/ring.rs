//! The queue of a device, in a frame of its own: what
//! [`pagelab_virtqueue`] leaves open, that is where things are.

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_abi::layout::PHYSMAP_BASE;
use pagelab_mm::frames::Use;
use pagelab_virtqueue::{AVAILABLE, Piece, Queue, QueueError, QueueMemory, USED};

use super::{Error, Readable, Writable};
use crate::memory::{self, Physical};

pub(super) use pagelab_virtqueue::SIZE;

/// The frame, seen through the map of physical memory.
struct RingFrame(Frame);

impl RingFrame {
    fn place<T>(&self, offset: u64) -> *mut T {
        (PHYSMAP_BASE + self.0.start().0 + offset) as *mut T
    }
}

impl QueueMemory for RingFrame {
    fn read_u16(&self, offset: u64) -> u16 {
        // SAFETY: the queue's offsets are inside its page, and aligned.
        unsafe { self.place::<u16>(offset).read_volatile() }
    }

    fn read_u32(&self, offset: u64) -> u32 {
        // SAFETY: as above.
        unsafe { self.place::<u32>(offset).read_volatile() }
    }

    fn write_u16(&mut self, offset: u64, value: u16) {
        // SAFETY: as above.
        unsafe { self.place::<u16>(offset).write_volatile(value) };
    }

    fn write_u64(&mut self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { self.place::<u64>(offset).write_volatile(value) };
    }
}

impl Drop for RingFrame {
    fn drop(&mut self) {
        memory::frames().release(&Physical, self.0);
    }
}

impl From<QueueError> for Error {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooLong => Self::TooLong,
            QueueError::Nonsense => Self::Nonsense,
        }
    }
}

/// The queue.
pub(super) struct Ring {
    queue: Queue<RingFrame>,
}

impl Ring {
    pub(super) fn new() -> Option<Self> {
        let frame = memory::frames().alloc_zeroed(&Physical, Use::Kernel)?;
        Some(Self { queue: Queue::new(RingFrame(frame)) })
    }

    pub(super) const fn descriptors(&self) -> u64 {
        self.queue.memory().0.start().0
    }

    pub(super) const fn available(&self) -> u64 {
        self.descriptors() + AVAILABLE
    }

    pub(super) const fn used(&self) -> u64 {
        self.descriptors() + USED
    }

    /// Makes a request available.
    pub(super) fn offer(
        &mut self,
        readable: &[Readable<'_>],
        writable: &mut [Writable<'_>],
    ) -> Result<(), Error> {
        self.queue.begin()?;
        for piece in readable {
            match *piece {
                Readable::Bytes(bytes) => self.add_bytes(bytes.as_ptr(), bytes.len(), false)?,
                Readable::Frames(frames, length) => self.add_frames(frames, length, false)?,
            }
        }
        for piece in writable {
            match piece {
                Writable::Bytes(bytes) => {
                    self.add_bytes(bytes.as_mut_ptr(), bytes.len(), true)?;
                }
                Writable::Frames(frames, length) => self.add_frames(frames, *length, true)?,
            }
        }
        Ok(self.queue.offer()?)
    }

    /// Bytes of the kernel's own, page by page: a stack's pages are anywhere.
    fn add_bytes(
        &mut self,
        start: *const u8,
        length: usize,
        device_writes: bool,
    ) -> Result<(), Error> {
        let (mut at, mut left) = (start as u64, length as u64);
        while left > 0 {
            let piece = left.min(PAGE_SIZE - at % PAGE_SIZE);
            let address = memory::physical_address(at as *const u8).0;
            self.queue.add(Piece { address, length: piece as u32, device_writes })?;
            at += piece;
            left -= piece;
        }
        Ok(())
    }

    /// Frames; those that follow each other in memory are one piece.
    fn add_frames(
        &mut self,
        frames: &[Frame],
        length: usize,
        device_writes: bool,
    ) -> Result<(), Error> {
        let mut left = length as u64;
        let mut rest = frames;
        while left > 0 {
            let (&first, _) = rest.split_first().ok_or(Error::TooLong)?;
            let run = rest.iter().zip(first.0..).take_while(|(frame, next)| frame.0 == *next);
            let run = run.count();
            let piece = left.min(run as u64 * PAGE_SIZE);
            let address = first.start().0;
            self.queue.add(Piece { address, length: piece as u32, device_writes })?;
            left -= piece;
            rest = &rest[run..];
        }
        Ok(())
    }

    /// Whether the device has used something.
    pub(super) fn has_used(&self) -> bool {
        self.queue.has_used()
    }

    /// Takes what was used: how many bytes the device says it wrote, which are no
    /// more than it could.
    pub(super) fn take_used(&mut self) -> Result<usize, Error> {
        Ok(self.queue.take_used()?)
    }

    /// The device may interrupt when it uses what is offered now.
    pub(super) fn want_interrupt(&mut self) {
        self.queue.want_interrupt();
    }
}
