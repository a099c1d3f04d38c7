//! Numbers that are lent out, the lowest free one first: the slots of an area of
//! kernel memory.
//!
//! One bit a number, and no more bits than reach the highest number that is lent:
//! when a crowd has gone, nothing large stays behind.

use alloc::vec::Vec;

/// Bits of a word.
const WORD: u64 = u64::BITS as u64;

/// Which numbers are lent.
#[derive(Debug, Default)]
pub struct Numbers {
    /// A bit is set while its number is lent; the last word is never 0.
    lent: Vec<u64>,
    /// No word before this one has a free number.
    first: usize,
}

impl Numbers {
    /// All of them are free.
    #[must_use]
    pub const fn new() -> Self {
        Self { lent: Vec::new(), first: 0 }
    }

    /// The lowest free number, which is lent from now on; `None` if there is no
    /// memory to note that.
    #[must_use]
    pub fn lend(&mut self) -> Option<u64> {
        while self.lent.get(self.first) == Some(&u64::MAX) {
            self.first += 1;
        }
        if self.first == self.lent.len() {
            self.lent.try_reserve(1).ok()?;
            self.lent.push(0);
        }
        let word = &mut self.lent[self.first];
        let bit = u64::from(word.trailing_ones());
        *word |= 1 << bit;
        Some(self.first as u64 * WORD + bit)
    }

    /// Takes a number back.
    ///
    /// # Panics
    ///
    /// If it is not lent.
    pub fn give_back(&mut self, number: u64) {
        let index = (number / WORD) as usize;
        let bit = 1 << (number % WORD);
        assert!(self.lent.get(index).is_some_and(|word| word & bit != 0), "{number} is not lent");
        self.lent[index] &= !bit;
        self.first = self.first.min(index);
        while self.lent.last() == Some(&0) {
            self.lent.pop();
        }
        self.lent.shrink_to(2 * self.lent.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_lent() {
        let mut numbers = Numbers::new();
        for number in 0..200 {
            assert_eq!(numbers.lend(), Some(number));
        }
        for number in [130, 7, 64] {
            numbers.give_back(number);
        }
        assert_eq!([(); 4].map(|()| numbers.lend()), [7, 64, 130, 200].map(Some));
    }

    #[test]
    fn nothing_stays_behind() {
        let mut numbers = Numbers::new();
        for _ in 0..10_000 {
            numbers.lend().expect("memory");
        }
        for number in (0..10_000).rev().step_by(2).chain((0..10_000).step_by(2)) {
            numbers.give_back(number);
        }
        assert_eq!(numbers.lent.capacity(), 0);
        assert_eq!(numbers.lend(), Some(0));
    }

    #[test]
    #[should_panic(expected = "65 is not lent")]
    fn what_is_not_lent_does_not_come_back() {
        let mut numbers = Numbers::new();
        assert_eq!(numbers.lend(), Some(0));
        numbers.give_back(65);
    }
}
