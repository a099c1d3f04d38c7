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

static ENABLED: AtomicU32 = AtomicU32::new(0);

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
    if cpu::cpuid(0xd, 0).ebx as usize <= MAX_SIZE {
        ENABLED.store(enabled as u32, Ordering::Relaxed);
    }
}

fn components() -> u32 {
    ENABLED.load(Ordering::Relaxed)
}

impl FpuState {
    /// The state that a program starts with.
    #[must_use]
    pub fn new() -> Self {
        const DEFAULT_CONTROL_WORD: [u8; 2] = 0x037f_u16.to_le_bytes();
        const DEFAULT_MXCSR: [u8; 4] = 0x1f80_u32.to_le_bytes();
        let set_up = |area: &mut [u8]| {
            area[CONTROL_WORD..CONTROL_WORD + 2].copy_from_slice(&DEFAULT_CONTROL_WORD);
            area[MXCSR..MXCSR + 4].copy_from_slice(&DEFAULT_MXCSR);
        };
        if components() != 0 {
            let mut area = Box::new(Large([0; MAX_SIZE]));
            set_up(&mut area.0);
            Self(Area::Extended(area))
        } else {
            let mut area = Box::new(Small([0; LEGACY_SIZE]));
            set_up(&mut area.0);
            Self(Area::Legacy(area))
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
                asm!("xsave64 [{}]", in(reg) area.0.as_mut_ptr(), in("eax") components(),
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
                asm!("xrstor64 [{}]", in(reg) area.0.as_ptr(), in("eax") components(),
                     in("edx") 0, options(nostack));
            },
        }
    }

    /// The first 512 bytes, in the layout of `fxsave`: what a signal frame holds.
    #[must_use]
    pub fn legacy(&self) -> &[u8] {
        match &self.0 {
            Area::Legacy(area) => &area.0,
            Area::Extended(area) => &area.0[..LEGACY_SIZE],
        }
    }

    /// Replaces the x87 and SSE part with what a program left in a signal frame.
    /// Bits of MXCSR that would fault are cleared.
    pub fn load_legacy(&mut self, bytes: &[u8; LEGACY_SIZE]) {
        const MXCSR_BITS: u32 = 0xffbf;
        let area: &mut [u8] = match &mut self.0 {
            Area::Legacy(area) => &mut area.0,
            Area::Extended(area) => &mut area.0[..],
        };
        area[..LEGACY_SIZE].copy_from_slice(bytes);
        let mut mxcsr = [0; 4];
        mxcsr.copy_from_slice(&area[MXCSR..MXCSR + 4]);
        let mxcsr = u32::from_le_bytes(mxcsr) & MXCSR_BITS;
        area[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
        if area.len() > LEGACY_SIZE {
            // The header says that x87 and SSE are not in their initial state.
            area[LEGACY_SIZE] |= 0b11;
        }
    }
}

impl Default for FpuState {
    fn default() -> Self {
        Self::new()
    }
}
