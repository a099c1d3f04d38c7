//! Why an operation on a shared folder failed.

use core::fmt;

use pagelab_vfs::Errno;

use crate::transport::TransportError;

/// Result of an operation.
pub type Result<T> = core::result::Result<T, Error>;

/// Why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The request or its reply was not carried.
    Transport(TransportError),
    /// The server said no.
    Server(Errno),
    /// The server's answer makes no sense.
    Protocol(&'static str),
}

impl From<TransportError> for Error {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(errno) => errno,
            Error::Transport(_) | Error::Protocol(_) => Self::EIO,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(f),
            Self::Server(errno) => errno.fmt(f),
            Self::Protocol(what) => write!(f, "the share's server answers nonsense: {what}"),
        }
    }
}

impl core::error::Error for Error {}
