//! Telling the host how to back guest memory: by large pages, or not right now.
//!
//! Neither changes what the guest's memory holds: it lies in the memfd, and only
//! how the VMM (and with it KVM) maps that is changed.

#![allow(unsafe_code, reason = "advice is given for addresses of a mapping")]

use std::fmt;
use std::fs;
use std::io;

use pagelab_abi::addr::{GuestPhys, HUGE_PAGE_SIZE, PAGE_SIZE};
use serde::Serialize;

use super::backing::{backing, host_address};
use crate::inspect::value::{Bytes, Hex};
use crate::memory::GuestRam;

/// What became of a wish for large pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HugePages {
    /// Whether they were asked for.
    pub wanted: bool,
    /// Pages of 4 KiB that were mapped as part of large ones before.
    pub huge_before: u64,
    /// ... and are now.
    pub huge_after: u64,
    /// The host does not tell large pages apart, so both are 0.
    pub unknown: bool,
    /// Blocks of 2 MiB that were in use and could not be made one page.
    pub refused: u64,
    /// The host's setting for shared memory
    /// (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`).
    pub setting: Option<String>,
    /// Why the host refused, if it did.
    pub reason: Option<String>,
}

/// Asks the host to back guest memory by large pages as far as it is in use,
/// and from now on; or not to.
///
/// # Errors
///
/// If the host does not say what it did.
pub fn use_huge_pages(ram: &GuestRam, wanted: bool) -> io::Result<HugePages> {
    let before = backing(ram, false)?;
    let mut answer = HugePages {
        wanted,
        huge_before: before.huge,
        huge_after: before.huge,
        unknown: before.huge_unknown,
        refused: 0,
        setting: setting(),
        reason: None,
    };
    for part in ram.parts() {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        if let Err(error) = advise(ram, part.start, part.length, advice) {
            answer.reason.get_or_insert_with(|| error.to_string());
        }
        if !wanted {
            // Large mappings go; what comes back is small. The pages stay.
            advise(ram, part.start, part.length, libc::MADV_DONTNEED)?;
            continue;
        }
        let mut at = part.start.0.next_multiple_of(HUGE_PAGE_SIZE);
        while at + HUGE_PAGE_SIZE <= part.end().0 {
            let in_use = before.extents.iter().any(|extent| {
                extent.state != super::PageState::Untouched
                    && extent.first.0 < at + HUGE_PAGE_SIZE
                    && extent.last.0 >= at
            });
            let collapsed =
                in_use.then(|| advise(ram, GuestPhys(at), HUGE_PAGE_SIZE, libc::MADV_COLLAPSE));
            if let Some(Err(error)) = collapsed {
                answer.refused += 1;
                answer.reason.get_or_insert_with(|| error.to_string());
            }
            at += HUGE_PAGE_SIZE;
        }
    }
    answer.huge_after = backing(ram, false)?.huge;
    Ok(answer)
}

/// What `reclaim` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reclaimed {
    /// First byte.
    pub first: Hex,
    /// Last byte.
    pub last: Hex,
    /// Pages of all guest memory that were mapped before.
    pub mapped_before: u64,
    /// ... and were right afterwards: a running guest brings them back.
    pub mapped_after: u64,
    /// Pages that exist: as many as before.
    pub backed: u64,
}

/// Takes the pages of a range out of the VMM's page tables, and so out of KVM's:
/// the next access to each faults at the host again. What they hold stays, in
/// the memfd.
///
/// # Errors
///
/// If the range is not guest memory, or the host refuses.
pub fn reclaim(ram: &GuestRam, start: GuestPhys, length: u64) -> io::Result<Reclaimed> {
    let before = backing(ram, false)?;
    let first = start.0 & !(PAGE_SIZE - 1);
    let end = start.0.checked_add(length).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
    let end = end.filter(|&end| end > first).ok_or(io::ErrorKind::InvalidInput)?;
    advise(ram, GuestPhys(first), end - first, libc::MADV_DONTNEED)?;
    let after = backing(ram, false)?;
    Ok(Reclaimed {
        first: Hex(first),
        last: Hex(end - 1),
        mapped_before: before.mapped,
        mapped_after: after.mapped,
        backed: after.backed,
    })
}

/// Gives advice for guest memory, whose contents none of the advice used here
/// changes.
fn advise(ram: &GuestRam, start: GuestPhys, length: u64, advice: libc::c_int) -> io::Result<()> {
    let address = host_address(ram, start).filter(|_| ram.contains(start, length));
    let address = address.and_then(|address| usize::try_from(address).ok());
    let (Some(address), Ok(length)) = (address, usize::try_from(length)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let pointer = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the range is inside the mapping of guest memory, which is shared
    // and backed by a memfd: dropping its pages from the page tables loses
    // nothing, and all access to it is volatile.
    match unsafe { libc::madvise(pointer, length, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn setting() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").ok()?;
    let chosen = text.split_once('[')?.1.split_once(']')?.0;
    Some(chosen.to_owned())
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = if self.wanted { "wanted" } else { "not wanted" };
        writeln!(
            f,
            "large pages {wanted}: {} of guest memory mapped by them before, {} now",
            Bytes(self.huge_before * PAGE_SIZE),
            Bytes(self.huge_after * PAGE_SIZE)
        )?;
        if self.unknown {
            writeln!(f, "this host does not tell large pages apart (Linux 6.7 does)")?;
        }
        if let Some(setting) = &self.setting {
            writeln!(f, "the host's setting for shared memory is \"{setting}\"")?;
        }
        if let Some(reason) = &self.reason {
            writeln!(f, "{} blocks of 2 MiB refused: {reason}", self.refused)?;
        }
        Ok(())
    }
}

impl fmt::Display for Reclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}-{}: taken out of the host's page tables ({} pages of guest memory mapped before, \
             {} after); what they hold stays in the memfd ({} pages), so the next access to each \
             is a fault of the host's and nothing more",
            self.first, self.last, self.mapped_before, self.mapped_after, self.backed
        )
    }
}
