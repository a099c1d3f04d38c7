//! Write-back: what was changed of a file goes to what is behind it.
//!
//! A page becomes dirty by `write`, or by the first store through a shared
//! mapping, which is a write-notify fault. Dirty pages are written in the order
//! they have in the file, neighbours in one request:
//!
//! * when a program asks: `fsync`, `fdatasync`, `msync`, `sync`, `O_SYNC`;
//! * when a descriptor that could write is closed, the last mapping goes, the
//!   file system is unmounted or the lab ends;
//! * when memory runs short, or more than an eighth of it is dirty;
//! * when they have been dirty for five seconds.
//!
//! `O_DIRECT` goes through the cache like everything else.
//!
//! Pages that cannot be written stay dirty and are tried again whenever it is
//! their turn: each failure is told to all who have the file open
//! ([`pagelab_vfs::write_errors`]). Only where they would take too much of memory
//! they are given up: they are clean then and may be dropped, which Linux does at
//! the first failure. A full disk costs data of who writes to it through a mapping
//! and does not ask `msync`, but nobody's life.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_hal::time;
use pagelab_mm::owner::Owner;
use pagelab_mm::{ObjectId, Resolved};
use pagelab_vfs::Errno;

use super::backed::{Backed, MOST_PAGES};
use super::{cache, pages};
use crate::memory::memory;
use crate::process::scheduler;
use crate::process::spaces::AllSpaces;

/// How long a page stays dirty, in nanoseconds.
const AGE: u64 = 5_000_000_000;

/// How many pages a page that is to be dropped is written with.
const CLUSTER: u64 = 64;

/// The part of memory that may be dirty is one in this many.
const DIRTY_SHARE: u64 = 8;

/// When the next dirty pages are old enough; 0: there are none.
static NEXT_MOMENT: AtomicU64 = AtomicU64::new(0);

/// How many pages are dirty, about.
static DIRTY_PAGES: AtomicU64 = AtomicU64::new(0);

/// How many pages are dirty, about.
pub fn dirty_pages() -> u64 {
    DIRTY_PAGES.load(Ordering::Relaxed)
}

/// A fault of a write was resolved: if it made a page of a file dirty, that is
/// noted, and of a file in memory the time.
#[inline]
pub fn note_write(resolved: &Resolved) {
    use pagelab_abi::fault::FaultKind::{FileMajor, FileMinor, WriteNotify};
    if let (WriteNotify | FileMinor | FileMajor, Some(frame)) = (resolved.kind, resolved.after) {
        let owner = {
            let held = memory().frames.hold();
            if !held.is_dirty(frame) {
                return;
            }
            Owner::decode(held.use_of(frame), held.owner(frame))
        };
        let Owner::Page { object, index } = owner else { return };
        if let Some(file) = cache().backed(object) {
            file.note_dirty(index);
        } else if let Some(inode) = cache().mapped.pinned(object) {
            inode.note_write();
        }
    }
}

/// When dirty pages have to be written next.
#[inline]
pub fn first_moment() -> Option<u64> {
    match NEXT_MOMENT.load(Ordering::Relaxed) {
        0 => None,
        moment => Some(moment),
    }
}

/// Writes what has been dirty for long enough. Nothing may be locked.
#[inline]
pub fn write_if_due() {
    if first_moment().is_some_and(|moment| moment <= time::since_start()) {
        write_old();
    }
}

fn write_old() {
    cache().unpin_unused();
    let now = time::since_start();
    let mut next = 0;
    for file in cache().all_backed() {
        let (since, dirty) = {
            let state = file.state.lock();
            (state.dirty_since, !state.dirty.is_empty())
        };
        if !dirty {
            continue;
        }
        let moment = since + AGE;
        if moment <= now {
            // Who has the file open is told.
            let _ = file.flush(0..u64::MAX);
            file.state.lock().dirty_since = now;
        }
        let again = !file.state.lock().dirty.is_empty();
        if again {
            let moment = if moment <= now { now + AGE } else { moment };
            next = if next == 0 { moment } else { moment.min(next) };
        }
    }
    NEXT_MOMENT.store(next, Ordering::Relaxed);
    scheduler::sleepers_changed();
}

fn is_much_dirty() -> bool {
    let dirty = dirty_pages();
    dirty > 0 && dirty > memory().frames.counters().total / DIRTY_SHARE
}

/// Writes dirty pages if there are too many, and gives up what cannot be written if
/// there still are.
#[inline]
pub fn limit_dirty() {
    if is_much_dirty() {
        for file in cache().all_backed() {
            // Who has the file open is told.
            if file.flush(0..u64::MAX).is_err() && is_much_dirty() {
                file.give_up();
            }
        }
    }
}

/// Gives up what could not be written when that was tried last: memory is needed,
/// and there is no other. Returns whether there was anything.
pub fn give_up_unwritable() -> bool {
    let mut found = false;
    for file in cache().all_backed() {
        let failed = core::mem::take(&mut file.state.lock().failed);
        if failed {
            file.give_up();
        }
        found |= failed;
    }
    found
}

/// Writes all that is dirty; the first error is returned after all was tried.
///
/// # Errors
///
/// What is behind a file may fail in any way.
pub fn write_everything() -> Result<(), Errno> {
    cache().unpin_unused();
    let mut result = Ok(());
    for file in cache().all_backed() {
        result = result.and(file.flush(0..u64::MAX));
    }
    result
}

/// Writes a dirty page that is to be dropped, and its neighbours with it. Returns
/// whether it is clean now.
pub fn write_around(object: ObjectId, index: u64) -> bool {
    let Some(file) = cache().backed(object) else { return false };
    let first = index - index % CLUSTER;
    file.flush(first..first + CLUSTER).is_ok()
}

impl Backed {
    /// A page is dirty now.
    pub fn note_dirty(&self, index: u64) {
        let since = {
            let mut state = self.state.lock();
            if state.dirty.is_empty() {
                state.dirty = index..index + 1;
                state.dirty_since = time::since_start();
            } else {
                state.dirty = state.dirty.start.min(index)..state.dirty.end.max(index + 1);
            }
            state.dirty_count += 1;
            state.dirty_since
        };
        DIRTY_PAGES.fetch_add(1, Ordering::Relaxed);
        if NEXT_MOMENT.load(Ordering::Relaxed) == 0 {
            NEXT_MOMENT.store(since + AGE, Ordering::Relaxed);
            scheduler::sleepers_changed();
        }
    }

    /// Writes the dirty pages of a range.
    ///
    /// # Errors
    ///
    /// The first of what is behind the file; the other pages are written all the
    /// same.
    pub fn flush(&self, pages: Range<u64>) -> Result<(), Errno> {
        let dirty = self.state.lock().dirty.clone();
        let range = dirty.start.max(pages.start)..dirty.end.min(pages.end);
        if range.is_empty() {
            return Ok(());
        }
        let spaces = AllSpaces::now();
        let mut result = Ok(());
        let mut from = range.start;
        while let Some((first, frames)) = self.next_run(from, range.end) {
            from = first + frames.len() as u64;
            let written = self.write(&spaces, first, &frames);
            if let Err(error) = written {
                self.errors.note(error);
            }
            result = result.and(written);
        }
        self.state.lock().failed = result.is_err();
        if result.is_ok() {
            self.note_clean(&range);
        }
        result
    }

    /// Makes all pages clean although they were not written, which was noted as an
    /// error each time that was tried.
    fn give_up(&self) {
        log::info!("pages of a file that cannot be written are given up");
        let spaces = AllSpaces::now();
        let mut from = 0;
        while let Some((first, frames)) = self.next_run(from, u64::MAX) {
            from = first + frames.len() as u64;
            memory().clean_pages(&spaces, (self.object, first), &frames);
        }
        self.forget_dirty();
    }

    /// Writes the dirty pages of a range and has the host keep what was written.
    ///
    /// # Errors
    ///
    /// Of what is behind the file.
    pub fn sync(&self, pages: Range<u64>, data_only: bool) -> Result<(), Errno> {
        let flushed = self.flush(pages);
        let synced = self.backing.sync(data_only).inspect_err(|&error| self.errors.note(error));
        flushed.and(synced)
    }

    /// `msync`: the same, and errors that it has not told of yet.
    ///
    /// # Errors
    ///
    /// Of what is behind the file.
    pub fn sync_mapping(&self, pages: Range<u64>) -> Result<(), Errno> {
        let synced = self.sync(pages, false);
        self.errors.tell(&self.told_by_msync).and(synced)
    }

    /// Writes this file's dirty pages if too much of memory is dirty: who writes
    /// is told if they cannot be.
    ///
    /// # Errors
    ///
    /// Of what is behind the file.
    pub fn limit_dirty(&self) -> Result<(), Errno> {
        if is_much_dirty() { self.flush(0..u64::MAX) } else { Ok(()) }
    }

    /// The next dirty pages in a row.
    fn next_run(&self, from: u64, end: u64) -> Option<(u64, Vec<Frame>)> {
        let memory = memory();
        let mut first = None;
        let mut frames = Vec::new();
        memory.objects.for_each_page(&memory.machine, self.object, from..end, |index, frame| {
            if frames.len() as u64 >= MOST_PAGES {
                return false;
            }
            let dirty = memory.frames.hold().is_dirty(frame);
            match first {
                None if dirty => first = Some(index),
                None => return true,
                Some(first) if !dirty || first + frames.len() as u64 != index => return false,
                Some(_) => {}
            }
            frames.push(frame);
            true
        });
        Some((first?, frames))
    }

    /// Writes a run of dirty pages, up to the end of the file. What programs stored
    /// behind it, through a mapping of the last page, is gone then, as on Linux.
    fn write(&self, spaces: &AllSpaces, first: u64, frames: &[Frame]) -> Result<(), Errno> {
        let memory = memory();
        let size = cache().size_of(self.object);
        let start = first * PAGE_SIZE;
        let bytes = size.saturating_sub(start).min(frames.len() as u64 * PAGE_SIZE);
        for &frame in frames {
            memory.frames.share(frame);
        }
        memory.clean_pages(spaces, (self.object, first), frames);
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        pages::clear_from(frames, length);
        let written = match length {
            0 => Ok(()),
            length => self.backing.write_pages(first, frames, length),
        };
        for &frame in frames {
            if written.is_err() {
                memory.frames.hold().set_dirty(frame, true);
            }
            memory.frames.release(&memory.machine, frame);
        }
        if written.is_ok() {
            let mut state = self.state.lock();
            state.host_size = state.host_size.max(start + bytes);
        }
        written
    }

    /// The pages of a range are clean now.
    fn note_clean(&self, range: &Range<u64>) {
        let mut state = self.state.lock();
        let count = if range.start <= state.dirty.start && range.end >= state.dirty.end {
            state.dirty = 0..0;
            state.dirty_count
        } else if range.start <= state.dirty.start {
            state.dirty.start = range.end;
            state.dirty_count.min(range.end - range.start)
        } else if range.end >= state.dirty.end {
            state.dirty.end = range.start;
            state.dirty_count.min(range.end - range.start)
        } else {
            0
        };
        state.dirty_count -= count;
        DIRTY_PAGES.fetch_sub(count, Ordering::Relaxed);
    }

    /// Nothing of the file is dirty any more.
    pub fn forget_dirty(&self) {
        self.note_clean(&(0..u64::MAX));
    }
}
