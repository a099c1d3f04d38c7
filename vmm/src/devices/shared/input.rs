//! Writes the input ring: the host's standard input for the guest.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use pagelab_abi::lab::{Header, INPUT_BYTES, INPUT_OFFSET};

use super::{SharedPages, load, store};

/// The host's end of the input ring. What it has written is counted here, not
/// in the shared page, where the guest could change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputWriter {
    written: u64,
    ended: bool,
}

impl InputWriter {
    /// How many bytes fit now; none while there are no shared pages.
    ///
    /// A guest that says it took more than there was gets nothing until it says
    /// something possible.
    #[must_use]
    pub fn room(&self, shared: &SharedPages) -> usize {
        let Some(pages) = shared.pages() else {
            return 0;
        };
        // What was written must be visible before asking what was taken: the
        // guest looks in the opposite order to find out whether to tell us.
        fence(Ordering::SeqCst);
        let taken: u64 = load(&pages, offset_of!(Header, input_read));
        let waiting = self.written.checked_sub(taken).and_then(|bytes| usize::try_from(bytes).ok());
        waiting.map_or(0, |waiting| INPUT_BYTES.saturating_sub(waiting))
    }

    /// Puts as much of `bytes` into the ring as fits; says how much that was.
    pub fn write(&mut self, shared: &SharedPages, bytes: &[u8]) -> usize {
        let Some(pages) = shared.pages() else {
            return 0;
        };
        let count = self.room(shared).min(bytes.len());
        // The remainder is below the size of the ring.
        #[allow(clippy::cast_possible_truncation, reason = "an index into the ring")]
        let at = (self.written % INPUT_BYTES as u64) as usize;
        let first = count.min(INPUT_BYTES - at);
        for (offset, part) in [(at, &bytes[..first]), (0, &bytes[first..count])] {
            if let Ok(place) = pages.subslice(INPUT_OFFSET + offset, part.len()) {
                place.copy_from(part);
            }
        }
        self.written += count as u64;
        store(&pages, offset_of!(Header, input_written), self.written);
        count
    }

    /// Tells the guest that no more input will come.
    pub fn end(&mut self, shared: &SharedPages) {
        self.ended = true;
        if let Some(pages) = shared.pages() {
            store(&pages, offset_of!(Header, input_ended), 1u32);
        }
    }

    /// Whether [`Self::end`] was called.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }
}
