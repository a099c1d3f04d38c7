//! The kernel's ELF: every check first, then its segments into memory.
//!
//! The `elf` crate reads the headers. `linux-loader` would also copy the
//! segments, but only that: it looks neither at rights nor at overlaps and does
//! not say where the segments went, and all of that is needed for page tables
//! that are W^X. So the few lines that copy are here, behind the checks.
//!
//! The image is linked so that virtual = physical + `IMAGE_BASE`; where it goes
//! in physical memory follows from its virtual addresses alone.

use elf::ElfBytes;
use elf::abi::{EI_NIDENT, EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::AnyEndian;
use elf::file::{Class, FileHeader};
use elf::parse::ParseError;
use elf::segment::ProgramHeader;
use pagelab_abi::addr::{GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_abi::layout::{IMAGE_BASE, IMAGE_PHYS};
use pagelab_paging::kernel_map::ImageSegment;

use crate::memory::{GuestRam, MemoryError};

/// How many loadable segments a kernel may have; ours has four.
const MAX_SEGMENTS: usize = 32;

/// Why an ELF file is not a kernel that can be booted.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Not ELF.
    #[error("it is not an ELF file (it begins with {})", crate::loader::program::first_bytes(.0))]
    NotElf(Vec<u8>),
    /// Headers that do not fit into the file.
    #[error("it is cut short: its headers lie beyond the end of the file")]
    Truncated,
    /// Headers that are wrong.
    #[error("its headers are broken: {0}")]
    Headers(ParseError),
    /// 32 bits.
    #[error("it is a 32-bit ELF file; the kernel is a 64-bit one")]
    NotSixtyFourBits,
    /// Big-endian.
    #[error("it is a big-endian ELF file; x86-64 is little-endian")]
    NotLittleEndian,
    /// Another processor.
    #[error("it is for {}, not for x86-64", machine_name(*.0))]
    WrongMachine(u16),
    /// An object file, a library or a position-independent program.
    #[error("it is not an executable linked to fixed addresses (ELF type {0}, wanted {ET_EXEC})")]
    NotExecutable(u16),
    /// Nothing to load.
    #[error("it has no loadable segment")]
    NoSegments,
    /// Far too much to load.
    #[error("it has {0} loadable segments; at most {MAX_SEGMENTS} make sense")]
    TooManySegments(usize),
    /// A segment whose bytes are not in the file.
    #[error("it is cut short: segment {0}'s bytes lie beyond the end of the file")]
    SegmentTruncated(usize),
    /// A segment with more bytes in the file than in memory.
    #[error("segment {index} has {file:#x} bytes in the file but only {memory:#x} in memory")]
    FileLargerThanMemory {
        /// Which segment.
        index: usize,
        /// Its size in the file.
        file: u64,
        /// Its size in memory.
        memory: u64,
    },
    /// A segment that does not begin a page.
    #[error("segment {index} begins at {at}, which is not the start of a page")]
    Unaligned {
        /// Which segment.
        index: usize,
        /// Its address.
        at: GuestVirt,
    },
    /// A segment below the place where kernels go.
    #[error(
        "segment {index} begins at {at}, below {:#x} where the kernel's image begins",
        IMAGE_BASE + IMAGE_PHYS.0
    )]
    BelowImage {
        /// Which segment.
        index: usize,
        /// Its address.
        at: GuestVirt,
    },
    /// A physical address that does not go with the virtual one.
    #[error("segment {index} wants physical address {found}, but its place is {expected}")]
    PhysicalMismatch {
        /// Which segment.
        index: usize,
        /// The address in the header.
        found: GuestPhys,
        /// Its virtual address less `IMAGE_BASE`.
        expected: GuestPhys,
    },
    /// A segment that does not fit into memory.
    #[error(
        "segment {index} needs guest memory from {start} to {end}, but RAM ends at {ram_end}: \
         give the guest more with --mem"
    )]
    OutsideMemory {
        /// Which segment.
        index: usize,
        /// Where it begins.
        start: GuestPhys,
        /// Where it ends.
        end: GuestPhys,
        /// Where RAM ends.
        ram_end: GuestPhys,
    },
    /// A segment so long that its end has no address.
    #[error("segment {0} is so long that its end has no address")]
    AddressOverflow(usize),
    /// Two segments with a page in common.
    #[error("segments {0} and {1} overlap, or share a page")]
    Overlap(usize, usize),
    /// Writable and executable at once.
    #[error("segment {0} is writable and executable at once, which no page of a kernel may be")]
    WritableAndExecutable(usize),
    /// The entry point is not code.
    #[error("its entry point {0} is not in an executable segment")]
    EntryOutsideCode(GuestVirt),
    /// Guest memory failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A kernel in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedKernel {
    /// Its segments by address, for the page tables.
    pub segments: Vec<ImageSegment>,
    /// First byte of the image.
    pub start: GuestPhys,
    /// End of the image, on a page boundary.
    pub end: GuestPhys,
    /// Its first instruction.
    pub entry: GuestVirt,
}

/// A segment that passed the checks.
struct Checked<'a> {
    index: usize,
    bytes: &'a [u8],
    image: ImageSegment,
    /// Exact end of what is in memory, for the entry point.
    memory_end: GuestPhys,
}

/// Checks `file` and puts its segments into `ram`, which must be zero.
///
/// # Errors
///
/// If anything about it is not as a kernel must be; nothing is written then.
pub fn load(ram: &GuestRam, file: &[u8]) -> Result<LoadedKernel, KernelError> {
    let parsed = parse(file)?;
    let headers: Vec<ProgramHeader> = parsed
        .segments()
        .into_iter()
        .flat_map(|table| table.iter())
        .filter(|header| header.p_type == PT_LOAD && header.p_memsz != 0)
        .collect();
    if headers.len() > MAX_SEGMENTS {
        return Err(KernelError::TooManySegments(headers.len()));
    }
    let mut segments = headers
        .iter()
        .enumerate()
        .map(|(index, header)| check_segment(ram, file, index, header))
        .collect::<Result<Vec<_>, _>>()?;
    segments.sort_by_key(|segment| segment.image.start);
    for pair in segments.windows(2) {
        if pair[1].image.start < pair[0].image.end {
            return Err(KernelError::Overlap(pair[0].index, pair[1].index));
        }
    }
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(KernelError::NoSegments);
    };
    let entry = GuestVirt(parsed.ehdr.e_entry);
    check_entry(entry, &segments)?;
    for segment in &segments {
        ram.write(segment.image.start, segment.bytes)?;
    }
    Ok(LoadedKernel {
        start: first.image.start,
        end: last.image.end,
        entry,
        segments: segments.iter().map(|segment| segment.image).collect(),
    })
}

fn parse(file: &[u8]) -> Result<ElfBytes<'_, AnyEndian>, KernelError> {
    if file.is_empty() {
        return Err(KernelError::Empty);
    }
    if !file.starts_with(b"\x7fELF") {
        return Err(KernelError::NotElf(file[..file.len().min(8)].to_vec()));
    }
    // The file header alone first: what it says explains why the rest of
    // another machine's file would make no sense.
    let header = read_header(file).map_err(parse_error)?;
    if header.class != Class::ELF64 {
        return Err(KernelError::NotSixtyFourBits);
    }
    if header.endianness != AnyEndian::Little {
        return Err(KernelError::NotLittleEndian);
    }
    if header.e_machine != EM_X86_64 {
        return Err(KernelError::WrongMachine(header.e_machine));
    }
    if header.e_type != ET_EXEC {
        return Err(KernelError::NotExecutable(header.e_type));
    }
    ElfBytes::minimal_parse(file).map_err(parse_error)
}

/// The file header.
pub(super) fn read_header(file: &[u8]) -> Result<FileHeader<AnyEndian>, ParseError> {
    let Some((start, tail)) = file.split_at_checked(EI_NIDENT) else {
        return Err(ParseError::SliceReadError((0, EI_NIDENT)));
    };
    FileHeader::parse_tail(elf::file::parse_ident(start)?, tail)
}

/// Tells a file that is cut short from one that is broken.
fn parse_error(error: ParseError) -> KernelError {
    match error {
        ParseError::SliceReadError(_) | ParseError::IntegerOverflow | ParseError::BadOffset(_) => {
            KernelError::Truncated
        }
        other => KernelError::Headers(other),
    }
}

fn check_segment<'a>(
    ram: &GuestRam,
    file: &'a [u8],
    index: usize,
    header: &ProgramHeader,
) -> Result<Checked<'a>, KernelError> {
    let at = GuestVirt(header.p_vaddr);
    let (filesz, memsz) = (header.p_filesz, header.p_memsz);
    if filesz > memsz {
        return Err(KernelError::FileLargerThanMemory { index, file: filesz, memory: memsz });
    }
    let bytes = slice_of(file, header.p_offset, filesz);
    let bytes = bytes.ok_or(KernelError::SegmentTruncated(index))?;
    if at.0 < IMAGE_BASE + IMAGE_PHYS.0 {
        return Err(KernelError::BelowImage { index, at });
    }
    if !at.is_page_aligned() {
        return Err(KernelError::Unaligned { index, at });
    }
    let start = GuestPhys(at.0 - IMAGE_BASE);
    let found = GuestPhys(header.p_paddr);
    if found != start {
        return Err(KernelError::PhysicalMismatch { index, found, expected: start });
    }
    // Both ends must have addresses: the virtual one is the larger.
    let pages = memsz.checked_next_multiple_of(PAGE_SIZE);
    let end = pages
        .filter(|&pages| at.checked_add(pages).is_some())
        .and_then(|pages| start.checked_add(pages))
        .ok_or(KernelError::AddressOverflow(index))?;
    if end > ram.low_end() {
        return Err(KernelError::OutsideMemory { index, start, end, ram_end: ram.low_end() });
    }
    let writable = header.p_flags & PF_W != 0;
    let executable = header.p_flags & PF_X != 0;
    if writable && executable {
        return Err(KernelError::WritableAndExecutable(index));
    }
    let image = ImageSegment { start, end, writable, executable };
    Ok(Checked { index, bytes, image, memory_end: GuestPhys(start.0 + memsz) })
}

fn slice_of(file: &[u8], offset: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    file.get(start..end)
}

fn check_entry(entry: GuestVirt, segments: &[Checked<'_>]) -> Result<(), KernelError> {
    let physical = entry.0.checked_sub(IMAGE_BASE).map(GuestPhys);
    let in_code = physical.is_some_and(|at| {
        segments.iter().any(|segment| {
            segment.image.executable && segment.image.start <= at && at < segment.memory_end
        })
    });
    if in_code { Ok(()) } else { Err(KernelError::EntryOutsideCode(entry)) }
}

/// A processor by its ELF number.
pub(crate) fn machine_name(machine: u16) -> String {
    let name = match machine {
        elf::abi::EM_386 => "32-bit x86",
        elf::abi::EM_ARM => "32-bit Arm",
        elf::abi::EM_AARCH64 => "64-bit Arm (AArch64)",
        elf::abi::EM_RISCV => "RISC-V",
        elf::abi::EM_PPC64 => "64-bit PowerPC",
        elf::abi::EM_S390 => "IBM Z (s390x)",
        elf::abi::EM_MIPS => "MIPS",
        elf::abi::EM_LOONGARCH => "LoongArch",
        elf::abi::EM_BPF => "BPF",
        elf::abi::EM_X86_64 => "x86-64",
        other => return format!("an unknown processor (ELF machine {other})"),
    };
    name.to_owned()
}
