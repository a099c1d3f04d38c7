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
/// Where `xsave` says which components it saved, followed by zeros.
const HEADER: core::ops::Range<usize> = LEGACY_SIZE..LEGACY_SIZE + 64;

static ENABLED: AtomicU32 = AtomicU32::new(0);
/// Size of what `xsave` saves.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY_SIZE as u32);

#[derive(Clone)]
#[repr(C, align(64))]
struct Large([u8; MAX_SIZE]);

#[derive(Clone)]
#[repr(C, align(64))]
struct Small([u8; LEGACY_SIZE]);

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
    if size as usize <= MAX_SIZE {
        ENABLED.store(enabled as u32, Ordering::Relaxed);
        SIZE.store(size, Ordering::Relaxed);
    }
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
        state.reset();
        state
    }

    /// Makes it again what a program starts with.
    pub fn reset(&mut self) {
        const DEFAULT_CONTROL_WORD: [u8; 2] = 0x037f_u16.to_le_bytes();
        const DEFAULT_MXCSR: [u8; 4] = 0x1f80_u32.to_le_bytes();
        let area = self.area();
        let known = word(area, MXCSR_MASK);
        area.fill(0);
        area[MXCSR_MASK..MXCSR_MASK + 4].copy_from_slice(&known.to_le_bytes());
        area[CONTROL_WORD..CONTROL_WORD + 2].copy_from_slice(&DEFAULT_CONTROL_WORD);
        area[MXCSR..MXCSR + 4].copy_from_slice(&DEFAULT_MXCSR);
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

    /// The saved state in the layout of `xsave`, or of `fxsave` without it: what
    /// a signal frame holds.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Area::Legacy(area) => &area.0,
            Area::Extended(area) => &area.0[..SIZE.load(Ordering::Relaxed) as usize],
        }
    }

    /// Replaces the x87 and SSE part with what a program left in a signal frame.
    /// Bits of MXCSR that would fault are cleared.
    pub fn load_legacy(&mut self, bytes: &[u8; LEGACY_SIZE]) {
        let area = self.area();
        let known = mxcsr_mask(area);
        area[..LEGACY_SIZE].copy_from_slice(bytes);
        let mxcsr = word(area, MXCSR) & known;
        area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        if area.len() > LEGACY_SIZE {
            // The header says that x87 and SSE are not in their initial state.
            area[HEADER.start] |= 0b11;
        }
    }

    /// Replaces everything with what a program left in a signal frame, as long
    /// as [`FpuState::bytes`]. What `xrstor` would refuse is cleared.
    pub fn load_extended(&mut self, bytes: &[u8]) {
        let Some((legacy, _)) = bytes.split_first_chunk::<LEGACY_SIZE>() else { return };
        let components = components();
        self.load_legacy(legacy);
        let area = self.area();
        let length = bytes.len().min(area.len());
        if components == 0 || length < HEADER.end {
            return;
        }
        area[HEADER.end..length].copy_from_slice(&bytes[HEADER.end..length]);
        let present =
            u64::from(word(bytes, HEADER.start + 4)) << 32 | u64::from(word(bytes, HEADER.start));
        area[HEADER].fill(0);
        let present = (present & components).to_le_bytes();
        area[HEADER.start..HEADER.start + present.len()].copy_from_slice(&present);
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
