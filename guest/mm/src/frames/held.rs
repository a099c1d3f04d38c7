//! The allocator, locked for several operations, and what it knows of a frame.

use pagelab_abi::addr::Frame;
use pagelab_paging::Entry;
use spin::MutexGuard;

use super::block::Kind;
use super::{FrameInfo, Inner, POISON, Use, narrow};
use crate::machine::Machine;

/// A frame as the search for victims sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The frame.
    pub frame: Frame,
    /// What it is used for.
    pub usage: Use,
    /// How many owners it has.
    pub count: u32,
    /// See [`Held::is_dirty`].
    pub dirty: bool,
    /// See [`Held::is_referenced`].
    pub referenced: bool,
    /// The word that says who maps it.
    pub owner: u64,
}

/// The allocator, locked for a batch of operations.
pub struct Held<'a> {
    pub(super) inner: MutexGuard<'a, Inner>,
}

impl Held<'_> {
    /// See [`super::Frames::alloc`].
    #[inline]
    pub fn alloc(&mut self, usage: Use) -> Option<Frame> {
        self.alloc_owned(usage, 0)
    }

    /// See [`super::Frames::alloc`]; `owner` is the word that says who maps it.
    #[inline]
    pub(crate) fn alloc_owned(&mut self, usage: Use, owner: u64) -> Option<Frame> {
        let inner = &mut *self.inner;
        if !inner.may_take(usage) {
            return None;
        }
        let number = inner.lists.take_warm().or_else(|| inner.take_fresh());
        let frame = match number {
            Some(number) => number,
            None => inner.lists.take_from_empty().or_else(|| {
                inner.open_next()?;
                // A whole block that is not known to be zero is an empty one.
                let taken = inner.lists.take_warm().or_else(|| inner.take_fresh());
                taken.or_else(|| inner.lists.take_from_empty())
            })?,
        };
        Some(inner.hand_out(frame, usage, owner))
    }

    /// A frame that shall be zero, and whether it already is.
    #[inline]
    pub fn alloc_for_zero(&mut self, usage: Use) -> Option<(Frame, bool)> {
        self.alloc_for_zero_owned(usage, 0)
    }

    /// The same; `owner` is the word that says who maps it.
    #[inline]
    pub(crate) fn alloc_for_zero_owned(&mut self, usage: Use, owner: u64) -> Option<(Frame, bool)> {
        let inner = &mut *self.inner;
        if !inner.may_take(usage) {
            return None;
        }
        while inner.fresh == 0 && inner.unopened_zero > 0 {
            inner.open_next()?;
        }
        if let Some(number) = inner.take_fresh() {
            return Some((inner.hand_out(number, usage, owner), true));
        }
        Some((self.alloc_owned(usage, owner)?, false))
    }

    /// One more owner; returns what the frame is used for.
    ///
    /// # Panics
    ///
    /// If the frame is free.
    #[inline]
    pub fn share(&mut self, frame: Frame) -> Use {
        let info = &mut self.inner.info[frame.index()];
        assert!(info.count != 0, "sharing {frame:?}, which is free");
        info.count += 1;
        info.usage
    }

    /// See [`super::Frames::release`].
    ///
    /// # Panics
    ///
    /// If the frame is free.
    #[inline]
    pub fn release(&mut self, machine: &impl Machine, frame: Frame) -> u32 {
        let info = &mut self.inner.info[frame.index()];
        assert!(info.count != 0, "releasing {frame:?}, which is free");
        info.count -= 1;
        let remaining = info.count;
        if remaining == 0 {
            let usage = core::mem::take(info).usage;
            self.inner.take_back(frame, usage, Kind::Warm);
            if cfg!(debug_assertions) {
                (0..512).for_each(|index| machine.write_entry(frame, index, Entry(POISON)));
            }
        }
        remaining
    }

    /// Releases a frame with one owner that is full of zeros, as a page table is
    /// when nothing is mapped by it any more: nobody has to zero it again.
    ///
    /// # Panics
    ///
    /// If the frame has not exactly one owner, and, in builds with debug
    /// assertions, if it is not zero.
    #[inline]
    pub fn release_zeroed(&mut self, machine: &impl Machine, frame: Frame) {
        if cfg!(debug_assertions) {
            let is_zero = (0..512).all(|index| machine.read_entry(frame, index) == Entry::EMPTY);
            assert!(is_zero, "releasing {frame:?} as zero, which it is not");
        }
        let info = &mut self.inner.info[frame.index()];
        assert!(info.count == 1, "releasing {frame:?} as zero, which has not one owner");
        let usage = core::mem::take(info).usage;
        info.zero_again = true;
        self.inner.zero_again += 1;
        self.inner.fresh += 1;
        self.inner.take_back(frame, usage, Kind::Fresh);
    }

    /// How many owners the frame has.
    #[inline]
    #[must_use]
    pub fn count(&self, frame: Frame) -> u32 {
        self.inner.info[frame.index()].count
    }

    /// What the frame is used for.
    #[inline]
    #[must_use]
    pub fn use_of(&self, frame: Frame) -> Use {
        self.inner.info[frame.index()].usage
    }

    /// Whether the frame holds something that its object's store does not.
    #[inline]
    #[must_use]
    pub fn is_dirty(&self, frame: Frame) -> bool {
        self.inner.info[frame.index()].dirty
    }

    /// Says whether the frame holds something that its object's store does not.
    #[inline]
    pub fn set_dirty(&mut self, frame: Frame, dirty: bool) {
        self.inner.info[frame.index()].dirty = dirty;
    }

    /// The word that says who maps the frame; 0 at first.
    #[must_use]
    pub fn owner(&self, frame: Frame) -> u64 {
        self.inner.info[frame.index()].owner
    }

    /// Sets the word that says who maps the frame.
    pub fn set_owner(&mut self, frame: Frame, owner: u64) {
        self.inner.info[frame.index()].owner = owner;
    }

    /// Whether the frame was used since the search for victims last came by, other
    /// than through an entry.
    #[inline]
    #[must_use]
    pub fn is_referenced(&self, frame: Frame) -> bool {
        self.inner.info[frame.index()].referenced
    }

    /// See [`Held::is_referenced`].
    #[inline]
    pub fn set_referenced(&mut self, frame: Frame, referenced: bool) {
        self.inner.info[frame.index()].referenced = referenced;
    }

    /// A frame is used for something else from now on.
    pub(crate) fn set_use(&mut self, frame: Frame, usage: Use) {
        let inner = &mut *self.inner;
        let before = core::mem::replace(&mut inner.info[frame.index()].usage, usage);
        inner.by_use[before as usize] -= 1;
        inner.by_use[usage as usize] += 1;
    }

    /// How many frames there is metadata for.
    #[must_use]
    pub fn metadata_len(&self) -> usize {
        self.inner.info.len()
    }

    /// The first frame from number `from` up (below `end`) with one of two uses.
    #[inline]
    #[must_use]
    pub fn next_candidate(&self, from: usize, end: usize, uses: [Use; 2]) -> Option<Candidate> {
        let info = &self.inner.info[from..end];
        let is_candidate = |info: &FrameInfo| info.usage == uses[0] || info.usage == uses[1];
        let place = info.iter().position(is_candidate)?;
        let info = &info[place];
        Some(Candidate {
            frame: Frame(narrow(from + place)),
            usage: info.usage,
            count: info.count,
            dirty: info.dirty,
            referenced: info.referenced,
            owner: info.owner,
        })
    }
}
