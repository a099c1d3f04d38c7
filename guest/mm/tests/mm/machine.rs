//! A machine made of a vector, with a translation cache as stale as a real one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_abi::fault::FaultKind;
use pagelab_mm::{Access, Machine, Resolved};
use pagelab_paging::{Entry, EntryFlags, Level};

type Words = Box<[u64; 512]>;

#[derive(Default)]
pub struct Ram {
    /// Frames that were never written are not there, and read as zero.
    frames: RefCell<Vec<Option<Words>>>,
    tlb: RefCell<HashMap<(Frame, GuestVirt), Entry>>,
    pub software_faults: RefCell<Vec<(GuestVirt, FaultKind)>>,
    pub space_flushes: Cell<usize>,
    pub page_flushes: Cell<usize>,
}

impl Ram {
    pub fn new(frames: usize) -> Self {
        let ram = Self::default();
        ram.frames.borrow_mut().resize_with(frames, || None);
        ram
    }

    /// Makes a frame exist.
    #[allow(dead_code, reason = "only where the heap is watched")]
    pub fn touch(&self, frame: Frame) {
        self.with(frame, |_| ());
    }

    pub fn word(&self, frame: Frame, index: usize) -> u64 {
        self.frames.borrow()[frame.index()].as_ref().map_or(0, |words| words[index])
    }

    fn with<R>(&self, frame: Frame, change: impl FnOnce(&mut [u64; 512]) -> R) -> R {
        change(self.frames.borrow_mut()[frame.index()].get_or_insert_with(|| Box::new([0; 512])))
    }

    /// The entry of level 1 and where it is, as the tables have it now.
    pub fn walk(&self, root: Frame, page: GuestVirt) -> Option<(Frame, usize, Entry)> {
        let mut table = root;
        for level in Level::DOWN {
            let index = level.index(page);
            let entry = Entry(self.word(table, index));
            if !entry.is_present() {
                return None;
            }
            if level == Level::One {
                return Some((table, index, entry));
            }
            table = entry.frame();
        }
        None
    }

    /// What a processor does in ring 3: the frame, or a fault. It believes its
    /// translation cache.
    pub fn access(&self, root: Frame, address: GuestVirt, access: Access) -> Option<Frame> {
        let page = address.page_start();
        let cached = self.tlb.borrow().get(&(root, page)).copied();
        if let Some(entry) = cached
            && permits(entry, access)
            && (!access.write || entry.has(EntryFlags::DIRTY))
        {
            return Some(entry.frame());
        }
        // A processor that would fault looks at the tables again first.
        let Some((table, index, entry)) = self.walk(root, page).filter(|w| permits(w.2, access))
        else {
            self.tlb.borrow_mut().remove(&(root, page));
            return None;
        };
        let mut used = EntryFlags::ACCESSED;
        used.set(EntryFlags::DIRTY, access.write);
        let entry = entry.with(used);
        self.with(table, |words| words[index] = entry.0);
        self.tlb.borrow_mut().insert((root, page), entry);
        Some(entry.frame())
    }

    /// Every cached translation must be one that the tables still allow.
    pub fn check_tlb(&self) {
        for (&(root, page), &cached) in self.tlb.borrow().iter() {
            let now = self.walk(root, page).map_or(Entry::EMPTY, |walk| walk.2);
            let rights = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::USER;
            let stale = cached.frame() != now.frame()
                || !((cached.flags() & rights) - now.flags()).is_empty()
                || (now.has(EntryFlags::NO_EXECUTE) && !cached.has(EntryFlags::NO_EXECUTE))
                || (cached.has(EntryFlags::DIRTY) && !now.has(EntryFlags::DIRTY));
            assert!(!stale, "stale translation of {page}: {cached:x?}, tables say {now:x?}");
        }
    }

    pub fn forget_root(&self, root: Frame) {
        self.tlb.borrow_mut().retain(|key, _| key.0 != root);
    }
}

fn permits(entry: Entry, access: Access) -> bool {
    entry.has(EntryFlags::PRESENT | EntryFlags::USER)
        && (!access.write || entry.has(EntryFlags::WRITABLE))
        && !(access.execute && entry.has(EntryFlags::NO_EXECUTE))
}

impl Machine for Ram {
    fn read_entry(&self, table: Frame, index: usize) -> Entry {
        Entry(self.word(table, index))
    }

    fn write_entry(&self, table: Frame, index: usize, entry: Entry) {
        self.with(table, |words| words[index] = entry.0);
    }

    fn zero_frame(&self, frame: Frame) {
        self.with(frame, |words| words.fill(0));
    }

    fn copy_frame(&self, from: Frame, to: Frame) {
        let copy = self.frames.borrow()[from.index()].as_ref().map_or([0; 512], |words| **words);
        self.with(to, |words| *words = copy);
    }

    fn flush_page(&self, root: Frame, page: GuestVirt) {
        self.page_flushes.set(self.page_flushes.get() + 1);
        self.tlb.borrow_mut().remove(&(root, page));
    }

    fn flush_space(&self, root: Frame) {
        self.space_flushes.set(self.space_flushes.get() + 1);
        self.forget_root(root);
    }

    fn read_bytes(&self, frame: Frame, offset: usize, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            *byte = self.word(frame, at / 8).to_le_bytes()[at % 8];
        }
    }

    fn write_bytes(&self, frame: Frame, offset: usize, from: &[u8]) {
        self.with(frame, |words| {
            for (at, &byte) in (offset..).zip(from) {
                let mut bytes = words[at / 8].to_le_bytes();
                bytes[at % 8] = byte;
                words[at / 8] = u64::from_le_bytes(bytes);
            }
        });
    }

    fn software_fault(&self, address: GuestVirt, _access: Access, resolved: &Resolved) {
        self.software_faults.borrow_mut().push((address, resolved.kind));
    }
}
