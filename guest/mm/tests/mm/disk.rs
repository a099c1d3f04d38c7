//! A file behind an object, and the kernel that reads and writes it for reclaim.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_mm::{
    Access, AddressSpace, FaultError, Machine, MapFlags, MapRequest, MapSource, NeedsPage,
    ObjectId, ObjectKind, Pager, Protection, Reclaimed, Resolved, Spaces, Use,
};

use crate::lab::{Lab, PAGE, page};

/// Processes and one file.
pub struct World<'a> {
    pub lab: &'a Lab,
    pub file: ObjectId,
    /// First byte of each page of the file, on the disk.
    pub disk: RefCell<Vec<u8>>,
    pub spaces: RefCell<Vec<AddressSpace>>,
    /// Pages that were read, and written.
    pub reads: Cell<usize>,
    pub writes: RefCell<Vec<u64>>,
    /// How many writes succeed before one fails.
    pub fail_after: Cell<usize>,
    /// The swap cache, and what is in the slots.
    pub swap: Option<ObjectId>,
    pub slots: RefCell<HashMap<u64, Vec<u8>>>,
}

impl<'a> World<'a> {
    /// A file of so many pages; page *n* holds *n* + 1.
    pub fn new(lab: &'a Lab, pages: u64) -> Self {
        let file = lab.memory.objects.create(ObjectKind::File, pages, 0).unwrap();
        lab.memory.objects.set_stored(file);
        Self {
            lab,
            file,
            disk: RefCell::new((0..pages).map(|page| (page as u8).wrapping_add(1)).collect()),
            spaces: RefCell::default(),
            reads: Cell::new(0),
            writes: RefCell::default(),
            fail_after: Cell::new(usize::MAX),
            swap: None,
            slots: RefCell::default(),
        }
    }

    /// The same with so many pages of swap, one of which is not used.
    pub fn with_swap(lab: &'a Lab, pages: u64, slots: u64) -> Self {
        let mut world = Self::new(lab, pages);
        world.swap = Some(lab.memory.swap_on(slots).unwrap());
        world
    }

    /// Whether the next write succeeds.
    fn may_write(&self) -> bool {
        let left = self.fail_after.get();
        self.fail_after.set(left.saturating_sub(1));
        left > 0
    }

    pub fn spawn(&self) -> usize {
        self.spaces.borrow_mut().push(self.lab.space());
        self.spaces.borrow().len() - 1
    }

    pub fn map_file(&self, process: usize, flags: MapFlags, protection: Protection) -> GuestVirt {
        let source =
            MapSource::Object { object: self.file, offset: 0, may_write: true, notify_write: true };
        let length = self.lab.memory.objects.pages(self.file) * PAGE;
        let address = GuestVirt(0x4000_0000);
        let request = MapRequest { address, length, protection, flags, source };
        self.spaces.borrow_mut()[process].mmap(&self.lab.memory, &request).unwrap().start
    }

    /// Reads a page that somebody needs.
    pub fn page_in(&self, page: NeedsPage) -> Result<(), FaultError> {
        let memory = &self.lab.memory;
        self.reads.set(self.reads.get() + 1);
        let swapped = self.swap == Some(page.object);
        assert!(swapped || page.object == self.file);
        let usage = if swapped { Use::Anonymous } else { Use::Cache };
        let frame = memory.frames.alloc(usage).ok_or(FaultError::OutOfMemory)?;
        if swapped {
            memory.machine.write_bytes(frame, 0, &self.slots.borrow()[&page.index]);
            memory.frames.note_used(frame);
        } else {
            let byte = self.disk.borrow()[page.index as usize];
            memory.machine.write_bytes(frame, 0, &[byte; 4096]);
        }
        memory
            .objects
            .insert(&memory.machine, memory.frames, page.object, page.index, frame)
            .map_err(|_| {
                memory.frames.release(&memory.machine, frame);
                FaultError::OutOfMemory
            })
    }

    /// One access of a program, with all its faults.
    pub fn touch(
        &self,
        process: usize,
        address: GuestVirt,
        mut access: Access,
    ) -> Result<(Frame, Vec<Resolved>), FaultError> {
        loop {
            let result = {
                let space = &mut self.spaces.borrow_mut()[process];
                let mut faults = Vec::new();
                let machine = &self.lab.memory.machine;
                match machine.access(space.root(), address, access) {
                    Some(frame) => Ok((frame, faults)),
                    None => space.fault(&self.lab.memory, address, access).map(|resolved| {
                        faults.push(resolved);
                        let frame = machine.access(space.root(), address, access);
                        (frame.expect("the fault was resolved"), faults)
                    }),
                }
            };
            match result {
                Err(FaultError::NeedsPage(page)) => {
                    self.page_in(page)?;
                    access.major = true;
                }
                result => return result,
            }
        }
    }

    pub fn load(&self, process: usize, address: GuestVirt) -> u8 {
        let (frame, _) = self.touch(process, address, Access::READ).unwrap();
        self.lab.memory.machine.word(frame, 0) as u8
    }

    pub fn load_all(&self, process: usize, start: GuestVirt, pages: Range<u64>) {
        for number in pages {
            self.load(process, page(start, number));
        }
    }

    pub fn store(&self, process: usize, address: GuestVirt, byte: u8) -> Vec<Resolved> {
        let (frame, faults) = self.touch(process, address, Access::WRITE).unwrap();
        self.lab.memory.machine.write_bytes(frame, 0, &[byte]);
        faults
    }

    pub fn reclaim(&self, wanted: u64) -> Reclaimed {
        let reclaimed = self.lab.memory.reclaim(self, wanted);
        self.lab.memory.machine.check_tlb();
        reclaimed
    }

    pub fn resident(&self) -> u64 {
        self.lab.memory.objects.resident(self.file)
    }

    /// Makes a page clean; its frame, and whether it was dirty.
    pub fn clean_page(&self, index: u64) -> Option<(Frame, bool)> {
        let memory = &self.lab.memory;
        let (page, _) = memory.objects.lookup(&memory.machine, self.file, index);
        let pagelab_mm::Page::Present(frame) = page else { return None };
        let was_dirty = memory.frames.hold().is_dirty(frame);
        memory.clean_pages(self, (self.file, index), &[frame]);
        Some((frame, was_dirty))
    }

    /// Writes a dirty page; returns whether that went well.
    pub fn write_page(&self, index: u64) -> bool {
        let memory = &self.lab.memory;
        let Some((frame, was_dirty)) = self.clean_page(index) else { return false };
        if !was_dirty {
            return true;
        }
        if !self.may_write() {
            memory.frames.hold().set_dirty(frame, true);
            return false;
        }
        self.disk.borrow_mut()[index as usize] = memory.machine.word(frame, 0) as u8;
        self.writes.borrow_mut().push(index);
        true
    }

    /// Ends everything.
    pub fn end(self) {
        for space in self.spaces.into_inner() {
            self.lab.end(space);
        }
        self.lab.memory.release_object(self.file);
        let swap = self.lab.memory.swap_use();
        assert_eq!((swap.free, swap.cached), (swap.total, 0), "slots left");
        self.lab.memory.swap_off().unwrap();
        self.lab.check_balance();
    }
}

impl Spaces for World<'_> {
    fn count(&self) -> usize {
        self.spaces.borrow().len()
    }

    fn with(&self, number: usize, visit: &mut dyn FnMut(&mut AddressSpace)) {
        visit(&mut self.spaces.borrow_mut()[number]);
    }
}

impl Pager for World<'_> {
    fn write_back(&self, object: ObjectId, index: u64) -> bool {
        assert_eq!(object, self.file);
        self.write_page(index)
    }

    fn write_swap(&self, slot: u64, frames: &[Frame]) -> bool {
        if !self.may_write() {
            return false;
        }
        for (slot, &frame) in (slot..).zip(frames) {
            let mut bytes = vec![0; 4096];
            self.lab.memory.machine.read_bytes(frame, 0, &mut bytes);
            self.slots.borrow_mut().insert(slot, bytes);
        }
        true
    }
}

/// Every mapping of every frame, as the page tables have it.
pub fn all_mappings(
    lab: &Lab,
    roots: impl Iterator<Item = Frame>,
) -> BTreeMap<Frame, Vec<(Frame, GuestVirt)>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for root in roots {
        for (page, entry) in crate::check::tree(lab, root).entries {
            if entry.is_present() && entry.frame() != lab.memory.zero_page() {
                all.entry(entry.frame()).or_default().push((root, page));
            }
        }
    }
    all
}
