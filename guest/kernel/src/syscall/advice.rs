//! `madvise`, as far as it is about files: `MADV_REMOVE` makes holes in them,
//! `MADV_WILLNEED` brings their pages in. The rest is one operation of
//! `pagelab_mm`.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_mm::{Area, AreaFlags, ObjectKind};
use pagelab_vfs::Errno;
use pagelab_vfs::store::Advice;

use super::memory::attempt;
use super::{Arguments, Outcome};
use crate::files::cache;
use crate::memory::memory;
use crate::process::space::Space;
use crate::process::{self, reclaim};

/// `madvise`.
///
/// # Errors
///
/// As Linux.
pub fn madvise(space: &Space, a: &Arguments) -> Outcome {
    let (start, length, advice) = (GuestVirt(a[0]), a[1], a[2] as u32);
    match advice {
        linux::MADV_REMOVE => {
            if remove_of_files(space, start, length)? {
                return Ok(0);
            }
            let parts: Vec<_> = space.lock().removed_by_advice(memory(), start, length).collect();
            for (object, pages) in parts {
                process::unmap_everywhere(object, pages);
            }
        }
        linux::MADV_WILLNEED => read_ahead(space, start, length),
        _ => {}
    }
    attempt(space, |space| space.madvise(memory(), start, length, advice))?;
    if advice == linux::MADV_PAGEOUT {
        reclaim::page_out(space, start, length);
    }
    Ok(0)
}

/// The areas of a range, each cut to it.
fn areas_of(space: &Space, start: GuestVirt, length: u64) -> Vec<Area> {
    let length = length.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    let end = GuestVirt(start.0.saturating_add(length));
    let space = space.lock();
    let inside = space.areas().filter(|area| area.start < end && start < area.end);
    let cut = inside.map(|area| {
        let from = area.start.max(start);
        let offset = area.index_of(from);
        Area { start: from, end: area.end.min(end), offset, ..*area }
    });
    cut.collect()
}

/// `MADV_REMOVE` of a range that only files are mapped in: holes in these. Returns
/// whether it is such a range.
fn remove_of_files(space: &Space, start: GuestVirt, length: u64) -> Result<bool, Errno> {
    let is_file = |area: &Area| {
        let kind = area.object().map(|object| memory().objects.kind(object));
        matches!(kind, Some(ObjectKind::File | ObjectKind::Program))
    };
    let areas = areas_of(space, start, length);
    if areas.is_empty() || !areas.iter().all(is_file) || !start.is_page_aligned() {
        return Ok(false);
    }
    let mut at = start;
    let mut result = Ok(true);
    for area in areas {
        if area.start > at {
            result = Err(Errno::ENOMEM);
        }
        at = area.end;
        if area.flags.contains(AreaFlags::LOCKED) {
            return Err(Errno::EINVAL);
        }
        let may_write = area.flags.contains(AreaFlags::MAY_WRITE);
        let Some(object) = area.object().filter(|_| !area.is_private() && may_write) else {
            return Err(Errno::EACCES);
        };
        cache().punch(object, area.offset..area.index_of(area.end))?;
    }
    if at.0 < start.0.saturating_add(length) {
        result = Err(Errno::ENOMEM);
    }
    result
}

/// `MADV_WILLNEED`: files' pages come in.
fn read_ahead(space: &Space, start: GuestVirt, length: u64) {
    for area in areas_of(space, start, length) {
        if let Some(file) = area.object().and_then(|object| cache().backed(object)) {
            file.advise(area.offset..area.index_of(area.end), Advice::WillNeed);
        }
    }
}
