//! Single pages of files: found, made, filled, cleared, copied from and to.

use core::ops::Range;

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_hal::sync::Lock;
use pagelab_mm::{Copies, FaultError, Machine, NeedsPage, ObjectId, ObjectKind, Page, Use};
use pagelab_vfs::readahead::Pattern;
use pagelab_vfs::{Errno, Sink, Source};

use super::backed::ReadError;
use super::{cache, page_in};
use crate::memory::memory;
use crate::process::{self, reclaim};

/// Bytes in a page, as a length.
pub(super) const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// Where bytes are on their way between a page and a program's buffer. Held while
/// the program's pages come in, which copies nothing by this way.
static PASSAGE: Lock<[u8; PAGE_BYTES]> = Lock::new([0; PAGE_BYTES]);

/// A page's number, where in it `offset` is, and how much of `length` bytes
/// from there on lies in it.
pub(super) fn place(offset: u64, length: usize) -> (u64, usize, usize) {
    let within = (offset % PAGE_SIZE) as usize;
    (offset / PAGE_SIZE, within, length.min(PAGE_BYTES - within))
}

/// The frame of a page, if it is there.
pub(super) fn present(object: ObjectId, index: u64) -> Option<Frame> {
    let memory = memory();
    match memory.objects.lookup(&memory.machine, object, index) {
        (Page::Present(frame), _) => Some(frame),
        _ => None,
    }
}

/// The frame of a page; a program's page comes in from the host's copy, that of
/// a file with something behind it from there, as the first of `wanted` pages.
pub(super) fn frame(object: ObjectId, index: u64, wanted: u64) -> Result<Option<Frame>, Errno> {
    let memory = memory();
    match memory.objects.lookup(&memory.machine, object, index) {
        (Page::Present(frame), _) => return Ok(Some(frame)),
        (Page::PastEnd, _) => return Ok(None),
        (Page::Missing, ObjectKind::Program) => {
            page_in(NeedsPage { object, index }).map_err(|_| Errno::ENOMEM)?;
        }
        (Page::Missing, _) => match cache().backed(object) {
            Some(file) => match file.read_in(index, wanted, Pattern::Normal) {
                Err(ReadError::PastEnd) => return Ok(None),
                result => drop(result?),
            },
            None => return Ok(None),
        },
    }
    present(object, index).map(Some).ok_or(Errno::EIO)
}

/// Whether files may take one more frame: they get half of all, as on Linux.
fn has_room() -> bool {
    let counters = memory().frames.counters();
    counters.cache < counters.total / 2 || cache().pages_in_memory() < counters.total / 2
}

/// Gives a hole a frame of zeros.
///
/// # Errors
///
/// Without memory; or if files have too much of it already, which is a bus
/// error as on Linux.
pub fn make_page(object: ObjectId, index: u64) -> Result<Frame, FaultError> {
    let memory = memory();
    if !has_room() {
        return Err(FaultError::NoBacking);
    }
    let (machine, frames) = (&memory.machine, memory.frames);
    let frame = frames.alloc_zeroed(machine, Use::Cache).ok_or(FaultError::OutOfMemory)?;
    insert(object, index, frame)?;
    Ok(frame)
}

fn insert(object: ObjectId, index: u64, frame: Frame) -> Result<(), FaultError> {
    let memory = memory();
    let (machine, frames) = (&memory.machine, memory.frames);
    memory.objects.insert(machine, frames, object, index, frame).map_err(|_| {
        frames.release(machine, frame);
        FaultError::OutOfMemory
    })
}

/// Takes pages of a file out of every program's memory.
pub(super) fn unmap(object: ObjectId, pages: Range<u64>, copies: Copies) {
    const OWN_REFERENCE: u32 = 1;
    if memory().objects.references(object) == OWN_REFERENCE {
        return;
    }
    process::unmap_everywhere(object, pages, copies);
}

/// Clears part of a frame.
fn clear_frame(frame: Frame, part: Range<usize>) {
    const ZEROS: [u8; 512] = [0; 512];
    let mut at = part.start;
    while at < part.end {
        let length = ZEROS.len().min(part.end - at);
        memory().machine.write_bytes(frame, at, &ZEROS[..length]);
        at += length;
    }
}

/// Clears what comes after the first `bytes` bytes of frames in a row.
pub fn clear_from(frames: &[Frame], bytes: usize) {
    for (number, &frame) in frames.iter().enumerate().skip(bytes / PAGE_BYTES) {
        let start = number * PAGE_BYTES;
        if bytes <= start {
            memory().machine.zero_frame(frame);
        } else if bytes < start + PAGE_BYTES {
            clear_frame(frame, bytes - start..PAGE_BYTES);
        }
    }
}

/// Clears part of a page; a hole is clear already.
pub(super) fn clear(object: ObjectId, index: u64, part: Range<usize>) -> Result<(), Errno> {
    if let Some(frame) = frame(object, index, 1)? {
        clear_frame(frame, part);
        note_written(object, index, frame);
    }
    Ok(())
}

/// Clears what the last page has behind the end of the file.
pub(super) fn clear_tail(object: ObjectId, size: u64) {
    let (index, within, _) = place(size, 0);
    let kind = memory().objects.kind(object);
    if within > 0 && kind == ObjectKind::Program {
        // It is in memory in any case.
        let _ = clear(object, index, within..PAGE_BYTES);
    } else if within > 0
        && let Some(frame) = present(object, index)
    {
        clear_frame(frame, within..PAGE_BYTES);
    }
}

/// A page of a file was changed.
fn note_written(object: ObjectId, index: u64, frame: Frame) {
    let was_dirty = {
        let mut held = memory().frames.hold();
        let was_dirty = held.is_dirty(frame);
        held.set_dirty(frame, true);
        was_dirty
    };
    if !was_dirty && let Some(file) = cache().backed(object) {
        file.note_dirty(index);
    }
}

/// The frame to write a part of a page to. A new one is only filled as far as the
/// part leaves something of it.
fn frame_to_write(
    object: ObjectId,
    index: u64,
    part: Range<usize>,
    size: u64,
) -> Result<Frame, Errno> {
    let backed = cache().backed(object);
    if let Some(file) = &backed {
        file.limit_dirty()?;
    }
    if let Some(frame) = present(object, index) {
        return Ok(frame);
    }
    let memory = memory();
    let start = index * PAGE_SIZE;
    let covers = part.start == 0 && start + part.end as u64 >= size.min(start + PAGE_SIZE);
    let new = match backed {
        Some(file) => {
            if !covers && start < size {
                return frame(object, index, 1)?.ok_or(Errno::EIO);
            }
            let new = file.frame_or_room()?;
            clear_frame(new, part.end..PAGE_BYTES);
            clear_frame(new, 0..part.start);
            new
        }
        None if memory.objects.kind(object) == ObjectKind::Program => {
            match frame(object, index, 1)? {
                Some(frame) => return Ok(frame),
                None => new_page_in_memory(part.len())?,
            }
        }
        None => new_page_in_memory(part.len())?,
    };
    if memory.objects.pages(object) <= index {
        memory.objects.set_pages(&memory.machine, memory.frames, object, index + 1);
    }
    insert(object, index, new).map_err(|_| Errno::ENOMEM)?;
    Ok(new)
}

/// A frame for a file in memory, zeroed unless all of it is overwritten.
fn new_page_in_memory(length: usize) -> Result<Frame, Errno> {
    if !has_room() {
        return Err(Errno::ENOSPC);
    }
    let memory = memory();
    loop {
        let new = if length == PAGE_BYTES {
            memory.frames.alloc(Use::Cache)
        } else {
            memory.frames.alloc_zeroed(&memory.machine, Use::Cache)
        };
        match new {
            Some(frame) => return Ok(frame),
            None if reclaim::free_some() => {}
            None => return Err(Errno::ENOMEM),
        }
    }
}

/// Copies from a frame; returns how much the sink took.
pub(super) fn copy_out(frame: Frame, start: usize, length: usize, sink: &mut dyn Sink) -> usize {
    let mut passage = PASSAGE.lock();
    let bytes = &mut passage[..length];
    memory().machine.read_bytes(frame, start, bytes);
    memory().frames.note_used(frame);
    sink.put(bytes)
}

/// Copies from the source to a part of a page; returns how much it gave. The bytes
/// are fetched first, as that may need memory.
pub(super) fn copy_in(
    object: ObjectId,
    (index, within, length): (u64, usize, usize),
    size: u64,
    source: &mut dyn Source,
) -> Result<usize, Errno> {
    let mut passage = PASSAGE.lock();
    let moved = source.take(&mut passage[..length]);
    if moved > 0 {
        let frame = frame_to_write(object, index, within..within + moved, size)?;
        memory().machine.write_bytes(frame, within, &passage[..moved]);
        memory().frames.note_used(frame);
        note_written(object, index, frame);
    }
    Ok(moved)
}
