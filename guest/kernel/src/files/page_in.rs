//! A page that a fault or a call needs comes into memory.

use pagelab_abi::addr::GuestVirt;
use pagelab_mm::{AddressSpace, AreaFlags, FaultError, NeedsPage, ObjectKind, Protection};
use pagelab_vfs::readahead::Pattern;

use super::{cache, pages};
use crate::memory::memory;
use crate::process::program;
use crate::swap;

/// Brings in a page: of a program from where the host put its file, of a file of
/// the host from there, of a file in memory as zeros. Returns whether the host was
/// asked for it, which makes a fault a major one. No address space of a process
/// may be locked.
///
/// # Errors
///
/// If there is no memory for it, or it cannot be read.
pub fn page_in(page: NeedsPage) -> Result<bool, FaultError> {
    page_in_for(page, Pattern::Normal)
}

/// The same for a reader who is known to read in some way.
///
/// # Errors
///
/// The same.
pub fn page_in_for(page: NeedsPage, pattern: Pattern) -> Result<bool, FaultError> {
    let NeedsPage { object, index } = page;
    if memory().objects.kind(object) == ObjectKind::Swap {
        return swap::page_in(page);
    }
    if let Some(file) = cache().backed(object) {
        return Ok(file.read_in(index, 1, pattern)?);
    }
    let is_program = memory().objects.kind(object) == ObjectKind::Program;
    if is_program && program::bring_in(page)? {
        return Ok(false);
    }
    pages::make_page(object, index).map(|_| false)
}

/// How the area at an address is read, as far as is known.
pub fn pattern_at(space: &AddressSpace, address: u64) -> Pattern {
    match space.area_at(GuestVirt(address)) {
        Some(area) if area.flags.contains(AreaFlags::RANDOM) => Pattern::Random,
        Some(area) if area.flags.contains(AreaFlags::SEQUENTIAL) => Pattern::Sequential,
        Some(area) if area.protection.contains(Protection::EXECUTE) => Pattern::Around,
        _ => Pattern::Normal,
    }
}
