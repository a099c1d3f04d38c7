//! Builds small kernels: machine code wrapped into an ELF file, and every way in
//! which such a file can be wrong.

/// Where kernels are linked to.
pub const BASE: u64 = 0xffff_ffff_8000_0000;
/// Where the image begins.
pub const IMAGE: u64 = BASE + 0x20_0000;
/// Readable and executable.
pub const CODE: u32 = 5;
/// Readable and writable.
pub const DATA: u32 = 6;

/// One loadable segment.
#[derive(Clone)]
pub struct Segment {
    pub virt: u64,
    pub phys: u64,
    pub bytes: Vec<u8>,
    pub file_size: u64,
    pub memory_size: u64,
    pub flags: u32,
}

impl Segment {
    /// A segment at `virt` whose place in memory follows from that.
    pub fn new(virt: u64, flags: u32, bytes: &[u8]) -> Self {
        let size = bytes.len() as u64;
        let bytes = bytes.to_vec();
        Self {
            virt,
            phys: virt.wrapping_sub(BASE),
            bytes,
            file_size: size,
            memory_size: size,
            flags,
        }
    }
}

/// A file; every field can be made wrong before it is built.
#[derive(Clone)]
pub struct Elf {
    pub class: u8,
    pub endian: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub segments: Vec<Segment>,
}

impl Elf {
    /// A kernel of one segment that begins with `code`.
    pub fn of_code(code: &[u8]) -> Self {
        Self::of_segments(vec![Segment::new(IMAGE, CODE, code)])
    }

    /// A kernel that starts at the beginning of its image.
    pub fn of_segments(segments: Vec<Segment>) -> Self {
        Self { class: 2, endian: 1, kind: 2, machine: 62, entry: IMAGE, segments }
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        const HEADER: u16 = 64;
        const SEGMENT_HEADER: u16 = 56;
        const FIRST_BYTES: usize = 0x1000;
        let mut file = Vec::new();
        file.extend(b"\x7fELF");
        file.extend([self.class, self.endian, 1]);
        file.resize(16, 0);
        let count = u16::try_from(self.segments.len()).expect("few segments");
        for half in [self.kind, self.machine] {
            file.extend(half.to_le_bytes());
        }
        file.extend(1u32.to_le_bytes());
        for word in [self.entry, u64::from(HEADER), 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [HEADER, SEGMENT_HEADER, count, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = FIRST_BYTES;
        for segment in &self.segments {
            file.extend(1u32.to_le_bytes());
            file.extend(segment.flags.to_le_bytes());
            let sizes = [segment.file_size, segment.memory_size, 0x1000];
            for word in [offset as u64, segment.virt, segment.phys].into_iter().chain(sizes) {
                file.extend(word.to_le_bytes());
            }
            offset += segment.bytes.len();
        }
        file.resize(FIRST_BYTES.max(file.len()), 0);
        for segment in &self.segments {
            file.extend(&segment.bytes);
        }
        file
    }
}
