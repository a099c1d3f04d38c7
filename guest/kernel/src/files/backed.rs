//! Files with something behind them: how their pages come from the host.
//!
//! The cache is coherent as network file systems are: what this kernel changed it
//! believes; what others change it learns when a file is opened, and when a read
//! comes back short. A file that others made shorter is cut then, its mappings
//! included (SIGBUS past the new end), unless it was changed here as well.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_hal::sync::Lock;
use pagelab_mm::object::InsertError;
use pagelab_mm::{FaultError, Machine, ObjectId, Page, Use};
use pagelab_vfs::Errno;
use pagelab_vfs::readahead::{Pattern, Readahead};
use pagelab_vfs::store::{Advice, PageBacking};
use pagelab_vfs::write_errors::{ErrorsSeen, WriteErrors};

use super::{cache, pages, write_back};
use crate::memory::memory;
use crate::process::{oom, reclaim};

/// How many pages are read ahead at most; 1: none.
static READAHEAD: AtomicU64 = AtomicU64::new(32);

/// Most pages of one request.
pub const MOST_PAGES: u64 = 256;

/// Sets how many pages are read ahead at most.
pub fn set_readahead(pages: u64) {
    READAHEAD.store(pages.clamp(1, MOST_PAGES), Ordering::Relaxed);
}

/// A file with something behind it.
pub struct Backed {
    /// The object with its pages.
    pub object: ObjectId,
    /// What is behind it.
    pub backing: Arc<dyn PageBacking>,
    /// What went wrong when it was written.
    pub errors: Arc<WriteErrors>,
    /// Which of these `msync` has told of.
    pub told_by_msync: ErrorsSeen,
    /// The rest.
    pub state: Lock<State>,
}

/// What changes of a [`Backed`].
pub struct State {
    /// Size of what is behind the file, as far as known: pages past it are zeros.
    pub host_size: u64,
    /// No page outside this range is dirty.
    pub dirty: Range<u64>,
    /// How many of them are, at most.
    pub dirty_count: u64,
    /// When they were last written, some could not be.
    pub failed: bool,
    /// When the first of them became dirty.
    pub dirty_since: u64,
    readahead: Readahead,
    /// What the programs said about reading.
    pub pattern: Pattern,
}

/// Why a page did not come in.
#[derive(Clone, Copy, Debug)]
pub enum ReadError {
    /// No frame for it.
    OutOfMemory,
    /// The file ends before it.
    PastEnd,
    /// What is behind it failed.
    Failed(Errno),
}

impl From<ReadError> for FaultError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfMemory => Self::OutOfMemory,
            ReadError::PastEnd | ReadError::Failed(_) => Self::NoBacking,
        }
    }
}

impl From<ReadError> for Errno {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfMemory => Self::ENOMEM,
            ReadError::PastEnd => Self::EIO,
            ReadError::Failed(error) => error,
        }
    }
}

impl Backed {
    /// A file of `size` bytes, no page of which is there yet.
    pub fn new(object: ObjectId, backing: Arc<dyn PageBacking>, size: u64) -> Self {
        Self {
            object,
            backing,
            errors: Arc::default(),
            told_by_msync: ErrorsSeen::default(),
            state: Lock::new(State {
                host_size: size,
                dirty: 0..0,
                dirty_count: 0,
                failed: false,
                dirty_since: 0,
                readahead: Readahead::default(),
                pattern: Pattern::Normal,
            }),
        }
    }

    /// Brings in page `index`, which is missing, and as many of the following as
    /// belong to the same call (`wanted`) or are likely to be next. Returns
    /// whether the host was asked.
    ///
    /// # Errors
    ///
    /// See [`ReadError`].
    pub fn read_in(&self, index: u64, wanted: u64, pattern: Pattern) -> Result<bool, ReadError> {
        write_back::limit_dirty();
        let (window, host_size) = {
            let mut state = self.state.lock();
            let said = if pattern == Pattern::Normal { state.pattern } else { pattern };
            let most = READAHEAD.load(Ordering::Relaxed);
            if index * PAGE_SIZE >= state.host_size {
                (index..index + 1, state.host_size)
            } else {
                (state.readahead.window(index, wanted, most, said), state.host_size)
            }
        };
        if index * PAGE_SIZE >= host_size {
            let frame = self.frame_or_room()?;
            {
                let memory = memory();
                memory.machine.zero_frame(frame);
            }
            self.insert(index, frame).inspect_err(|_| release(&[frame]))?;
            return Ok(false);
        }
        let window = self.missing_around(index, &window, host_size.div_ceil(PAGE_SIZE));
        match self.read(&window, index) {
            // One page of many may be at fault.
            Err(ReadError::Failed(_)) if window.end - window.start > 1 => {
                self.read(&(index..index + 1), index)?;
            }
            result => result?,
        }
        Ok(true)
    }

    /// The part of a window around `index` in which every page is missing.
    fn missing_around(&self, index: u64, window: &Range<u64>, end: u64) -> Range<u64> {
        let end = window.end.min(end).min(index + MOST_PAGES).max(index + 1);
        let mut missing = window.start..end;
        let memory = memory();
        memory.objects.for_each_page(&memory.machine, self.object, window.start..end, |page, _| {
            if page < index {
                missing.start = page + 1;
            } else {
                missing.end = page;
            }
            page < index
        });
        missing.start..missing.end.max(index + 1)
    }

    /// Reads a run of missing pages, of which `index` has to come.
    fn read(&self, run: &Range<u64>, index: u64) -> Result<(), ReadError> {
        let mut frames = Vec::new();
        let length = usize::try_from(run.end - run.start).unwrap_or(1);
        frames.try_reserve_exact(length).map_err(|_| ReadError::OutOfMemory)?;
        let needed = usize::try_from(index - run.start).unwrap_or(0) + 1;
        if memory().frames.available() < run.end - run.start {
            reclaim::free_some();
        }
        memory().frames.hold().alloc_some(Use::Cache, length, |frame| frames.push(frame));
        // Only what has to come is worth making room for.
        while frames.len() < needed {
            match self.frame_or_room() {
                Ok(frame) => frames.push(frame),
                Err(error) => {
                    release(&frames);
                    return Err(error);
                }
            }
        }
        let reached = run.start + frames.len() as u64;
        self.state.lock().readahead.cut_short(run.end, reached);
        match self.backing.read_pages(run.start, &frames) {
            Ok(bytes) => self.take_in(run.start, &frames, bytes, index),
            Err(error) => {
                release(&frames);
                Err(ReadError::Failed(error))
            }
        }
    }

    /// Puts pages that were read into the object, but not those past the end if
    /// the file has become shorter.
    fn take_in(
        &self,
        first: u64,
        frames: &[Frame],
        bytes: usize,
        index: u64,
    ) -> Result<(), ReadError> {
        let expected = self.state.lock().host_size - first * PAGE_SIZE;
        let room = frames.len() as u64 * PAGE_SIZE;
        if (bytes as u64) < expected.min(room)
            && let Ok(size) = self.backing.size()
        {
            self.host_has_size(size);
        }
        pages::clear_from(frames, bytes);
        let memory = memory();
        let (mut rest, mut at) = (frames, first);
        let mut result = Err(ReadError::PastEnd);
        while !rest.is_empty() {
            let inserted =
                memory.objects.insert_run(&memory.machine, memory.frames, self.object, at, rest);
            // What cannot be put there is passed over: the others may be wanted.
            let (done, outcome) = match inserted {
                Ok(count) => (count, Ok(())),
                Err(InsertError::PastEnd) => (rest.len(), Err(ReadError::PastEnd)),
                Err(_) => (1, Err(ReadError::OutOfMemory)),
            };
            if outcome.is_err() {
                release(&rest[..done]);
            }
            if (at..at + done as u64).contains(&index) {
                result = outcome;
            }
            (rest, at) = (&rest[done..], at + done as u64);
        }
        result
    }

    /// What is behind the file has this size, says the host. Where that is less
    /// than was known, the file is cut, unless it was changed here.
    pub fn host_has_size(&self, size: u64) {
        let (known, changed) = {
            let mut state = self.state.lock();
            (core::mem::replace(&mut state.host_size, size), !state.dirty.is_empty())
        };
        if size != known && !changed {
            cache().take_size(self.object, size);
        }
    }

    /// Others changed what is behind the file: clean pages go, or where somebody
    /// maps them are read again.
    pub fn reread(&self) {
        let memory = memory();
        self.drop_unused(0..u64::MAX);
        self.each_page(0..u64::MAX, |index, frame| {
            if !memory.frames.hold().is_dirty(frame)
                && let Ok(bytes) = self.backing.read_pages(index, &[frame])
            {
                pages::clear_from(&[frame], bytes);
            }
        });
    }

    /// A program says how it will use some pages.
    pub fn advise(&self, pages: Range<u64>, advice: Advice) {
        match advice {
            Advice::Normal | Advice::NoReuse => self.state.lock().pattern = Pattern::Normal,
            Advice::Random => self.state.lock().pattern = Pattern::Random,
            Advice::Sequential => self.state.lock().pattern = Pattern::Sequential,
            Advice::WillNeed => self.read_all(pages),
            Advice::DontNeed => self.drop_unused(pages),
        }
    }

    /// Brings in what is missing of some pages, as long as there is memory.
    fn read_all(&self, pages: Range<u64>) {
        let end = pages.end.min(memory().objects.pages(self.object));
        for index in pages.start..end {
            let memory = memory();
            let (page, _) = memory.objects.lookup(&memory.machine, self.object, index);
            let little_left = memory.frames.free() < memory.frames.counters().total / 8;
            if page == Page::Missing
                && (little_left || self.read_in(index, end - index, Pattern::Random).is_err())
            {
                return;
            }
        }
    }

    /// Drops clean pages that nobody maps.
    fn drop_unused(&self, pages: Range<u64>) {
        let memory = memory();
        let (machine, frames) = (&memory.machine, memory.frames);
        self.each_page(pages, |index, frame| {
            let held = frames.hold();
            let unused = !held.is_dirty(frame) && held.count(frame) == 1;
            drop(held);
            if unused {
                memory.objects.remove(machine, frames, self.object, index);
                frames.release(machine, frame);
            }
        });
    }

    /// Visits the pages of a range that are there. They may go meanwhile.
    fn each_page(&self, pages: Range<u64>, mut visit: impl FnMut(u64, Frame)) {
        let memory = memory();
        let mut from = pages.start;
        loop {
            let mut found = None;
            memory.objects.for_each_page(
                &memory.machine,
                self.object,
                from..pages.end,
                |index, frame| {
                    found = Some((index, frame));
                    false
                },
            );
            let Some((index, frame)) = found else { return };
            visit(index, frame);
            from = index + 1;
        }
    }

    /// A frame, for which room is made if need be.
    pub fn frame_or_room(&self) -> Result<Frame, ReadError> {
        loop {
            if let Some(frame) = memory().frames.alloc(Use::Cache) {
                return Ok(frame);
            }
            if !oom::make_room() {
                return Err(ReadError::OutOfMemory);
            }
        }
    }

    fn insert(&self, index: u64, frame: Frame) -> Result<(), ReadError> {
        let memory = memory();
        let inserted =
            memory.objects.insert(&memory.machine, memory.frames, self.object, index, frame);
        inserted.map_err(|_| ReadError::OutOfMemory)
    }
}

fn release(frames: &[Frame]) {
    let memory = memory();
    for &frame in frames {
        memory.frames.release(&memory.machine, frame);
    }
}
