//! The kernel's own access to a program's memory.
//!
//! The kernel reads and writes frames through its physical map, so it finds the
//! entry itself, checks what the processor would check, resolves the fault that
//! the processor would take ([`Machine::software_fault`] is told), and sets the
//! accessed and dirty bits.

use core::ops::Range;

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SIZE};
use pagelab_abi::layout::USER_END;
use pagelab_paging::{Entry, EntryFlags, Level};

use crate::error::FaultError;
use crate::fault::Access;
use crate::live;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::AddressSpace;
use crate::table;

#[allow(clippy::cast_possible_truncation, reason = "4096")]
const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// A piece of a program's buffer that is contiguous in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The frame.
    pub frame: Frame,
    /// First byte in it.
    pub offset: usize,
    /// How many bytes.
    pub length: usize,
}

/// An access stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// How many bytes were done.
    pub done: usize,
    /// Why no more. After `NeedsPage`, bring it in and go on from `done`.
    pub error: FaultError,
}

impl AddressSpace {
    /// Copies from the program's memory.
    ///
    /// # Errors
    ///
    /// [`Partial`]: how far it came, and why not further.
    pub fn read_user<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        into: &mut [u8],
    ) -> Result<(), Partial> {
        let length = into.len();
        self.for_each_segment(memory, address, length, Access::READ, |segment, part| {
            memory.machine.read_bytes(segment.frame, segment.offset, &mut into[part]);
            true
        })
    }

    /// Copies into the program's memory.
    ///
    /// # Errors
    ///
    /// [`Partial`]: how far it came, and why not further.
    pub fn write_user<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        from: &[u8],
    ) -> Result<(), Partial> {
        self.for_each_segment(memory, address, from.len(), Access::WRITE, |segment, part| {
            memory.machine.write_bytes(segment.frame, segment.offset, &from[part]);
            true
        })
    }

    /// Copies a string that ends with a NUL, which is not copied; returns its
    /// length, or `None` if no NUL came in `into.len()` bytes.
    ///
    /// # Errors
    ///
    /// [`Partial`]: how far it came, and why not further.
    pub fn read_cstr<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        into: &mut [u8],
    ) -> Result<Option<usize>, Partial> {
        let mut end = None;
        let length = into.len();
        self.for_each_segment(memory, address, length, Access::READ, |segment, part| {
            let piece = &mut into[part.clone()];
            memory.machine.read_bytes(segment.frame, segment.offset, piece);
            end = piece.iter().position(|&byte| byte == 0).map(|at| part.start + at);
            end.is_none()
        })?;
        Ok(end)
    }

    /// Calls `visit` for each piece of a buffer, made present (and writable, if
    /// the access writes), with its place in the buffer, until it returns
    /// `false`. The frames stay only as long as the address space is not
    /// changed.
    ///
    /// # Errors
    ///
    /// [`Partial`]: how far it came, and why not further.
    pub fn for_each_segment<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        length: usize,
        access: Access,
        mut visit: impl FnMut(Segment, Range<usize>) -> bool,
    ) -> Result<(), Partial> {
        let mut done = 0;
        while done < length {
            let at = address.checked_add(done as u64).filter(|&at| at < USER_END);
            let at = at.ok_or(Partial { done, error: FaultError::NoMapping })?;
            let frame =
                self.frame_for(memory, at, access).map_err(|error| Partial { done, error })?;
            let offset = offset_in_page(at);
            let piece = (PAGE_BYTES - offset).min(length - done);
            let segment = Segment { frame, offset, length: piece };
            if !visit(segment, done..done + piece) {
                break;
            }
            done += piece;
        }
        Ok(())
    }

    /// The frame for an access of the kernel on the program's behalf, with the
    /// rights of the program.
    ///
    /// # Errors
    ///
    /// As a fault of the program.
    #[inline]
    pub fn frame_for<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        address: GuestVirt,
        access: Access,
    ) -> Result<Frame, FaultError> {
        let page = address.page_start();
        let mut needed = EntryFlags::PRESENT | EntryFlags::USER;
        let mut used = EntryFlags::ACCESSED;
        if access.write {
            needed |= EntryFlags::WRITABLE;
            used |= EntryFlags::DIRTY | EntryFlags::SOFT_DIRTY;
        }
        let index = Level::One.index(page);
        let table = table::find(&memory.machine, self.root, page);
        let entry = table.map_or(Entry::EMPTY, |table| memory.machine.read_entry(table, index));
        if let Some(table) = table
            && entry.has(needed)
        {
            if !entry.has(used) {
                // Accessed and dirty only: no translation changes, no flush.
                live::fill(&memory.machine, (table, index), entry.with(used));
            }
            return Ok(entry.frame());
        }
        let resolved = self.fault(memory, address, access)?;
        memory.machine.software_fault(address, access, &resolved);
        resolved.after.ok_or(FaultError::NoMapping)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "below 4096")]
const fn offset_in_page(address: GuestVirt) -> usize {
    address.page_offset() as usize
}
