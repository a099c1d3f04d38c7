//! The page cache: files' bytes lie in objects of memory management, so that
//! `read`, `write` and a mapping see the same frames.
//!
//! A file's number in the tree is its object's. What the object of a file in
//! memory has no frame for is a hole, which reads as zeros; [`make_page`] fills
//! it when it is written or mapped. The first program is a file like any other,
//! except that its missing pages come from where the host put it
//! (`process::program`). The missing pages of a file with something behind it are
//! read from there ([`super::backed`]), its changed ones written there
//! ([`super::write_back`]).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use pagelab_abi::addr::PAGE_SIZE;
use pagelab_hal::sync::Lock;
use pagelab_mm::{Copies, FaultError, ObjectId, ObjectKind};
use pagelab_vfs::buffer::moved_or_fault;
use pagelab_vfs::store::{Advice, MAX_FILE_SIZE, ObjectId as FileId, PageBacking, PageStore};
use pagelab_vfs::write_errors::WriteErrors;
use pagelab_vfs::{Errno, PathNode, Sink, Source};

use super::backed::Backed;
use super::mapped::{MappedFiles, MappedName};
use super::pages::{
    PAGE_BYTES, clear, clear_tail, copy_in, copy_out, frame, make_page, place, unmap,
};
use crate::memory::memory;
use crate::process::program;

/// A file's data.
#[derive(Clone, Copy)]
struct Data {
    object: ObjectId,
    size: u64,
}

#[derive(Default)]
struct Files {
    /// By the number of the object, less one.
    table: Vec<Option<Data>>,
    /// What the next file that is made gets.
    waiting: Option<Data>,
}

/// All files' data.
pub struct Cache {
    files: Lock<Files>,
    /// Files with something behind them, by the number of the object.
    backed: Lock<BTreeMap<u32, Arc<Backed>>>,
    /// What is known of files that were mapped.
    pub mapped: MappedFiles,
}

impl Cache {
    /// No files.
    pub const fn new() -> Self {
        Self {
            files: Lock::new(Files { table: Vec::new(), waiting: None }),
            backed: Lock::new(BTreeMap::new()),
            mapped: MappedFiles::new(),
        }
    }

    /// The next file that is made has these contents.
    pub fn give_next(&self, object: ObjectId, size: u64) {
        memory().objects.retain(object);
        self.files.lock().waiting = Some(Data { object, size });
    }

    /// The object that holds a file's data.
    pub fn object(&self, file: FileId) -> Option<ObjectId> {
        self.data(file).ok().map(|data| data.object)
    }

    /// The file with something behind it that has an object.
    #[inline]
    pub fn backed(&self, object: ObjectId) -> Option<Arc<Backed>> {
        self.backed.lock().get(&object.number()).cloned()
    }

    /// All files with something behind them.
    pub fn all_backed(&self) -> Vec<Arc<Backed>> {
        self.backed.lock().values().cloned().collect()
    }

    /// The size of the file that has an object.
    pub fn size_of(&self, object: ObjectId) -> u64 {
        self.size(FileId(object.number().into()))
    }

    /// A file has another size: what lies beyond goes, from mappings, too.
    pub fn take_size(&self, object: ObjectId, size: u64) {
        let memory = memory();
        let pages = size.div_ceil(PAGE_SIZE);
        if size < self.size_of(object) {
            unmap(object, pages..u64::MAX, Copies::Go);
            clear_tail(object, size);
            program::truncate(object, pages);
        }
        memory.objects.set_pages(&memory.machine, memory.frames, object, pages);
        self.note_size(FileId(object.number().into()), size);
    }

    /// A file is about to be mapped.
    pub fn note_mapping(&self, object: ObjectId, node: &PathNode) {
        let pin = memory().objects.kind(object) == ObjectKind::File;
        self.mapped.note(object, node, pin);
    }

    /// What a mapped file is called.
    pub fn mapped_name(&self, object: ObjectId) -> Option<MappedName> {
        self.mapped.name(object)
    }

    /// Makes pages of a mapped file a hole.
    ///
    /// # Errors
    ///
    /// Of the file.
    pub fn punch(&self, object: ObjectId, pages: Range<u64>) -> Result<(), Errno> {
        let (offset, length) = (pages.start * PAGE_SIZE, (pages.end - pages.start) * PAGE_SIZE);
        match self.mapped.pinned(object) {
            Some(inode) => inode.punch_hole(offset, length),
            None => self.punch_hole(FileId(object.number().into()), offset, length),
        }
    }

    /// Lets go of files in memory that nobody maps any more.
    pub fn unpin_unused_in_memory(&self) {
        for object in self.mapped.unused() {
            if self.backed(object).is_none() {
                self.mapped.unpin(object);
            }
        }
    }

    /// Lets go of files that nobody maps any more, once they are written.
    pub fn unpin_unused(&self) {
        for object in self.mapped.unused() {
            if let Some(file) = self.backed(object) {
                // Who has the file open is told.
                let _ = file.flush(0..u64::MAX);
            }
            self.mapped.unpin(object);
        }
    }

    /// How many frames files in memory take.
    pub fn pages_in_memory(&self) -> u64 {
        let cached = memory().frames.counters().cache;
        let backed = self.backed.lock();
        backed.values().fold(cached, |pages, file| pages - memory().objects.resident(file.object))
    }

    /// Gives back the memory of the table itself, once all files are gone.
    pub fn shrink(&self) {
        let mut files = self.files.lock();
        while files.table.last().is_some_and(Option::is_none) {
            files.table.pop();
        }
        files.table.shrink_to_fit();
        self.mapped.clear();
    }

    fn data(&self, file: FileId) -> Result<Data, Errno> {
        let files = self.files.lock();
        files.table.get(slot(file)).copied().flatten().ok_or(Errno::EBADF)
    }

    fn note_size(&self, file: FileId, size: u64) {
        if let Some(Some(data)) = self.files.lock().table.get_mut(slot(file)) {
            data.size = size;
        }
    }
}

fn slot(file: FileId) -> usize {
    usize::try_from(file.0).map_or(usize::MAX, |number| number.wrapping_sub(1))
}

impl Cache {
    /// A file with such data.
    fn add(&self, data: Data) -> FileId {
        // The number may have been another object's.
        self.mapped.forget(data.object);
        let file = FileId(data.object.number().into());
        let mut files = self.files.lock();
        if files.table.len() <= slot(file) {
            files.table.resize(slot(file) + 1, None);
        }
        files.table[slot(file)] = Some(data);
        file
    }
}

impl PageStore for Cache {
    fn create(&self) -> Result<FileId, Errno> {
        let waiting = self.files.lock().waiting.take();
        let data = match waiting {
            Some(data) => data,
            None => {
                let object = memory().objects.create(ObjectKind::File, 0, 0);
                Data { object: object.map_err(|_| Errno::ENOMEM)?, size: 0 }
            }
        };
        Ok(self.add(data))
    }

    fn create_backed(&self, backing: Arc<dyn PageBacking>, size: u64) -> Result<FileId, Errno> {
        let memory = memory();
        let pages = size.div_ceil(PAGE_SIZE);
        let object = memory.objects.create(ObjectKind::File, pages, 0);
        let object = object.map_err(|_| Errno::ENOMEM)?;
        memory.objects.set_stored(object);
        let file = self.add(Data { object, size });
        let backed = Arc::new(Backed::new(object, backing, size));
        self.backed.lock().insert(object.number(), backed);
        Ok(file)
    }

    fn refresh(&self, file: FileId, size: u64) -> Result<(), Errno> {
        let object = self.data(file)?.object;
        if let Some(backed) = self.backed(object) {
            backed.host_has_size(size);
            backed.reread();
        }
        Ok(())
    }

    fn flush(&self, file: FileId) -> Result<(), Errno> {
        let object = self.data(file)?.object;
        self.backed(object).map_or(Ok(()), |backed| backed.flush(0..u64::MAX))
    }

    fn sync(&self, file: FileId, data_only: bool) -> Result<(), Errno> {
        let object = self.data(file)?.object;
        self.backed(object).map_or(Ok(()), |backed| backed.sync(0..u64::MAX, data_only))
    }

    fn write_errors(&self, file: FileId) -> Option<Arc<WriteErrors>> {
        let object = self.data(file).ok()?.object;
        Some(self.backed(object)?.errors.clone())
    }

    fn advise(&self, file: FileId, offset: u64, length: u64, advice: Advice) {
        let Ok(Data { object, size }) = self.data(file) else { return };
        let end = if length == 0 { size } else { offset.saturating_add(length).min(size) };
        if let Some(backed) = self.backed(object) {
            backed.advise(offset / PAGE_SIZE..end.div_ceil(PAGE_SIZE), advice);
        }
    }

    fn destroy(&self, file: FileId) {
        if self.flush(file).is_err() {
            log::warn!("a file is gone before all of it could be written");
        }
        let data = self.files.lock().table.get_mut(slot(file)).and_then(Option::take);
        let Some(data) = data else { return };
        self.mapped.destroyed(data.object);
        let backed = self.backed.lock().remove(&data.object.number());
        if let Some(backed) = backed {
            backed.forget_dirty();
        }
        memory().release_object(data.object);
    }

    fn size(&self, file: FileId) -> u64 {
        self.data(file).map_or(0, |data| data.size)
    }

    fn set_size(&self, file: FileId, size: u64) -> Result<(), Errno> {
        let Data { object, size: old } = self.data(file)?;
        if let Some(backed) = self.backed(object) {
            backed.backing.set_size(size)?;
            backed.state.lock().host_size = size;
            // What a mapping stored there was never part of the file.
            clear_tail(object, old.min(size));
        }
        self.take_size(object, size);
        Ok(())
    }

    fn read_at(&self, file: FileId, offset: u64, sink: &mut dyn Sink) -> Result<usize, Errno> {
        let Data { object, size } = self.data(file)?;
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = sink.remaining().min(left);
        let mut done = 0;
        while done < wanted {
            let (index, within, length) = place(offset + done as u64, wanted - done);
            let pages = (wanted - done).div_ceil(PAGE_BYTES) as u64;
            let moved = match frame(object, index, pages) {
                Ok(Some(frame)) => copy_out(frame, within, length, sink),
                Ok(None) => sink.put_zeros(length),
                // What came before is not lost; who reads on learns of it.
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            };
            done += moved;
            if moved < length {
                break;
            }
        }
        moved_or_fault(done, wanted)
    }

    fn write_at(&self, file: FileId, offset: u64, source: &mut dyn Source) -> Result<usize, Errno> {
        let Data { object, mut size } = self.data(file)?;
        if offset > size && self.backed(object).is_some() {
            // What a mapping stored there was never part of the file.
            clear_tail(object, size);
        }
        let room = usize::try_from(MAX_FILE_SIZE.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = source.remaining().min(room);
        let mut done = 0;
        let mut failure = None;
        while done < wanted {
            let (index, within, length) = place(offset + done as u64, wanted - done);
            let moved = match copy_in(object, (index, within, length), size, source) {
                Ok(moved) => moved,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            done += moved;
            size = size.max(offset + done as u64);
            if moved < length {
                break;
            }
        }
        // Pages that were made for bytes that did not come go again.
        let memory = memory();
        let pages = size.div_ceil(PAGE_SIZE);
        memory.objects.set_pages(&memory.machine, memory.frames, object, pages);
        self.note_size(file, size);
        match failure {
            Some(error) if done == 0 => Err(error),
            _ => moved_or_fault(done, wanted),
        }
    }

    fn allocate(&self, file: FileId, offset: u64, length: u64) -> Result<(), Errno> {
        let Data { object, .. } = self.data(file)?;
        let end = (offset + length).div_ceil(PAGE_SIZE).min(memory().objects.pages(object));
        for index in offset / PAGE_SIZE..end {
            if frame(object, index, 1)?.is_none() {
                make_page(object, index).map_err(|error| match error {
                    FaultError::OutOfMemory => Errno::ENOMEM,
                    _ => Errno::ENOSPC,
                })?;
            }
        }
        Ok(())
    }

    fn punch_hole(&self, file: FileId, offset: u64, length: u64) -> Result<(), Errno> {
        let Data { object, size } = self.data(file)?;
        let end = offset.saturating_add(length).min(size.next_multiple_of(PAGE_SIZE));
        let memory = memory();
        let is_program = memory.objects.kind(object) == ObjectKind::Program;
        let mut at = offset;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(PAGE_BYTES);
            let (index, within, length) = place(at, left);
            if length < PAGE_BYTES || is_program {
                clear(object, index, within..within + length)?;
            } else {
                unmap(object, index..index + 1, Copies::Stay);
                if let Some(frame) =
                    memory.objects.remove(&memory.machine, memory.frames, object, index)
                {
                    memory.frames.release(&memory.machine, frame);
                }
            }
            at += length as u64;
        }
        Ok(())
    }

    fn resident_pages(&self, file: FileId) -> u64 {
        let Ok(Data { object, size }) = self.data(file) else { return 0 };
        match memory().objects.kind(object) {
            // All of it is in memory, whether its object has it yet or not.
            ObjectKind::Program => size.div_ceil(PAGE_SIZE),
            _ => memory().objects.resident(object),
        }
    }

    fn total_pages(&self) -> u64 {
        self.pages_in_memory()
    }

    fn next_resident(&self, file: FileId, page: u64) -> Option<u64> {
        let Data { object, .. } = self.data(file).ok()?;
        let memory = memory();
        if memory.objects.kind(object) == ObjectKind::Program {
            return Some(page);
        }
        let mut found = None;
        memory.objects.for_each_page(&memory.machine, object, page..u64::MAX, |index, _| {
            found = Some(index);
            false
        });
        found
    }

    fn next_hole(&self, file: FileId, page: u64) -> u64 {
        let Ok(Data { object, size }) = self.data(file) else { return page };
        let memory = memory();
        if memory.objects.kind(object) == ObjectKind::Program {
            return size.div_ceil(PAGE_SIZE);
        }
        let mut expected = page;
        memory.objects.for_each_page(&memory.machine, object, page..u64::MAX, |index, _| {
            let contiguous = index == expected;
            expected += u64::from(contiguous);
            contiguous
        });
        expected
    }
}
