//! How much memory: what a user may write after `--mem`, and what can work.

use std::fmt;
use std::str::FromStr;

use pagelab_abi::addr::PAGE_SIZE;

use crate::layout::{DEFAULT_MEMORY, MAX_MEMORY, MIN_MEMORY};

/// A size of guest memory that the layout can hold: whole pages, between
/// [`MIN_MEMORY`] and [`MAX_MEMORY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// Why a size cannot work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not digits with an optional unit.
    #[error("‘{0}’ is not a size: write a whole number with K, M or G behind it, such as 128M")]
    NotANumber(String),
    /// More than 64 bits.
    #[error("‘{0}’ is more than any machine can address")]
    Overflow(String),
    /// No memory at all.
    #[error("a guest without memory cannot start: the least is {}", Bytes(MIN_MEMORY))]
    Zero,
    /// Less than the kernel needs.
    #[error("{} is too little: the least that the kernel starts with is {}",
            Bytes(*.0), Bytes(MIN_MEMORY))]
    TooSmall(u64),
    /// Not whole pages.
    #[error("{0} bytes are not whole pages: make it a multiple of {PAGE_SIZE}")]
    NotPages(u64),
    /// More than frame numbers can count.
    #[error("{} is more than a guest can address here: the most is {}",
            Bytes(*.0), Bytes(MAX_MEMORY))]
    TooLarge(u64),
    /// More than the host has.
    #[error("{} is more than this host's memory of {}: the guest could never use it",
            Bytes(*.asked), Bytes(*.host))]
    MoreThanHost {
        /// What was asked for.
        asked: u64,
        /// What the host has.
        host: u64,
    },
}

impl MemorySize {
    /// A size, if it can work on any host.
    ///
    /// # Errors
    ///
    /// If it is not whole pages or not within the limits.
    pub const fn new(bytes: u64) -> Result<Self, SizeError> {
        if bytes == 0 {
            return Err(SizeError::Zero);
        }
        if bytes > MAX_MEMORY {
            return Err(SizeError::TooLarge(bytes));
        }
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(SizeError::NotPages(bytes));
        }
        if bytes < MIN_MEMORY {
            return Err(SizeError::TooSmall(bytes));
        }
        Ok(Self(bytes))
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Refuses a size that this host cannot back.
    ///
    /// # Errors
    ///
    /// If the host has less memory.
    pub const fn check_host(self, host: u64) -> Result<(), SizeError> {
        if self.0 > host {
            return Err(SizeError::MoreThanHost { asked: self.0, host });
        }
        Ok(())
    }
}

/// How much memory this host has.
#[must_use]
pub fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

impl Default for MemorySize {
    fn default() -> Self {
        Self(DEFAULT_MEMORY)
    }
}

impl FromStr for MemorySize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        parse_bytes(text).and_then(Self::new)
    }
}

/// A number of bytes as a user writes it, with K, M or G behind it.
///
/// # Errors
///
/// If it is none, or more than 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    // `u64::from_str` also takes a sign, which no size has.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SizeError::NotANumber(text.to_owned()));
    }
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| SizeError::Overflow(text.to_owned()))
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Bytes(self.0).fmt(f)
    }
}

/// A number of bytes for people: in the largest unit that loses nothing, or
/// with one decimal where none does.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        for (shift, unit) in UNITS {
            let whole = self.0 >> shift;
            if whole != 0 {
                let rest = self.0 & ((1 << shift) - 1);
                let tenth = (rest * 10) >> shift;
                return if tenth == 0 {
                    write!(f, "{whole} {unit}")
                } else {
                    write!(f, "{whole}.{tenth} {unit}")
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}
