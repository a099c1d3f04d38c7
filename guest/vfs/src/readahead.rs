//! Which pages of a file are read when one of them is missing.
//!
//! Asking the host costs far more than a page, so a file that is read from front
//! to back is read in windows that double up to a limit. Where a reader goes next
//! is learnt from the misses alone: each [`Readahead`] remembers where a few
//! windows ended, and a miss right there goes on with that window. Any other miss
//! is random access until its neighbour is missed, too. So several readers of one
//! file do not disturb each other, whichever way they read: by `read` or through
//! a mapping.

use core::ops::Range;

/// How many readers of a file are told apart.
const STREAMS: usize = 4;

/// The first window at the start of a file: who reads there, reads on.
const FIRST_WINDOW: u64 = 4;

/// How a file will be read, as far as its reader says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// Nothing was said.
    #[default]
    Normal,
    /// From front to back.
    Sequential,
    /// Here and there: nothing is read that is not wanted.
    Random,
    /// Here and there, but close together, as a program's code is.
    Around,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// The page after the window's last.
    next: u64,
    /// Its length; 0: there is none.
    length: u64,
}

/// What is known of a file's readers.
#[derive(Debug, Default)]
pub struct Readahead {
    streams: [Stream; STREAMS],
    /// The stream to give up next.
    oldest: usize,
}

impl Readahead {
    /// The pages to read because `page` is missing: at least the `wanted` ones
    /// from there on, which belong to one call; more, up to `most`, if it is
    /// likely that they are wanted next.
    pub fn window(&mut self, page: u64, wanted: u64, most: u64, pattern: Pattern) -> Range<u64> {
        let wanted = wanted.max(1);
        let length = match pattern {
            _ if most <= 1 => return page..page + wanted,
            Pattern::Random => return page..page + wanted,
            Pattern::Around => {
                let start = page - page % most;
                return start..(start + most).max(page + wanted);
            }
            Pattern::Sequential => most.max(wanted),
            Pattern::Normal => self.next_length(page, most).max(wanted),
        };
        let end = page + length;
        self.remember(page, Stream { next: end, length });
        page..end
    }

    /// A window that ends at `end` was read up to `reached` only, for lack of
    /// memory: its reader goes on there.
    pub fn cut_short(&mut self, end: u64, reached: u64) {
        if let Some(at) = self.find(end) {
            self.streams[at].next = reached;
        }
    }

    fn next_length(&self, page: u64, most: u64) -> u64 {
        match self.find(page) {
            Some(at) => (2 * self.streams[at].length).min(most),
            None if page == 0 => FIRST_WINDOW.min(most),
            None => 1,
        }
    }

    /// The stream that goes on with a page.
    fn find(&self, page: u64) -> Option<usize> {
        self.streams.iter().position(|stream| stream.length > 0 && stream.next == page)
    }

    fn remember(&mut self, page: u64, stream: Stream) {
        let at = self.find(page).unwrap_or_else(|| {
            let at = self.oldest;
            self.oldest = (at + 1) % STREAMS;
            at
        });
        self.streams[at] = stream;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 32;

    fn lengths(pages: u64, most: u64) -> std::vec::Vec<u64> {
        let mut readahead = Readahead::default();
        let (mut at, mut lengths) = (0, std::vec::Vec::new());
        while at < pages {
            let window = readahead.window(at, 1, most, Pattern::Normal);
            assert_eq!(window.start, at);
            lengths.push(window.end - window.start);
            at = window.end;
        }
        lengths
    }

    #[test]
    fn windows_double_up_to_the_limit() {
        assert_eq!(lengths(128, MOST), [4, 8, 16, 32, 32, 32, 32]);
        assert_eq!(lengths(8, 2), [2, 2, 2, 2]);
    }

    #[test]
    fn switched_off_only_what_is_wanted_is_read() {
        assert_eq!(lengths(4, 1), [1, 1, 1, 1]);
        let mut readahead = Readahead::default();
        assert_eq!(readahead.window(3, 7, 1, Pattern::Normal), 3..10);
        assert_eq!(readahead.window(10, 1, MOST, Pattern::Random), 10..11);
        assert_eq!(readahead.window(11, 1, MOST, Pattern::Random), 11..12);
    }

    #[test]
    fn random_access_reads_single_pages() {
        let mut readahead = Readahead::default();
        for page in [900, 17, 333, 5, 1200, 80, 901, 18] {
            assert_eq!(readahead.window(page, 1, MOST, Pattern::Normal), page..page + 1);
        }
    }

    #[test]
    fn a_window_that_was_cut_short_goes_on_where_it_ended() {
        let mut readahead = Readahead::default();
        let first = readahead.window(0, 1, MOST, Pattern::Normal);
        readahead.cut_short(first.end, 2);
        assert_eq!(readahead.window(2, 1, MOST, Pattern::Normal), 2..10);
    }

    #[test]
    fn readers_do_not_disturb_each_other() {
        let mut readahead = Readahead::default();
        let mut at = [100, 5000, 90_000];
        let mut expected = 1;
        for _ in 0..6 {
            for reader in &mut at {
                let window = readahead.window(*reader, 1, MOST, Pattern::Normal);
                assert_eq!(window, *reader..*reader + expected);
                *reader = window.end;
            }
            expected = (2 * expected).min(MOST);
        }
    }

    #[test]
    fn a_call_gets_what_it_wants() {
        let mut readahead = Readahead::default();
        assert_eq!(readahead.window(0, 100, MOST, Pattern::Normal), 0..100);
        assert_eq!(readahead.window(100, 1, MOST, Pattern::Normal), 100..132);
        assert_eq!(readahead.window(7, 1, MOST, Pattern::Sequential), 7..39);
    }

    #[test]
    fn code_is_read_around() {
        let mut readahead = Readahead::default();
        assert_eq!(readahead.window(40, 1, MOST, Pattern::Around), 32..64);
        assert_eq!(readahead.window(63, 4, MOST, Pattern::Around), 32..67);
    }
}
