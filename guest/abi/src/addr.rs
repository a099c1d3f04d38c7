//! Address newtypes. A guest-physical address, a guest-virtual address and a
//! frame number are all integers to the machine; mixing them up is the classic
//! bug of this field, so they are different types here.

use core::fmt;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a 2 MiB page.
pub const HUGE_PAGE_SIZE: u64 = 2 << 20;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address as an integer.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// Start of the page that holds this address.
            #[must_use]
            pub const fn page_start(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// Offset of this address in its page.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// Whether this is the start of a page.
            #[must_use]
            pub const fn is_page_aligned(self) -> bool {
                self.page_offset() == 0
            }

            /// The address `bytes` further on, unless that leaves 64 bits.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// An address in the guest's physical memory: what the guest's page tables
    /// hold, and what the host's second level translates.
    GuestPhys
}

address! {
    /// An address as the guest's programs and kernel use it.
    GuestVirt
}

impl GuestVirt {
    /// Whether bits 63 to 47 are all equal, as 4-level paging requires.
    #[must_use]
    pub const fn is_canonical(self) -> bool {
        let top = self.0 >> 47;
        top == 0 || top == 0x1_ffff
    }
}

/// A 4 KiB frame of guest-physical memory, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Frame(pub u32);

impl Frame {
    /// The frame that holds `address`, if its number fits (16 TiB).
    #[must_use]
    pub const fn containing(address: GuestPhys) -> Option<Self> {
        let number = address.0 >> PAGE_SHIFT;
        if number > u32::MAX as u64 {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, reason = "checked above")]
        Some(Self(number as u32))
    }

    /// Where the frame begins.
    #[must_use]
    pub const fn start(self) -> GuestPhys {
        GuestPhys((self.0 as u64) << PAGE_SHIFT)
    }

    /// The frame's number as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_addresses_end_at_the_two_halves() {
        assert!(GuestVirt(0x7fff_ffff_ffff).is_canonical());
        assert!(!GuestVirt(0x8000_0000_0000).is_canonical());
        assert!(!GuestVirt(0xffff_7fff_ffff_ffff).is_canonical());
        assert!(GuestVirt(0xffff_8000_0000_0000).is_canonical());
    }

    #[test]
    fn frames_and_addresses_convert() {
        let frame = Frame::containing(GuestPhys(0x1234_5678)).unwrap();
        assert_eq!(frame, Frame(0x12345));
        assert_eq!(frame.start(), GuestPhys(0x1234_5000));
        assert_eq!(Frame::containing(GuestPhys(1 << 44)), None);
    }
}
