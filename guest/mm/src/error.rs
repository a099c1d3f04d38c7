//! What can go wrong, and its number on Linux.

use core::fmt;

use pagelab_abi::fault::FaultKind;

use crate::object::ObjectId;

/// Why a memory call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmError {
    /// An argument makes no sense: unaligned, empty, unknown flag, wrapping.
    Invalid,
    /// No frame (or no heap) left.
    OutOfMemory,
    /// The overcommit rules forbid it.
    Overcommit,
    /// Some page of the range is not mapped, or lies outside user space.
    NotMapped,
    /// No gap is large enough.
    NoSpace,
    /// More than [`crate::areas::MAX_AREAS`] areas.
    TooManyAreas,
    /// `RLIMIT_AS` or `RLIMIT_DATA`.
    OverLimit,
    /// `RLIMIT_MEMLOCK`, where Linux says ENOMEM.
    LockLimit,
    /// `RLIMIT_MEMLOCK`, where Linux says EAGAIN.
    LockLimitAgain,
    /// Below the lowest address, or `RLIMIT_MEMLOCK` is 0.
    NotPermitted,
    /// The object may not be accessed in this way.
    AccessDenied,
    /// Something is mapped where `MAP_FIXED_NOREPLACE` wanted to map.
    AlreadyMapped,
    /// The address is not one of the program's.
    BadAddress,
    /// `MADV_POPULATE_*` met a page with nothing behind it.
    NoBacking,
    /// The range is locked or otherwise busy.
    Busy,
    /// Not possible for this kind of mapping.
    NotSupported,
    /// `mprotect` with `PROT_GROWSDOWN` and the like on the wrong area.
    WrongArea,
    /// A page must be read before the call can go on.
    NeedsPage(NeedsPage),
}

/// A page of an object that the kernel has to bring in before it tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsPage {
    /// The object.
    pub object: ObjectId,
    /// The page's number in it.
    pub index: u64,
}

impl MmError {
    /// Linux's number for it. `NeedsPage` never reaches a program; it counts as
    /// EAGAIN.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::NotPermitted => 1,
            Self::LockLimitAgain | Self::NeedsPage(_) => 11,
            Self::OutOfMemory
            | Self::Overcommit
            | Self::NotMapped
            | Self::NoSpace
            | Self::TooManyAreas
            | Self::OverLimit
            | Self::LockLimit => 12,
            Self::AccessDenied => 13,
            Self::BadAddress | Self::NoBacking => 14,
            Self::Busy => 16,
            Self::AlreadyMapped => 17,
            Self::Invalid | Self::WrongArea => 22,
            Self::NotSupported => 95,
        }
    }
}

impl fmt::Display for MmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "invalid argument",
            Self::OutOfMemory => "out of memory",
            Self::Overcommit => "more memory than may be promised",
            Self::NotMapped => "not mapped",
            Self::NoSpace => "no gap large enough",
            Self::TooManyAreas => "too many areas",
            Self::OverLimit => "over a resource limit",
            Self::LockLimit | Self::LockLimitAgain => "over the limit of locked memory",
            Self::NotPermitted => "not permitted",
            Self::AccessDenied => "access denied",
            Self::AlreadyMapped => "already mapped",
            Self::BadAddress => "bad address",
            Self::NoBacking => "nothing behind the mapping",
            Self::Busy => "busy",
            Self::NotSupported => "not supported for this mapping",
            Self::WrongArea => "wrong kind of area",
            Self::NeedsPage(_) => "a page must be read first",
        })
    }
}

impl core::error::Error for MmError {}

impl From<OutOfMemory> for MmError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// No frame, or no heap, left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl From<alloc::collections::TryReserveError> for OutOfMemory {
    fn from(_: alloc::collections::TryReserveError) -> Self {
        Self
    }
}

/// Why a fault was not resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there: SIGSEGV with `SEGV_MAPERR`.
    NoMapping,
    /// The mapping forbids it: SIGSEGV with `SEGV_ACCERR`.
    Forbidden,
    /// Past the end of the object: SIGBUS with `BUS_ADRERR`.
    NoBacking,
    /// No frame left: time for the OOM killer.
    OutOfMemory,
    /// Bring the page in, then fault again with [`crate::Access::major`].
    NeedsPage(NeedsPage),
}

impl FaultError {
    /// The kind that such a fault is counted as; `None` where it will be tried
    /// again.
    #[must_use]
    pub const fn kind(self) -> Option<FaultKind> {
        match self {
            Self::NoMapping => Some(FaultKind::NoMapping),
            Self::Forbidden => Some(FaultKind::ProtectionViolation),
            Self::NoBacking | Self::OutOfMemory => Some(FaultKind::NoBacking),
            Self::NeedsPage(_) => None,
        }
    }
}

impl From<OutOfMemory> for FaultError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// How a system call that failed this way ends: EFAULT for bad memory.
impl From<FaultError> for MmError {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::NoMapping | FaultError::Forbidden | FaultError::NoBacking => {
                Self::BadAddress
            }
            FaultError::OutOfMemory => Self::OutOfMemory,
            FaultError::NeedsPage(page) => Self::NeedsPage(page),
        }
    }
}
