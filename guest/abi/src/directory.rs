//! What the kernel lets the host see of itself, while it runs.
//!
//! The shared header page holds the physical address of a [`Directory`]; it says
//! where the kernel keeps its own structures: the table of frames, the processes,
//! their address spaces and areas. Nothing is copied for the host: these are the
//! structures that the kernel works with, laid out in a fixed way, so being seen
//! costs the guest next to nothing.
//!
//! Addresses in here are the kernel's own (virtual): the host translates them
//! through [`Directory::kernel_root`]. Only the directory itself is found by its
//! physical address.
//!
//! # When a picture is whole
//!
//! Each structure that changes in more than one place has a *sequence*: odd while
//! it is being changed, and greater after each change. A reader takes the
//! sequence, reads, and takes it again: if both are the same even number, what
//! it read belonged together. An address space's sequence covers its areas, its
//! page tables and its counters: the kernel makes it odd whenever it holds the
//! address space.
//!
//! Fields are atomics because the host reads them at any time; the kernel has
//! one processor, so it writes them by plain stores.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::fault::{FAULT_KINDS, FaultKind};
use crate::lab::FaultCounters;

/// First field of a [`Directory`].
pub const DIRECTORY_MAGIC: u64 = u64::from_le_bytes(*b"PAGEDIR\x01");

/// How long a process's name is at most.
pub const NAME_BYTES: usize = 16;

/// Where everything is.
#[derive(Debug, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Directory {
    /// [`DIRECTORY_MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU32,
    /// Size of this structure in bytes.
    pub size: AtomicU32,
    /// Physical address of the root of the kernel's own page tables.
    pub kernel_root: AtomicU64,
    /// Address of the table of frames: [`FrameRecord`]s, by the frame's number.
    pub frames: AtomicU64,
    /// How many frames that table has.
    pub frame_count: AtomicU64,
    /// Address of the allocator's [`FrameCounts`].
    pub frame_counts: AtomicU64,
    /// Sequence of the fields below and of the tables they name.
    pub sequence: AtomicU64,
    /// Address of the table of processes: [`PlaceRecord`]s.
    pub processes: AtomicU64,
    /// How many of them there are.
    pub process_places: AtomicU64,
    /// Address of the table of named objects: [`NameRecord`]s.
    pub names: AtomicU64,
    /// How many of them there are.
    pub name_count: AtomicU64,
    /// The process that runs, 0 if none has yet.
    pub current_process: AtomicU32,
    /// The thread that runs, 0 if none has yet.
    pub current_thread: AtomicU32,
}

impl Directory {
    /// One with magic, version and size set and nothing else.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "asserted below to be small")]
    pub const fn empty() -> Self {
        Self {
            magic: AtomicU64::new(DIRECTORY_MAGIC),
            version: AtomicU32::new(crate::VERSION),
            size: AtomicU32::new(size_of::<Self>() as u32),
            kernel_root: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            frame_count: AtomicU64::new(0),
            frame_counts: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            processes: AtomicU64::new(0),
            process_places: AtomicU64::new(0),
            names: AtomicU64::new(0),
            name_count: AtomicU64::new(0),
            current_process: AtomicU32::new(0),
            current_thread: AtomicU32::new(0),
        }
    }

    /// Whether magic, version and size are the ones this crate was built with.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.magic.load(Ordering::Relaxed) == DIRECTORY_MAGIC
            && self.version.load(Ordering::Relaxed) == crate::VERSION
            && self.size.load(Ordering::Relaxed) as usize == size_of::<Self>()
    }
}

/// Makes a sequence odd: what it covers is about to change.
#[inline]
pub fn begin_change(sequence: &AtomicU64) {
    sequence.store(sequence.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
    core::sync::atomic::fence(Ordering::Release);
}

/// Makes a sequence even again, and greater than before.
#[inline]
pub fn end_change(sequence: &AtomicU64) {
    let value = sequence.load(Ordering::Relaxed);
    sequence.store((value | 1).wrapping_add(1), Ordering::Release);
}

/// Where a process is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PlaceRecord {
    /// Address of its [`ProcessRecord`].
    pub record: u64,
    /// Its number.
    pub pid: u64,
}

/// A process lives.
pub const STATE_ALIVE: u32 = 1;
/// It has ended and waits to be waited for.
pub const STATE_ENDED: u32 = 2;
/// It was stopped by a signal.
pub const STATE_STOPPED: u32 = 3;

/// A process.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ProcessRecord {
    /// Its sequence: all fields but the faults, which are exact one by one.
    pub sequence: AtomicU64,
    /// Its number.
    pub pid: AtomicU32,
    /// Its parent's, 0 for the first.
    pub parent: AtomicU32,
    /// Process group.
    pub group: AtomicU32,
    /// Session.
    pub session: AtomicU32,
    /// One of the `STATE_*`.
    pub state: AtomicU32,
    /// How many threads it has.
    pub threads: AtomicU32,
    /// How many of them run or wait for their turn.
    pub ready_threads: AtomicU32,
    /// Its wait status, once it has ended.
    pub wait_status: AtomicU32,
    /// Name of its program, ended by a NUL if it is shorter.
    pub name: [AtomicU64; NAME_BYTES / 8],
    /// Address of its [`SpaceRecord`].
    pub space: AtomicU64,
    /// Address of that address space's sequence.
    pub space_sequence: AtomicU64,
    /// Its faults by kind.
    pub fault_count: [AtomicU64; FAULT_KINDS],
    /// What they cost, in time-stamp counter ticks, by kind.
    pub fault_cost: [AtomicU64; FAULT_KINDS],
    /// End of the kernel stack of its first thread: just below it lies a
    /// [`UserFrame`] while that thread is in the kernel.
    pub leader_stack: AtomicU64,
}

/// A program's registers, as an entry into the kernel saves them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
#[allow(missing_docs, reason = "registers are named as in the manuals")]
pub struct UserFrame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// What happened.
    pub vector: u64,
    pub error_code: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl ProcessRecord {
    /// Counts a fault. There is one writer.
    #[inline]
    pub fn count_fault(&self, kind: FaultKind, cost: u64) {
        let add = |counter: &AtomicU64, more: u64| {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(&self.fault_count[kind as usize], 1);
        add(&self.fault_cost[kind as usize], cost);
    }

    /// The faults so far.
    #[must_use]
    pub fn faults(&self) -> FaultCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultCounters {
            count: core::array::from_fn(|kind| load(&self.fault_count[kind])),
            cost: core::array::from_fn(|kind| load(&self.fault_cost[kind])),
        }
    }

    /// Sets the name; what does not fit is cut off.
    pub fn set_name(&self, name: &[u8]) {
        let mut bytes = [0; NAME_BYTES];
        let length = name.len().min(NAME_BYTES);
        bytes[..length].copy_from_slice(&name[..length]);
        for (word, half) in self.name.iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*half), Ordering::Relaxed);
        }
    }

    /// The bytes of the name, with NULs behind it.
    #[must_use]
    pub fn name(&self) -> [u8; NAME_BYTES] {
        let mut name = [0; NAME_BYTES];
        for (word, bytes) in self.name.iter().zip(name.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        name
    }
}

/// An address space: the first fields of the kernel's own structure.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SpaceRecord {
    /// Start of the heap.
    pub heap_start: u64,
    /// Its end.
    pub heap_end: u64,
    /// Anonymous pages that are present.
    pub anonymous: u64,
    /// Pages of files and programs that are present.
    pub file: u64,
    /// Pages of shared memory that are present.
    pub shared_memory: u64,
    /// Entries that hold a slot of swap.
    pub swapped: u64,
    /// Page tables, the root not counted.
    pub tables: u64,
    /// Frame of the root table.
    pub root: u32,
    /// Nothing that can be relied on.
    pub reserved: u32,
    /// Address of an array of [`LeafRecord`]s: the areas, in order.
    pub leaves: u64,
    /// How many leaves there are.
    pub leaf_count: u64,
    /// How many areas there are.
    pub area_count: u64,
}

/// Some areas of an address space.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LeafRecord {
    /// Address of an array of [`AreaRecord`]s.
    pub areas: u64,
    /// How many there are.
    pub count: u64,
}

/// How far apart the [`LeafRecord`]s of an array are.
pub const LEAF_STRIDE: usize = 48;

/// An area: memory that is mapped in one way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AreaRecord {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// Page number of the first page in what is mapped.
    pub offset: u64,
    /// [`BACKING_ANONYMOUS`] or [`BACKING_OBJECT`].
    pub backing: u32,
    /// Number of the object.
    pub object: u32,
    /// Which areas' pages are managed together.
    pub family: u32,
    /// `AREA_*` bits.
    pub flags: u32,
    /// `PROTECTION_*` bits.
    pub protection: u8,
    /// Nothing that can be relied on.
    pub reserved: [u8; 7],
}

/// Private zeros.
pub const BACKING_ANONYMOUS: u32 = 0;
/// Pages of an object.
pub const BACKING_OBJECT: u32 = 1;

/// Reading is allowed.
pub const PROTECTION_READ: u8 = 1;
/// Writing is allowed.
pub const PROTECTION_WRITE: u8 = 2;
/// Executing is allowed.
pub const PROTECTION_EXECUTE: u8 = 4;

/// Properties of an area; the kernel's own numbers.
pub mod area {
    /// Writes are seen by all who map the object.
    pub const SHARED: u32 = 1 << 0;
    /// Grows down on faults below it.
    pub const GROWS_DOWN: u32 = 1 << 1;
    /// Not accounted for overcommit.
    pub const NO_RESERVE: u32 = 1 << 2;
    /// Counted as promised memory.
    pub const ACCOUNTED: u32 = 1 << 3;
    /// Pages stay resident.
    pub const LOCKED: u32 = 1 << 4;
    /// With [`LOCKED`]: only pages that are touched.
    pub const LOCK_ON_FAULT: u32 = 1 << 5;
    /// Not in the child after fork.
    pub const DONT_FORK: u32 = 1 << 6;
    /// Empty in the child after fork.
    pub const WIPE_ON_FORK: u32 = 1 << 7;
    /// Not in core dumps.
    pub const DONT_DUMP: u32 = 1 << 8;
    /// Read ahead of sequential access.
    pub const SEQUENTIAL: u32 = 1 << 9;
    /// No read-ahead.
    pub const RANDOM: u32 = 1 << 10;
    /// Large pages wanted.
    pub const HUGE_PAGE: u32 = 1 << 11;
    /// Large pages not wanted.
    pub const NO_HUGE_PAGE: u32 = 1 << 12;
    /// Writing may be allowed later.
    pub const MAY_WRITE: u32 = 1 << 14;
    /// New pages count as soft-dirty.
    pub const SOFT_DIRTY: u32 = 1 << 17;
    /// The stack that exec made.
    pub const STACK: u32 = 1 << 18;
    /// The object is shared memory rather than a file.
    pub const SHARED_MEMORY: u32 = 1 << 20;
}

/// What an object is called, as `/proc/PID/maps` shows it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NameRecord {
    /// Number of the object.
    pub object: u32,
    /// Device number of its file system: major << 8 | minor.
    pub device: u32,
    /// Its number there.
    pub inode: u64,
    /// Address of its path.
    pub path: u64,
    /// Length of the path in bytes.
    pub length: u32,
    /// Not 0 if it has been deleted.
    pub deleted: u32,
}

/// A frame of physical memory: what the allocator knows of it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrameRecord {
    /// How many owners it has.
    pub count: u32,
    /// One of the `USE_*`.
    pub usage: u8,
    /// Not 0 if it holds something that its object's store does not.
    pub dirty: u8,
    /// Not 0 if it is free, and zero although it was used.
    pub zero_again: u8,
    /// Not 0 if it was used lately other than through an entry.
    pub referenced: u8,
    /// The kernel's reverse map: see [`FrameRecord::swap_slot`].
    pub owner: u64,
}

/// Bits of the owner word of an anonymous frame that are the number of the
/// virtual page where it is mapped; those above are a slot of swap.
pub const OWNER_PAGE_BITS: u32 = 36;
/// Bits of the owner word of a page of an object that are its number there;
/// those above are the object's number.
pub const OWNER_INDEX_BITS: u32 = 40;

impl FrameRecord {
    /// Slot of swap that holds what an anonymous frame holds, 0 for none.
    #[must_use]
    pub const fn swap_slot(&self) -> u64 {
        if self.usage == USE_ANONYMOUS { self.owner >> OWNER_PAGE_BITS } else { 0 }
    }

    /// How many entries map a frame of a program: its owners, but for the object
    /// or the swap cache that has it.
    #[must_use]
    pub const fn mappings(&self) -> u32 {
        let alone = self.usage == USE_ANONYMOUS && self.swap_slot() == 0;
        if alone { self.count } else { self.count.saturating_sub(1) }
    }
}

/// Free.
pub const USE_FREE: u8 = 0;
/// A page table.
pub const USE_TABLE: u8 = 1;
/// The kernel's own.
pub const USE_KERNEL: u8 = 2;
/// Anonymous memory of programs.
pub const USE_ANONYMOUS: u8 = 3;
/// A page of an object.
pub const USE_CACHE: u8 = 4;
/// The zero page.
pub const USE_SPECIAL: u8 = 5;
/// How many uses there are.
pub const USES: usize = 6;

/// How many frames are what: the first fields of the kernel's own structure.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FrameCounts {
    /// Frames that the allocator manages.
    pub total: u64,
    /// Frames that are free.
    pub free: u64,
    /// Free frames that are zero because they were never handed out, in memory
    /// that was never opened ...
    pub unopened_zero: u64,
    /// ... and free frames in opened memory that are zero ...
    pub fresh: u64,
    /// ... of which so many were used before.
    pub zero_again: u64,
    /// Frames in use, by `USE_*`.
    pub by_use: [u64; USES],
}

const _: () = {
    assert!(size_of::<Directory>() == 96);
    assert!(size_of::<ProcessRecord>() == 80 + 16 * FAULT_KINDS);
    assert!(size_of::<SpaceRecord>() == 88);
    assert!(size_of::<AreaRecord>() == 48);
    assert!(size_of::<FrameRecord>() == 16);
    assert!(size_of::<LeafRecord>() <= LEAF_STRIDE && LEAF_STRIDE.is_multiple_of(8));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_odd_during_a_change_and_greater_afterwards() {
        let sequence = AtomicU64::new(0);
        begin_change(&sequence);
        assert_eq!(sequence.load(Ordering::Relaxed), 1);
        end_change(&sequence);
        assert_eq!(sequence.load(Ordering::Relaxed), 2);
        // A change inside of a change is part of it, and both may end it.
        begin_change(&sequence);
        begin_change(&sequence);
        end_change(&sequence);
        end_change(&sequence);
        assert!(sequence.load(Ordering::Relaxed).is_multiple_of(2));
    }

    #[test]
    fn names_are_cut_and_padded() {
        let record = ProcessRecord::default();
        record.set_name(b"busybox");
        assert_eq!(&record.name(), b"busybox\0\0\0\0\0\0\0\0\0");
        record.set_name(b"a name of more than sixteen bytes");
        assert_eq!(&record.name(), b"a name of more t");
    }

    #[test]
    fn an_empty_directory_is_valid() {
        let directory = Directory::empty();
        assert!(directory.is_valid());
        directory.version.store(crate::VERSION + 1, Ordering::Relaxed);
        assert!(!directory.is_valid());
    }
}
