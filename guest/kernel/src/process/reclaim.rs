//! Memory runs short: frames are taken back, before anybody has to end.
//!
//! Which ones is memory management's choice ([`pagelab_mm::reclaim`]); what is
//! dirty is written from here. No address space may be locked, nor anything that
//! writing needs.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SIZE};
use pagelab_mm::reclaim::BATCH;
use pagelab_mm::{AddressSpace, ObjectId, Pager, Spaces};

use super::space::Space;
use super::spaces::AllSpaces;
use crate::files::write_back;
use crate::memory::memory;
use crate::swap;

/// Frames that were looked at, and that became free.
static SCANNED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

/// Takes some frames back. Returns whether there were any: not while that is
/// being done already, because writing needs memory too.
pub fn free_some() -> bool {
    static BUSY: AtomicBool = AtomicBool::new(false);
    if BUSY.swap(true, Ordering::Relaxed) {
        return false;
    }
    let done = memory().reclaim(&Everything(AllSpaces::now()), batch());
    BUSY.store(false, Ordering::Relaxed);
    SCANNED.fetch_add(done.scanned, Ordering::Relaxed);
    FREED.fetch_add(done.freed(), Ordering::Relaxed);
    done.freed() > 0
}

/// How many frames are taken at a time: the more there are, the more, so that the
/// way here is gone seldom.
fn batch() -> u64 {
    const PART: u64 = 64;
    const MOST: u64 = 256;
    (memory().frames.counters().total / PART).clamp(BATCH, MOST)
}

/// Takes what a range of an address space shows, as far as nobody uses it.
pub fn page_out(space: &Space, start: GuestVirt, length: u64) {
    const MOST: usize = 32;
    let everything = Everything(AllSpaces::now());
    let end = GuestVirt(start.0.saturating_add(length).next_multiple_of(PAGE_SIZE));
    let mut at = start;
    while at < end {
        let mut frames = [Frame(0); MOST];
        let (count, next) = space.lock().mapped_frames(memory(), (at, end), &mut frames);
        memory().page_out(&everything, &frames[..count]);
        at = next;
    }
}

/// How many frames were looked at, and how many became free.
pub fn scanned_and_freed() -> (u64, u64) {
    (SCANNED.load(Ordering::Relaxed), FREED.load(Ordering::Relaxed))
}

/// All address spaces, files and swap. What an address space maps that somebody
/// is working on stays: those mappers are not found.
struct Everything(AllSpaces);

impl Spaces for Everything {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn with(&self, number: usize, visit: &mut dyn FnMut(&mut AddressSpace)) {
        self.0.with_unlocked(number, visit);
    }
}

impl Pager for Everything {
    fn write_back(&self, object: ObjectId, index: u64) -> bool {
        write_back::write_around(object, index)
    }

    fn write_swap(&self, slot: u64, frames: &[Frame]) -> bool {
        swap::write(slot, frames)
    }
}
