//! Program files: objects whose pages come in on faults.
//!
//! The host put the program's file into memory before the kernel started, page
//! by page as it is in the file, so a page "comes in" by giving its object the
//! frame where it already is: nothing is copied, and an untouched page costs
//! nothing.

use alloc::boxed::Box;
use alloc::vec::Vec;

use pagelab_abi::addr::{Frame, GuestPhys, PAGE_SIZE};
use pagelab_abi::boot::Module;
use pagelab_hal::memory::module_bytes;
use pagelab_hal::sync::Lock;
use pagelab_mm::{FaultError, NeedsPage, ObjectId, ObjectKind, OutOfMemory, Page, Use};
use pagelab_vfs::executing::Executing;

use crate::memory::memory;

/// A program file, open: it holds a reference to its object.
pub struct ProgramFile {
    /// Its pages.
    pub object: ObjectId,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// The program that it asks to be started by, which loads the rest of it.
    pub interpreter: Option<Box<ProgramFile>>,
    /// Keeps others from writing it, if it is the one that is executed.
    pub executing: Option<Executing>,
}

impl Drop for ProgramFile {
    fn drop(&mut self) {
        memory().release_object(self.object);
    }
}

impl ProgramFile {
    /// A program that another owner keeps, too.
    #[must_use]
    pub fn new(object: ObjectId, head: Vec<u8>) -> Self {
        memory().objects.retain(object);
        Self { object, head, interpreter: None, executing: None }
    }
}

/// Where the pages of an object are.
struct Source {
    object: ObjectId,
    start: GuestPhys,
    length: u64,
}

static SOURCES: Lock<Vec<Source>> = Lock::new(Vec::new());

/// Makes an object of a module; [`close`] ends it.
///
/// # Errors
///
/// If there is no memory for it.
pub fn open_module(module: &Module) -> Result<ObjectId, OutOfMemory> {
    let start = GuestPhys(module.start);
    // Other VMMs may name a module that is not in memory.
    if !start.is_page_aligned() || module_bytes(start, module.length).is_empty() {
        return Err(OutOfMemory);
    }
    let pages = module.length.div_ceil(PAGE_SIZE);
    let object = memory().objects.create(ObjectKind::Program, pages, 0)?;
    SOURCES.lock().push(Source { object, start, length: pages * PAGE_SIZE });
    Ok(object)
}

/// Gives back what `open_module` made. Frames that came in are free memory
/// afterwards, as soon as nobody maps them.
pub fn close(object: ObjectId) {
    let source = {
        let mut sources = SOURCES.lock();
        let Some(place) = sources.iter().position(|source| source.object == object) else {
            return;
        };
        sources.swap_remove(place)
    };
    release_rest(&source, 0);
    memory().release_object(object);
}

/// Gives back frames of a source from page `first` on that were to become pages
/// of the object and did not, for lack of memory.
fn release_rest(source: &Source, first: u64) {
    let memory = memory();
    for index in first..source.length / PAGE_SIZE {
        let (page, _) = memory.objects.lookup(&memory.machine, source.object, index);
        if let Some(frame) = Frame::containing(GuestPhys(source.start.0 + index * PAGE_SIZE))
            && page == Page::Missing
            && memory.frames.count(frame) > 0
        {
            memory.frames.release(&memory.machine, frame);
        }
    }
}

/// A program's file is cut to `pages` pages: what comes after was never there.
/// Nothing to do for other objects.
pub fn truncate(object: ObjectId, pages: u64) {
    let mut sources = SOURCES.lock();
    let source = sources.iter_mut().find(|source| source.object == object);
    if let Some(source) = source.filter(|source| pages * PAGE_SIZE < source.length) {
        release_rest(source, pages);
        source.length = pages * PAGE_SIZE;
    }
}

/// Brings in a page of a program from where the host put the program's file.
/// Returns whether there is such a page.
///
/// # Errors
///
/// If there is no memory.
pub fn bring_in(page: NeedsPage) -> Result<bool, FaultError> {
    let place =
        SOURCES.lock().iter().find(|source| source.object == page.object).and_then(|source| {
            let offset = page.index * PAGE_SIZE;
            (offset < source.length).then_some(GuestPhys(source.start.0 + offset))
        });
    let Some(frame) = place.and_then(Frame::containing) else {
        return Ok(false);
    };
    let memory = memory();
    if memory.frames.count(frame) == 0 {
        memory.frames.adopt(frame, Use::Cache);
    }
    // Without memory for the index the frame stays adopted: its bytes are needed.
    let (machine, frames) = (&memory.machine, memory.frames);
    let inserted = memory.objects.insert(machine, frames, page.object, page.index, frame);
    inserted.map(|()| true).map_err(|_| FaultError::OutOfMemory)
}
