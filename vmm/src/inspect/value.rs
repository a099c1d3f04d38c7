//! Addresses, flags and rights as they are written out: in texts for people, in
//! JSON as strings (`"0x401000"`), because numbers there lose their last bits.

use std::fmt;

use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_paging::EntryFlags;
use serde::{Serialize, Serializer};

use super::walk::flag_letters;

/// A number that is written in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

impl From<GuestPhys> for Hex {
    fn from(address: GuestPhys) -> Self {
        Self(address.0)
    }
}

impl From<GuestVirt> for Hex {
    fn from(address: GuestVirt) -> Self {
        Self(address.0)
    }
}

/// The flags of one entry, as letters (see [`super::walk::LEGEND`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub EntryFlags);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&flag_letters(self.0))
    }
}

impl Serialize for Flags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What all levels together allow: `u` or `s` for user or supervisor, then
/// `rwx` as far as it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(pub EntryFlags);

impl Rights {
    /// What the root allows before any entry was looked at: everything.
    pub const ALL: Self = Self(EntryFlags::WRITABLE.union(EntryFlags::USER));

    /// Ring 3 has access.
    #[must_use]
    pub const fn user(self) -> bool {
        self.0.contains(EntryFlags::USER)
    }

    /// Writing is allowed.
    #[must_use]
    pub const fn writable(self) -> bool {
        self.0.contains(EntryFlags::WRITABLE)
    }

    /// Executing is allowed.
    #[must_use]
    pub const fn executable(self) -> bool {
        !self.0.contains(EntryFlags::NO_EXECUTE)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |is_set, letter| if is_set { letter } else { '-' };
        let letters = [
            if self.user() { 'u' } else { 's' },
            'r',
            letter(self.writable(), 'w'),
            letter(self.executable(), 'x'),
        ];
        f.pad(&letters.iter().collect::<String>())
    }
}

impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether what was read belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Nothing changed while it was read.
    Consistent,
    /// It changed, or was being changed, while it was read.
    Changing,
    /// Nothing says whether it changed.
    Unknown,
}

impl Consistency {
    /// Of two things that were read one after the other.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Changing, _) | (_, Self::Changing) => Self::Changing,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::Consistent,
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consistent => "consistent",
            Self::Changing => "not consistent: it changed while it was read",
            Self::Unknown => "not known to be consistent",
        })
    }
}

/// A number of bytes in the largest unit that divides it: `4K`, `2M`, `12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
        let unit = UNITS.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        match unit {
            Some((shift, letter)) => f.pad(&format!("{}{letter}", self.0 >> shift)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_documented() {
        assert_eq!(serde_json::to_string(&Hex(u64::MAX)).unwrap(), "\"0xffffffffffffffff\"");
        assert_eq!(format!("{:>8}", Hex(0x40)), "    0x40");
        assert_eq!(Rights::ALL.to_string(), "urwx");
        assert_eq!(Rights(EntryFlags::NO_EXECUTE).to_string(), "sr--");
        let sizes = [0, 12, 4096, 3 << 20, 2 << 30].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(sizes, ["0", "12", "4K", "3M", "2G"]);
    }

    #[test]
    fn one_change_spoils_the_whole() {
        use Consistency::{Changing, Consistent, Unknown};
        assert_eq!(Consistent.and(Consistent), Consistent);
        assert_eq!(Consistent.and(Unknown), Unknown);
        assert_eq!(Unknown.and(Changing), Changing);
    }
}
