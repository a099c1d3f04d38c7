//! Program files: what exec needs to know of an ELF file.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bytes at the beginning of a file that must hold the header and the program
/// headers, as on Linux.
pub const HEAD_SIZE: usize = 4096;
/// How much of a file nearly always holds them.
pub const USUAL_HEAD_SIZE: usize = 1024;

/// Where the program headers end, as a file's head says; 0 if it is too short.
pub fn headers_end(head: &[u8]) -> usize {
    const OFFSET: usize = 32;
    const COUNT: usize = 56;
    const SIZE: u64 = size_of::<Segment>() as u64;
    let (Some(offset), Some(count)) = (
        head.get(OFFSET..).and_then(<[u8]>::first_chunk),
        head.get(COUNT..).and_then(<[u8]>::first_chunk),
    ) else {
        return 0;
    };
    let size = u64::from(u16::from_le_bytes(*count)) * SIZE;
    usize::try_from(u64::from_le_bytes(*offset).saturating_add(size)).unwrap_or(usize::MAX)
}

const MAGIC: [u8; 4] = *b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EXECUTABLE: u16 = 2;
const POSITION_INDEPENDENT: u16 = 3;
const X86_64: u16 = 62;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const STACK: u32 = 0x6474_e551;

/// The segment may be executed.
pub const EXECUTE: u32 = 1;
/// The segment may be written.
pub const WRITE: u32 = 2;
/// The segment may be read.
pub const READ: u32 = 4;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 4],
    class: u8,
    data: u8,
    version: u8,
    abi: u8,
    abi_version: u8,
    padding: [u8; 7],
    kind: u16,
    machine: u16,
    file_version: u32,
    entry: u64,
    program_headers: u64,
    section_headers: u64,
    flags: u32,
    header_size: u16,
    program_header_size: u16,
    program_header_count: u16,
    section_header_size: u16,
    section_header_count: u16,
    section_names: u16,
}

/// A program header.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    kind: u32,
    /// [`READ`], [`WRITE`], [`EXECUTE`].
    pub flags: u32,
    /// Where in the file it begins.
    pub offset: u64,
    /// Where in memory it begins.
    pub address: u64,
    physical: u64,
    /// Its bytes in the file.
    pub file_size: u64,
    /// Its bytes in memory; what is not in the file is zero.
    pub memory_size: u64,
    /// What offset and address agree modulo.
    pub alignment: u64,
}

/// What exec needs to know.
#[derive(Clone, Debug)]
pub struct Program {
    /// The segments to load, in the order of their addresses.
    pub segments: Vec<Segment>,
    /// Where it starts, before it is moved.
    pub entry: u64,
    /// It may be loaded anywhere.
    pub position_independent: bool,
    /// Where in the file the program headers are, and how many.
    pub headers: (u64, u16),
    /// The file asks for a stack that can be executed.
    pub executable_stack: bool,
    /// Where in the file the name of its interpreter is, and its length.
    pub interpreter: Option<(u64, u64)>,
}

/// Why a file is not a program that can run: ENOEXEC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAProgram(pub &'static str);

impl Program {
    /// Reads the headers from the first bytes of a file.
    ///
    /// # Errors
    ///
    /// If it is not an x86-64 program or its headers make no sense.
    pub fn parse(head: &[u8]) -> Result<Self, NotAProgram> {
        let (header, _) = FileHeader::read_from_prefix(head)
            .map_err(|_| NotAProgram("the file is too short for an ELF header"))?;
        check_header(&header)?;
        let mut program = Self {
            segments: Vec::new(),
            entry: header.entry,
            position_independent: header.kind == POSITION_INDEPENDENT,
            headers: (header.program_headers, header.program_header_count),
            executable_stack: false,
            interpreter: None,
        };
        let start = usize::try_from(header.program_headers).unwrap_or(usize::MAX);
        for number in 0..usize::from(header.program_header_count) {
            let place = start.saturating_add(number * size_of::<Segment>());
            let bytes = head.get(place..).ok_or(NotAProgram("program headers beyond 4 KiB"))?;
            let (segment, _) = Segment::read_from_prefix(bytes)
                .map_err(|_| NotAProgram("program headers beyond 4 KiB"))?;
            program.add(segment)?;
        }
        if program.segments.is_empty() {
            return Err(NotAProgram("nothing to load"));
        }
        Ok(program)
    }

    fn add(&mut self, segment: Segment) -> Result<(), NotAProgram> {
        match segment.kind {
            LOAD if segment.memory_size > 0 => {
                check_segment(&segment)?;
                let in_order = self
                    .segments
                    .last()
                    .is_none_or(|last| last.address + last.memory_size <= segment.address);
                if !in_order {
                    return Err(NotAProgram("segments overlap or are out of order"));
                }
                self.segments.push(segment);
            }
            STACK => self.executable_stack = segment.flags & EXECUTE != 0,
            INTERPRETER => self.interpreter = Some((segment.offset, segment.file_size)),
            _ => {}
        }
        Ok(())
    }

    /// Start of the first page that is loaded.
    #[must_use]
    pub fn start(&self) -> u64 {
        let address = self.segments.first().map_or(0, |first| first.address);
        address & !(pagelab_abi::addr::PAGE_SIZE - 1)
    }

    /// End of everything that is loaded.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.address + last.memory_size)
    }

    /// Where the program headers are in memory, before the program is moved.
    #[must_use]
    pub fn headers_address(&self) -> Option<u64> {
        let (offset, _) = self.headers;
        let holder = self.segments.iter().find(|segment| {
            segment.offset <= offset && offset < segment.offset + segment.file_size
        })?;
        Some(holder.address + (offset - holder.offset))
    }
}

fn check_header(header: &FileHeader) -> Result<(), NotAProgram> {
    if header.magic != MAGIC {
        return Err(NotAProgram("not an ELF file"));
    }
    if header.class != CLASS_64 || header.data != LITTLE_ENDIAN || header.machine != X86_64 {
        return Err(NotAProgram("not for x86-64"));
    }
    if !matches!(header.kind, EXECUTABLE | POSITION_INDEPENDENT) {
        return Err(NotAProgram("not an executable"));
    }
    if usize::from(header.program_header_size) != size_of::<Segment>() {
        return Err(NotAProgram("program headers of unknown size"));
    }
    Ok(())
}

fn check_segment(segment: &Segment) -> Result<(), NotAProgram> {
    const PAGE_MASK: u64 = pagelab_abi::addr::PAGE_SIZE - 1;
    let end = pagelab_abi::layout::USER_END.0;
    let fits = segment.address < end
        && segment.memory_size < end - segment.address
        && segment.offset.checked_add(segment.file_size).is_some();
    if !fits || segment.file_size > segment.memory_size {
        return Err(NotAProgram("a segment beyond user space, or larger in the file"));
    }
    if segment.offset & PAGE_MASK != segment.address & PAGE_MASK {
        return Err(NotAProgram("a segment that is not aligned to its file"));
    }
    Ok(())
}
