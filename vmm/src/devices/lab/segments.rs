//! A request's segments: checked all together before any byte is moved.

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_abi::lab::{MAX_REQUEST_BYTES, MAX_SEGMENTS, Request, Segment};
use vm_memory::VolatileSlice;

use crate::memory::GuestRam;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSegments {
    /// More segments than a request has room for.
    #[error("{0} segments; a request has room for {MAX_SEGMENTS}")]
    TooMany(u32),
    /// More bytes than a request may move.
    #[error("more than {MAX_REQUEST_BYTES} bytes in one request")]
    TooLong,
    /// A segment that is not RAM.
    #[error("segment {index} ({length} bytes at {start:#x}) is not in RAM")]
    OutsideRam { index: usize, start: u64, length: u64 },
    /// Not what the operation takes.
    #[error("the operation takes {0}")]
    NotWanted(&'static str),
}

/// All segments of `request`, as memory.
pub(super) fn check<'ram>(
    ram: &'ram GuestRam,
    request: &Request,
) -> Result<Vec<VolatileSlice<'ram>>, BadSegments> {
    let segments = usize::try_from(request.segment_count)
        .ok()
        .and_then(|count| request.segments.get(..count))
        .ok_or(BadSegments::TooMany(request.segment_count))?;
    let total = segments.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.length));
    if total.is_none_or(|total| total > MAX_REQUEST_BYTES) {
        return Err(BadSegments::TooLong);
    }
    // An empty segment names no memory, wherever it says it is.
    segments
        .iter()
        .enumerate()
        .filter(|(_, segment)| segment.length != 0)
        .map(|(index, &Segment { start, length })| {
            ram.slice(GuestPhys(start), length).map_err(|_| BadSegments::OutsideRam {
                index,
                start,
                length,
            })
        })
        .collect()
}

/// Exactly `N` segments, each one whole page.
pub(super) fn frames<'ram, const N: usize>(
    ram: &'ram GuestRam,
    request: &Request,
) -> Result<[VolatileSlice<'ram>; N], BadSegments> {
    const WANTED: BadSegments = BadSegments::NotWanted("whole pages only");
    let slices = check(ram, request)?;
    let whole = |segment: &Segment| {
        segment.length == PAGE_SIZE && GuestPhys(segment.start).is_page_aligned()
    };
    if !request.segments.get(..N).is_some_and(|segments| segments.iter().all(whole)) {
        return Err(WANTED);
    }
    slices.try_into().map_err(|_| WANTED)
}

/// Exactly two segments of one length.
pub(super) fn pair<'ram>(
    ram: &'ram GuestRam,
    request: &Request,
) -> Result<[VolatileSlice<'ram>; 2], BadSegments> {
    const WANTED: BadSegments = BadSegments::NotWanted("two segments of one length");
    let pair: [VolatileSlice<'ram>; 2] = check(ram, request)?.try_into().map_err(|_| WANTED)?;
    if pair[0].len() == pair[1].len() { Ok(pair) } else { Err(WANTED) }
}

/// The bytes of all `slices`, at most `limit` of them.
pub(super) fn gather(slices: &[VolatileSlice<'_>], limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices {
        let count = slice.len().min(limit - bytes.len());
        let start = bytes.len();
        bytes.resize(start + count, 0);
        slice.copy_to(&mut bytes[start..]);
    }
    bytes
}
