//! The blocks and the lists they are in.
//!
//! Each list is doubly linked through [`Block::links`]; a block has two links,
//! one for `WARM` or `EMPTY`, one for `FRESH`.

use super::block::{BLOCK_FRAMES, Block, GROUP, Kind, Link};
use super::narrow;

/// Blocks with a free frame that holds something.
const WARM: u8 = 0;
/// Blocks of which every frame is free.
const EMPTY: u8 = 1;
/// Blocks with a free frame that is zero.
const FRESH: u8 = 2;

/// The link for `WARM` and `EMPTY`.
const BY_STATE: usize = 0;
/// The link for `FRESH`.
const BY_FRESH: usize = 1;

/// How many partly used blocks a search for a run looks at.
const RUN_SEARCH: usize = 32;

pub(super) struct Lists {
    blocks: &'static mut [Block],
    /// Number of each list's first block plus one, 0 for none.
    heads: [u32; 3],
}

impl Lists {
    pub(super) fn new(blocks: &'static mut [Block]) -> Self {
        Self { blocks, heads: [0; 3] }
    }

    pub(super) fn open(&mut self, block: usize, first: usize, end: usize, zero: bool) {
        self.blocks[block].open(first, end, zero);
        self.place(block);
    }

    /// Makes a block known although none of its frames is free.
    pub(super) fn claim(&mut self, block: usize) {
        self.blocks[block].claim();
    }

    pub(super) fn take_warm(&mut self) -> Option<u32> {
        self.take(WARM, Kind::Warm)
    }

    pub(super) fn take_fresh(&mut self) -> Option<u32> {
        self.take(FRESH, Kind::Fresh)
    }

    pub(super) fn take_from_empty(&mut self) -> Option<u32> {
        self.take(EMPTY, Kind::Warm)
    }

    #[inline]
    fn take(&mut self, list: u8, kind: Kind) -> Option<u32> {
        let block = self.heads[usize::from(list)].checked_sub(1)? as usize;
        let entry = &mut self.blocks[block];
        let was_free = entry.is_wholly_free();
        let index = entry.take(kind);
        if was_free || !entry.has(kind) {
            self.place(block);
        }
        Some(narrow(block * BLOCK_FRAMES + index))
    }

    /// Takes up to `most` frames, all of one kind and in one group of 64, in the
    /// order that single ones are taken in, and hands them to `visit`.
    #[inline]
    pub(super) fn take_some(&mut self, most: usize, mut visit: impl FnMut(u32)) -> Option<Kind> {
        let (list, kind) = [(WARM, Kind::Warm), (FRESH, Kind::Fresh), (EMPTY, Kind::Warm)]
            .into_iter()
            .find(|(list, _)| self.heads[usize::from(*list)] != 0)?;
        let block = self.heads[usize::from(list)] as usize - 1;
        let entry = &mut self.blocks[block];
        let was_free = entry.is_wholly_free();
        let (word, mut bits) = entry.take_some(kind, most);
        let first = block * BLOCK_FRAMES + word * GROUP;
        let mut count = 0;
        while bits != 0 {
            visit(narrow(first + bits.trailing_zeros() as usize));
            bits &= bits - 1;
            count += 1;
        }
        entry.count_taken(count);
        if was_free || !entry.has(kind) {
            self.place(block);
        }
        Some(kind)
    }

    /// Gives back `count` frames of the group of 64 that begins with `first`; they
    /// hold something.
    #[inline]
    pub(super) fn give_some(&mut self, first: u32, bits: u64, count: u16) {
        let block = first as usize / BLOCK_FRAMES;
        let entry = &mut self.blocks[block];
        let had = entry.has(Kind::Warm);
        entry.give_some(first as usize % BLOCK_FRAMES / GROUP, bits, count);
        if !had || entry.is_wholly_free() {
            self.place(block);
        }
    }

    #[inline]
    pub(super) fn give(&mut self, frame: u32, kind: Kind) {
        let block = frame as usize / BLOCK_FRAMES;
        let entry = &mut self.blocks[block];
        let had = entry.has(kind);
        entry.give(frame as usize % BLOCK_FRAMES, kind);
        if !had || entry.is_wholly_free() {
            self.place(block);
        }
    }

    /// A block and an index in it where a run can be taken. Partly used blocks
    /// first, so that whole ones stay whole.
    pub(super) fn find_run(&self, count: usize, align: usize) -> Option<(usize, usize)> {
        if count == BLOCK_FRAMES {
            return self.search(FRESH, count, align).or_else(|| self.search(EMPTY, count, align));
        }
        [FRESH, WARM, EMPTY].into_iter().find_map(|list| self.search(list, count, align))
    }

    fn search(&self, list: u8, count: usize, align: usize) -> Option<(usize, usize)> {
        let link = link_of(list);
        let mut at = self.heads[usize::from(list)];
        for _ in 0..RUN_SEARCH {
            let block = at.checked_sub(1)? as usize;
            if let Some(index) = self.blocks[block].find_run(count, align) {
                return Some((block, index));
            }
            at = self.blocks[block].links[link].next;
        }
        None
    }

    pub(super) fn take_run(&mut self, block: usize, first: usize, count: usize) -> usize {
        let fresh = self.blocks[block].take_run(first, count);
        self.place(block);
        fresh
    }

    /// Puts a block into the lists it belongs to now.
    fn place(&mut self, block: usize) {
        let entry = &self.blocks[block];
        let state = if entry.is_wholly_free() && entry.has(Kind::Warm) {
            EMPTY + 1
        } else if entry.has(Kind::Warm) {
            WARM + 1
        } else {
            0
        };
        let fresh = if entry.has(Kind::Fresh) { FRESH + 1 } else { 0 };
        for (link, list) in [(BY_STATE, state), (BY_FRESH, fresh)] {
            if self.blocks[block].listed[link] != list {
                self.unlink(block, link);
                self.link(block, link, list);
            }
        }
    }

    fn unlink(&mut self, block: usize, link: usize) {
        let list = core::mem::take(&mut self.blocks[block].listed[link]);
        if list == 0 {
            return;
        }
        let Link { previous, next } = core::mem::take(&mut self.blocks[block].links[link]);
        match previous.checked_sub(1) {
            Some(previous) => self.blocks[previous as usize].links[link].next = next,
            None => self.heads[usize::from(list - 1)] = next,
        }
        if let Some(next) = next.checked_sub(1) {
            self.blocks[next as usize].links[link].previous = previous;
        }
    }

    fn link(&mut self, block: usize, link: usize, list: u8) {
        self.blocks[block].listed[link] = list;
        if list == 0 {
            return;
        }
        let head = &mut self.heads[usize::from(list - 1)];
        let next = core::mem::replace(head, narrow(block) + 1);
        self.blocks[block].links[link] = Link { previous: 0, next };
        if let Some(next) = next.checked_sub(1) {
            self.blocks[next as usize].links[link].previous = narrow(block) + 1;
        }
    }
}

const fn link_of(list: u8) -> usize {
    if list == FRESH { BY_FRESH } else { BY_STATE }
}
