//! Maps from names to things: the entries of directories.
//!
//! A hash table with a hash of a few instructions for eight bytes, since each
//! walk along a path looks up every component, and each instruction counts
//! where the kernel is emulated. Names come from programs that can only slow
//! down themselves by choosing bad ones.

use core::hash::{BuildHasherDefault, Hash, Hasher};

use hashbrown::HashMap;

/// A map from names.
pub(crate) type NameMap<K, V> = HashMap<K, V, BuildHasherDefault<NameHasher>>;

/// Room for the first names of a map at once: it does not grow in many steps.
pub(crate) fn make_room<K: Eq + Hash, V>(map: &mut NameMap<K, V>) {
    const FIRST: usize = 14;
    if map.capacity() == 0 {
        map.reserve(FIRST);
    }
}

/// Multiplies and folds, eight bytes at a time.
#[derive(Default)]
pub(crate) struct NameHasher(u64);

/// An odd number with bits all over: 2⁶⁴ divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[allow(clippy::cast_possible_truncation, reason = "half of it is what is wanted")]
const fn low_half(value: u128) -> u64 {
    value as u64
}

impl NameHasher {
    /// Folds the two halves of a product, which mixes every bit into every
    /// other with one multiplication.
    const fn add(&mut self, word: u64) {
        let product = (self.0 ^ word) as u128 * FACTOR as u128;
        self.0 = low_half(product) ^ low_half(product >> 64);
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::boxed::Box;
    use alloc::collections::BTreeSet;
    use alloc::format;

    #[test]
    fn names_that_differ_little_spread() {
        let mut low = BTreeSet::new();
        let mut high = BTreeSet::new();
        for index in 0..4096 {
            let mut hasher = NameHasher::default();
            format!("file{index}").as_bytes().hash(&mut hasher);
            low.insert(hasher.finish() & 0xfff);
            high.insert(hasher.finish() >> 57);
        }
        // Of 4096 values thrown into 4096 places 63 % are hit.
        assert!(low.len() > 2300, "{}", low.len());
        assert_eq!(high.len(), 128);
    }

    #[test]
    fn a_map_finds_by_slice() {
        let mut map: NameMap<Box<[u8]>, u32> = NameMap::default();
        map.insert(b"name".as_slice().into(), 1);
        assert_eq!(map.get(b"name".as_slice()), Some(&1));
        assert_eq!(map.get(b"name\0".as_slice()), None);
    }
}
