//! The VMM's own page tables, as far as Linux shows them to it:
//! `/proc/self/pagemap`, its scan operation, and `/proc/kpageflags` where it may
//! be read.

#![allow(unsafe_code, reason = "the scan operation of pagemap has no safe wrapper")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Serialize;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;

use crate::inspect::value::Hex;

/// Size of the host's ordinary pages on x86-64.
pub const HOST_PAGE: u64 = 4096;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
const EXCLUSIVE: u64 = 1 << 56;
const FRAME_MASK: u64 = (1 << 55) - 1;

/// One page of the VMM's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostPage {
    /// Where it is in the VMM.
    pub address: Hex,
    /// The VMM's page tables map it.
    pub present: bool,
    /// It was swapped out.
    pub swapped: bool,
    /// It belongs to a file (guest memory is a memfd) or is shared.
    pub file_or_shared: bool,
    /// Nobody else maps it.
    pub exclusive: bool,
    /// It is mapped as part of a large page; `None` if the host does not tell.
    pub huge: Option<bool>,
    /// The host's number of the frame; `None` where that is not shown to this
    /// process.
    pub frame: Option<u64>,
}

/// The page tables of this process.
#[derive(Debug)]
pub struct HostPages {
    pagemap: File,
}

impl HostPages {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// If `/proc` is not there.
    pub fn open() -> io::Result<Self> {
        Ok(Self { pagemap: File::open("/proc/self/pagemap")? })
    }

    /// What is known of the page at an address of this process.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn page(&self, address: u64) -> io::Result<HostPage> {
        let page = address & !(HOST_PAGE - 1);
        let mut bytes = [0; 8];
        self.pagemap.read_exact_at(&mut bytes, page / HOST_PAGE * 8)?;
        let bits = u64::from_ne_bytes(bytes);
        let present = bits & PRESENT != 0;
        let frame = (present && bits & FRAME_MASK != 0).then_some(bits & FRAME_MASK);
        let huge = self.mapped(page, page + HOST_PAGE).ok();
        Ok(HostPage {
            address: Hex(page),
            present,
            swapped: bits & SWAPPED != 0,
            file_or_shared: bits & FILE_OR_SHARED != 0,
            exclusive: bits & EXCLUSIVE != 0,
            huge: huge.map(|regions| regions.iter().any(|region| region.huge)),
            frame,
        })
    }

    /// Which pages from `start` to `end` are mapped, and which of them as large
    /// pages.
    ///
    /// # Errors
    ///
    /// If the kernel cannot scan (before Linux 6.7).
    pub fn mapped(&self, start: u64, end: u64) -> io::Result<Vec<MappedRegion>> {
        const REGIONS: usize = 512;
        let mut found = Vec::new();
        let mut at = start;
        while at < end {
            let mut regions = [PageRegion::default(); REGIONS];
            let mut request = ScanRequest {
                size: size_of::<ScanRequest>() as u64,
                start: at,
                end,
                regions: regions.as_mut_ptr() as u64,
                region_count: REGIONS as u64,
                category_mask: PAGE_IS_PRESENT,
                return_mask: PAGE_IS_PRESENT | PAGE_IS_HUGE,
                ..ScanRequest::default()
            };
            // SAFETY: the kernel reads and writes the request and at most
            // `REGIONS` regions, both of which outlive the call.
            let count = unsafe { ioctl_with_mut_ref(&self.pagemap, PAGEMAP_SCAN, &mut request) };
            let Ok(count) = usize::try_from(count) else {
                return Err(io::Error::last_os_error());
            };
            for region in regions.iter().take(count) {
                let huge = region.categories & PAGE_IS_HUGE != 0;
                found.push(MappedRegion { start: region.start, end: region.end, huge });
            }
            if request.walk_end <= at {
                break;
            }
            at = request.walk_end;
        }
        Ok(found)
    }
}

impl HostPages {
    /// The same page by page, for kernels that cannot scan: large pages are not
    /// told apart.
    ///
    /// # Errors
    ///
    /// If the kernel does not say.
    pub fn present(&self, start: u64, end: u64) -> io::Result<Vec<MappedRegion>> {
        const PAGES: usize = 1 << 16;
        let mut found: Vec<MappedRegion> = Vec::new();
        let mut bytes = vec![0; PAGES * 8];
        let mut at = start;
        while at < end {
            let pages = usize::try_from((end - at) / HOST_PAGE).unwrap_or(PAGES).clamp(1, PAGES);
            let piece = &mut bytes[..pages * 8];
            self.pagemap.read_exact_at(piece, at / HOST_PAGE * 8)?;
            for &entry in piece.as_chunks::<8>().0 {
                let next = at + HOST_PAGE;
                if u64::from_ne_bytes(entry) & PRESENT != 0 {
                    match found.last_mut().filter(|last| last.end == at) {
                        Some(last) => last.end = next,
                        None => found.push(MappedRegion { start: at, end: next, huge: false }),
                    }
                }
                at = next;
            }
        }
        Ok(found)
    }
}

/// Pages that are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRegion {
    /// First address in this process.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// They are mapped as large pages.
    pub huge: bool,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_HUGE: u64 = 1 << 6;

/// The kernel's `struct pm_scan_arg`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct ScanRequest {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    region_count: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// The kernel's `struct page_region`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<ScanRequest>() == 96);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_was_written_is_present() {
        let buffer = vec![1_u8; 3 * 4096];
        let pages = HostPages::open().unwrap();
        let page = pages.page(buffer.as_ptr() as u64 + 4096).unwrap();
        assert!(page.present && !page.swapped);
        let missing = pages.page(0).unwrap();
        assert!(!missing.present && missing.frame.is_none());
    }

    #[test]
    fn a_scan_finds_what_single_pages_say() {
        let buffer = vec![1_u8; 64 * 4096];
        let start = (buffer.as_ptr() as u64).next_multiple_of(4096);
        let end = start + 63 * 4096;
        let pages = HostPages::open().unwrap();
        let Ok(regions) = pages.mapped(start, end) else {
            // Before Linux 6.7 there is no scan, and pages do not say.
            assert_eq!(pages.page(start).unwrap().huge, None);
            return;
        };
        let mapped: u64 = regions.iter().map(|region| region.end - region.start).sum();
        assert_eq!(mapped, end - start);
        let one_by_one = pages.present(start, end).unwrap();
        let mapped: u64 = one_by_one.iter().map(|region| region.end - region.start).sum();
        assert_eq!(mapped, end - start);
        assert!(pages.page(start).unwrap().huge.is_some());
    }
}
