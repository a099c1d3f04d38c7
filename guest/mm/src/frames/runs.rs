//! Many frames at once: for files, whose pages come and go in runs.

use pagelab_abi::addr::Frame;

use super::block::{GROUP, Kind};
use super::held::{Candidate, Held};
use super::{FrameInfo, POISON, Use, narrow};
use crate::machine::Machine;
use pagelab_paging::Entry;

/// Frames that follow each other, at most 64 and all in one group of 64, and hold
/// pages of one object that follow each other too.
#[derive(Clone, Copy, Debug)]
pub struct FrameRun {
    /// The first of them, and what is known of all.
    pub first: Candidate,
    /// How many.
    pub length: usize,
}

impl FrameRun {
    /// The frames, with their places in the run.
    pub fn frames(&self) -> impl Iterator<Item = (usize, Frame)> + use<> {
        (0..self.length).zip((self.first.frame.0..).map(Frame))
    }

    /// A bit for each.
    #[must_use]
    pub const fn all(&self) -> u64 {
        u64::MAX >> (GROUP - self.length)
    }
}

impl Held<'_> {
    /// How far what holds for one page of an object holds for those that follow,
    /// but no further than `most` frames (at least one).
    #[must_use]
    pub fn run_from(&self, first: Candidate, most: usize) -> FrameRun {
        let start = first.frame.index();
        let end = (start / GROUP + 1) * GROUP;
        let infos = &self.inner.info[start..end.min(start + most).min(self.inner.info.len())];
        let alike = |(info, owner): &(&FrameInfo, u64)| {
            info.owner == *owner
                && info.count == first.count
                && info.usage == first.usage
                && info.dirty == first.dirty
                && info.referenced == first.referenced
        };
        let length = infos.iter().zip(first.owner..).take_while(alike).count();
        FrameRun { first, length: length.max(1) }
    }

    /// Takes up to `most` frames for `usage`, each with one owner, and hands them
    /// to `visit`; returns how many. Those that follow each other come in order.
    #[inline]
    pub fn alloc_some(&mut self, usage: Use, most: usize, mut visit: impl FnMut(Frame)) -> usize {
        let mut done = 0;
        while done < most {
            let inner = &mut *self.inner;
            let allowed = match usage {
                Use::Kernel => inner.free,
                _ => inner.free.saturating_sub(inner.reserve),
            };
            let wanted = (most - done).min(usize::try_from(allowed).unwrap_or(usize::MAX));
            if wanted == 0 {
                break;
            }
            let (info, zero_again) = (&mut *inner.info, &mut inner.zero_again);
            let mut count = 0;
            let kind = inner.lists.take_some(wanted, |number| {
                let info = &mut info[number as usize];
                assert!(info.count == 0, "frame {number} is free and has an owner");
                *zero_again -= u64::from(info.zero_again);
                *info = FrameInfo { count: 1, usage, ..FrameInfo::default() };
                visit(Frame(number));
                count += 1;
            });
            match kind {
                Some(Kind::Fresh) => inner.fresh -= count as u64,
                Some(Kind::Warm) => {}
                None if inner.open_next().is_some() => {}
                None => break,
            }
            inner.free -= count as u64;
            inner.by_use[usage as usize] += count as u64;
            done += count;
        }
        done
    }

    /// One owner less for the frames of a run that `bits` names; each keeps one.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub(crate) fn unshare_run(&mut self, run: &FrameRun, bits: u64) {
        for (place, frame) in run.frames() {
            if bits >> place & 1 != 0 {
                let info = &mut self.inner.info[frame.index()];
                assert!(info.count > 1, "unsharing {frame:?}, which has one owner");
                info.count -= 1;
            }
        }
    }

    /// Which frames of a run that `bits` names are dirty.
    #[must_use]
    pub(crate) fn dirty_of_run(&self, run: &FrameRun, bits: u64) -> u64 {
        run.frames().fold(0, |dirty, (place, frame)| {
            dirty | u64::from(self.inner.info[frame.index()].dirty) << place
        }) & bits
    }

    /// Frees those frames of a run that `bits` names: where they are clean, have no
    /// owners but those that are all given up here (`owners`), and `remove` agrees,
    /// which is called with place and frame. The others lose all but one. Returns
    /// how many are free now.
    ///
    /// # Panics
    ///
    /// If a frame has fewer owners.
    pub(crate) fn free_run(
        &mut self,
        machine: &impl Machine,
        run: &FrameRun,
        (bits, owners): (u64, u32),
        mut remove: impl FnMut(usize, Frame) -> bool,
    ) -> u64 {
        let inner = &mut *self.inner;
        let first = run.first.frame;
        let (mut freed, mut count) = (0, 0);
        let infos = &mut inner.info[first.index()..first.index() + run.length];
        let mut frame = first;
        for (place, info) in infos.iter_mut().enumerate() {
            if bits >> place & 1 != 0 {
                assert!(info.count >= owners, "{frame:?} has fewer owners than give it up");
                if info.count == owners && !info.dirty && remove(place, frame) {
                    *info = FrameInfo::default();
                    freed |= 1 << place;
                    count += 1;
                    if cfg!(debug_assertions) {
                        (0..512).for_each(|at| machine.write_entry(frame, at, Entry(POISON)));
                    }
                } else {
                    info.count -= owners - 1;
                }
            }
            frame.0 += 1;
        }
        if count > 0 {
            inner.free += u64::from(count);
            inner.by_use[run.first.usage as usize] -= u64::from(count);
            let within = first.index() % GROUP;
            inner.lists.give_some(narrow(first.index() - within), freed << within, count);
        }
        count.into()
    }
}
