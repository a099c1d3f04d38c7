//! A translation, step by step, for people.
//!
//! ```text
//! 0x401010 through the root table at 0x10000
//!   level 4  0x10000  0000000000011007  PWU----------  table at 0x11000
//!   level 3  0x11000  0000000000012007  PWU----------  table at 0x12000
//!   level 2  0x12010  0000000000013007  PWU----------  table at 0x13000
//!   level 1  0x13008  8000000000009007  PWU---------N  page at 0x9000
//!   is guest-physical 0x9010, in a 4 KiB page: user, read, write
//! ```

use std::fmt;

use pagelab_abi::addr::GuestVirt;
use pagelab_paging::walk::{Outcome, Step, Walk};
use pagelab_paging::{EntryFlags, Level};

use super::{AddressSpace, PhysicalMemory};

/// What the letters of [`flag_letters`] mean.
pub const LEGEND: &str = "P present, W writable, U user, t write-through, c uncached, A accessed, \
                          D dirty, H huge, G global, s soft-dirty, o copy-on-write, z not \
                          counted, N no-execute";

const LETTERS: [(EntryFlags, char); 13] = [
    (EntryFlags::PRESENT, 'P'),
    (EntryFlags::WRITABLE, 'W'),
    (EntryFlags::USER, 'U'),
    (EntryFlags::WRITE_THROUGH, 't'),
    (EntryFlags::NO_CACHE, 'c'),
    (EntryFlags::ACCESSED, 'A'),
    (EntryFlags::DIRTY, 'D'),
    (EntryFlags::HUGE, 'H'),
    (EntryFlags::GLOBAL, 'G'),
    (EntryFlags::SOFT_DIRTY, 's'),
    (EntryFlags::COPY_ON_WRITE, 'o'),
    (EntryFlags::SPECIAL, 'z'),
    (EntryFlags::NO_EXECUTE, 'N'),
];

/// The flags of an entry, one letter each, `-` for those not set. See [`LEGEND`].
#[must_use]
pub fn flag_letters(flags: EntryFlags) -> String {
    LETTERS.iter().map(|&(flag, letter)| if flags.contains(flag) { letter } else { '-' }).collect()
}

/// Rights in words: `user, read, write`.
#[must_use]
pub fn describe_rights(rights: EntryFlags) -> String {
    let mut words = vec![if rights.contains(EntryFlags::USER) { "user" } else { "kernel" }, "read"];
    if rights.contains(EntryFlags::WRITABLE) {
        words.push("write");
    }
    if !rights.contains(EntryFlags::NO_EXECUTE) {
        words.push("execute");
    }
    words.join(", ")
}

/// Size of the pages that entries of `level` map, in words.
#[must_use]
pub const fn page_size_name(level: Level) -> &'static str {
    match level {
        Level::One => "4 KiB",
        Level::Two => "2 MiB",
        Level::Three => "1 GiB",
        Level::Four => "512 GiB",
    }
}

/// A walk that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownWalk {
    /// What was translated.
    pub address: GuestVirt,
    /// The root table, a CR3 value.
    pub root: u64,
    /// The steps.
    pub walk: Walk,
    /// Whether the page that was found lies in memory.
    pub in_memory: bool,
}

/// Walks to `address`.
#[must_use]
pub fn show<M: PhysicalMemory>(space: &AddressSpace<'_, M>, address: GuestVirt) -> ShownWalk {
    let walk = space.walk(address);
    let in_memory =
        walk.physical().is_some_and(|physical| space.memory.read_physical(physical, &mut [0]));
    ShownWalk { address, root: space.root.0, walk, in_memory }
}

impl ShownWalk {
    /// How it ended, in a few words.
    #[must_use]
    pub fn conclusion(&self) -> String {
        match self.walk.outcome {
            Outcome::Mapped { physical, level, rights } => {
                let place = if self.in_memory { "" } else { ", which is not memory" };
                let size = page_size_name(level);
                let rights = describe_rights(rights);
                format!("is guest-physical {physical}{place}, in a {size} page: {rights}")
            }
            Outcome::NotPresent(level) => {
                format!("is not mapped: the entry of level {} is not present", level as u8)
            }
            Outcome::TableOutsideMemory(level) => {
                format!("cannot be translated: its table of level {} is not memory", level as u8)
            }
            Outcome::NotCanonical => {
                "is not canonical: no page table can map such an address".to_owned()
            }
        }
    }
}

impl fmt::Display for ShownWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.root & pagelab_paging::entry::ADDRESS_MASK;
        writeln!(f, "{} through the root table at {root:#x}", self.address)?;
        for step in self.walk.steps() {
            writeln!(f, "  {}", DisplayStep(step))?;
        }
        write!(f, "  {}", self.conclusion())
    }
}

/// One step as one line.
struct DisplayStep<'a>(&'a Step);

impl fmt::Display for DisplayStep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { level, address, entry } = self.0;
        let letters = flag_letters(entry.flags());
        write!(f, "level {}  {address}  {:016x}  {letters}", *level as u8, entry.0)?;
        if !entry.is_present() {
            return f.write_str("  nothing");
        }
        let is_page = *level == Level::One || (level.can_be_huge() && entry.has(EntryFlags::HUGE));
        let start = entry.address().0 & if is_page { !(level.entry_size() - 1) } else { u64::MAX };
        write!(f, "  {} at {start:#x}", if is_page { "page" } else { "table" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::TestGuest;
    use super::*;

    fn text(guest: &TestGuest, address: u64) -> String {
        show(&guest.space(), GuestVirt(address)).to_string()
    }

    #[test]
    fn every_step_is_shown() {
        let mut guest = TestGuest::new();
        guest.map(0x40_1000, 0x9000, TestGuest::USER_DATA);
        let expected = "\
0x401010 through the root table at 0x10000
  level 4  0x10000  0000000000011007  PWU----------  table at 0x11000
  level 3  0x11000  0000000000012007  PWU----------  table at 0x12000
  level 2  0x12010  0000000000013007  PWU----------  table at 0x13000
  level 1  0x13008  8000000000009007  PWU---------N  page at 0x9000
  is guest-physical 0x9010, in a 4 KiB page: user, read, write";
        assert_eq!(text(&guest, 0x40_1010), expected);
    }

    #[test]
    fn a_missing_entry_ends_the_walk() {
        let mut guest = TestGuest::new();
        guest.map(0x40_1000, 0x9000, TestGuest::USER_DATA);
        let text = text(&guest, 0x40_2000);
        assert!(text.ends_with(
            "level 1  0x13010  0000000000000000  -------------  nothing\n  \
             is not mapped: the entry of level 1 is not present"
        ));
    }

    #[test]
    fn pages_and_tables_outside_memory_are_said_to_be_so() {
        let mut guest = TestGuest::new();
        guest.map(0x40_1000, 0x7000_0000, TestGuest::KERNEL_CODE);
        assert!(text(&guest, 0x40_1000).ends_with(
            "is guest-physical 0x70000000, which is not memory, in a 4 KiB page: kernel, read, \
             execute"
        ));
        guest.write_u64(TestGuest::ROOT + 8, 0xf_ffff_f000 | 1);
        assert!(text(&guest, 1 << 39).ends_with("its table of level 3 is not memory"));
        assert!(text(&guest, 1 << 47).contains("is not canonical"));
    }

    #[test]
    fn huge_pages_end_a_walk_early() {
        let mut guest = TestGuest::new();
        guest.map(0x40_1000, 0x9000, TestGuest::USER_DATA);
        guest.write_u64(0x1_2018, 0x20_00e7);
        let text = text(&guest, 0x60_1234);
        assert!(
            text.contains("level 2  0x12018  00000000002000e7  PWU--ADH-----  page at 0x200000")
        );
        assert!(text.ends_with("in a 2 MiB page: user, read, write, execute"));
    }
}
