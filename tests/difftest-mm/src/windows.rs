//! The windows of addresses that operations use, as the tester has them.

use std::fmt;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};

/// Pages of a window.
pub(crate) const WINDOW_PAGES: u64 = 32;
#[allow(clippy::cast_possible_truncation, reason = "32")]
const WINDOW_PAGES_COUNT: usize = WINDOW_PAGES as usize;
/// From page to page.
#[allow(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const PAGE_STEP: usize = PAGE_SIZE as usize;
/// How far mappings may lie beside a window.
const BESIDE: u64 = 4096 * PAGE_SIZE;
/// The windows, by number: `A`, `B` and `C`.
const NAMES: [char; 3] = ['A', 'B', 'C'];
/// The one below all that is mapped.
const BELOW: usize = 1;
/// The heap.
pub(crate) const HEAP: usize = 2;

/// Where the windows are, and which of their pages have no exact fault counts.
#[derive(Clone, Debug)]
pub(crate) struct Windows {
    starts: [u64; 3],
    inexact: [[bool; WINDOW_PAGES_COUNT]; 3],
}

impl Windows {
    pub(crate) const fn new(starts: [u64; 3]) -> Self {
        Self { starts, inexact: [[false; WINDOW_PAGES_COUNT]; 3] }
    }

    /// The address from which the kernel places mappings downwards.
    pub(crate) const fn mmap_base(&self) -> GuestVirt {
        GuestVirt(self.starts[BELOW] + WINDOW_PAGES * PAGE_SIZE)
    }

    pub(crate) const fn heap(&self) -> GuestVirt {
        GuestVirt(self.starts[HEAP])
    }

    /// Each window's name, and its pages with their marks.
    pub(crate) fn pages(
        &self,
    ) -> impl Iterator<Item = (char, impl DoubleEndedIterator<Item = (GuestVirt, bool)>)> {
        NAMES.into_iter().enumerate().map(|(window, name)| (name, self.pages_of(window)))
    }

    fn pages_of(&self, window: usize) -> impl DoubleEndedIterator<Item = (GuestVirt, bool)> {
        let start = self.starts[window];
        let marks = self.inexact[window].iter().enumerate();
        marks.map(move |(page, &mark)| (GuestVirt(start + page as u64 * PAGE_SIZE), mark))
    }

    pub(crate) fn mark_inexact(&mut self, start: u64, length: u64, inexact: bool) {
        for (marks, window) in self.inexact.iter_mut().zip(self.starts) {
            for (mark, page) in marks.iter_mut().zip((window..).step_by(PAGE_STEP)) {
                if overlaps(page, start, length) {
                    *mark = inexact;
                }
            }
        }
    }

    pub(crate) fn is_inexact(&self, start: u64, length: u64) -> bool {
        (0..NAMES.len())
            .flat_map(|window| self.pages_of(window))
            .any(|(page, mark)| mark && overlaps(page.0, start, length))
    }

    /// The part of an area that a window shows.
    pub(crate) fn clip(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut clipped = (start, end);
        let mut seen = false;
        for (window, window_start) in self.starts.into_iter().enumerate() {
            let first = window_start - if window == HEAP { 0 } else { BESIDE };
            let beside = if window == BELOW { 0 } else { BESIDE };
            let last = window_start + WINDOW_PAGES * PAGE_SIZE + beside;
            if end > first && start < last {
                seen = true;
                clipped = (clipped.0.max(first), clipped.1.min(last));
            }
        }
        seen.then_some(clipped)
    }

    /// An address, to be printed.
    pub(crate) const fn name(&self, address: u64) -> Name<'_> {
        Name { windows: self, address }
    }
}

const fn overlaps(page: u64, start: u64, length: u64) -> bool {
    page + PAGE_SIZE > start && page < start.wrapping_add(length)
}

/// An address in the tester's form.
pub(crate) struct Name<'a> {
    windows: &'a Windows,
    address: u64,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (window, start) in self.windows.starts.into_iter().enumerate() {
            let below = if window == HEAP { 0 } else { BESIDE };
            let above = if window == BELOW { 0 } else { BESIDE };
            let address = self.address;
            if address + below < start || address > start + WINDOW_PAGES * PAGE_SIZE + above {
                continue;
            }
            return if address < start {
                write!(f, "{}-{:#x}", NAMES[window], start - address)
            } else {
                write!(f, "{}+{:#x}", NAMES[window], address - start)
            };
        }
        write!(f, "{:#x}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: [u64; 3] = [0x10_0000_0000, 0x7f00_0000_0000, 0x100_0000];

    #[test]
    fn addresses_are_named_by_their_windows() {
        let windows = Windows::new(START);
        for (address, name) in [
            (START[0], "A+0x0"),
            (START[0] + 0x1_f123, "A+0x1f123"),
            (START[0] - 0x1000, "A-0x1000"),
            (START[1] - 0xe_6000, "B-0xe6000"),
            (START[2] - 0x1000, "0xfff000"),
            (START[2] + 0x2_1000, "C+0x21000"),
            (START[1] + 0x2_1000, "0x7f0000021000"),
            (0, "0x0"),
        ] {
            assert_eq!(windows.name(address).to_string(), name);
        }
    }

    #[test]
    fn marks_cover_the_pages_that_a_range_touches() {
        let mut windows = Windows::new(START);
        windows.mark_inexact(START[0] + 0x2800, 0x1000, true);
        assert!(!windows.is_inexact(START[0], 0x2000));
        assert!(windows.is_inexact(START[0] + 0x2000, 1));
        assert!(windows.is_inexact(START[0] + 0x3fff, 1));
        assert!(!windows.is_inexact(START[0] + 0x4000, 0x1000));
        windows.mark_inexact(START[0] + 0x2000, 0x2000, false);
        assert!(!windows.is_inexact(START[0], 0x2_0000));
    }

    #[test]
    fn areas_are_cut_to_what_a_window_shows() {
        let windows = Windows::new(START);
        assert_eq!(
            windows.clip(START[2] - 0x5000, START[2] + 0x1000),
            Some((START[2], START[2] + 0x1000))
        );
        let end = START[1] + WINDOW_PAGES * PAGE_SIZE;
        assert_eq!(windows.clip(end - 0x1000, end + 0x1000), Some((end - 0x1000, end)));
        assert_eq!(windows.clip(0x1000, 0x2000), None);
    }
}
