//! How requests get to the server and replies back.

use core::fmt;

use pagelab_abi::addr::Frame;

/// Bytes that the server reads.
#[derive(Clone, Copy, Debug)]
pub enum Readable<'a> {
    /// Bytes of the kernel's own.
    Bytes(&'a [u8]),
    /// So many bytes of frames, one after the other.
    Frames(&'a [Frame], usize),
}

/// Room that the server writes to.
#[derive(Debug)]
pub enum Writable<'a> {
    /// Bytes of the kernel's own.
    Bytes(&'a mut [u8]),
    /// So many bytes of frames, one after the other.
    Frames(&'a [Frame], usize),
}

impl Writable<'_> {
    /// How many bytes fit.
    #[must_use]
    pub const fn room(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Frames(_, length) => *length,
        }
    }
}

/// The other side was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportError(pub &'static str);

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Carries one request at a time.
pub trait Transport: Send + Sync {
    /// Hands over a request, waits for its reply and returns how many bytes the
    /// server says it wrote: it is the caller who checks them. No room for a
    /// reply means that there is none, and nothing to wait for.
    ///
    /// # Errors
    ///
    /// If the request could not be handed over or no reply can come.
    fn exchange(
        &self,
        request: &[Readable<'_>],
        reply: &mut [Writable<'_>],
    ) -> Result<usize, TransportError>;

    /// How many frames a request or reply can have at most.
    fn most_frames(&self) -> usize;
}
