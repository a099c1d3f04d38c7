//! Floating-point and vector state of a thread.
//!
//! The kernel itself uses none of it, so the registers hold the running
//! program's state until another program runs. `xsave` where the processor and
//! ring 0 have it (AVX and later are enabled then), else `fxsave`.

use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::{self, Features};

/// Components that are enabled where the processor has them: x87, SSE, AVX,
/// AVX-512.
const WANTED: u64 = 0b1110_0111;
const LEGACY_SIZE: usize = 512;
const MAX_SIZE: usize = 2816;
const CONTROL_WORD: usize = 0;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// Behind the legacy part `xsave` says which components it saved, followed by
/// zeros.
const HEADER_SIZE: usize = 64;
const HEADER: core::ops::Range<usize> = LEGACY_SIZE..LEGACY_SIZE + HEADER_SIZE;

static ENABLED: AtomicU32 = AtomicU32::new(0);
/// Size of what `xsave` saves.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY_SIZE as u32);

#[derive(Clone)]
#[repr(C, align(64))]
struct Large([u8; MAX_SIZE]);

#[derive(Clone)]
#[repr(C, align(64))]
struct Small([u8; LEGACY_SIZE]);

#[repr(C, align(64))]
struct Initial([u8; HEADER.end]);

/// What a program starts with. Its header says that every component is in its
/// initial state, so no more than this is read.
static INITIAL: Initial = {
    let mut bytes = [0; HEADER.end];
    let control_word = 0x037f_u16.to_le_bytes();
    let mxcsr = 0x1f80_u32.to_le_bytes();
    let mut index = 0;
    while index < mxcsr.len() {
        if index < control_word.len() {
            bytes[CONTROL_WORD + index] = control_word[index];
        }
        bytes[MXCSR + index] = mxcsr[index];
        index += 1;
    }
    Initial(bytes)
};

/// Saved state.
#[derive(Clone)]
pub struct FpuState(Area);

#[derive(Clone)]
enum Area {
    Legacy(Box<Small>),
    Extended(Box<Large>),
}

/// Turns on what `xsave` saves. Called once, after the processor's features are
/// known.
pub(crate) fn init() {
    if !cpu::features().has(Features::XSAVE) {
        return;
    }
    let offered = cpu::cpuid(0xd, 0);
    let enabled = (u64::from(offered.edx) << 32 | u64::from(offered.eax)) & WANTED;
    // SAFETY: CR4.OSXSAVE is set, and only components that CPUID offers are named.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") enabled as u32, in("edx") (enabled >> 32) as u32,
             options(nomem, nostack));
    }
    // The size for what is enabled now.
    let size = cpu::cpuid(0xd, 0).ebx;
    if size as usize <= MAX_SIZE && stays_enabled(enabled as u32) {
        ENABLED.store(enabled as u32, Ordering::Relaxed);
        SIZE.store(size, Ordering::Relaxed);
    } else {
        // Without it programs find no AVX, whose registers would get lost.
        cpu::disable_xsave();
    }
}

/// Whether what was just enabled still is after the host had the processor:
/// QEMU's emulation of AMD-V lets `xsetbv` pass its hypervisor unseen, which
/// then puts its own idea of the register back.
fn stays_enabled(enabled: u32) -> bool {
    const LINE_STATUS: u16 = pagelab_abi::layout::SERIAL_PORT + 5;
    // SAFETY: reads a status; it only matters that the host answers.
    let _ = unsafe { cpu::in8(LINE_STATUS) };
    let now: u32;
    // SAFETY: CR4.OSXSAVE is set.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") now, out("edx") _, options(nomem, nostack));
    }
    now == enabled
}

/// Whether all that ring 3 can use is saved. Where ring 0 is emulated it is not:
/// programs find AVX there by themselves, and nothing in ring 0 can save it.
#[must_use]
pub fn is_saved_whole() -> bool {
    components() != 0 || !cpu::features().has(Features::RING0_EMULATED)
}

/// Which components are saved, as XCR0 numbers them; 0 if it is done by
/// `fxsave`.
#[must_use]
pub fn components() -> u64 {
    u64::from(enabled())
}

fn enabled() -> u32 {
    ENABLED.load(Ordering::Relaxed)
}

impl FpuState {
    /// The state that a program starts with.
    #[must_use]
    pub fn new() -> Self {
        let area = if enabled() != 0 {
            Area::Extended(Box::new(Large([0; MAX_SIZE])))
        } else {
            Area::Legacy(Box::new(Small([0; LEGACY_SIZE])))
        };
        let mut state = Self(area);
        let area = state.area();
        let initial = &INITIAL.0[..area.len().min(HEADER.end)];
        area[..initial.len()].copy_from_slice(initial);
        state
    }

    fn area(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Area::Legacy(area) => &mut area.0,
            Area::Extended(area) => &mut area.0,
        }
    }

    /// Saves the processor's state here.
    pub fn save(&mut self) {
        match &mut self.0 {
            // SAFETY: 512 bytes, aligned to 16.
            Area::Legacy(area) => unsafe {
                asm!("fxsave64 [{}]", in(reg) area.0.as_mut_ptr(), options(nostack));
            },
            // SAFETY: as large as CPUID said for what is enabled, aligned to 64.
            Area::Extended(area) => unsafe {
                asm!("xsave64 [{}]", in(reg) area.0.as_mut_ptr(), in("eax") enabled(),
                     in("edx") 0, options(nostack));
            },
        }
    }

    /// Makes this the processor's state.
    pub fn restore(&self) {
        match &self.0 {
            // SAFETY: was saved here or made by `new`; programs change it only
            // through `load`, which keeps it valid.
            Area::Legacy(area) => unsafe {
                asm!("fxrstor64 [{}]", in(reg) area.0.as_ptr(), options(nostack));
            },
            // SAFETY: as above.
            Area::Extended(area) => unsafe {
                asm!("xrstor64 [{}]", in(reg) area.0.as_ptr(), in("eax") enabled(),
                     in("edx") 0, options(nostack));
            },
        }
    }

    /// Makes what a program starts with the processor's state.
    pub fn restore_initial() {
        let initial = INITIAL.0.as_ptr();
        if enabled() == 0 {
            // SAFETY: 512 bytes of valid state, aligned to 16.
            unsafe { asm!("fxrstor64 [{}]", in(reg) initial, options(nostack)) };
        } else {
            // SAFETY: valid state with a header, aligned to 64; the components
            // are enabled.
            unsafe {
                asm!("xrstor64 [{}]", in(reg) initial, in("eax") enabled(), in("edx") 0,
                     options(nostack));
            }
        }
    }

    /// The bytes of the saved state that are left to software.
    pub fn software_bytes(&mut self) -> &mut [u8] {
        const SOFTWARE: core::ops::Range<usize> = 464..LEGACY_SIZE;
        &mut self.area()[SOFTWARE]
    }

    /// The arithmetic exceptions in the saved state that are raised and not
    /// masked, in the bits that x87 and SSE have in common.
    #[must_use]
    pub fn unmasked_exceptions(&self, sse: bool) -> u32 {
        const ALL: u32 = 0x3f;
        const SSE_MASKS: u32 = 7;
        let bytes = self.bytes();
        if sse {
            let control = word(bytes, MXCSR);
            return control & ALL & !(control >> SSE_MASKS);
        }
        // The control word, and above it the status word.
        let both = word(bytes, CONTROL_WORD);
        both >> 16 & ALL & !both
    }

    /// The saved state in the layout of `xsave`, or of `fxsave` without it: what
    /// a signal frame holds.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Area::Legacy(area) => &area.0,
            Area::Extended(area) => &area.0[..SIZE.load(Ordering::Relaxed) as usize],
        }
    }

    /// Replaces the state with what a program left in a signal frame: the x87
    /// and SSE part, and what `xsave` put behind that. Without the latter the
    /// other components get their initial state. What would fault is cleared.
    pub fn load(&mut self, legacy: &[u8; LEGACY_SIZE], extended: Option<&[u8]>) {
        const X87_AND_SSE: u64 = 0b11;
        let area = self.area();
        let known = mxcsr_mask(area);
        let (start, rest) = area.split_at_mut(LEGACY_SIZE);
        start.copy_from_slice(legacy);
        let mxcsr = word(start, MXCSR) & known;
        start[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        let Some((header, rest)) = rest.split_first_chunk_mut::<HEADER_SIZE>() else { return };
        let mut present = X87_AND_SSE;
        if let Some((given, behind)) = extended.and_then(|bytes| bytes.split_first_chunk()) {
            present = u64::from_le_bytes(*given) & components();
            if let Some(behind) = behind.get(HEADER_SIZE - given.len()..) {
                let length = behind.len().min(rest.len());
                rest[..length].copy_from_slice(&behind[..length]);
            }
        }
        header.fill(0);
        header[..size_of::<u64>()].copy_from_slice(&present.to_le_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The bits of MXCSR that the processor has, as the last save noted them.
fn mxcsr_mask(area: &[u8]) -> u32 {
    const IF_NOT_NOTED: u32 = 0xffbf;
    match word(area, MXCSR_MASK) {
        0 => IF_NOT_NOTED,
        mask => mask,
    }
}

impl Default for FpuState {
    fn default() -> Self {
        Self::new()
    }
}
