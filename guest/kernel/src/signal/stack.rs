//! The alternate stack: `sigaltstack`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SS_ONSTACK`: the thread runs on it.
const ON_STACK: u32 = 1;
/// `SS_DISABLE`: there is none.
const DISABLE: u32 = 2;
/// `SS_AUTODISARM`: it is taken away while a handler runs on it.
const AUTODISARM: u32 = 1 << 31;
/// `MINSIGSTKSZ`.
const LEAST: u64 = 2048;

/// `stack_t`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StackRecord {
    start: u64,
    flags: u32,
    padding: u32,
    size: u64,
}

const _: () = assert!(size_of::<StackRecord>() == 24);

/// Why an alternate stack is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackError {
    /// The thread runs on the one that it has.
    InUse,
    /// Flags that make no sense.
    Flags,
    /// It is too small.
    Size,
}

/// A thread's alternate stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateStack {
    start: u64,
    size: u64,
    flags: u32,
}

impl Default for AlternateStack {
    fn default() -> Self {
        Self { start: 0, size: 0, flags: DISABLE }
    }
}

impl AlternateStack {
    /// Whether an address is on it, whatever its flags.
    pub const fn holds(&self, pointer: u64) -> bool {
        pointer > self.start && pointer - self.start <= self.size
    }

    /// Whether a thread with this stack pointer runs on it. One that is taken
    /// away while it is used is never in use.
    pub const fn in_use(&self, pointer: u64) -> bool {
        self.flags & AUTODISARM == 0 && self.holds(pointer)
    }

    /// Where a handler starts on it, if it is there and not in use.
    pub const fn fresh_top(&self, pointer: u64) -> Option<u64> {
        if self.size == 0 || self.in_use(pointer) {
            None
        } else {
            Some(self.start.wrapping_add(self.size))
        }
    }

    /// As `sigaltstack` reports it to a thread with this stack pointer.
    pub const fn report(&self, pointer: u64) -> StackRecord {
        let state = if self.size == 0 {
            DISABLE
        } else if self.in_use(pointer) {
            ON_STACK
        } else {
            0
        };
        let flags = state | self.flags & AUTODISARM;
        StackRecord { start: self.start, flags, padding: 0, size: self.size }
    }

    /// As a signal frame keeps it.
    pub const fn saved(&self) -> StackRecord {
        StackRecord { start: self.start, flags: self.flags, padding: 0, size: self.size }
    }

    /// The stack that a thread with this stack pointer asks for.
    ///
    /// # Errors
    ///
    /// If the present one is in use, or the new one makes no sense.
    pub const fn replaced_by(&self, new: StackRecord, pointer: u64) -> Result<Self, StackError> {
        if self.in_use(pointer) {
            return Err(StackError::InUse);
        }
        match new.flags & !AUTODISARM {
            DISABLE => Ok(Self { start: 0, size: 0, flags: new.flags }),
            0 | ON_STACK if new.size < LEAST => Err(StackError::Size),
            0 | ON_STACK => Ok(Self { start: new.start, size: new.size, flags: new.flags }),
            _ => Err(StackError::Flags),
        }
    }

    /// What is left when a handler starts.
    pub fn after_entry(self) -> Self {
        if self.flags & AUTODISARM != 0 { Self::default() } else { self }
    }
}
