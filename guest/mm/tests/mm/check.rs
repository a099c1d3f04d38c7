//! What must be true of an address space at any time.

use std::cell::RefCell;
use std::collections::HashMap;

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SHIFT};
use pagelab_mm::{AddressSpace, AreaFlags, Machine, Protection, Spaces, Use};
use pagelab_paging::{Entry, EntryFlags, Level};

use crate::disk::all_mappings;
use crate::lab::{Lab, PAGE};
use crate::model::{Content, Private};
use crate::random::Process;

/// Everything in the page tables below a root: tables with the range that each
/// covers, and entries of level 1.
pub struct Tree {
    pub tables: Vec<(Frame, u64, u64)>,
    pub entries: Vec<(GuestVirt, Entry)>,
}

pub fn tree(lab: &Lab, root: Frame) -> Tree {
    let mut tree = Tree { tables: Vec::new(), entries: Vec::new() };
    descend(lab, root, Level::Four, 0, &mut tree);
    tree
}

fn descend(lab: &Lab, table: Frame, level: Level, base: u64, tree: &mut Tree) {
    assert_eq!(lab.memory.frames.use_of(table), Use::Table);
    let slots = if level == Level::Four { 256 } else { 512 };
    for index in 0..slots {
        let entry = lab.memory.machine.read_entry(table, index);
        let start = base + index as u64 * level.entry_size();
        match level.below() {
            _ if entry == Entry::EMPTY => {}
            None => tree.entries.push((GuestVirt(start), entry)),
            Some(below) => {
                tree.tables.push((entry.frame(), start, start + level.entry_size()));
                descend(lab, entry.frame(), below, start, tree);
            }
        }
    }
}

/// Areas, tables, entries and counts agree with each other.
pub fn space(lab: &Lab, space: &AddressSpace) {
    let areas: Vec<_> = space.areas().copied().collect();
    assert!(areas.iter().all(|area| area.start < area.end));
    assert!(areas.windows(2).all(|pair| pair[0].end <= pair[1].start), "{areas:?}");
    let tree = tree(lab, space.root());
    assert_eq!(tree.tables.len() as u64 + 1, space.tables());
    for &(table, start, end) in &tree.tables {
        assert_eq!(lab.memory.frames.count(table), 1);
        let used = areas.iter().any(|area| area.start.0 < end && start < area.end.0);
        assert!(used, "a table for {start:#x} to {end:#x}, where nothing is mapped");
    }
    let (mut anonymous, mut shared, mut file, mut swapped) = (0, 0, 0, 0);
    for &(page, entry) in &tree.entries {
        let area = space.area_at(page).unwrap_or_else(|| panic!("{page}: {entry:x?}, no area"));
        if let Some(slot) = entry.swap_slot() {
            assert!(area.is_private() && area.family != 0);
            assert!(lab.memory.swap.count(slot) > 0);
            swapped += 1;
            continue;
        }
        let rights = area.entry_flags();
        assert_eq!(entry.has(EntryFlags::USER), rights.contains(EntryFlags::USER));
        assert_eq!(entry.has(EntryFlags::NO_EXECUTE), rights.contains(EntryFlags::NO_EXECUTE));
        if entry.has(EntryFlags::WRITABLE) {
            assert!(area.protection.contains(Protection::WRITE));
            assert!(!entry.flags().intersects(EntryFlags::COPY_ON_WRITE | EntryFlags::SPECIAL));
        }
        if entry.has(EntryFlags::SPECIAL) {
            assert_eq!(entry.frame(), lab.memory.zero_page());
            continue;
        }
        match lab.memory.frames.use_of(entry.frame()) {
            Use::Anonymous => {
                anonymous += 1;
                assert!(area.is_private() && area.family != 0);
                let alone = lab.memory.frames.count(entry.frame()) == 1;
                assert!(alone || !entry.has(EntryFlags::WRITABLE));
            }
            Use::Cache if area.flags.contains(AreaFlags::SHARED_MEMORY) => shared += 1,
            Use::Cache => file += 1,
            other => panic!("{page} shows a frame that is {other:?}"),
        }
    }
    let resident = space.resident();
    assert_eq!(
        (resident.anonymous, resident.shared_memory, resident.file, space.swapped()),
        (anonymous, shared, file, swapped)
    );
    let pages: u64 = areas.iter().map(pagelab_mm::Area::pages).sum();
    assert_eq!(space.sizes().total, pages);
    let locked = areas.iter().filter(|area| area.flags.contains(AreaFlags::LOCKED));
    assert_eq!(space.sizes().locked, locked.map(pagelab_mm::Area::pages).sum::<u64>());
}

/// The address space is what the model says.
pub fn process(lab: &Lab, process: &Process) {
    space(lab, &process.space);
    let mut pages = process.model.pages.iter();
    for area in process.space.areas() {
        for at in area.start.0 >> PAGE_SHIFT..area.end.0 >> PAGE_SHIFT {
            let (&page, model) = pages.next().unwrap_or_else(|| panic!("{at:#x} has no model"));
            assert_eq!(page, at, "mapped pages differ");
            assert_eq!(area.protection, model.protection);
            assert_eq!(area.is_private(), model.is_private());
            let flags = [AreaFlags::LOCKED, AreaFlags::DONT_FORK, AreaFlags::WIPE_ON_FORK];
            let ours = [model.locked, model.dont_fork, model.wipe_on_fork];
            assert_eq!(flags.map(|flag| area.flags.contains(flag)), ours, "page {at:#x}");
            let address = GuestVirt(page << PAGE_SHIFT);
            page_is(lab, process, address);
        }
    }
    assert!(pages.next().is_none(), "the model has more pages");
}

fn page_is(lab: &Lab, process: &Process, address: GuestVirt) {
    let machine = &lab.memory.machine;
    let model = &process.model.pages[&(address.0 >> PAGE_SHIFT)];
    let entry = machine.walk(process.space.root(), address).map(|walk| walk.2);
    let mapped = match &model.content {
        Content::Private(private) => !matches!(private, Private::Untouched),
        Content::Shared { mapped, .. } => *mapped,
    };
    assert_eq!(entry.is_some(), mapped, "{address}: {entry:x?} for {model:?}");
    let mut resident = false;
    process.space.mincore(&lab.memory, address, PAGE, |_, there| resident = there).unwrap();
    assert_eq!(resident, model.is_resident(), "{address}: {model:?}");
    if let Some(entry) = entry {
        let byte = machine.word(entry.frame(), 0) as u8;
        assert_eq!(byte, model.byte(), "contents of {address}: {model:?}");
    }
}

/// Every frame has as many owners as there are entries and objects that hold it.
pub fn owners(lab: &Lab, processes: &mut [Process]) {
    mappers(lab, processes);
    let mut mapped: HashMap<Frame, u32> = HashMap::new();
    for process in &*processes {
        for (_, entry) in tree(lab, process.space.root()).entries {
            if !entry.has(EntryFlags::SPECIAL) {
                *mapped.entry(entry.frame()).or_default() += 1;
            }
        }
    }
    for (&frame, &count) in &mapped {
        let own = u32::from(lab.memory.frames.use_of(frame) == Use::Cache);
        assert_eq!(lab.memory.frames.count(frame), count + own, "{frame:?}");
    }
    let anonymous = mapped.keys().filter(|&&f| lab.memory.frames.use_of(f) == Use::Anonymous);
    assert_eq!(lab.memory.frames.counters().anonymous, anonymous.count() as u64);
}

/// Processes as a kernel has them.
struct Running<'a>(RefCell<&'a mut [Process]>);

impl Spaces for Running<'_> {
    fn count(&self) -> usize {
        self.0.borrow().len()
    }

    fn with(&self, number: usize, visit: &mut dyn FnMut(&mut AddressSpace)) {
        visit(&mut self.0.borrow_mut()[number].space);
    }
}

/// Who maps a frame is what the page tables say, for every frame.
fn mappers(lab: &Lab, processes: &mut [Process]) {
    let roots: Vec<_> = processes.iter().map(|process| process.space.root()).collect();
    mappers_of(lab, &Running(RefCell::new(processes)), &roots);
}

/// The same for any set of address spaces with these roots.
pub fn mappers_of(lab: &Lab, spaces: &impl Spaces, roots: &[Frame]) {
    for (frame, mut expected) in all_mappings(lab, roots.iter().copied()) {
        let mut found = Vec::new();
        let count = lab.memory.for_each_mapping(spaces, frame, |space, mapping| {
            assert_eq!(mapping.entry.frame(), frame);
            assert_eq!(space.area_at(mapping.page).unwrap().flags, mapping.flags);
            found.push((space.root(), mapping.page));
        });
        assert_eq!(count as usize, found.len());
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "mappers of {frame:?}");
    }
}
