//! The event ring: what happened in the guest, in order.
//!
//! The guest is the only writer, the host the only reader. [`EVENT_SLOTS`]
//! slots of one cache line each are used in turn: event number *n* is in slot
//! *n* modulo the count. The guest writes the event, then its `sequence`
//! (*n* + 1), then [`crate::lab::Header::events_written`]. The host copies a
//! slot and believes it only if `sequence` was *n* + 1 before and after.
//!
//! With [`crate::lab::FLAG_LOSSLESS`] set by the host, a guest that finds the
//! ring full rings the doorbell and goes on when the host has read it. Without
//! it the oldest event is overwritten and the reader counts it as lost.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many slots the ring has; a power of two.
pub const EVENT_SLOTS: usize = 4096;

/// One event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Event {
    /// Number of the event, counted from 1; 0 in a slot never used.
    pub sequence: u64,
    /// Time-stamp counter when it began.
    pub tsc: u64,
    /// Faulting address, or what the class says.
    pub address: u64,
    /// Address of the instruction that faulted.
    pub instruction: u64,
    /// Frame mapped there before, 0 if none.
    pub frame_before: u32,
    /// Frame mapped there afterwards, 0 if none.
    pub frame_after: u32,
    /// Time it took, in time-stamp counter ticks.
    pub cost: u32,
    /// The process.
    pub pid: u32,
    /// One of the `EVENT_*` classes.
    pub class: u8,
    /// A [`crate::fault::FaultKind`] for a fault.
    pub kind: u8,
    /// Error code that the processor pushed (its low 16 bits).
    pub error_code: u16,
    /// More about the class.
    pub detail: u32,
    /// Zero.
    pub reserved: u64,
}

/// A page fault.
pub const EVENT_FAULT: u8 = 1;
/// A process began: `detail` is its parent.
pub const EVENT_FORK: u8 = 2;
/// A process runs a new program.
pub const EVENT_EXEC: u8 = 3;
/// A process ended: `detail` is its wait status.
pub const EVENT_EXIT: u8 = 4;

const _: () = assert!(size_of::<Event>() == 64);
const _: () = assert!(EVENT_SLOTS.is_power_of_two());
