//! The kernel's map, built in a vector and read back by walks.

use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_abi::layout::{IMAGE_BASE, PHYSMAP_BASE, STACKS_BASE};
use pagelab_paging::kernel_map::{ImageSegment, KernelMap, OutsideMemory};
use pagelab_paging::walk::{Outcome, walk};
use pagelab_paging::{Entry, EntryFlags, Level, TableMemory, TableMemoryMut};

struct Memory(Vec<u64>);

impl TableMemory for Memory {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        self.0.get(usize::try_from(address.0 / 8).ok()?).copied().map(Entry)
    }
}

impl TableMemoryMut for Memory {
    fn write_entry(&mut self, address: GuestPhys, entry: Entry) -> bool {
        let slot = usize::try_from(address.0 / 8).ok().and_then(|index| self.0.get_mut(index));
        slot.map(|slot| *slot = entry.0).is_some()
    }
}

const TEXT: ImageSegment = ImageSegment {
    start: GuestPhys(0x20_0000),
    end: GuestPhys(0x20_4000),
    writable: false,
    executable: true,
};
const DATA: ImageSegment = ImageSegment {
    start: GuestPhys(0x20_5000),
    end: GuestPhys(0x20_7000),
    writable: true,
    executable: false,
};

fn map(size: u64) -> (Memory, GuestPhys) {
    let mut memory = Memory(vec![0; usize::try_from(size / 8).unwrap()]);
    let map = KernelMap {
        image: &[TEXT, DATA],
        ram: &[(GuestPhys(0), GuestPhys(size))],
        tables: GuestPhys(0x30_0000),
        global_pages: true,
    };
    let built = map.build(&mut memory).unwrap();
    assert!(built.end > built.root);
    (memory, built.root)
}

fn rights(memory: &Memory, root: GuestPhys, virt: u64) -> Option<(u64, Level, EntryFlags)> {
    match walk(memory, root, GuestVirt(virt)).outcome {
        Outcome::Mapped { physical, level, rights } => Some((physical.0, level, rights)),
        _ => None,
    }
}

#[test]
fn every_page_has_just_its_rights_in_the_image_and_in_the_physical_map() {
    let size = 0x81_3000;
    let (memory, root) = map(size);
    for page in (0..size).step_by(4096) {
        let inside = |s: ImageSegment| s.start.0 <= page && page < s.end.0;
        let image = rights(&memory, root, IMAGE_BASE + page);
        let alias = rights(&memory, root, PHYSMAP_BASE + page + 5).unwrap();
        assert_eq!(alias.0, page + 5);
        assert!(alias.2.contains(EntryFlags::NO_EXECUTE));
        assert!(!alias.2.contains(EntryFlags::USER));
        assert_eq!(alias.2.contains(EntryFlags::WRITABLE), !inside(TEXT), "{page:#x}");
        let expected = if inside(TEXT) {
            Some((page, Level::One, EntryFlags::empty()))
        } else if inside(DATA) {
            Some((page, Level::One, EntryFlags::WRITABLE | EntryFlags::NO_EXECUTE))
        } else {
            None
        };
        assert_eq!(image, expected, "{page:#x}");
    }
    assert_eq!(rights(&memory, root, PHYSMAP_BASE + size), None);
    assert_eq!(rights(&memory, root, 0), None);
    // 2 MiB pages wherever the image is not.
    assert_eq!(rights(&memory, root, PHYSMAP_BASE + 0x40_0000).unwrap().1, Level::Two);
    assert_eq!(rights(&memory, root, PHYSMAP_BASE + 0x20_0000).unwrap().1, Level::One);
}

#[test]
fn the_stack_area_has_a_table_and_no_page() {
    let (memory, root) = map(0x80_0000);
    let found = walk(&memory, root, GuestVirt(STACKS_BASE));
    assert_eq!(found.outcome, Outcome::NotPresent(Level::Three));
    assert_eq!(found.steps().count(), 2);
}

#[test]
fn too_little_memory_is_an_error() {
    let mut memory = Memory(vec![0; 0x30_2000 / 8]);
    let map = KernelMap {
        image: &[TEXT],
        ram: &[(GuestPhys(0), GuestPhys(0x30_2000))],
        tables: GuestPhys(0x30_0000),
        global_pages: false,
    };
    assert!(matches!(map.build(&mut memory), Err(OutsideMemory(_))));
}

#[test]
fn a_walk_survives_tables_that_point_at_themselves_or_outside() {
    let mut memory = Memory(vec![0; 512]);
    let looping = Entry::new(GuestPhys(0), EntryFlags::PRESENT);
    assert!(memory.write_entry(GuestPhys(0), looping));
    let found = walk(&memory, GuestPhys(0), GuestVirt(0));
    assert_eq!(found.steps().count(), 4);
    assert_eq!(found.physical(), Some(GuestPhys(0)));

    let outside = Entry::new(GuestPhys(0x7fff_f000), EntryFlags::PRESENT);
    assert!(memory.write_entry(GuestPhys(8), outside));
    let found = walk(&memory, GuestPhys(0), GuestVirt(1 << 39));
    assert_eq!(found.outcome, Outcome::TableOutsideMemory(Level::Three));
    let found = walk(&memory, GuestPhys(0), GuestVirt(1 << 63));
    assert_eq!(found.outcome, Outcome::NotCanonical);
}
