//! The frames of one 2 MiB block, as two bitmaps.
//!
//! `used` says which frames are handed out, `touched` which free ones may hold
//! something: a frame that was never used still holds the zeros it was given to
//! us with, and some are given back in that state. For
//! each of the eight words of a bitmap one summary bit says whether it has
//! something to give, so that taking a frame needs no search.

/// Frames in a block.
pub(super) const BLOCK_FRAMES: usize = 512;
/// Frames in one word of a bitmap.
pub(super) const GROUP: usize = 64;
const WORDS: usize = BLOCK_FRAMES / GROUP;

/// A place in a list of blocks: numbers of the neighbours plus one, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) previous: u32,
    pub(super) next: u32,
}

/// Bookkeeping of one block. All zero (the [`Default`]) is a block that was
/// never opened.
#[derive(Clone, Debug, Default)]
pub struct Block {
    used: [u64; WORDS],
    touched: [u64; WORDS],
    /// Words with a free frame that holds something.
    warm_words: u8,
    /// Words with a free frame that is zero.
    fresh_words: u8,
    opened: bool,
    used_count: u16,
    /// Places in the lists that this block is in, by list.
    pub(super) links: [Link; 2],
    /// Which list each link is in, plus one; 0 for none.
    pub(super) listed: [u8; 2],
}

/// Which of the free frames of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Used before, holds something.
    Warm,
    /// Never used, or zero again.
    Fresh,
}

impl Block {
    /// Adds the frames from `first` to `end` (indexes in the block) to the free
    /// ones. Whatever was not added is used by somebody else.
    pub(super) fn open(&mut self, first: usize, end: usize, zero: bool) {
        self.claim();
        for word in 0..WORDS {
            let bits = word_mask(word, first, end);
            self.used[word] &= !bits;
            if zero {
                self.touched[word] &= !bits;
            }
            self.summarize(word);
        }
        self.used_count -= u16::try_from(end - first).unwrap_or(0);
    }

    /// Makes all frames used, if the block was never opened.
    pub(super) fn claim(&mut self) {
        if !self.opened {
            self.opened = true;
            self.used = [u64::MAX; WORDS];
            self.touched = [u64::MAX; WORDS];
            self.used_count = 512;
        }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Warm => self.warm_words != 0,
            Kind::Fresh => self.fresh_words != 0,
        }
    }

    pub(super) fn is_wholly_free(&self) -> bool {
        self.used_count == 0
    }

    /// Takes one frame of this kind, which the block must have.
    pub(super) fn take(&mut self, kind: Kind) -> usize {
        let (words, flip) = match kind {
            Kind::Warm => (self.warm_words, 0),
            Kind::Fresh => (self.fresh_words, u64::MAX),
        };
        let word = words.trailing_zeros() as usize % WORDS;
        let candidates = !self.used[word] & (self.touched[word] ^ flip);
        let bit = candidates.trailing_zeros() as usize;
        self.used[word] |= 1 << bit;
        self.touched[word] |= 1 << bit;
        self.used_count += 1;
        if candidates & (candidates - 1) == 0 {
            match kind {
                Kind::Warm => self.warm_words &= !(1 << word),
                Kind::Fresh => self.fresh_words &= !(1 << word),
            }
        }
        word * 64 + bit
    }

    /// Takes up to `most` (not none) frames of this kind, which the block must
    /// have, from one word of its bitmaps: the word, and a bit for each.
    pub(super) fn take_some(&mut self, kind: Kind, most: usize) -> (usize, u64) {
        let (words, flip) = match kind {
            Kind::Warm => (&mut self.warm_words, 0),
            Kind::Fresh => (&mut self.fresh_words, u64::MAX),
        };
        let word = words.trailing_zeros() as usize % WORDS;
        let mut left = !self.used[word] & (self.touched[word] ^ flip);
        let mut taken = 0;
        for _ in 0..most {
            let rest = left & left.wrapping_sub(1);
            taken |= left ^ rest;
            left = rest;
        }
        if left == 0 {
            *words &= !(1 << word);
        }
        self.used[word] |= taken;
        self.touched[word] |= taken;
        (word, taken)
    }

    /// So many frames more are used, of those that [`Self::take_some`] took.
    pub(super) fn count_taken(&mut self, count: u16) {
        self.used_count += count;
    }

    /// Gives back `count` frames of one word that hold something.
    pub(super) fn give_some(&mut self, word: usize, bits: u64, count: u16) {
        self.used[word] &= !bits;
        self.warm_words |= 1 << word;
        self.used_count -= count;
    }

    /// Gives a frame back. With [`Kind::Fresh`] it is zero again.
    pub(super) fn give(&mut self, index: usize, kind: Kind) {
        let (word, bit) = (index / 64 % WORDS, 1 << (index % 64));
        self.used[word] &= !bit;
        match kind {
            Kind::Warm => self.warm_words |= 1 << word,
            Kind::Fresh => {
                self.touched[word] &= !bit;
                self.fresh_words |= 1 << word;
            }
        }
        self.used_count -= 1;
    }

    /// First index of a run of `count` free frames aligned to `align`.
    pub(super) fn find_run(&self, count: usize, align: usize) -> Option<usize> {
        let is_free = |index: usize| self.used[index / 64] & (1 << (index % 64)) == 0;
        let mut first = 0;
        while first + count <= BLOCK_FRAMES {
            match (first..first + count).rev().find(|&index| !is_free(index)) {
                None => return Some(first),
                Some(taken) => first = (taken + 1).next_multiple_of(align),
            }
        }
        None
    }

    /// Takes a run found by [`Self::find_run`]; returns how many of its frames
    /// were zero.
    pub(super) fn take_run(&mut self, first: usize, count: usize) -> usize {
        let mut fresh = 0;
        for index in first..first + count {
            let (word, bit) = (index / 64, 1 << (index % 64));
            fresh += usize::from(self.touched[word] & bit == 0);
            self.used[word] |= bit;
            self.touched[word] |= bit;
        }
        self.used_count += u16::try_from(count).unwrap_or(0);
        (first / 64..=(first + count - 1) / 64).for_each(|word| self.summarize(word));
        fresh
    }

    fn summarize(&mut self, word: usize) {
        let free = !self.used[word];
        let bit = 1 << word;
        self.warm_words &= !bit;
        self.fresh_words &= !bit;
        if free & self.touched[word] != 0 {
            self.warm_words |= bit;
        }
        if free & !self.touched[word] != 0 {
            self.fresh_words |= bit;
        }
    }
}

/// The bits of one word of a bitmap for the frames from `first` to `end`.
fn word_mask(word: usize, first: usize, end: usize) -> u64 {
    let from = first.saturating_sub(word * 64).min(64);
    let to = end.saturating_sub(word * 64).min(64);
    let below = |bit: usize| if bit == 64 { u64::MAX } else { (1 << bit) - 1 };
    below(to) & !below(from)
}
