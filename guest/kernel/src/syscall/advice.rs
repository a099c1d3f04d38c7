//! `madvise`, as far as it is about files: `MADV_REMOVE` makes holes in them,
//! `MADV_WILLNEED` brings their pages in. The rest is one operation of
//! `pagelab_mm`.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_mm::{Area, AreaFlags, Copies, ObjectKind};
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
        linux::MADV_REMOVE => return remove(space, start, length),
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

/// `MADV_REMOVE`: holes in files and in shared memory, area by area, up to the
/// first that does not allow it.
fn remove(space: &Space, start: GuestVirt, length: u64) -> Outcome {
    let areas = areas_of(space, start, length);
    let rounded = length.checked_next_multiple_of(PAGE_SIZE);
    let Some(end) = rounded.and_then(|length| start.checked_add(length)) else {
        return Err(Errno::EINVAL.into());
    };
    if areas.is_empty() || end == start || !start.is_page_aligned() {
        // Nothing to do but say what is wrong.
        attempt(space, |space| space.madvise(memory(), start, length, linux::MADV_REMOVE))?;
        return Ok(0);
    }
    let (mut at, mut gap) = (start, false);
    for area in areas {
        gap |= area.start > at;
        at = area.end;
        remove_of(space, &area)?;
    }
    if gap || at < end {
        return Err(Errno::ENOMEM.into());
    }
    Ok(0)
}

/// A hole where one area, or a part of it, maps something.
fn remove_of(space: &Space, area: &Area) -> Result<(), Errno> {
    let pages = area.offset..area.index_of(area.end);
    let object = area.object();
    let kind = object.map(|object| memory().objects.kind(object));
    if let (Some(object), Some(ObjectKind::File | ObjectKind::Program)) = (object, kind) {
        if area.flags.contains(AreaFlags::LOCKED) {
            return Err(Errno::EINVAL);
        }
        if area.is_private() || !area.flags.contains(AreaFlags::MAY_WRITE) {
            return Err(Errno::EACCES);
        }
        return cache().punch(object, pages);
    }
    let length = area.end.0 - area.start.0;
    let parts: Vec<_> = space.lock().removed_by_advice(memory(), area.start, length).collect();
    for (object, pages) in parts {
        process::unmap_everywhere(object, pages, Copies::Stay);
    }
    attempt(space, |space| space.madvise(memory(), area.start, length, linux::MADV_REMOVE))
}

/// `MADV_WILLNEED`: files' pages come in.
fn read_ahead(space: &Space, start: GuestVirt, length: u64) {
    for area in areas_of(space, start, length) {
        if let Some(file) = area.object().and_then(|object| cache().backed(object)) {
            file.advise(area.offset..area.index_of(area.end), Advice::WillNeed);
        }
    }
}
