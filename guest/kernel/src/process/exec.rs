//! A program is mapped and its stack is made.
//!
//! Nothing of the file is copied: its segments become private mappings of its
//! object, and pages come in when they are touched. What the program finds on
//! its stack is drawn in [`StackImage`].

use alloc::vec::Vec;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_hal::trap::TrapFrame;
use pagelab_mm::{AddressSpace, FaultError, MapFlags, MapRequest, MapSource, MmError, Protection};

use pagelab_mm::user::Partial;

use super::program::{self, ProgramFile};
use crate::elf::{self, NotAProgram, Program, Segment};
use crate::memory::memory;

/// Pages of the stack that are mapped from the start, as on Linux; more on
/// faults.
const STACK_PAGES: u64 = 33;
/// Where position-independent programs go, as on Linux without randomisation:
/// two thirds up.
const MOVED_BASE: u64 = 0x5555_5555_4000;

/// Why a program cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecError {
    /// The file is not a program.
    NotAProgram(NotAProgram),
    /// It does not fit into memory or its address space.
    Memory(MmError),
    /// Arguments and environment take more than a quarter of the stack.
    TooManyArguments,
}

impl From<NotAProgram> for ExecError {
    fn from(error: NotAProgram) -> Self {
        Self::NotAProgram(error)
    }
}

impl From<MmError> for ExecError {
    fn from(error: MmError) -> Self {
        Self::Memory(error)
    }
}

/// Arguments, environment and the name that the program was started by.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    /// `argv`, without the NULs.
    pub arguments: &'a [&'a [u8]],
    /// `envp`, without the NULs.
    pub environment: &'a [&'a [u8]],
    /// `AT_EXECFN`.
    pub file_name: &'a [u8],
    /// `AT_RANDOM`.
    pub random: [u8; 16],
}

/// Maps a program into an empty address space and makes its stack; returns the
/// registers to start with.
///
/// # Errors
///
/// See [`ExecError`]; the address space may be left with part of the program.
pub fn load(
    space: &mut AddressSpace,
    file: &ProgramFile,
    arguments: &Arguments<'_>,
) -> Result<TrapFrame, ExecError> {
    let head = &file.bytes[..file.bytes.len().min(elf::HEAD_SIZE)];
    let program = Program::parse(head)?;
    let shift = if program.position_independent { MOVED_BASE } else { 0 };
    for segment in &program.segments {
        map_segment(space, file, segment, shift)?;
    }
    let end = program.end();
    let data = program.segments.iter().filter(|segment| segment.flags & elf::WRITE != 0);
    let data_size = data.map(|segment| segment.memory_size).sum();
    space.set_heap(GuestVirt((end + shift).next_multiple_of(PAGE_SIZE)), data_size);
    space.map_stack(memory(), STACK_PAGES)?;
    let stack = StackImage::build(&program, shift, arguments, space.layout().stack_top);
    if stack.bytes.len() as u64 > space.limits.stack / 4 {
        return Err(ExecError::TooManyArguments);
    }
    write(space, stack.start, &stack.bytes)?;
    Ok(TrapFrame::for_program(program.entry + shift, stack.start.0))
}

/// Maps one segment: the file's pages, then zeros.
fn map_segment(
    space: &mut AddressSpace,
    file: &ProgramFile,
    segment: &Segment,
    shift: u64,
) -> Result<(), ExecError> {
    let mut protection = Protection::empty();
    protection.set(Protection::READ, segment.flags & elf::READ != 0);
    protection.set(Protection::WRITE, segment.flags & elf::WRITE != 0);
    protection.set(Protection::EXECUTE, segment.flags & elf::EXECUTE != 0);
    let address = segment.address + shift;
    let page = address & !(PAGE_SIZE - 1);
    let file_end = address + segment.file_size;
    let memory_end = address + segment.memory_size;
    let mut zeros_from = page;
    if segment.file_size > 0 {
        let source = MapSource::Object {
            object: file.object,
            offset: segment.offset / PAGE_SIZE,
            may_write: false,
            notify_write: false,
        };
        map(space, page, file_end - page, protection, source)?;
        zeros_from = file_end.next_multiple_of(PAGE_SIZE);
        let tail = (zeros_from.min(memory_end) - file_end) as usize;
        if tail > 0 && protection.contains(Protection::WRITE) {
            // What follows in the file is not this segment's.
            write(space, GuestVirt(file_end), &[0; PAGE_SIZE as usize][..tail])?;
        }
    }
    if memory_end > zeros_from {
        map(space, zeros_from, memory_end - zeros_from, protection, MapSource::Anonymous)?;
    }
    Ok(())
}

fn map(
    space: &mut AddressSpace,
    address: u64,
    length: u64,
    protection: Protection,
    source: MapSource,
) -> Result<(), MmError> {
    let mut flags = MapFlags::PRIVATE | MapFlags::FIXED_NO_REPLACE;
    flags.set(MapFlags::ANONYMOUS, matches!(source, MapSource::Anonymous));
    let request = MapRequest { address: GuestVirt(address), length, protection, flags, source };
    space.mmap(memory(), &request).map(drop)
}

/// Writes to the new program's memory, bringing in its pages.
fn write(space: &mut AddressSpace, address: GuestVirt, bytes: &[u8]) -> Result<(), MmError> {
    let mut from = 0;
    loop {
        match space.write_user(memory(), GuestVirt(address.0 + from as u64), &bytes[from..]) {
            Ok(()) => return Ok(()),
            Err(Partial { done, error: FaultError::NeedsPage(page) }) => {
                program::bring_in(page)?;
                from += done;
            }
            Err(Partial { error, .. }) => return Err(error.into()),
        }
    }
}

/// What a program finds on its stack.
///
/// ```text
/// stack top  8 zero bytes
///            file name, environment strings, argument strings
///            "x86_64", 16 random bytes
///            (padding to 16 bytes)
///            auxiliary vector, ended by AT_NULL
///            environment pointers, 0
///            argument pointers, 0
///  rsp ────► argument count
/// ```
struct StackImage {
    start: GuestVirt,
    bytes: Vec<u8>,
}

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;

impl StackImage {
    fn build(program: &Program, shift: u64, given: &Arguments<'_>, top: GuestVirt) -> Self {
        // Strings from the top down, collected in reverse.
        let mut strings = Strings { top: top.0, below: 8, pieces: Vec::new() };
        let file_name = strings.push(given.file_name);
        let environment: Vec<u64> =
            given.environment.iter().rev().map(|text| strings.push(text)).collect();
        let arguments: Vec<u64> =
            given.arguments.iter().rev().map(|text| strings.push(text)).collect();
        let platform = strings.push(b"x86_64");
        let random = strings.push_bytes(&given.random);

        let auxiliary = [
            (AT_PHDR, program.headers_address().map_or(0, |address| address + shift)),
            (AT_PHENT, size_of::<Segment>() as u64),
            (AT_PHNUM, u64::from(program.headers.1)),
            (AT_PAGESZ, PAGE_SIZE),
            (AT_BASE, 0),
            (AT_FLAGS, 0),
            (AT_ENTRY, program.entry + shift),
            (AT_UID, 0),
            (AT_EUID, 0),
            (AT_GID, 0),
            (AT_EGID, 0),
            (AT_SECURE, 0),
            (AT_CLKTCK, 100),
            (AT_HWCAP, u64::from(pagelab_hal::cpu::cpuid(1, 0).edx)),
            (AT_RANDOM, random),
            (AT_PLATFORM, platform),
            (AT_EXECFN, file_name),
            (AT_NULL, 0),
        ];
        let words = 1 + arguments.len() + 1 + environment.len() + 1 + 2 * auxiliary.len();
        let start = (top.0 - strings.below - 8 * words as u64) & !15;
        let mut bytes = Vec::with_capacity((top.0 - start) as usize);
        let mut word = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
        word(arguments.len() as u64);
        arguments.iter().rev().for_each(|&pointer| word(pointer));
        word(0);
        environment.iter().rev().for_each(|&pointer| word(pointer));
        word(0);
        for (key, value) in auxiliary {
            word(key);
            word(value);
        }
        bytes.resize((top.0 - strings.below - start) as usize, 0);
        for piece in strings.pieces.iter().rev() {
            bytes.extend_from_slice(piece);
        }
        bytes.resize((top.0 - start) as usize, 0);
        Self { start: GuestVirt(start), bytes }
    }
}

/// Strings that are laid out from the top of the stack downwards.
struct Strings {
    top: u64,
    below: u64,
    pieces: Vec<Vec<u8>>,
}

impl Strings {
    /// A string and its NUL; returns its address.
    fn push(&mut self, text: &[u8]) -> u64 {
        let mut piece = Vec::with_capacity(text.len() + 1);
        piece.extend_from_slice(text);
        piece.push(0);
        self.add(piece)
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> u64 {
        self.add(bytes.to_vec())
    }

    fn add(&mut self, piece: Vec<u8>) -> u64 {
        self.below += piece.len() as u64;
        self.pieces.push(piece);
        self.top - self.below
    }
}
