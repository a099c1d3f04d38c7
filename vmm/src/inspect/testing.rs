//! A guest for tests: a vector as memory, and page tables written by hand.

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
