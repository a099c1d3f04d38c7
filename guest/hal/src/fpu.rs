//! Floating-point and vector state of a thread.
//!
//! The kernel itself uses none of it, so the registers hold the running
//! program's state until another program runs. `xsave` saves it where the
//! processor and ring 0 have that (AVX and later are enabled then); where ring 0
//! is emulated, `xsave` in ring 3 ([`ring3`]); else `fxsave`.

use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::cpu::{self, Features};
use crate::ring3::{self, Source};

/// Components that are enabled where the processor has them: x87, SSE, AVX,
/// AVX-512.
const WANTED: u64 = 0b1110_0111;
const LEGACY_SIZE: usize = 512;
const MAX_SIZE: usize = 2816;
/// Number of the first component behind x87 and SSE.
const FIRST_EXTENDED: u32 = 2;
const CONTROL_WORD: usize = 0;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
/// Behind the legacy part `xsave` says which components it saved, followed by
/// zeros.
pub const HEADER_SIZE: usize = 64;
const HEADER: core::ops::Range<usize> = LEGACY_SIZE..LEGACY_SIZE + HEADER_SIZE;

static ENABLED: AtomicU32 = AtomicU32::new(0);
/// Size of what `xsave` saves.
static SIZE: AtomicU32 = AtomicU32::new(LEGACY_SIZE as u32);

/// It is saved in ring 3.
static IN_RING3: AtomicBool = AtomicBool::new(false);

#[derive(Debug)]
#[repr(C, align(64))]
struct Large([u8; MAX_SIZE]);

#[derive(Debug)]
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
#[derive(Debug)]
pub struct FpuState(Area);

#[derive(Debug)]
enum Area {
    /// By `fxsave`.
    Legacy(Box<Small>),
    /// By `xsave`.
    Extended(Box<Large>),
    /// By `xsave` in ring 3.
    InRing3(ring3::Page),
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

/// Where ring 0 is emulated, the host has chosen what is enabled, and programs
/// find it by themselves. Done when the first state is saved: a lone program
/// needs none of it.
fn init_in_ring3() {
    const COMPONENTS: u32 = u32::BITS;
    static DONE: AtomicBool = AtomicBool::new(false);
    let needed = cpu::features().has(Features::RING0_EMULATED);
    if !needed || DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    if !ring3::init(&INITIAL) {
        return;
    }
    // A processor without `xsave` says so by an exception.
    let Ok(enabled) = ring3::xgetbv() else { return };
    let enabled = enabled & WANTED as u32;
    let last = COMPONENTS - 1 - enabled.leading_zeros().min(COMPONENTS - 1);
    let end = if last < FIRST_EXTENDED {
        Ok(HEADER.end as u32)
    } else {
        ring3::extent(last).map(|(size, offset)| offset + size)
    };
    if let Ok(size) = end
        && size as usize <= MAX_SIZE
    {
        ENABLED.store(enabled, Ordering::Relaxed);
        SIZE.store(size, Ordering::Relaxed);
        IN_RING3.store(true, Ordering::Relaxed);
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
    /// The state that a program starts with; `None` without memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        init_in_ring3();
        let mut state = Self(if IN_RING3.load(Ordering::Relaxed) {
            Area::InRing3(ring3::Page::new()?)
        } else if enabled() != 0 {
            Area::Extended(Box::new(Large([0; MAX_SIZE])))
        } else {
            Area::Legacy(Box::new(Small([0; LEGACY_SIZE])))
        });
        let area = state.area();
        let initial = &INITIAL.0[..area.len().min(HEADER.end)];
        area[..initial.len()].copy_from_slice(initial);
        Some(state)
    }

    fn area(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Area::Legacy(area) => &mut area.0,
            Area::Extended(area) => &mut area.0,
            Area::InRing3(page) => &mut page.bytes_mut()[..MAX_SIZE],
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
            Area::InRing3(page) => exchange_in_ring3(Some(page), Source::Unchanged),
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
            Area::InRing3(page) => exchange_in_ring3(None, Source::Saved(page)),
        }
    }

    /// Saves the processor's state here and makes another one the processor's.
    pub fn exchange(&mut self, next: &Self) {
        if let (Area::InRing3(page), Area::InRing3(next)) = (&mut self.0, &next.0) {
            exchange_in_ring3(Some(page), Source::Saved(next));
        } else {
            self.save();
            next.restore();
        }
    }

    /// Makes what a program starts with the processor's state, which has just
    /// been saved here: what is in its initial state already may stay.
    pub fn clear_processor(&self) {
        let behind_legacy = self.bytes().get(HEADER).map_or(0, |header| word(header, 0));
        if is_legacy(behind_legacy.into()) {
            // SAFETY: 512 bytes of valid state, aligned to 16.
            unsafe { asm!("fxrstor64 [{}]", in(reg) INITIAL.0.as_ptr(), options(nostack)) };
        } else {
            Self::restore_initial();
        }
    }

    /// Makes what a program starts with the processor's state.
    pub fn restore_initial() {
        init_in_ring3();
        let initial = INITIAL.0.as_ptr();
        if IN_RING3.load(Ordering::Relaxed) {
            exchange_in_ring3(None, Source::Initial);
        } else if enabled() == 0 {
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
    /// a signal frame holds. What is behind its end and within [`size`] is in its
    /// initial state, whatever the frame has there.
    #[must_use]
    pub fn bytes_in_use(&self) -> &[u8] {
        let bytes = self.bytes();
        let end = match bytes.get(HEADER) {
            Some(header) if is_legacy(word(header, 0).into()) => HEADER.end,
            Some(_) => bytes.len(),
            None => LEGACY_SIZE,
        };
        &bytes[..end]
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Area::Legacy(area) => &area.0,
            Area::Extended(area) => &area.0[..size()],
            Area::InRing3(page) => &page.bytes()[..size()],
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

/// # Panics
///
/// If saved state is not what `xsave` makes: [`FpuState::load`] keeps it so.
fn exchange_in_ring3(save: Option<&mut ring3::Page>, load: Source<'_>) {
    if let Err(failed) = ring3::exchange(save, load, enabled()) {
        panic!("vector registers cannot be saved or restored: {failed:?}");
    }
}

/// Whether these components are in no more than the legacy part.
#[must_use]
pub const fn is_legacy(components: u64) -> bool {
    components >> FIRST_EXTENDED == 0
}

/// Size of saved state.
#[must_use]
pub fn size() -> usize {
    SIZE.load(Ordering::Relaxed) as usize
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
