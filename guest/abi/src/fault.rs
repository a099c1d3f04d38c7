//! The kinds of page fault. Every fault the kernel takes has exactly one.

/// What a page fault turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FaultKind {
    /// First write to anonymous memory: a zeroed frame.
    DemandZero = 0,
    /// First read of anonymous memory: the shared zero page.
    ZeroPageRead = 1,
    /// Write to a page that showed the shared zero page: a zeroed frame.
    ZeroPageUpgrade = 2,
    /// Write to a shared frame: a copy.
    CowCopy = 3,
    /// Write to a frame whose last owner this is: made writable, no copy.
    CowReuse = 4,
    /// A page of a program's file that was already in memory.
    PageInMinor = 5,
    /// A page of a program's file that had to be read.
    PageInMajor = 6,
    /// The stack grew by this page.
    StackGrowth = 7,
    /// Nothing was wrong (any more).
    Spurious = 8,
    /// The mapping forbids the access: SIGSEGV, `SEGV_ACCERR`.
    ProtectionViolation = 9,
    /// Nothing is mapped there: SIGSEGV, `SEGV_MAPERR`.
    NoMapping = 10,
    /// A page of a mapped file that was in the page cache.
    FileMinor = 11,
    /// A page of a mapped file that had to be read.
    FileMajor = 12,
    /// First write to a clean page of a shared file mapping.
    WriteNotify = 13,
    /// An anonymous page that came back from swap.
    SwapIn = 14,
    /// A mapping with nothing behind it (past the end of a file, or no frame
    /// left): SIGBUS or the OOM killer.
    NoBacking = 15,
}

/// How many kinds there are.
pub const FAULT_KINDS: usize = 16;

impl FaultKind {
    /// All kinds, by number.
    pub const ALL: [Self; FAULT_KINDS] = [
        Self::DemandZero,
        Self::ZeroPageRead,
        Self::ZeroPageUpgrade,
        Self::CowCopy,
        Self::CowReuse,
        Self::PageInMinor,
        Self::PageInMajor,
        Self::StackGrowth,
        Self::Spurious,
        Self::ProtectionViolation,
        Self::NoMapping,
        Self::FileMinor,
        Self::FileMajor,
        Self::WriteNotify,
        Self::SwapIn,
        Self::NoBacking,
    ];

    /// A name for programs: stable, lower case, underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DemandZero => "demand_zero",
            Self::ZeroPageRead => "zero_page_read",
            Self::ZeroPageUpgrade => "zero_page_upgrade",
            Self::CowCopy => "cow_copy",
            Self::CowReuse => "cow_reuse",
            Self::PageInMinor => "page_in_minor",
            Self::PageInMajor => "page_in_major",
            Self::StackGrowth => "stack_growth",
            Self::Spurious => "spurious",
            Self::ProtectionViolation => "protection_violation",
            Self::NoMapping => "no_mapping",
            Self::FileMinor => "file_minor",
            Self::FileMajor => "file_major",
            Self::WriteNotify => "write_notify",
            Self::SwapIn => "swap_in",
            Self::NoBacking => "no_backing",
        }
    }

    /// A few words for people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::DemandZero => "first write: a zeroed frame",
            Self::ZeroPageRead => "first read: the shared zero page",
            Self::ZeroPageUpgrade => "write after reading zeros: a zeroed frame",
            Self::CowCopy => "write to a shared frame: a copy",
            Self::CowReuse => "write by the last owner: no copy",
            Self::PageInMinor => "program page, already in memory",
            Self::PageInMajor => "program page, read from its file",
            Self::StackGrowth => "the stack grew",
            Self::Spurious => "nothing was wrong any more",
            Self::ProtectionViolation => "access forbidden by the mapping",
            Self::NoMapping => "nothing mapped there",
            Self::FileMinor => "file page, in the page cache",
            Self::FileMajor => "file page, read from the host",
            Self::WriteNotify => "first write to a clean file page",
            Self::SwapIn => "page came back from swap",
            Self::NoBacking => "nothing behind the mapping",
        }
    }
}

impl TryFrom<u8> for FaultKind {
    type Error = u8;

    fn try_from(number: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(number)).copied().ok_or(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_convert_both_ways() {
        for number in 0..=u8::MAX {
            match FaultKind::try_from(number) {
                Ok(kind) => assert_eq!(kind as u8, number),
                Err(rejected) => {
                    assert_eq!(rejected, number);
                    assert!(usize::from(number) >= FAULT_KINDS);
                }
            }
        }
    }

    #[test]
    fn names_are_distinct() {
        for (i, a) in FaultKind::ALL.iter().enumerate() {
            for b in &FaultKind::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
