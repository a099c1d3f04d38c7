//! The lab's device (`pagelab_abi::lab`): requests, counters, events, input.
//!
//! The shared pages are a static of the kernel's image. The host reads them at
//! any time, so every field is written with one volatile store, and an event's
//! sequence number last.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use pagelab_abi::VERSION;
use pagelab_abi::addr::{Frame, GuestPhys, PAGE_SIZE};
use pagelab_abi::directory::Directory;
use pagelab_abi::event::{EVENT_FAULT, EVENT_SLOTS, Event};
use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::{
    DEVICE_ID, EVENTS_OFFSET, FLAG_EVENTS, FLAG_LOSSLESS, FaultCounters, FrameCounters, Header,
    INPUT_BYTES, INPUT_OFFSET, LAB_MAGIC, MAX_SEGMENTS, OP_COPY, OP_COPY_FRAME, OP_DRAIN_EVENTS,
    OP_EVENT, OP_INPUT_TAKEN, OP_ZERO_FRAME, PORT_DOORBELL, PORT_FIRST_USER, PORT_POWER,
    PORT_REGISTER, SHARED_PAGES, SHARED_SIZE, STATUS_OK, Segment,
};
use pagelab_abi::layout::LAB_PORT;

use crate::{cpu, memory};

#[repr(C, align(4096))]
struct SharedPages(UnsafeCell<[u8; SHARED_SIZE]>);

// SAFETY: reached through volatile accesses only, on the only processor.
unsafe impl Sync for SharedPages {}

static SHARED: SharedPages = SharedPages(UnsafeCell::new([0; SHARED_SIZE]));
static PRESENT: AtomicBool = AtomicBool::new(false);

/// Whether the device is there and has the shared pages.
#[inline]
#[must_use]
pub fn is_present() -> bool {
    PRESENT.load(Ordering::Relaxed)
}

fn header() -> *mut Header {
    SHARED.0.get().cast()
}

/// Reads one field of the header.
macro_rules! read {
    ($($field:tt)+) => {{
        // SAFETY: inside the shared pages; any bytes are a valid value.
        unsafe { (&raw const (*header()).$($field)+).read_volatile() }
    }};
}

/// Writes one field of the header.
macro_rules! write {
    ($value:expr, $($field:tt)+) => {{
        let value = $value;
        // SAFETY: inside the shared pages.
        unsafe { (&raw mut (*header()).$($field)+).write_volatile(value) }
    }};
}

/// Looks for the device and registers the shared pages.
pub(crate) fn init() {
    // SAFETY: reading the port of a device that is not there gives all ones.
    if unsafe { cpu::in32(LAB_PORT + PORT_REGISTER) } != DEVICE_ID {
        return;
    }
    write!(LAB_MAGIC, magic);
    write!(VERSION, version);
    write!(SHARED_PAGES, pages);
    let page = memory::physical_address(SHARED.0.get()).0 / PAGE_SIZE;
    // SAFETY: the device writes only to the shared pages.
    unsafe { cpu::out32(LAB_PORT + PORT_REGISTER, page as u32) };
    PRESENT.store(status() == STATUS_OK, Ordering::Relaxed);
}

fn status() -> u32 {
    // SAFETY: reads a status.
    unsafe { cpu::in32(LAB_PORT + PORT_DOORBELL) }
}

/// Powers off without the shared pages; returns if there is no device.
pub(crate) fn plain_power_off(status: u32) {
    // SAFETY: ends the machine, or does nothing.
    unsafe { cpu::out32(LAB_PORT + PORT_POWER, pagelab_abi::lab::POWER_OFF | status & 0xffff) };
}

/// Carries out an operation on pieces of physical memory. More segments than a
/// request has room for are an error.
pub fn request(operation: u32, argument: u32, segments: &[Segment]) -> bool {
    if !ring(operation, argument, segments) {
        return false;
    }
    status() == STATUS_OK
}

/// The same, for operations whose status nobody asks for.
fn ring(operation: u32, argument: u32, segments: &[Segment]) -> bool {
    if !is_present() || segments.len() > MAX_SEGMENTS {
        return false;
    }
    write!(argument, request.argument);
    write!(segments.len() as u32, request.segment_count);
    for (index, &segment) in segments.iter().enumerate() {
        write!(segment, request.segments[index]);
    }
    // SAFETY: the device does to memory what the request says; requests that
    // write memory are made here only, for frames that the caller owns.
    unsafe { cpu::out32(LAB_PORT + PORT_DOORBELL, operation) };
    true
}

/// Bytes of the kernel's own memory as segments. Those on a stack lie in pages
/// that are anywhere, so they are cut at each page's end.
pub fn segments_of(bytes: &[u8]) -> impl Iterator<Item = Segment> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let in_page = PAGE_SIZE as usize - rest.as_ptr() as usize % PAGE_SIZE as usize;
        let (piece, more) = rest.split_at(rest.len().min(in_page));
        rest = more;
        let start = memory::physical_address(piece.as_ptr()).0;
        (!piece.is_empty()).then_some(Segment { start, length: piece.len() as u64 })
    })
}

/// Carries out an operation on bytes of the kernel's own memory, at most 30
/// pages of them.
pub fn request_with(operation: u32, argument: u32, bytes: &[u8]) -> bool {
    let mut segments = [Segment::default(); MAX_SEGMENTS];
    let mut count = 0;
    for (place, segment) in segments.iter_mut().zip(segments_of(bytes)) {
        *place = segment;
        count += 1;
    }
    request(operation, argument, &segments[..count])
}

fn whole(frame: Frame) -> Segment {
    Segment { start: frame.start().0, length: PAGE_SIZE }
}

/// Has the host zero a frame; `false` if it did not.
pub(crate) fn zero_frame(frame: Frame) -> bool {
    ring(OP_ZERO_FRAME, 0, &[whole(frame)])
}

/// Has the host copy a frame; `false` if it did not.
pub(crate) fn copy_frame(from: Frame, to: Frame) -> bool {
    ring(OP_COPY_FRAME, 0, &[whole(from), whole(to)])
}

/// Has the host copy bytes of RAM; `false` if it did not.
pub(crate) fn copy(from: GuestPhys, to: GuestPhys, length: usize) -> bool {
    let part = |start: GuestPhys| Segment { start: start.0, length: length as u64 };
    ring(OP_COPY, 0, &[part(from), part(to)])
}

/// Counts a fault of all processes.
#[inline]
pub fn count_fault(kind: FaultKind, cost: u64) {
    let kind = kind as usize;
    write!(read!(faults.count[kind]) + 1, faults.count[kind]);
    write!(read!(faults.cost[kind]) + cost, faults.cost[kind]);
}

/// The faults of all processes so far.
#[must_use]
pub fn faults() -> FaultCounters {
    read!(faults)
}

/// Publishes how memory is used.
pub fn publish_frames(counters: FrameCounters) {
    write!(counters, frames);
}

/// Tells the host where the kernel's directory is.
pub fn publish_directory(directory: &'static Directory) {
    write!(memory::physical_address(directory).0, directory);
}

/// A moment in the kernel's life.
#[derive(Clone, Copy, Debug)]
pub enum Milestone {
    /// First instructions.
    KernelEntry,
    /// Set up.
    KernelReady,
    /// About to enter ring 3 for the first time.
    FirstUser,
    /// About to power off.
    PowerOff,
}

/// Notes that a moment has come (once; later calls change nothing).
pub fn reach(milestone: Milestone, now: u64) {
    macro_rules! once {
        ($field:ident) => {
            if read!(milestones.$field) == 0 {
                write!(now, milestones.$field);
            }
        };
    }
    match milestone {
        Milestone::KernelEntry => once!(kernel_entry),
        Milestone::KernelReady => once!(kernel_ready),
        Milestone::FirstUser => {
            once!(first_user);
            if is_present() {
                // SAFETY: the device only takes note.
                unsafe { cpu::out32(LAB_PORT + PORT_FIRST_USER, 0) };
            }
        }
        Milestone::PowerOff => once!(power_off),
    }
}

/// Whether the host wants events.
#[inline]
#[must_use]
pub fn wants_events() -> bool {
    read!(host_flags) & FLAG_EVENTS != 0
}

/// Appends an event to the ring. Its sequence number is filled in here. Returns
/// when the host lets the guest go on, if it waits for a fault of this kind.
pub fn emit(mut event: Event) {
    let wait = event.class == EVENT_FAULT && read!(break_kinds) >> (event.kind & 31) & 1 != 0;
    let written = read!(events_written);
    let lossless = read!(host_flags) & FLAG_LOSSLESS != 0;
    if lossless && written.wrapping_sub(read!(events_read)) >= EVENT_SLOTS as u64 {
        ring(OP_DRAIN_EVENTS, 0, &[]);
    }
    let slot = written as usize % EVENT_SLOTS;
    event.sequence = written + 1;
    let place = (SHARED.0.get() as usize + EVENTS_OFFSET + slot * size_of::<Event>()) as *mut Event;
    // SAFETY: inside the ring.
    let number = unsafe { &raw mut (*place).sequence };
    // A reader that copies the slot meanwhile sees that the number is wrong.
    // SAFETY: inside the ring.
    unsafe { number.write_volatile(0) };
    fence(Ordering::Release);
    let sequence = core::mem::replace(&mut event.sequence, 0);
    // SAFETY: inside the ring.
    unsafe { place.write_volatile(event) };
    fence(Ordering::Release);
    // SAFETY: inside the ring.
    unsafe { number.write_volatile(sequence) };
    write!(written + 1, events_written);
    if wait {
        ring(OP_EVENT, 0, &[]);
    }
}

/// How many bytes of input are waiting.
#[must_use]
pub fn input_available() -> usize {
    (read!(input_written).wrapping_sub(read!(input_read)) as usize).min(INPUT_BYTES)
}

/// Whether no more input will come once what is waiting has been read.
#[must_use]
pub fn input_ended() -> bool {
    read!(input_ended) != 0
}

/// Takes waiting input; tells the host when that made room in a full ring.
pub fn read_input(buffer: &mut [u8]) -> usize {
    let available = input_available();
    let count = available.min(buffer.len());
    let start = read!(input_read);
    for (offset, byte) in buffer[..count].iter_mut().enumerate() {
        let index = (start as usize + offset) % INPUT_BYTES;
        let place = (SHARED.0.get() as usize + INPUT_OFFSET + index) as *const u8;
        // SAFETY: inside the ring.
        *byte = unsafe { place.read_volatile() };
    }
    write!(start + count as u64, input_read);
    if count > 0 && available == INPUT_BYTES {
        ring(OP_INPUT_TAKEN, 0, &[]);
    }
    count
}

/// Rows and columns of the host's terminal, if there is one.
#[must_use]
pub fn terminal_size() -> Option<(u16, u16)> {
    let size = read!(terminal_size);
    (size != 0).then_some(((size >> 16) as u16, size as u16))
}
