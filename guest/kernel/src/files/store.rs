//! The page cache: files' bytes lie in objects of memory management, so that
//! `read`, `write` and a mapping see the same frames.
//!
//! A file's number in the tree is its object's. What the object has no frame
//! for is a hole, which reads as zeros; [`make_page`] fills it when it is
//! written or mapped. The first program is a file like any other, except that
//! its missing pages come from where the host put it (`process::program`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_hal::sync::Lock;
use pagelab_mm::{FaultError, Machine, NeedsPage, ObjectId, ObjectKind, Page, Use};
use pagelab_vfs::buffer::moved_or_fault;
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::store::{MAX_FILE_SIZE, ObjectId as FileId, PageStore};
use pagelab_vfs::{Errno, PathNode, Sink, Source};

use super::page_in;
use crate::memory::memory;
use crate::process::{self, program};

const PAGE_BYTES: usize = PAGE_SIZE as usize;

/// Where bytes are on their way between a page and a program's buffer. Held while
/// the program's pages come in, which copies nothing by this way.
static PASSAGE: Lock<[u8; PAGE_BYTES]> = Lock::new([0; PAGE_BYTES]);

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

/// What a mapped file is called, as `/proc/PID/maps` shows it.
#[derive(Clone)]
pub struct MappedName {
    /// Device number of its file system.
    pub device: DeviceNumber,
    /// Its number there.
    pub inode: u64,
    path: Vec<u8>,
    deleted: bool,
}

impl MappedName {
    /// The text in `maps`.
    pub fn shown(&self) -> Vec<u8> {
        let mut text = self.path.clone();
        if self.deleted {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }
}

/// All files' data.
pub struct Cache {
    files: Lock<Files>,
    /// Names of files that were mapped, by the number of the object.
    names: Lock<BTreeMap<u32, MappedName>>,
}

impl Cache {
    /// No files.
    pub const fn new() -> Self {
        Self {
            files: Lock::new(Files { table: Vec::new(), waiting: None }),
            names: Lock::new(BTreeMap::new()),
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

    /// A file is about to be mapped: notes what it is called now.
    pub fn note_mapping(&self, object: ObjectId, node: &PathNode) {
        if self.names.lock().contains_key(&object.number()) {
            return;
        }
        let name = MappedName {
            device: node.mount().device,
            inode: node.inode().ino(),
            path: node.display(&super::vfs().root()),
            deleted: false,
        };
        self.names.lock().insert(object.number(), name);
    }

    /// What a mapped file is called.
    pub fn mapped_name(&self, object: ObjectId) -> Option<MappedName> {
        self.names.lock().get(&object.number()).cloned()
    }

    /// Gives back the memory of the table itself, once all files are gone.
    pub fn shrink(&self) {
        let mut files = self.files.lock();
        while files.table.last().is_some_and(Option::is_none) {
            files.table.pop();
        }
        files.table.shrink_to_fit();
        self.names.lock().clear();
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

/// A page's number, where in it `offset` is, and how much of `length` bytes
/// from there on lies in it.
fn place(offset: u64, length: usize) -> (u64, usize, usize) {
    let within = (offset % PAGE_SIZE) as usize;
    (offset / PAGE_SIZE, within, length.min(PAGE_BYTES - within))
}

/// The frame of a page; a program's page comes in from the host's copy.
fn frame(object: ObjectId, index: u64) -> Result<Option<Frame>, Errno> {
    let memory = memory();
    match memory.objects.lookup(&memory.machine, object, index) {
        (Page::Present(frame), _) => Ok(Some(frame)),
        (Page::Missing, ObjectKind::Program) => {
            page_in(NeedsPage { object, index }).map_err(|_| Errno::ENOMEM)?;
            match memory.objects.lookup(&memory.machine, object, index) {
                (Page::Present(frame), _) => Ok(Some(frame)),
                _ => Err(Errno::EIO),
            }
        }
        _ => Ok(None),
    }
}

/// Whether files may take one more frame: they get half of all, as on Linux.
fn has_room() -> bool {
    let counters = memory().frames.counters();
    counters.cache < counters.total / 2
}

/// Gives a hole a frame of zeros.
///
/// # Errors
///
/// Without memory; or if files have too much of it already, which is a bus
/// error as on Linux.
pub fn make_page(object: ObjectId, index: u64) -> Result<Frame, FaultError> {
    let memory = memory();
    if !has_room() {
        return Err(FaultError::NoBacking);
    }
    let (machine, frames) = (&memory.machine, memory.frames);
    let frame = frames.alloc_zeroed(machine, Use::Cache).ok_or(FaultError::OutOfMemory)?;
    insert(object, index, frame)?;
    Ok(frame)
}

fn insert(object: ObjectId, index: u64, frame: Frame) -> Result<(), FaultError> {
    let memory = memory();
    let (machine, frames) = (&memory.machine, memory.frames);
    memory.objects.insert(machine, frames, object, index, frame).map_err(|_| {
        frames.release(machine, frame);
        FaultError::OutOfMemory
    })
}

/// Takes pages of a file out of every program's memory.
fn unmap(object: ObjectId, from: u64, end: u64) {
    const OWN_REFERENCE: u32 = 1;
    if memory().objects.references(object) == OWN_REFERENCE {
        return;
    }
    process::unmap_everywhere(object, from..end);
}

/// Clears part of a page, if it is there.
fn clear(object: ObjectId, index: u64, part: core::ops::Range<usize>) -> Result<(), Errno> {
    const ZEROS: [u8; 512] = [0; 512];
    let Some(frame) = frame(object, index)? else { return Ok(()) };
    let mut at = part.start;
    while at < part.end {
        let length = ZEROS.len().min(part.end - at);
        memory().machine.write_bytes(frame, at, &ZEROS[..length]);
        at += length;
    }
    Ok(())
}

/// The frame to write `length` bytes of a page to, and whether it is a new one:
/// a new one is only zeroed if not all of it is overwritten.
fn frame_to_write(object: ObjectId, index: u64, length: usize) -> Result<(Frame, bool), Errno> {
    if let Some(frame) = frame(object, index)? {
        return Ok((frame, false));
    }
    if !has_room() {
        return Err(Errno::ENOSPC);
    }
    let memory = memory();
    let new = if length == PAGE_BYTES {
        memory.frames.alloc(Use::Cache)
    } else {
        memory.frames.alloc_zeroed(&memory.machine, Use::Cache)
    };
    let new = new.ok_or(Errno::ENOMEM)?;
    if memory.objects.pages(object) <= index {
        memory.objects.set_pages(&memory.machine, memory.frames, object, index + 1);
    }
    insert(object, index, new).map_err(|_| Errno::ENOMEM)?;
    Ok((new, true))
}

/// Copies from a frame; returns how much the sink took.
fn copy_out(frame: Frame, start: usize, length: usize, sink: &mut dyn Sink) -> usize {
    let mut passage = PASSAGE.lock();
    let bytes = &mut passage[..length];
    memory().machine.read_bytes(frame, start, bytes);
    sink.put(bytes)
}

/// Copies to a frame; returns how much the source gave.
fn copy_in(frame: Frame, start: usize, length: usize, source: &mut dyn Source) -> usize {
    let mut passage = PASSAGE.lock();
    let bytes = &mut passage[..length];
    let moved = source.take(bytes);
    memory().machine.write_bytes(frame, start, &bytes[..moved]);
    moved
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
        // The number may have been another object's.
        self.names.lock().remove(&data.object.number());
        let file = FileId(data.object.number().into());
        let mut files = self.files.lock();
        if files.table.len() <= slot(file) {
            files.table.resize(slot(file) + 1, None);
        }
        files.table[slot(file)] = Some(data);
        Ok(file)
    }

    fn destroy(&self, file: FileId) {
        let data = self.files.lock().table.get_mut(slot(file)).and_then(Option::take);
        let Some(data) = data else { return };
        {
            let mut names = self.names.lock();
            if memory().objects.references(data.object) == 1 {
                names.remove(&data.object.number());
            } else if let Some(name) = names.get_mut(&data.object.number()) {
                name.deleted = true;
            }
        }
        memory().release_object(data.object);
    }

    fn size(&self, file: FileId) -> u64 {
        self.data(file).map_or(0, |data| data.size)
    }

    fn set_size(&self, file: FileId, size: u64) -> Result<(), Errno> {
        let Data { object, size: old } = self.data(file)?;
        let pages = size.div_ceil(PAGE_SIZE);
        if size < old {
            unmap(object, pages, u64::MAX);
            if !size.is_multiple_of(PAGE_SIZE) {
                let (index, within, _) = place(size, 0);
                clear(object, index, within..PAGE_BYTES)?;
            }
            program::truncate(object, pages);
        }
        let memory = memory();
        memory.objects.set_pages(&memory.machine, memory.frames, object, pages);
        self.note_size(file, size);
        Ok(())
    }

    fn read_at(&self, file: FileId, offset: u64, sink: &mut dyn Sink) -> Result<usize, Errno> {
        let Data { object, size } = self.data(file)?;
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = sink.remaining().min(left);
        let mut done = 0;
        while done < wanted {
            let (index, within, length) = place(offset + done as u64, wanted - done);
            let moved = match frame(object, index)? {
                Some(frame) => copy_out(frame, within, length, sink),
                None => sink.put_zeros(length),
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
        let room = usize::try_from(MAX_FILE_SIZE.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = source.remaining().min(room);
        let mut done = 0;
        let mut failure = None;
        while done < wanted {
            let (index, within, length) = place(offset + done as u64, wanted - done);
            let (frame, new) = match frame_to_write(object, index, length) {
                Ok(found) => found,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let moved = copy_in(frame, within, length, source);
            if new && moved < length {
                clear(object, index, within + moved..PAGE_BYTES)?;
            }
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
            if frame(object, index)?.is_none() {
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
                unmap(object, index, index + 1);
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
        memory().frames.counters().cache
    }

    fn next_resident(&self, file: FileId, page: u64) -> Option<u64> {
        let Data { object, .. } = self.data(file).ok()?;
        let memory = memory();
        if memory.objects.kind(object) == ObjectKind::Program {
            return Some(page);
        }
        let mut found = None;
        memory.objects.for_each_page(&memory.machine, object, page, |index, _| {
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
        memory.objects.for_each_page(&memory.machine, object, page, |index, _| {
            let contiguous = index == expected;
            expected += u64::from(contiguous);
            contiguous
        });
        expected
    }
}
