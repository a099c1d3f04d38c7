//! A page that a fault or a call needs comes into memory.

use pagelab_mm::{FaultError, NeedsPage, ObjectKind};

use super::store;
use crate::memory::memory;
use crate::process::program;

/// Brings in a page: of a program from where the host put its file, of a file in
/// memory as zeros. Returns whether the host was asked for it, which makes a
/// fault a major one. No address space of a process may be locked.
///
/// # Errors
///
/// If there is no memory for it, or it cannot be read.
pub fn page_in(page: NeedsPage) -> Result<bool, FaultError> {
    let is_program = memory().objects.kind(page.object) == ObjectKind::Program;
    if is_program && program::bring_in(page)? {
        return Ok(false);
    }
    store::make_page(page.object, page.index).map(|_| false)
}
