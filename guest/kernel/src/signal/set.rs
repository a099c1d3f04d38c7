//! Sets of signals: a mask, what is pending.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SIGNALS;

/// A set of signals as Linux has it: signal 1 is the lowest bit.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// Every signal.
    pub const ALL: Self = Self(u64::MAX);

    /// These signals.
    pub const fn of(signals: &[u8]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < signals.len() {
            set |= bit(signals[index]);
            index += 1;
        }
        Self(set)
    }

    /// Whether a signal is in the set.
    pub const fn contains(self, signal: u8) -> bool {
        self.0 & bit(signal) != 0
    }

    /// The set and one signal more.
    pub const fn with(self, signal: u8) -> Self {
        Self(self.0 | bit(signal))
    }

    /// What is in either.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one only.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its lowest signal.
    pub const fn first(self) -> Option<u8> {
        if self.is_empty() { None } else { Some(self.0.trailing_zeros() as u8 + 1) }
    }
}

/// The bit of a signal; none for what is not a signal.
const fn bit(signal: u8) -> u64 {
    if signal == 0 || signal > SIGNALS { 0 } else { 1 << (signal - 1) }
}
