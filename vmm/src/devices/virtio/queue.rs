//! One queue: where the driver says it is, checked; its chains, taken apart and
//! checked as a whole before a device sees any of them.

use std::sync::atomic::{Ordering, fence};

use pagelab_abi::addr::GuestPhys;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_NEXT};
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Chain;
use crate::memory::GuestRam;

/// Where a driver put a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// How many descriptors.
    pub size: u32,
    /// The descriptor table.
    pub descriptors: u64,
    /// The driver's ring.
    pub available: u64,
    /// The device's ring.
    pub used: u64,
}

/// What a driver did wrong.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Not a size that a queue can have.
    #[error("a queue of {size} descriptors; it must be a power of two up to {max}")]
    Size {
        /// What the driver wants.
        size: u32,
        /// Most that are offered.
        max: u16,
    },
    /// A part of the queue is not in RAM, or not aligned.
    #[error("the {part} at {start:#x} ({length} bytes) is not in RAM or not aligned")]
    Place {
        /// Which part.
        part: &'static str,
        /// Where it should be.
        start: u64,
        /// How long it is.
        length: u64,
    },
    /// The rings contradict themselves.
    #[error("the rings cannot be read: {0}")]
    Rings(#[from] virtio_queue::Error),
    /// A chain begins at a descriptor that does not exist.
    #[error("a chain begins at descriptor {0}, which does not exist")]
    NoSuchDescriptor(u16),
    /// A chain has no end.
    #[error(
        "the chain from descriptor {0} does not end: a loop, or a descriptor that is not there"
    )]
    NoEnd(u16),
    /// A chain with a piece that is no memory of the guest's.
    #[error("a piece of {length} bytes at {start:#x} is not in RAM")]
    OutsideRam {
        /// First byte.
        start: u64,
        /// Length in bytes.
        length: u32,
    },
    /// Something to read after something to write.
    #[error("the chain from descriptor {0} has readable pieces behind writable ones")]
    Order(u16),
    /// An indirect table with more pieces than the queue has descriptors.
    #[error("the chain from descriptor {head} has more than {max} pieces")]
    TooLong {
        /// Where it begins.
        head: u16,
        /// Most that the standard allows.
        max: u16,
    },
}

/// A queue that is served.
#[derive(Debug)]
pub struct ServedQueue {
    queue: Queue,
}

/// A request with the number that gives it back to the driver.
#[derive(Debug)]
pub struct Taken<'ram> {
    head: u16,
    /// The request.
    pub chain: Chain<'ram>,
}

impl ServedQueue {
    /// A queue at `placement`.
    ///
    /// # Errors
    ///
    /// If it cannot be there.
    pub fn new(ram: &GuestRam, max: u16, placement: &Placement) -> Result<Self, QueueError> {
        let wrong_size = || QueueError::Size { size: placement.size, max };
        let size = u16::try_from(placement.size).map_err(|_| wrong_size())?;
        if !size.is_power_of_two() || size > max {
            return Err(wrong_size());
        }
        let length = u64::from(size);
        check(ram, "descriptor table", placement.descriptors, 16 * length, 16)?;
        check(ram, "available ring", placement.available, 6 + 2 * length, 2)?;
        check(ram, "used ring", placement.used, 6 + 8 * length, 4)?;
        let mut queue = Queue::new(max)?;
        queue.try_set_size(size)?;
        queue.try_set_desc_table_address(GuestAddress(placement.descriptors))?;
        queue.try_set_avail_ring_address(GuestAddress(placement.available))?;
        queue.try_set_used_ring_address(GuestAddress(placement.used))?;
        queue.set_ready(true);
        Ok(Self { queue })
    }

    /// How many descriptors it has.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// The next request, if there is one.
    ///
    /// # Errors
    ///
    /// If the driver broke the rules.
    pub fn take<'ram>(&mut self, ram: &'ram GuestRam) -> Result<Option<Taken<'ram>>, QueueError> {
        let size = self.queue.size();
        let Some(descriptors) = self.queue.iter(ram.mapping())?.next() else {
            return Ok(None);
        };
        let head = descriptors.head_index();
        if head >= size {
            return Err(QueueError::NoSuchDescriptor(head));
        }
        let chain = collect(ram, descriptors, size)?;
        Ok(Some(Taken { head, chain }))
    }

    /// Gives a request back, with how many bytes were written.
    ///
    /// # Errors
    ///
    /// Never, since the queue lies in RAM; memory's own type says it may.
    pub fn give_back(
        &mut self,
        ram: &GuestRam,
        head: Head,
        written: u32,
    ) -> Result<(), QueueError> {
        Ok(self.queue.add_used(ram.mapping(), head.0, written)?)
    }

    /// Whether the driver wants an interrupt for used buffers.
    #[must_use]
    pub fn wants_interrupt(&self, ram: &GuestRam) -> bool {
        // The driver asks for an interrupt, then looks at the used ring a last
        // time before it halts. So the used ring must be seen to be written
        // before this is read: a processor would else read first, and a driver
        // that asks in between would wait for ever.
        fence(Ordering::SeqCst);
        let address = GuestAddress(self.queue.avail_ring());
        let flags: u16 = ram.mapping().load(address, Ordering::SeqCst).unwrap_or(0);
        u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }
}

/// The number that gives a request back to the driver.
#[derive(Clone, Copy, Debug)]
pub struct Head(u16);

impl<'ram> Taken<'ram> {
    /// The request, and what gives it back.
    #[must_use]
    pub fn split(self) -> (Head, Chain<'ram>) {
        (Head(self.head), self.chain)
    }
}

/// Checks that a part of a queue is where it may be.
fn check(
    ram: &GuestRam,
    part: &'static str,
    start: u64,
    length: u64,
    alignment: u64,
) -> Result<(), QueueError> {
    // An address of 0 is a queue that was never placed.
    if start != 0 && start.is_multiple_of(alignment) && ram.contains(GuestPhys(start), length) {
        return Ok(());
    }
    Err(QueueError::Place { part, start, length })
}

/// All pieces of a chain.
fn collect<'ram>(
    ram: &'ram GuestRam,
    descriptors: DescriptorChain<&GuestMemoryMmap>,
    max: u16,
) -> Result<Chain<'ram>, QueueError> {
    let head = descriptors.head_index();
    let mut chain = Chain::default();
    let mut count = 0u16;
    // The iterator ends at the chain's end, and also where it cannot go on.
    let mut ended = false;
    for descriptor in descriptors {
        count = count
            .checked_add(1)
            .filter(|count| *count <= max)
            .ok_or(QueueError::TooLong { head, max })?;
        ended = u32::from(descriptor.flags()) & VRING_DESC_F_NEXT == 0;
        add(ram, &descriptor, head, &mut chain)?;
    }
    if ended { Ok(chain) } else { Err(QueueError::NoEnd(head)) }
}

fn add<'ram>(
    ram: &'ram GuestRam,
    descriptor: &Descriptor,
    head: u16,
    chain: &mut Chain<'ram>,
) -> Result<(), QueueError> {
    let (start, length) = (descriptor.addr().0, descriptor.len());
    if length == 0 {
        return Ok(());
    }
    let outside = || QueueError::OutsideRam { start, length };
    let piece = ram.slice(GuestPhys(start), length.into()).map_err(|_| outside())?;
    let part = if descriptor.is_write_only() {
        &mut chain.writable
    } else if chain.writable.is_empty() {
        &mut chain.readable
    } else {
        return Err(QueueError::Order(head));
    };
    if part.push(piece) { Ok(()) } else { Err(outside()) }
}
