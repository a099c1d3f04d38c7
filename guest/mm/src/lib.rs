//! Memory management of pagelab's guest kernel: frames, objects, address spaces
//! and the calls on them. No unsafe code, no hardware: what it needs of the
//! machine is the trait [`Machine`], so all of it runs and is tested on the
//! host.
//!
//! # What happens where
//!
//! | question | file |
//! | --- | --- |
//! | what happens at a page fault? | [`mod@fault`], `stack` (growth), `swap_in`, `swap_shared`, `fault_around` |
//! | what does a call do? | one file each: `brk`, `fork`, [`madvise`], `mincore`, [`mlock`], [`mmap`], `mprotect`, [`mremap`], [`msync`], `munmap` |
//! | what have mprotect, madvise and mlock in common? | `modify` |
//! | how does the kernel reach a program's memory? | [`user`], [`mod@populate`] |
//! | where do frames come from? | [`frames`] |
//! | what is shared between address spaces? | [`object`], `object_runs` |
//! | who maps a frame? | [`owner`], [`rmap`] |
//! | what when memory runs short? | [`reclaim`], `reclaim_runs`, [`swap`], `swap_out` |
//! | which pages must be written to a file? | [`clean`], [`object`] |
//! | what is an area, when are two of them one? | [`area`], [`areas`] |
//! | who edits page tables and flushes? | `table`, `live`, nobody else |
//! | how much memory may be promised? | [`commit`] |
//! | what does `/proc` show? | [`stats`], [`pagemap`], [`space`] (sizes) |
//! | which errno? | [`error`] |
//!
//! Linux's rules are those of Linux 6.18 where versions differ (`mremap` of
//! several areas at once), but placement does not align large mappings.
//!
//! # How a kernel uses it
//!
//! At boot: carve zeroed metadata for [`Frames`] out of memory, then make the
//! one [`Memory`] with the kernel's [`Machine`] and root table. Neither needs a
//! heap, so the heap can take its pages from [`Memory::frames`].
//!
//! ```text
//! let frames = Frames::new(info, blocks, &ranges)?;
//! let memory = Memory::new(machine, leak(frames), Some(kernel_root))?;
//! ```
//!
//! exec: an [`Object`](object) of kind `Program` holds the file's pages (frames
//! that already hold them are [`Frames::adopt`]ed and put in by
//! [`Objects::insert`](object::Objects::insert)); each segment is one
//! [`AddressSpace::mmap`] with `PRIVATE | FIXED`, then `map_stack`, `set_heap`.
//!
//! ```text
//! let mut space = AddressSpace::new(&memory, Layout::new(8 << 20, shift), limits)?;
//! space.mmap(&memory, &MapRequest { .. })?;
//! space.map_stack(&memory, 33)?;
//! ```
//!
//! At a page fault:
//!
//! ```text
//! match space.fault(&memory, cr2, Access { write, execute, major: false }) {
//!     Ok(resolved) => count(resolved.kind),
//!     Err(FaultError::NeedsPage(page)) => // read it, objects.insert(..), then
//!                                         // fault again with major: true
//!     Err(error) => // count error.kind(), then the signal or the OOM killer
//! }
//! ```
//!
//! System calls: one method each, errors by [`MmError::errno`]. A call that
//! needs a page of a file returns `NeedsPage`; bring it in and call again.
//! `mmap` and `mremap` say which range is to be populated afterwards.
//! [`AddressSpace::destroy`] at exit, once no processor uses the root.
//!
//! Faults that the kernel takes for a program are told to
//! [`Machine::software_fault`]; they count for the process as any other.
//!
//! Locks: an address space has none (the kernel has one per address space);
//! [`object::Objects`] has one, taken before that of [`Frames`], the innermost.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod area;
pub mod areas;
pub mod clean;
pub mod commit;
pub mod error;
pub mod fault;
pub mod frames;
pub mod machine;
pub mod madvise;
pub mod memory;
pub mod mlock;
pub mod mmap;
pub mod mremap;
pub mod msync;
pub mod numbers;
pub mod object;
pub mod owner;
pub mod pagemap;
pub mod populate;
pub mod reclaim;
pub mod rmap;
pub mod space;
pub mod stats;
pub mod swap;
pub mod user;

mod brk;
mod fault_around;
mod fork;
mod gaps;
mod live;
mod mincore;
mod modify;
mod mprotect;
mod munmap;
mod object_index;
mod object_runs;
mod page_out;
mod reclaim_runs;
mod stack;
mod swap_in;
mod swap_out;
mod swap_shared;
mod table;

pub use area::{Area, AreaFlags, Backing, Protection};
pub use commit::Overcommit;
pub use error::{FaultError, MmError, NeedsPage, OutOfMemory};
pub use fault::{Access, Resolved};
pub use frames::{Block, FrameInfo, FrameRange, Frames, Metadata, Use};
pub use machine::Machine;
pub use memory::Memory;
pub use mlock::LockAll;
pub use mmap::{MapFlags, MapRequest, MapSource, Mapped};
pub use mremap::{RemapFlags, RemapRequest, Remapped};
pub use msync::SyncFlags;
pub use munmap::Copies;
pub use object::{ObjectId, ObjectKind, Page};
pub use owner::Owner;
pub use pagemap::ClearRefs;
pub use populate::{Populate, Stopped};
pub use reclaim::{Pager, Reclaimed};
pub use rmap::{Mapping, Spaces};
pub use space::{AddressSpace, Layout, LayoutShift, Limits, Resident, Sizes};
pub use stats::AreaStats;
pub use swap::{Swap, SwapUse};
