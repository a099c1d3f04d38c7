//! Physical memory, page tables and the TLB.
//!
//! All RAM is mapped at [`PHYSMAP_BASE`]; [`Physical`] is `pagelab_mm`'s way to
//! it. The kernel reaches a program's memory only this way, never through the
//! program's own addresses: there is no address a program could pass that makes
//! the kernel fault, and SMAP can stay on for good.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_abi::boot::{BootInfo, FLAG_MEMORY_ZEROED, MEMORY_USABLE};
use pagelab_abi::layout::{IMAGE_BASE, LOW_MEMORY_END, PHYSMAP_BASE, STACKS_BASE};
use pagelab_mm::Machine;
use pagelab_mm::frames::{Block, FrameInfo, FrameRange, Frames, MAX_RANGES, Metadata, Use};
use pagelab_paging::walk::walk;
use pagelab_paging::{Entry, TableMemory, TableMemoryMut};

use crate::cpu::{self, Features};
use crate::lab;
use crate::sync::Once;

/// Guest-physical memory through the physical map.
#[derive(Clone, Copy, Debug)]
pub struct Physical;

/// End of RAM; everything below is in the physical map.
static RAM_END: AtomicU64 = AtomicU64::new(0);

static FRAMES: Once<Frames> = Once::new();

/// The allocator of physical frames.
///
/// # Panics
///
/// Before [`init`].
#[inline]
pub fn frames() -> &'static Frames {
    FRAMES.get()
}

/// Hands all usable memory to the frame allocator. Its own tables take the
/// first usable memory that they fit in.
pub(crate) fn init(info: &BootInfo) {
    let ram_end = info.memory().iter().map(|range| range.start + range.length).max().unwrap_or(0);
    RAM_END.store(ram_end, Ordering::Relaxed);
    let zero = info.flags & FLAG_MEMORY_ZEROED != 0;
    let mut ranges = [FrameRange::default(); MAX_RANGES];
    let mut count = 0;
    for range in info.memory().iter().filter(|range| range.kind == MEMORY_USABLE) {
        let first = frame_at(range.start.max(LOW_MEMORY_END.0).next_multiple_of(PAGE_SIZE));
        let end = frame_at(range.start + range.length);
        if first < end && count < MAX_RANGES {
            ranges[count] = FrameRange { first, end, zero };
            count += 1;
        }
    }
    let need = Metadata::for_memory_to(frame_at(ram_end));
    let frames_size = (need.frames * size_of::<FrameInfo>()) as u64;
    let size = frames_size.next_multiple_of(64) + (need.blocks * size_of::<Block>()) as u64;
    let size_in_frames = size.div_ceil(PAGE_SIZE) as u32;
    let home = ranges[..count]
        .iter_mut()
        .find(|range| range.end.0 - range.first.0 > size_in_frames)
        .expect("some range of memory holds the allocator's tables");
    let start = PHYSMAP_BASE + home.first.start().0;
    home.first.0 += size_in_frames;
    if !zero {
        // SAFETY: usable memory that nothing uses yet.
        unsafe { (start as *mut u8).write_bytes(0, size as usize) };
    }
    let block_start = start + frames_size.next_multiple_of(64);
    // SAFETY: memory that is taken here for ever, aligned to a page; zero bytes
    // are a valid `FrameInfo` (a frame that was never used).
    let info = unsafe { core::slice::from_raw_parts_mut(start as *mut FrameInfo, need.frames) };
    // SAFETY: as above, behind the frames' table, aligned to 64 bytes; zero bytes
    // are a valid `Block`.
    let blocks = unsafe { core::slice::from_raw_parts_mut(block_start as *mut Block, need.blocks) };
    match Frames::new(info, blocks, &ranges[..count]) {
        Ok(frames) => FRAMES.set(frames),
        Err(error) => panic!("the memory map makes no sense: {error:?}"),
    };
}

fn frame_at(address: u64) -> Frame {
    Frame((address / PAGE_SIZE) as u32)
}

/// Where a frame is mapped.
#[inline]
pub(crate) fn frame_pointer(frame: Frame) -> *mut u8 {
    debug_assert!(frame.start().0 < RAM_END.load(Ordering::Relaxed));
    (PHYSMAP_BASE + frame.start().0) as *mut u8
}

/// Where an entry of a table is mapped.
#[inline]
fn entry_pointer(table: Frame, index: usize) -> *mut Entry {
    debug_assert!(index < 512);
    frame_pointer(table).cast::<Entry>().wrapping_add(index & 511)
}

/// Where `length` bytes of a frame are mapped.
#[inline]
fn part_of_frame(frame: Frame, offset: usize, length: usize) -> *mut u8 {
    assert!(offset + length <= PAGE_SIZE as usize, "a piece of a frame lies inside it");
    // SAFETY: inside the frame.
    unsafe { frame_pointer(frame).add(offset) }
}

/// Physical address of something of the kernel's own; 0 if it is not mapped.
#[must_use]
pub(crate) fn physical_address<T: ?Sized>(value: *const T) -> GuestPhys {
    let address = value.cast::<u8>() as u64;
    if address >= IMAGE_BASE {
        GuestPhys(address - IMAGE_BASE)
    } else if address < STACKS_BASE {
        GuestPhys(address - PHYSMAP_BASE)
    } else {
        translate(address).unwrap_or_default()
    }
}

/// Where an address of the kernel's is mapped to, if it is.
pub(crate) fn translate(address: u64) -> Option<GuestPhys> {
    walk(&Physical, kernel_root().start(), GuestVirt(address)).physical()
}

/// Whether frames are zeroed and copied by the host: where ring 0 is emulated,
/// one exit costs a fraction of what 512 iterations of a string instruction do.
#[inline]
fn host_moves_frames() -> bool {
    cpu::features().has(Features::RING0_EMULATED) && lab::is_present()
}

/// From how many bytes on that is so for a copy.
const WORTH_AN_EXIT: usize = 512;

/// Has the host copy between a frame and a buffer of the kernel's own, where that
/// is faster and the buffer is in one piece in RAM. Whether it did.
fn copied_by_host(
    (frame, offset): (Frame, usize),
    (buffer, length): (*const u8, usize),
    to_frame: bool,
) -> bool {
    // Stacks are mapped page by page.
    let address = buffer as u64;
    let in_one_piece = !(STACKS_BASE..IMAGE_BASE).contains(&address);
    if length < WORTH_AN_EXIT || !in_one_piece || !host_moves_frames() {
        return false;
    }
    let buffer = physical_address(buffer);
    let frame = GuestPhys(frame.start().0 + offset as u64);
    let (from, to) = if to_frame { (buffer, frame) } else { (frame, buffer) };
    lab::copy(from, to, length)
}

impl Machine for Physical {
    #[inline]
    fn read_entry(&self, table: Frame, index: usize) -> Entry {
        // SAFETY: a frame of RAM that is a page table. Volatile: the processor
        // sets the accessed and dirty bits.
        unsafe { entry_pointer(table, index).read_volatile() }
    }

    #[inline]
    fn write_entry(&self, table: Frame, index: usize, entry: Entry) {
        // SAFETY: as above.
        unsafe { entry_pointer(table, index).write_volatile(entry) };
    }

    /// A host that shadows page tables watches writes to them, and to do so it
    /// emulates the instructions that write: those of programs too, once the frame
    /// is theirs, and it does not know all of them (AVX-512). A write that is no
    /// entry's tells it that the frame is no table any more.
    #[inline]
    fn retire_table(&self, table: Frame) {
        if cpu::features().has(Features::RING0_EMULATED) {
            // SAFETY: the frame is the caller's, and has zeros there.
            unsafe { frame_pointer(table).wrapping_add(1).write_volatile(0) };
        }
    }

    fn zero_frame(&self, frame: Frame) {
        if host_moves_frames() && lab::zero_frame(frame) {
            return;
        }
        // SAFETY: the caller owns the frame.
        unsafe {
            asm!("rep stosq", inout("rdi") frame_pointer(frame) => _, inout("rcx") 512_u64 => _,
                 in("rax") 0_u64, options(nostack, preserves_flags));
        }
    }

    fn copy_frame(&self, from: Frame, to: Frame) {
        if host_moves_frames() && lab::copy_frame(from, to) {
            return;
        }
        // SAFETY: two different frames of RAM; the caller owns the target.
        unsafe {
            asm!("rep movsq", inout("rsi") frame_pointer(from) => _,
                 inout("rdi") frame_pointer(to) => _, inout("rcx") 512_u64 => _,
                 options(nostack, preserves_flags));
        }
    }

    fn read_bytes(&self, frame: Frame, offset: usize, bytes: &mut [u8]) {
        let source = part_of_frame(frame, offset, bytes.len());
        if copied_by_host((frame, offset), (bytes.as_mut_ptr(), bytes.len()), false) {
            return;
        }
        // SAFETY: inside the frame; a kernel buffer is never in a program's frame.
        unsafe { source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }

    fn write_bytes(&self, frame: Frame, offset: usize, bytes: &[u8]) {
        let target = part_of_frame(frame, offset, bytes.len());
        if copied_by_host((frame, offset), (bytes.as_ptr(), bytes.len()), true) {
            return;
        }
        // SAFETY: as above.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    #[inline]
    fn flush_page(&self, root: Frame, page: GuestVirt) {
        tlb(|tlb| tlb.flush_page(root, page));
    }

    fn flush_space(&self, root: Frame) {
        tlb(|tlb| tlb.flush_space(root));
    }
}

impl TableMemory for Physical {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        let inside = address.0 < RAM_END.load(Ordering::Relaxed) && address.0.is_multiple_of(8);
        // SAFETY: aligned, in RAM.
        inside.then(|| unsafe { ((PHYSMAP_BASE + address.0) as *const Entry).read_volatile() })
    }
}

/// The kernel's own map, which only this crate changes.
pub(crate) struct KernelTables;

impl TableMemory for KernelTables {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        TableMemory::read_entry(&Physical, address)
    }
}

impl TableMemoryMut for KernelTables {
    fn write_entry(&mut self, address: GuestPhys, entry: Entry) -> bool {
        if TableMemory::read_entry(self, address).is_none() {
            return false;
        }
        // SAFETY: aligned and in RAM, as just checked; the caller knows that it
        // is a table of the kernel's map.
        unsafe { ((PHYSMAP_BASE + address.0) as *mut Entry).write_volatile(entry) };
        true
    }
}

/// End of RAM before [`init`] knows the memory map: what the early PVH tables
/// map.
pub(crate) fn trust_memory_below(end: u64) {
    RAM_END.store(end, Ordering::Relaxed);
}

/// Contents of a module: bytes that the host put into memory for good.
#[must_use]
pub fn module_bytes(start: GuestPhys, length: u64) -> &'static [u8] {
    let end = start.0.saturating_add(length);
    if end > RAM_END.load(Ordering::Relaxed) {
        return &[];
    }
    // SAFETY: in RAM, set aside by the memory map, and written by nobody.
    unsafe { core::slice::from_raw_parts((PHYSMAP_BASE + start.0) as *const u8, length as usize) }
}

/// How many address spaces keep their translations while others run.
const TAGS: usize = 8;
const NO_SPACE: Frame = Frame(0);
const CR3_KEEP_TRANSLATIONS: u64 = 1 << 63;

/// Which address spaces the TLB may hold translations of.
///
/// Without PCID that is the current one. With PCID each of the last [`TAGS`]
/// spaces has a tag; an entry edited in a space that is not current makes its
/// tag stale, and a stale tag is flushed when its space runs again.
struct Tlb {
    current: Frame,
    spaces: [Frame; TAGS],
    stale: [bool; TAGS],
    next: usize,
}

struct TlbCell(UnsafeCell<Tlb>);

// SAFETY: used through `tlb` only, which does not nest.
unsafe impl Sync for TlbCell {}

static TLB: TlbCell = TlbCell(UnsafeCell::new(Tlb {
    current: NO_SPACE,
    spaces: [NO_SPACE; TAGS],
    stale: [false; TAGS],
    next: 0,
}));

#[inline]
fn tlb<R>(operation: impl FnOnce(&mut Tlb) -> R) -> R {
    // SAFETY: one processor, interrupts off, and the operations of `Tlb` call
    // nothing that comes back here.
    operation(unsafe { &mut *TLB.0.get() })
}

impl Tlb {
    #[inline]
    fn flush_page(&mut self, root: Frame, page: GuestVirt) {
        if root == self.current {
            cpu::invalidate_page(page.0);
        } else {
            self.make_stale(root);
        }
    }

    fn flush_space(&mut self, root: Frame) {
        if root == self.current {
            // Without the keep bit, a load of CR3 flushes the tag it names.
            // SAFETY: the tables that are in use.
            unsafe { cpu::write_cr3(cpu::read_cr3() & !CR3_KEEP_TRANSLATIONS) };
        } else {
            self.make_stale(root);
        }
    }

    fn make_stale(&mut self, root: Frame) {
        if let Some(tag) = self.spaces.iter().position(|&space| space == root) {
            self.stale[tag] = true;
        }
    }

    fn activate(&mut self, root: Frame) {
        if root == self.current {
            return;
        }
        self.current = root;
        let mut value = root.start().0;
        if cpu::features().has(Features::PCID) {
            let known = self.spaces.iter().position(|&space| space == root);
            let tag = known.unwrap_or_else(|| {
                self.next = (self.next + 1) % TAGS;
                self.next
            });
            if known.is_some() && !self.stale[tag] {
                value |= CR3_KEEP_TRANSLATIONS;
            }
            self.spaces[tag] = root;
            self.stale[tag] = false;
            value |= tag as u64 + 1;
        }
        // SAFETY: every address space has the kernel's map in its upper half.
        unsafe { cpu::write_cr3(value) };
    }

    fn forget(&mut self, root: Frame) {
        for space in self.spaces.iter_mut().filter(|space| **space == root) {
            *space = NO_SPACE;
        }
    }
}

/// Tables of the kernel's own that were made when they were needed.
static OWN_TABLES: AtomicU64 = AtomicU64::new(0);

/// An empty table for the kernel's own use, kept for good.
pub(crate) fn new_table() -> Option<Frame> {
    let frame = frames().alloc_zeroed(&Physical, Use::Kernel)?;
    OWN_TABLES.fetch_add(1, Ordering::Relaxed);
    Some(frame)
}

/// How many tables the kernel has made for itself so far; it keeps them.
#[must_use]
pub fn own_tables() -> u64 {
    OWN_TABLES.load(Ordering::Relaxed)
}

static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

pub(crate) fn set_kernel_root(root: GuestPhys) {
    KERNEL_ROOT.store(root.0, Ordering::Relaxed);
}

/// The root table of the kernel's own map: the upper half of every other root
/// is a copy of its upper half.
#[must_use]
pub fn kernel_root() -> Frame {
    frame_at(KERNEL_ROOT.load(Ordering::Relaxed))
}

/// Makes the address space of `root` the current one. Its upper half must be
/// the kernel's.
///
/// # Panics
///
/// If the upper half is not.
pub fn activate(root: Frame) {
    let kernel = Machine::read_entry(&Physical, kernel_root(), 511);
    assert!(
        Machine::read_entry(&Physical, root, 511).address() == kernel.address(),
        "an address space has the kernel's upper half"
    );
    tlb(|tlb| tlb.activate(root));
}

/// Goes to an address space of the kernel's own, or back from it: what
/// [`activate`] does, unchecked. Returns the one that was current.
pub(crate) fn enter(root: Frame) -> Frame {
    tlb(|tlb| {
        let before = if tlb.current == NO_SPACE { kernel_root() } else { tlb.current };
        tlb.activate(root);
        before
    })
}

/// Leaves the address space of `root`, if it is current, and forgets that it
/// ever was: its tables are about to be freed.
pub fn retire(root: Frame) {
    tlb(|tlb| {
        if tlb.current == root {
            tlb.activate(kernel_root());
        }
        tlb.forget(root);
    });
}
