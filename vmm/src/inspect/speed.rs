//! How fast page tables are dumped: the figures of `pagelab bench debug`.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use pagelab_abi::addr::{GuestPhys, HUGE_PAGE_SIZE, PAGE_SIZE};
use pagelab_paging::{Entry, EntryFlags};
use serde::Serialize;

use super::pages::{DumpRequest, Shape, Snapshot, diff, dump};
use super::pages::{Pattern, Range, SearchRequest, search};
use crate::memory::{GuestRam, MemoryError, MemorySize, SizeError};

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum SpeedError {
    /// Not a size of memory.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// No memory, or too little of it for the tables.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// What was done.
    pub what: &'static str,
    /// How long it took, at best.
    pub time: Duration,
    /// Entries that were looked at.
    pub entries: u64,
    /// Entries in a second.
    pub entries_per_second: f64,
}

/// How often each is measured; the best counts.
const ROUNDS: usize = 5;

/// Measures dumps of a process that maps `mapped` bytes by 4 KiB pages, each at
/// a frame of its own, scattered so that no two neighbours make a run
/// (`scattered`), or in order.
///
/// # Errors
///
/// If there is no memory for the tables.
pub fn measure(mapped: u64, scattered: bool) -> Result<Vec<Speed>, SpeedError> {
    let (ram, root) = process(mapped, scattered)?;
    let request = |shape| DumpRequest { shape, ..DumpRequest::default() };
    let entries = dump(&ram, root, &request(Shape::Runs)).cost.entries;
    let dumped = |what, shape| {
        let request = request(shape);
        best(what, entries, || {
            black_box(dump(&ram, root, &request));
        })
    };
    let before = Snapshot::take(&ram, root, Range::ALL);
    let nowhere = SearchRequest {
        pattern: Pattern::eight_bytes(0x1234_5678_9abc_def0),
        alignment: 8,
        range: Range::new(0, 64 << 20),
        filter: super::pages::Filter::default(),
        limit: 1,
    };
    Ok(vec![
        dumped("dump, tree", Shape::Tree),
        dumped("dump, runs", Shape::Runs),
        dumped("dump, rights", Shape::Rights),
        dumped("dump, every entry", Shape::Entries),
        best("dump, tree, as text", entries, || {
            black_box(dump(&ram, root, &request(Shape::Tree)).to_string());
        }),
        best("difference of two moments", entries, || {
            let after = Snapshot::take(&ram, root, Range::ALL);
            black_box(diff(&before, &after, usize::MAX));
        }),
        best("search of 64 MiB", (64 << 20) / PAGE_SIZE, || {
            black_box(search(&ram, root, &nowhere));
        }),
    ])
}

fn best(what: &'static str, entries: u64, mut work: impl FnMut()) -> Speed {
    let mut time = Duration::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work();
        time = time.min(began.elapsed());
    }
    // Exact up to 2^53 entries.
    #[allow(clippy::cast_precision_loss, reason = "see above")]
    let entries_per_second = entries as f64 / time.as_secs_f64();
    Speed { what, time, entries, entries_per_second }
}

/// Guest memory that holds nothing but the page tables of a process.
fn process(mapped: u64, scattered: bool) -> Result<(GuestRam, GuestPhys), SpeedError> {
    let blocks = mapped.div_ceil(HUGE_PAGE_SIZE).max(1);
    // Its frames need not be there: only their numbers are read.
    let size = (blocks * HUGE_PAGE_SIZE + (blocks + 16) * PAGE_SIZE).next_multiple_of(1 << 20);
    let ram = GuestRam::new(MemorySize::new(size.max(64 << 20))?)?;
    let root = GuestPhys(PAGE_SIZE);
    let flags = EntryFlags::PRESENT | EntryFlags::WRITABLE | EntryFlags::USER;
    let set = |table: GuestPhys, index: u64, target: u64| {
        let entry = Entry::new(GuestPhys(target), flags);
        ram.write(GuestPhys(table.0 + index % 512 * 8), &entry.0.to_le_bytes())
    };
    let (mut next, pages) = (root.0 + PAGE_SIZE, blocks * 512);
    let mut upper = [root; 3];
    for block in 0..blocks {
        for (depth, shift) in [(1, 18), (2, 9)] {
            if block.is_multiple_of(1 << shift) {
                set(upper[depth - 1], block >> shift, next)?;
                upper[depth] = GuestPhys(next);
                next += PAGE_SIZE;
            }
        }
        let table = GuestPhys(next);
        set(upper[2], block, next)?;
        next += PAGE_SIZE;
        for index in 0..512 {
            let page = block * 512 + index;
            // An odd step visits each frame once and never the next one.
            let frame = if scattered { page.wrapping_mul(48_271) % pages } else { page };
            set(table, index, frame * PAGE_SIZE)?;
        }
    }
    Ok((ram, root))
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = self.entries_per_second / 1e6;
        let milliseconds = self.time.as_secs_f64() * 1e3;
        write!(f, "{:<28} {milliseconds:>9.2} ms {millions:>9.1} million entries/s", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_maps_what_it_should() {
        for scattered in [false, true] {
            let (ram, root) = process(8 << 20, scattered).unwrap();
            let request = DumpRequest { shape: Shape::Runs, ..DumpRequest::default() };
            let dump = dump(&ram, root, &request);
            assert_eq!(dump.pages.small, 2048);
            assert!(dump.problems.is_empty());
            assert_eq!(dump.rows.len() > 1000, scattered);
        }
        let speeds = measure(4 << 20, true).unwrap();
        assert!(speeds.iter().all(|speed| speed.entries_per_second > 0.0));
    }
}
