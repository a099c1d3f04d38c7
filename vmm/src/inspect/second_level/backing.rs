//! Which guest-physical memory the host has provided.

use std::fmt;
use std::io;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use rustix::fs::SeekFrom;
use serde::Serialize;
use vm_memory::GuestMemoryBackend;
use vm_memory::GuestMemoryRegion;

use super::host_pages::HostPages;
use crate::inspect::value::{Bytes, Hex};
use crate::memory::{GuestRam, RamPart};

/// What the host has for a page of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PageState {
    /// Nothing: it was never touched.
    Untouched,
    /// A page that the VMM's page tables do not map (any more).
    Backed,
    /// A page that they map.
    Mapped,
    /// A page that they map as part of a large one.
    Huge,
}

/// Neighbouring pages in the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// First byte.
    pub first: Hex,
    /// Last byte.
    pub last: Hex,
    /// What the host has for them.
    pub state: PageState,
    /// They hold nothing but zeros; `None` if that was not looked at.
    pub zero: Option<bool>,
}

/// What the host has for all of the guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackingMap {
    /// All memory, in order.
    pub extents: Vec<Extent>,
    /// Pages of guest memory.
    pub pages: u64,
    /// Pages that were never touched.
    pub untouched: u64,
    /// Pages that exist: all others.
    pub backed: u64,
    /// Those of them that the VMM maps.
    pub mapped: u64,
    /// Those of them that it maps as part of large ones.
    pub huge: u64,
    /// Pages that exist and hold nothing but zeros, if that was looked at.
    pub zero: Option<u64>,
    /// The host does not tell large pages apart (before Linux 6.7).
    pub huge_unknown: bool,
}

const BACKED: u8 = 1;
const MAPPED: u8 = 2;
const HUGE: u8 = 4;
const ZERO: u8 = 8;

/// Looks what the host has for `ram`; with `contents`, also which pages hold
/// nothing but zeros (which reads all that is backed).
///
/// # Errors
///
/// If the host does not say.
pub fn backing(ram: &GuestRam, contents: bool) -> io::Result<BackingMap> {
    let mut map = BackingMap { zero: contents.then_some(0), ..BackingMap::default() };
    let host = HostPages::open()?;
    for part in ram.parts() {
        let mut states = vec![0; usize::try_from(part.length / PAGE_SIZE).unwrap_or(0)];
        mark_backed(ram, part, &mut states)?;
        map.huge_unknown |= !mark_mapped(ram, part, &host, &mut states)?;
        if contents {
            mark_zero(ram, part, &mut states);
        }
        map.add(part.start, &states, contents);
    }
    Ok(map)
}

/// Whether the memfd has a page there: the first such page from `offset` on.
fn mark_backed(ram: &GuestRam, part: &RamPart, states: &mut [u8]) -> io::Result<()> {
    let end = part.file_offset + part.length;
    let mut at = part.file_offset;
    while at < end {
        let start = match rustix::fs::seek(ram.file(), SeekFrom::Data(at)) {
            Ok(start) if start < end => start,
            // No data behind this.
            Ok(_) | Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(ram.file(), SeekFrom::Hole(start))?.min(end);
        mark(states, start - part.file_offset, hole - part.file_offset, BACKED);
        at = hole.max(start + PAGE_SIZE);
    }
    Ok(())
}

/// Marks what the VMM maps; returns whether large pages could be told apart.
fn mark_mapped(
    ram: &GuestRam,
    part: &RamPart,
    host: &HostPages,
    states: &mut [u8],
) -> io::Result<bool> {
    let Some(start) = host_address(ram, part.start) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let end = start + part.length;
    let (regions, huge_known) = match host.mapped(start, end) {
        Ok(regions) => (regions, true),
        Err(_) => (host.present(start, end)?, false),
    };
    for region in regions {
        let bits = if region.huge { MAPPED | HUGE } else { MAPPED };
        mark(states, region.start - start, region.end - start, bits);
    }
    Ok(huge_known)
}

fn mark_zero(ram: &GuestRam, part: &RamPart, states: &mut [u8]) {
    let mut page = [0; 4096];
    for (index, state) in states.iter_mut().enumerate().filter(|(_, state)| **state & BACKED != 0) {
        let address = GuestPhys(part.start.0 + index as u64 * PAGE_SIZE);
        if ram.peek(address, &mut page).is_ok() && page.iter().all(|&byte| byte == 0) {
            *state |= ZERO;
        }
    }
}

/// Sets bits for the pages from one offset to another.
fn mark(states: &mut [u8], from: u64, to: u64, bits: u8) {
    let index = |offset: u64| usize::try_from(offset / PAGE_SIZE).unwrap_or(usize::MAX);
    let (from, to) = (index(from), index(to).min(states.len()));
    if let Some(states) = states.get_mut(from..to) {
        states.iter_mut().for_each(|state| *state |= bits);
    }
}

/// Where the VMM maps a guest-physical address.
#[must_use]
pub fn host_address(ram: &GuestRam, address: GuestPhys) -> Option<u64> {
    ram.mapping().iter().find_map(|region| {
        let offset = address.0.checked_sub(region.start_addr().0)?;
        (offset < region.len()).then(|| region.as_ptr() as u64 + offset)
    })
}

impl BackingMap {
    fn add(&mut self, start: GuestPhys, states: &[u8], contents: bool) {
        let mut at = start.0;
        for same in states.chunk_by(|a, b| a == b) {
            let count = same.len() as u64;
            let bits = same.first().copied().unwrap_or(0);
            let state = match bits {
                _ if bits & HUGE != 0 => PageState::Huge,
                _ if bits & MAPPED != 0 => PageState::Mapped,
                _ if bits & BACKED != 0 => PageState::Backed,
                _ => PageState::Untouched,
            };
            self.pages += count;
            match state {
                PageState::Untouched => self.untouched += count,
                PageState::Backed => self.backed += count,
                PageState::Mapped | PageState::Huge => {
                    self.backed += count;
                    self.mapped += count;
                }
            }
            if state == PageState::Huge {
                self.huge += count;
            }
            if let Some(zero) = self.zero.as_mut().filter(|_| bits & ZERO != 0) {
                *zero += count;
            }
            let end = at + count * PAGE_SIZE;
            self.extents.push(Extent {
                first: Hex(at),
                last: Hex(end - 1),
                state,
                zero: contents.then_some(bits & ZERO != 0),
            });
            at = end;
        }
    }
}

impl fmt::Display for BackingMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for extent in &self.extents {
            let state = match extent.state {
                PageState::Untouched => "untouched",
                PageState::Backed => "backed, not mapped",
                PageState::Mapped => "mapped",
                PageState::Huge => "mapped, large pages",
            };
            let zero = if extent.zero == Some(true) { ", zero" } else { "" };
            let size = Bytes(extent.last.0 - extent.first.0 + 1);
            writeln!(f, "{:012x}-{:012x} {size:>7} {state}{zero}", extent.first.0, extent.last.0)?;
        }
        writeln!(
            f,
            "{} pages of guest memory: {} untouched, {} backed, {} of them mapped, {} by large \
             pages",
            self.pages, self.untouched, self.backed, self.mapped, self.huge
        )?;
        if let Some(zero) = self.zero {
            writeln!(f, "{zero} backed pages hold nothing but zeros")?;
        }
        if self.huge_unknown {
            writeln!(f, "this host does not tell large pages apart (Linux 6.7 does)")?;
        }
        Ok(())
    }
}
