//! Fills guest memory before the first instruction: the kernel's image, its
//! page tables, the modules and the boot information.
//!
//! * [`elf`]: the kernel's ELF, checked and put into memory
//! * [`program`]: whether a host file can be a program of the guest
//! * this file: what goes where, and the [`BootInfo`] that says so
//!
//! ```text
//! end of the first part of RAM ┐
//!                              │ modules, each from a page boundary
//!                              ┘
//!                                free
//!                              ┐ page tables
//!                              │ kernel image
//! IMAGE_PHYS                   ┘
//! ```

pub mod elf;
pub mod program;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use pagelab_abi::addr::{GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_abi::boot::{
    BootInfo, FLAG_LAB_DEVICE, FLAG_MEMORY_ZEROED, MAX_COMMAND_LINE, MAX_MODULES, MEMORY_RESERVED,
    MEMORY_USABLE, MODULE_ARGUMENTS, MODULE_ENVIRONMENT, MODULE_PROGRAM, MODULE_PROGRAM_PATH,
    MODULE_SHARES, MemoryRange, Module,
};
use pagelab_abi::layout::{BOOT_INFO, LOW_MEMORY_END};
use pagelab_paging::kernel_map::{KernelMap, OutsideMemory};
use zerocopy::IntoBytes;

use crate::layout::{BOOT_GDT, BOOT_GDT_SIZE};
use crate::memory::size::Bytes;
use crate::memory::{GuestRam, MemoryError};

pub use elf::{KernelError, LoadedKernel};

/// Why a guest cannot be put into memory.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The kernel is not one that can be booted.
    #[error("the kernel cannot be loaded: {0}")]
    Kernel(#[from] KernelError),
    /// The page tables do not fit behind the image.
    #[error(
        "{} of memory have no room for the page tables behind the kernel (the one at {at} lies \
         outside): give the guest more with --mem", Bytes(*.memory)
    )]
    NoRoomForTables {
        /// How much memory the guest has.
        memory: u64,
        /// The table that found no room.
        at: GuestPhys,
    },
    /// The modules do not fit.
    #[error(
        "{} of memory have no room for {} of programs and arguments beside the kernel: give the \
         guest more with --mem", Bytes(*.memory), Bytes(*.modules)
    )]
    NoRoomForModules {
        /// How much memory the guest has.
        memory: u64,
        /// How much the modules take.
        modules: u64,
    },
    /// More modules than the boot information has room for.
    #[error("{0} modules are more than the {MAX_MODULES} that a kernel can be given")]
    TooManyModules(usize),
    /// A command line that does not fit.
    #[error("the kernel's command line has {0} bytes; at most {MAX_COMMAND_LINE} fit")]
    CommandLineTooLong(usize),
    /// Guest memory is not where it should be.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What the kind of a module is, as the kernel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleKind {
    /// A program to run.
    Program,
    /// Its arguments.
    Arguments,
    /// Its environment.
    Environment,
    /// The shared folders.
    Shares,
    /// Where the program is in the guest, instead of [`Self::Program`].
    ProgramPath,
}

impl ModuleKind {
    const fn number(self) -> u32 {
        match self {
            Self::Program => MODULE_PROGRAM,
            Self::Arguments => MODULE_ARGUMENTS,
            Self::Environment => MODULE_ENVIRONMENT,
            Self::Shares => MODULE_SHARES,
            Self::ProgramPath => MODULE_PROGRAM_PATH,
        }
    }
}

/// Bytes to hand over.
#[derive(Clone, Debug)]
pub struct ModuleBytes<'a> {
    /// What they are.
    pub kind: ModuleKind,
    /// The bytes.
    pub bytes: Cow<'a, [u8]>,
}

/// Everything that the boot information says beside addresses.
#[derive(Clone, Debug, Default)]
pub struct BootValues<'a> {
    /// Frequency of the time-stamp counter, 0 if unknown.
    pub tsc_khz: u64,
    /// Wall clock in nanoseconds since 1970, 0 if unknown.
    pub wall_clock_ns: u64,
    /// Random bytes, zero where runs must repeat.
    pub entropy: [u8; 32],
    /// The processor knows global pages.
    pub global_pages: bool,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// How many virtio devices there are.
    pub virtio_count: u32,
}

/// Where a guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPoint {
    /// First instruction, in the upper half.
    pub entry: GuestVirt,
    /// Root page table.
    pub root: GuestPhys,
    /// The boot information.
    pub boot_info: GuestPhys,
}

/// The flat 64-bit segments of the entry state: null, code, data.
pub const BOOT_GDT_ENTRIES: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

const _: () = assert!(size_of::<[u64; 3]>() as u64 <= BOOT_GDT_SIZE);

/// Puts kernel, tables, modules and boot information into `ram`.
///
/// # Errors
///
/// If the kernel is not bootable or something does not fit.
pub fn load(
    ram: &GuestRam,
    kernel: &[u8],
    modules: &[ModuleBytes<'_>],
    values: &BootValues<'_>,
) -> Result<EntryPoint, LoadError> {
    let image = elf::load(ram, kernel)?;
    let parts: Vec<_> = ram.parts().iter().map(|part| (part.start, part.end())).collect();
    let map = KernelMap {
        image: &image.segments,
        ram: &parts,
        tables: image.end,
        global_pages: values.global_pages,
    };
    let memory = ram.size().bytes();
    let tables = map
        .build(&mut &*ram)
        .map_err(|OutsideMemory(at)| LoadError::NoRoomForTables { memory, at })?;
    let placed = place_modules(ram, modules, tables.end)?;
    let modules_start = placed.iter().map(|module| GuestPhys(module.start)).min();

    let mut info = BootInfo::empty();
    info.flags = FLAG_LAB_DEVICE | FLAG_MEMORY_ZEROED;
    info.root_table = tables.root.0;
    info.image_start = image.start.0;
    info.image_end = tables.end.0;
    info.tsc_khz = values.tsc_khz;
    info.wall_clock_ns = values.wall_clock_ns;
    info.entropy = values.entropy;
    info.virtio_count = values.virtio_count;
    set_command_line(&mut info, values.command_line)?;
    let map = memory_map(ram, image.start, tables.end, modules_start.unwrap_or(ram.low_end()));
    for (slot, range) in info.memory.iter_mut().zip(&map) {
        *slot = *range;
        info.memory_count += 1;
    }
    for (slot, module) in info.modules.iter_mut().zip(&placed) {
        *slot = *module;
        info.module_count += 1;
    }
    ram.write(BOOT_INFO, info.as_bytes())?;
    ram.write(BOOT_GDT, BOOT_GDT_ENTRIES.as_bytes())?;
    Ok(EntryPoint { entry: image.entry, root: tables.root, boot_info: BOOT_INFO })
}

fn set_command_line(info: &mut BootInfo, line: &str) -> Result<(), LoadError> {
    let too_long = || LoadError::CommandLineTooLong(line.len());
    let place = info.command_line.get_mut(..line.len()).ok_or_else(too_long)?;
    place.copy_from_slice(line.as_bytes());
    info.command_line_length = u32::try_from(line.len()).map_err(|_| too_long())?;
    Ok(())
}

/// Puts modules at the top of the first part of RAM, the first one lowest.
fn place_modules(
    ram: &GuestRam,
    modules: &[ModuleBytes<'_>],
    floor: GuestPhys,
) -> Result<Vec<Module>, LoadError> {
    if modules.len() > MAX_MODULES {
        return Err(LoadError::TooManyModules(modules.len()));
    }
    // An empty module gets a page too, so that its address is one in RAM.
    let pages = |bytes: &[u8]| (bytes.len().max(1) as u64).next_multiple_of(PAGE_SIZE);
    let total: u64 = modules.iter().map(|module| pages(&module.bytes)).sum();
    let room = ram.low_end().0.saturating_sub(floor.0);
    if total > room {
        return Err(LoadError::NoRoomForModules { memory: ram.size().bytes(), modules: total });
    }
    let mut at = GuestPhys(ram.low_end().0 - total);
    let mut placed = Vec::with_capacity(modules.len());
    for module in modules {
        ram.write(at, &module.bytes)?;
        placed.push(Module {
            start: at.0,
            length: module.bytes.len() as u64,
            kind: module.kind.number(),
            reserved: 0,
        });
        at.0 += pages(&module.bytes);
    }
    Ok(placed)
}

/// The memory map: in order, not overlapping, without empty ranges.
fn memory_map(
    ram: &GuestRam,
    image_start: GuestPhys,
    image_end: GuestPhys,
    modules_start: GuestPhys,
) -> Vec<MemoryRange> {
    let borders = [
        (GuestPhys(0), LOW_MEMORY_END, MEMORY_RESERVED),
        (LOW_MEMORY_END, image_start, MEMORY_USABLE),
        (image_start, image_end, MEMORY_RESERVED),
        (image_end, modules_start, MEMORY_USABLE),
        (modules_start, ram.low_end(), MEMORY_RESERVED),
    ];
    let high = ram.parts().iter().skip(1).map(|part| (part.start, part.end(), MEMORY_USABLE));
    borders
        .into_iter()
        .chain(high)
        .filter(|(start, end, _)| start < end)
        .map(|(start, end, kind)| MemoryRange {
            start: start.0,
            length: end.0 - start.0,
            kind,
            reserved: 0,
        })
        .collect()
}
