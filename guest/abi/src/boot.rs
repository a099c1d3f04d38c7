//! What the host hands over at the kernel's entry.
//!
//! The kernel starts in 64-bit mode, ring 0, interrupts off, on the page tables
//! that the host built (see `pagelab_paging::kernel_map`), with the physical
//! address of a [`BootInfo`] in RDI. The kernel's PVH entry, used by other
//! VMMs, builds the same structure from what that protocol gives.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First field of a [`BootInfo`].
pub const BOOT_MAGIC: u64 = u64::from_le_bytes(*b"PAGELAB\x01");

/// How many memory ranges fit into a [`BootInfo`].
pub const MAX_MEMORY_RANGES: usize = 32;
/// How many modules fit into a [`BootInfo`].
pub const MAX_MODULES: usize = 16;
/// How many bytes of command line fit into a [`BootInfo`].
pub const MAX_COMMAND_LINE: usize = 2048;

/// The lab's device answers at [`crate::layout::LAB_PORT`].
pub const FLAG_LAB_DEVICE: u64 = 1 << 0;
/// Memory that the host did not write is zero.
pub const FLAG_MEMORY_ZEROED: u64 = 1 << 1;

/// A range of guest-physical memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// One of the `MEMORY_*` kinds.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// RAM that the kernel may use.
pub const MEMORY_USABLE: u32 = 1;
/// RAM that holds something to keep: boot information, image, tables, modules.
pub const MEMORY_RESERVED: u32 = 2;

/// Bytes that the host put into guest memory, page-aligned, rest of the last
/// page zero.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Module {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// One of the `MODULE_*` kinds.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// A program to run: an ELF file.
pub const MODULE_PROGRAM: u32 = 1;
/// The program's arguments, the first its name: each ended by a NUL.
pub const MODULE_ARGUMENTS: u32 = 2;
/// The program's environment: each `NAME=value` ended by a NUL.
pub const MODULE_ENVIRONMENT: u32 = 3;
/// The shared folders. For each, in the order of the virtio file system devices:
/// the device's tag, the folder of the guest where it is mounted, and
/// [`SHARE_READ_ONLY`] or [`SHARE_WRITABLE`], each ended by a NUL.
pub const MODULE_SHARES: u32 = 4;
/// The path of the program in the guest, ended by a NUL: it lies in a shared
/// folder, and there is no [`MODULE_PROGRAM`].
pub const MODULE_PROGRAM_PATH: u32 = 5;

/// Access to a shared folder: nothing in it can be changed.
pub const SHARE_READ_ONLY: &str = "ro";
/// Access to a shared folder: whatever the host allows.
pub const SHARE_WRITABLE: &str = "rw";

/// What the kernel finds at its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BootInfo {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`].
    pub version: u32,
    /// Size of this structure in bytes.
    pub size: u32,
    /// `FLAG_*` bits.
    pub flags: u64,
    /// Physical address of the root page table.
    pub root_table: u64,
    /// First byte of the kernel image in physical memory.
    pub image_start: u64,
    /// End of the kernel image and of the tables that the host built behind it.
    pub image_end: u64,
    /// Frequency of the time-stamp counter in kHz, 0 if unknown.
    pub tsc_khz: u64,
    /// Wall-clock time at boot, in nanoseconds since 1970, 0 if unknown.
    pub wall_clock_ns: u64,
    /// Random bytes; all zero where runs must repeat exactly.
    pub entropy: [u8; 32],
    /// How many of `memory` are valid.
    pub memory_count: u32,
    /// How many of `modules` are valid.
    pub module_count: u32,
    /// How many bytes of `command_line` are valid.
    pub command_line_length: u32,
    /// How many virtio devices there are, from
    /// [`crate::layout::virtio_device`]`(0)` on.
    pub virtio_count: u32,
    /// The memory map: in order, not overlapping.
    pub memory: [MemoryRange; MAX_MEMORY_RANGES],
    /// What the host put into memory.
    pub modules: [Module; MAX_MODULES],
    /// The kernel's command line, UTF-8.
    pub command_line: [u8; MAX_COMMAND_LINE],
}

impl BootInfo {
    /// A structure with magic, version and size set and nothing else.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "asserted below to be small")]
    pub const fn empty() -> Self {
        const NO_RANGE: MemoryRange = MemoryRange { start: 0, length: 0, kind: 0, reserved: 0 };
        const NO_MODULE: Module = Module { start: 0, length: 0, kind: 0, reserved: 0 };
        Self {
            magic: BOOT_MAGIC,
            version: crate::VERSION,
            size: size_of::<Self>() as u32,
            flags: 0,
            root_table: 0,
            image_start: 0,
            image_end: 0,
            tsc_khz: 0,
            wall_clock_ns: 0,
            entropy: [0; 32],
            memory_count: 0,
            module_count: 0,
            command_line_length: 0,
            virtio_count: 0,
            memory: [NO_RANGE; MAX_MEMORY_RANGES],
            modules: [NO_MODULE; MAX_MODULES],
            command_line: [0; MAX_COMMAND_LINE],
        }
    }

    /// Whether magic, version and size are the ones this crate was built with.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.magic == BOOT_MAGIC
            && self.version == crate::VERSION
            && self.size as usize == size_of::<Self>()
    }

    /// The valid memory ranges.
    #[must_use]
    pub fn memory(&self) -> &[MemoryRange] {
        &self.memory[..(self.memory_count as usize).min(MAX_MEMORY_RANGES)]
    }

    /// The valid modules.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules[..(self.module_count as usize).min(MAX_MODULES)]
    }

    /// The command line; empty if it is not UTF-8.
    #[must_use]
    pub fn command_line(&self) -> &str {
        let length = (self.command_line_length as usize).min(MAX_COMMAND_LINE);
        core::str::from_utf8(&self.command_line[..length]).unwrap_or("")
    }
}

const _: () = {
    assert!(size_of::<MemoryRange>() == 24);
    assert!(size_of::<Module>() == 24);
    let room = crate::layout::BOOT_INFO_END.0 - crate::layout::BOOT_INFO.0;
    assert!(size_of::<BootInfo>() as u64 <= room);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_structure_is_valid_and_counts_are_clamped() {
        let mut info = BootInfo::empty();
        assert!(info.is_valid());
        info.memory_count = u32::MAX;
        info.module_count = u32::MAX;
        info.command_line_length = u32::MAX;
        assert_eq!(info.memory().len(), MAX_MEMORY_RANGES);
        assert_eq!(info.modules().len(), MAX_MODULES);
        assert_eq!(info.command_line().len(), MAX_COMMAND_LINE);
        info.version += 1;
        assert!(!info.is_valid());
    }
}
