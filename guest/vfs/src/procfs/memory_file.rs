//! Open files of `/proc` that may be too long to be made at once: `maps` and
//! `smaps`, a window at a time, and `pagemap`, straight from the kernel.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;
use zerocopy::IntoBytes;

use super::maps;
use super::source::ProcSource;
use crate::buffer::{Sink, Source, moved_or_fault};
use crate::errno::{Errno, Result};
use crate::file::{File, Seeking};
use crate::store::PAGE_BYTES;

/// The part of the text that is made.
#[derive(Default)]
struct Window {
    /// Where in the file it begins.
    offset: u64,
    text: Vec<u8>,
    /// Where in the address space the text goes on.
    next: u64,
    /// There is no more.
    complete: bool,
}

/// `maps` or `smaps`. As on Linux a reader who comes back sees the areas as
/// they are then, from the address on where it stopped.
pub(super) struct AreaFile {
    source: Arc<dyn ProcSource>,
    process: u32,
    with_usage: bool,
    window: Mutex<Window>,
}

impl AreaFile {
    pub(super) fn new(source: Arc<dyn ProcSource>, process: u32, with_usage: bool) -> Self {
        Self { source, process, with_usage, window: Mutex::default() }
    }

    /// Makes the text that follows the window: at least a page, if there is.
    fn advance(&self, window: &mut Window) -> Result<()> {
        window.offset += window.text.len() as u64;
        window.text.clear();
        let Window { text, next, .. } = window;
        let from = *next;
        let mut stopped = false;
        let mut more = |text: &Vec<u8>, end| {
            *next = end;
            stopped = text.len() >= PAGE_BYTES;
            !stopped
        };
        if self.with_usage {
            self.source.area_usage(self.process, from, &mut |area, usage| {
                maps::write_area_usage(text, area, usage);
                more(text, area.end)
            })?;
        } else {
            self.source.areas(self.process, from, &mut |area| {
                maps::write_area(text, area);
                more(text, area.end)
            })?;
        }
        window.complete = !stopped;
        Ok(())
    }
}

impl File for AreaFile {
    fn read(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let mut window = self.window.lock();
        if offset == 0 || offset < window.offset {
            *window = Window { text: core::mem::take(&mut window.text), ..Window::default() };
            window.text.clear();
        }
        while offset >= window.offset + window.text.len() as u64 {
            if window.complete {
                return Ok(0);
            }
            self.advance(&mut window)?;
        }
        let start = usize::try_from(offset - window.offset).unwrap_or(usize::MAX);
        let rest = window.text.get(start..).unwrap_or_default();
        let wanted = rest.len().min(sink.remaining());
        moved_or_fault(sink.put(&rest[..wanted]), wanted)
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positioned
    }
}

/// `pagemap`: eight bytes for each page of the address space.
pub(super) struct PageMapFile {
    source: Arc<dyn ProcSource>,
    process: u32,
}

impl PageMapFile {
    pub(super) const fn new(source: Arc<dyn ProcSource>, process: u32) -> Self {
        Self { source, process }
    }
}

impl File for PageMapFile {
    fn read(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        const ENTRY: u64 = 8;
        let wanted = sink.remaining();
        if !offset.is_multiple_of(ENTRY) || !wanted.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let mut entries = [0_u64; 64];
        let mut page = offset / ENTRY;
        let mut done = 0;
        while done < wanted {
            let count = ((wanted - done) / 8).min(entries.len());
            let known = self.source.page_map(self.process, page, &mut entries[..count])?;
            let moved = sink.put(entries[..known.min(count)].as_bytes());
            done += moved;
            page += known as u64;
            if known < count || moved < known * 8 {
                return if moved == 0 && known > 0 {
                    moved_or_fault(done, wanted)
                } else {
                    Ok(done)
                };
            }
        }
        Ok(done)
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positioned
    }
}
