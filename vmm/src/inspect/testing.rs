//! Guests for tests: a vector as memory, and page tables written by hand.

use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_paging::entry::entry_address;
use pagelab_paging::{Entry, EntryFlags, Level, TableMemory};

use super::{AddressSpace, PhysicalMemory};

/// Sixty-four pages; those below the root table are free for contents.
pub(crate) struct TestGuest {
    bytes: Vec<u8>,
    next_table: u64,
}

impl TestGuest {
    pub(crate) const ROOT: u64 = 0x1_0000;
    pub(crate) const USER_DATA: EntryFlags = EntryFlags::PRESENT
        .union(EntryFlags::WRITABLE)
        .union(EntryFlags::USER)
        .union(EntryFlags::NO_EXECUTE);
    pub(crate) const KERNEL_CODE: EntryFlags = EntryFlags::PRESENT;
    pub(crate) const KERNEL_DATA: EntryFlags =
        EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::NO_EXECUTE);

    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; 0x4_0000], next_table: Self::ROOT + 0x1000 }
    }

    pub(crate) fn space(&self) -> AddressSpace<'_, Self> {
        AddressSpace::new(self, Self::ROOT)
    }

    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at).unwrap();
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn write_u64(&mut self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    /// Maps a 4 KiB page, making tables as needed.
    pub(crate) fn map(&mut self, virt: u64, phys: u64, flags: EntryFlags) {
        let virt = GuestVirt(virt);
        let open = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::USER;
        let mut table = GuestPhys(Self::ROOT);
        for level in [Level::Four, Level::Three, Level::Two] {
            let slot = entry_address(table, level.index(virt));
            let mut entry = self.read_entry(slot).unwrap();
            if !entry.is_present() {
                entry = Entry::new(GuestPhys(self.next_table), open);
                self.next_table += 0x1000;
                self.write_u64(slot.0, entry.0);
            }
            table = entry.address();
        }
        let slot = entry_address(table, Level::One.index(virt));
        self.write_u64(slot.0, Entry::new(GuestPhys(phys), flags).0);
    }
}

impl TableMemory for TestGuest {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        let mut bytes = [0; 8];
        self.read_physical(address, &mut bytes).then(|| Entry(u64::from_le_bytes(bytes)))
    }
}

impl PhysicalMemory for TestGuest {
    fn read_physical(&self, address: GuestPhys, buffer: &mut [u8]) -> bool {
        let Ok(start) = usize::try_from(address.0) else { return false };
        let Some(end) = start.checked_add(buffer.len()) else { return false };
        self.bytes.get(start..end).map(|bytes| buffer.copy_from_slice(bytes)).is_some()
    }
}

/// What entries that lead to tables are made of.
pub(crate) const OPEN: EntryFlags =
    EntryFlags::PRESENT.union(EntryFlags::WRITABLE).union(EntryFlags::USER);

/// Memory as words; the root table is at page 1.
#[derive(Debug)]
pub(crate) struct Words {
    pub(crate) words: Vec<u64>,
    next_table: u64,
}

pub(crate) const ROOT: GuestPhys = GuestPhys(0x1000);

impl Words {
    pub(crate) fn new(pages: usize) -> Self {
        Self { words: vec![0; pages * 512], next_table: 0x2000 }
    }

    pub(crate) fn set(&mut self, address: u64, value: u64) {
        self.words[usize::try_from(address / 8).unwrap()] = value;
    }

    pub(crate) fn get(&self, address: u64) -> u64 {
        self.words[usize::try_from(address / 8).unwrap()]
    }

    /// Maps a page by an entry of `level`, making tables as needed; returns
    /// where the entry is.
    pub(crate) fn map(
        &mut self,
        address: u64,
        physical: u64,
        level: Level,
        flags: EntryFlags,
    ) -> u64 {
        let mut table = ROOT;
        for at in Level::DOWN.into_iter().take_while(|&at| at > level) {
            let slot = entry_address(table, at.index(GuestVirt(address))).0;
            if self.get(slot) == 0 {
                self.set(slot, self.next_table | OPEN.bits());
                self.next_table += 0x1000;
            }
            table = Entry(self.get(slot)).address();
        }
        let slot = entry_address(table, level.index(GuestVirt(address))).0;
        let huge = if level == Level::One { EntryFlags::empty() } else { EntryFlags::HUGE };
        self.set(slot, Entry::new(GuestPhys(physical), flags | huge).0);
        slot
    }

    pub(crate) fn put(&mut self, address: u64, bytes: &[u8]) {
        for (offset, &byte) in (0..).zip(bytes) {
            let at = address + offset;
            let shift = at % 8 * 8;
            let word = self.get(at) & !(0xff << shift) | u64::from(byte) << shift;
            self.set(at, word);
        }
    }
}

impl TableMemory for Words {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        let index = usize::try_from(address.0 / 8).ok()?;
        self.words.get(index).filter(|_| address.0.is_multiple_of(8)).map(|&word| Entry(word))
    }
}

impl PhysicalMemory for Words {
    fn read_physical(&self, address: GuestPhys, buffer: &mut [u8]) -> bool {
        (0..).zip(buffer).all(|(offset, byte)| {
            let Some(at) = address.0.checked_add(offset) else { return false };
            let word = self.read_entry(GuestPhys(at & !7));
            word.inspect(|word| *byte = word.0.to_le_bytes()[usize::try_from(at % 8).unwrap()])
                .is_some()
        })
    }
}
