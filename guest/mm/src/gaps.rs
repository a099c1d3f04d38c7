//! Where there is room, if an address space has very many areas: the largest gap
//! of each run of leaves of [`Areas`](crate::areas::Areas), so that a search
//! passes over a whole run in one step.
//!
//! Address spaces with no more than one run of leaves, which is nearly all, need
//! and have none of this.

use alloc::vec::Vec;
use core::ops::Range;

use crate::error::OutOfMemory;

/// Leaves of a run.
const RUN: usize = 64;

/// The largest gap of each run; nothing if there is only one run.
#[derive(Default)]
pub(crate) struct Gaps(Vec<u64>);

impl Gaps {
    /// Of no leaves.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes sure that so many leaves can be counted.
    pub(crate) fn reserve(&mut self, leaves: usize) -> Result<(), OutOfMemory> {
        if leaves > RUN {
            self.0.try_reserve(leaves.div_ceil(RUN).saturating_sub(self.0.len()))?;
        }
        Ok(())
    }

    /// Counts anew from the run on that the leaf `from` is in. [`Self::reserve`]
    /// was called for so many `leaves`.
    pub(crate) fn recount(&mut self, from: usize, leaves: usize, gap_of: impl Fn(usize) -> u64) {
        let runs = if leaves > RUN { leaves.div_ceil(RUN) } else { 0 };
        // The first runs were not counted while they were the only ones.
        let first = if self.0.is_empty() { 0 } else { (from / RUN).min(runs) };
        self.0.truncate(first);
        for run in first..runs {
            self.0.push(largest(run, leaves, &gap_of));
        }
    }

    /// The gap of one leaf is not what it was.
    pub(crate) fn changed(
        &mut self,
        leaf: usize,
        before: u64,
        now: u64,
        leaves: usize,
        gap_of: impl Fn(usize) -> u64,
    ) {
        let Some(run) = self.0.get_mut(leaf / RUN) else { return };
        if now >= *run {
            *run = now;
        } else if before == *run {
            *run = largest(leaf / RUN, leaves, &gap_of);
        }
    }

    /// The last leaf before `end` of which `has_one` says that it has a gap of
    /// this length.
    pub(crate) fn last(
        &self,
        mut end: usize,
        length: u64,
        has_one: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        while end > 0 {
            let run = end / RUN;
            if end.is_multiple_of(RUN) && self.0.get(run - 1).is_some_and(|&gap| gap < length) {
                end -= RUN;
                continue;
            }
            end -= 1;
            if has_one(end) {
                return Some(end);
            }
        }
        None
    }

    /// The first leaf of `leaves` of which `has_one` says so.
    pub(crate) fn first(
        &self,
        leaves: Range<usize>,
        length: u64,
        has_one: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Range { mut start, end } = leaves;
        while start < end {
            if start.is_multiple_of(RUN) && self.0.get(start / RUN).is_some_and(|&gap| gap < length)
            {
                start += RUN;
                continue;
            }
            if has_one(start) {
                return Some(start);
            }
            start += 1;
        }
        None
    }
}

fn largest(run: usize, leaves: usize, gap_of: &impl Fn(usize) -> u64) -> u64 {
    let end = ((run + 1) * RUN).min(leaves);
    (run * RUN..end).map(gap_of).max().unwrap_or(0)
}
