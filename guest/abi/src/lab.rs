//! The lab's device and the pages it shares with the guest.
//!
//! The device has a few I/O ports and no state that the guest could not lose.
//! Everything of size lies in the *shared pages*: memory of the guest, placed
//! by the guest, that the host reads without an exit and without stopping it.
//!
//! | port | read | write (32 bits) |
//! | --- | --- | --- |
//! | `LAB_PORT` | [`DEVICE_ID`] | number of the first shared page: registers them, once |
//! | `LAB_PORT + 4` | status of the last request | an `OP_*` operation: the doorbell |
//! | `LAB_PORT + 8` | ABI version | a [`POWER_OFF`] status, for a guest with no shared pages |
//! | `LAB_PORT + 12` | | anything: the next thing is the first instruction of ring 3 |
//!
//! A request is a [`Request`] in the header page: the guest fills it and rings
//! the doorbell; the host has done it when the `out` instruction is over. It
//! names memory by guest-physical segments, so that a program's buffer goes to
//! the terminal without a copy in the guest and in one exit, however long.
//! (String I/O does not do that: KVM leaves the guest once per element.)

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event::{EVENT_SLOTS, Event};
use crate::fault::FAULT_KINDS;

/// What reading the first port gives.
pub const DEVICE_ID: u32 = u32::from_le_bytes(*b"PLAB");
/// Port offset of identification and registration.
pub const PORT_REGISTER: u16 = 0;
/// Port offset of the doorbell.
pub const PORT_DOORBELL: u16 = 4;
/// Port offset of version and plain power-off.
pub const PORT_POWER: u16 = 8;
/// Port offset of the mark that ring 3 is about to begin.
pub const PORT_FIRST_USER: u16 = 12;
/// Added to a status written to [`PORT_POWER`], so that a stray write is none.
pub const POWER_OFF: u32 = 0x504c_0000;

/// Write the segments to a stream: `argument` is one of `STREAM_*`.
pub const OP_WRITE: u32 = 1;
/// A log record: the segments are its text, `argument` its level (1 error to
/// 5 trace).
pub const OP_LOG: u32 = 2;
/// The guest is done: `argument` is its exit status.
pub const OP_POWER_OFF: u32 = 3;
/// The event ring is full: read it now.
pub const OP_DRAIN_EVENTS: u32 = 4;
/// The guest took bytes from the input ring that was full.
pub const OP_INPUT_TAKEN: u32 = 5;
/// The kernel gave up: the segments are its message, then a [`PanicState`].
pub const OP_PANIC: u32 = 6;
/// Copy one frame: segment 0 to segment 1, both one whole page. For hosts on
/// which a copy in ring 0 costs more than an exit.
pub const OP_COPY_FRAME: u32 = 7;
/// Zero one frame: segment 0, one whole page.
pub const OP_ZERO_FRAME: u32 = 8;
/// An event of a kind in [`Header::break_kinds`] was written: it is the ring's
/// last. The host may stop the guest here, before the program goes on.
pub const OP_EVENT: u32 = 9;
/// Copy bytes: segment 0 to segment 1, both of one length. For the same hosts.
pub const OP_COPY: u32 = 10;

/// The program's standard output.
pub const STREAM_OUTPUT: u32 = 1;
/// The program's standard error.
pub const STREAM_ERROR: u32 = 2;

/// The request was carried out.
pub const STATUS_OK: u32 = 0;
/// The operation is not known, or no shared pages are registered.
pub const STATUS_UNKNOWN: u32 = 1;
/// A segment is not in guest memory, or not what the operation takes.
pub const STATUS_BAD_SEGMENT: u32 = 2;
/// The host could not write to the stream.
pub const STATUS_IO_ERROR: u32 = 3;

/// How many segments a request has room for.
pub const MAX_SEGMENTS: usize = 32;
/// How many bytes one request moves at most.
pub const MAX_REQUEST_BYTES: u64 = 1 << 20;

/// A piece of guest-physical memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Segment {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What the doorbell is about.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Request {
    /// What the operation says.
    pub argument: u32,
    /// How many segments are valid.
    pub segment_count: u32,
    /// The segments.
    pub segments: [Segment; MAX_SEGMENTS],
}

/// First field of a [`Header`].
pub const LAB_MAGIC: u64 = u64::from_le_bytes(*b"LABPAGES");

/// Set by the host in [`Header::host_flags`]: no event may be lost; ring the
/// doorbell when the ring is full.
pub const FLAG_LOSSLESS: u32 = 1 << 0;
/// Set by the host in [`Header::host_flags`]: events are wanted at all.
pub const FLAG_EVENTS: u32 = 1 << 1;

/// Counters of one process or of all.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FaultCounters {
    /// Faults by kind.
    pub count: [u64; FAULT_KINDS],
    /// Time they took, in time-stamp counter ticks, by kind.
    pub cost: [u64; FAULT_KINDS],
}

/// How physical memory is used, in frames.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrameCounters {
    /// Frames that the allocator manages.
    pub total: u64,
    /// Frames that are free.
    pub free: u64,
    /// Free frames that were never used.
    pub untouched: u64,
    /// Page tables.
    pub tables: u64,
    /// Kernel stacks and heap.
    pub kernel: u64,
    /// Anonymous memory.
    pub anonymous: u64,
    /// Pages of files and of shared memory.
    pub cache: u64,
    /// At power-off: how many frames must be free if none was lost.
    pub free_expected: u64,
}

/// Moments in the guest's life, in time-stamp counter ticks; 0: not yet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Milestones {
    /// The kernel's first instructions.
    pub kernel_entry: u64,
    /// The kernel is set up.
    pub kernel_ready: u64,
    /// Just before the first return to ring 3.
    pub first_user: u64,
    /// Just before power-off.
    pub power_off: u64,
}

/// The first of the shared pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// [`LAB_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`].
    pub version: u32,
    /// How many shared pages there are: [`SHARED_PAGES`].
    pub pages: u32,
    /// `FLAG_*` bits; written by the host.
    pub host_flags: u32,
    /// For which fault kinds (a bit each) the guest rings the doorbell with
    /// [`OP_EVENT`] after their event; written by the host, which then also
    /// sets [`FLAG_EVENTS`].
    pub break_kinds: u32,
    /// How many events the guest has written.
    pub events_written: u64,
    /// How many events the host has read; written by the host.
    pub events_read: u64,
    /// How many bytes the host has put into the input ring; written by the host.
    pub input_written: u64,
    /// How many bytes the guest has taken from it.
    pub input_read: u64,
    /// Not 0 once the host's standard input has ended; written by the host.
    pub input_ended: u32,
    /// Terminal size as rows << 16 | columns, 0 if there is none; written by
    /// the host.
    pub terminal_size: u32,
    /// Faults of all processes.
    pub faults: FaultCounters,
    /// Use of physical memory.
    pub frames: FrameCounters,
    /// When what happened.
    pub milestones: Milestones,
    /// What the doorbell is about.
    pub request: Request,
    /// Physical address of the kernel's [`crate::directory::Directory`], 0 as
    /// long as there is none.
    pub directory: u64,
}

/// Bytes in the input ring; a power of two.
pub const INPUT_BYTES: usize = 4096;

/// Offset of [`Header`] in the shared pages.
pub const HEADER_OFFSET: usize = 0;
/// Offset of the input ring.
pub const INPUT_OFFSET: usize = 4096;
/// Offset of the event ring.
pub const EVENTS_OFFSET: usize = INPUT_OFFSET + INPUT_BYTES;
/// Size of the shared pages in bytes.
pub const SHARED_SIZE: usize = EVENTS_OFFSET + EVENT_SLOTS * size_of::<Event>();
/// Size of the shared pages in pages.
#[allow(clippy::cast_possible_truncation, reason = "asserted below")]
pub const SHARED_PAGES: u32 = (SHARED_SIZE / 4096) as u32;

/// The processor's state at a panic.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PanicState {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Root page table.
    pub cr3: u64,
    /// Vector of the exception that led here; `u64::MAX` if none did.
    pub vector: u64,
    /// Its error code.
    pub error_code: u64,
    /// Process that ran, 0 if none.
    pub pid: u64,
    /// How many of `backtrace` are valid.
    pub depth: u64,
    /// Return addresses, innermost first.
    pub backtrace: [u64; 32],
}

const _: () = {
    assert!(size_of::<Header>() <= 4096);
    assert!(INPUT_BYTES.is_power_of_two());
    assert!(FAULT_KINDS <= 32);
    assert!(SHARED_SIZE.is_multiple_of(4096) && SHARED_SIZE < 1 << 30);
    assert!(size_of::<Request>() == 8 + 16 * MAX_SEGMENTS);
};
