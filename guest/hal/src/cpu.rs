//! Registers, ports and processor features.
//!
//! Each function is one instruction. Only what is harmless in safe hands is
//! safe: reading the time-stamp counter is, writing CR3 is not.

use core::arch::x86_64::__cpuid_count;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, Ordering};

/// Model-specific registers that the kernel uses.
pub mod msr {
    /// Extended feature enables.
    pub const EFER: u32 = 0xc000_0080;
    /// Segment selectors for SYSCALL and SYSRET.
    pub const STAR: u32 = 0xc000_0081;
    /// Where SYSCALL goes.
    pub const LSTAR: u32 = 0xc000_0082;
    /// Flags that SYSCALL clears.
    pub const FMASK: u32 = 0xc000_0084;
    /// Base of FS.
    pub const FS_BASE: u32 = 0xc000_0100;
    /// Base of GS.
    pub const GS_BASE: u32 = 0xc000_0101;
    /// What `swapgs` exchanges with the base of GS.
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    /// Base and mode of the local APIC.
    pub const APIC_BASE: u32 = 0x1b;
    /// The moment of the next timer interrupt.
    pub const TSC_DEADLINE: u32 = 0x6e0;
    /// Sends an interrupt to the processor itself, in x2APIC mode.
    pub const X2_SELF_INTERRUPT: u32 = 0x83f;
}

/// Bits of CR4 that the kernel sets.
pub mod cr4 {
    /// 64-bit page-table entries.
    pub const PAE: u64 = 1 << 5;
    /// Global pages.
    pub const PGE: u64 = 1 << 7;
    /// `fxsave` and SSE.
    pub const OSFXSR: u64 = 1 << 9;
    /// SSE exceptions.
    pub const OSXMMEXCPT: u64 = 1 << 10;
    /// Ring 3 may not read descriptor-table registers.
    pub const UMIP: u64 = 1 << 11;
    /// Tagged TLB entries.
    pub const PCIDE: u64 = 1 << 17;
    /// `xsave`.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Ring 0 does not execute user pages.
    pub const SMEP: u64 = 1 << 20;
    /// Ring 0 does not touch user pages.
    pub const SMAP: u64 = 1 << 21;
}

/// CR0: pages that are read-only are so for ring 0, too.
pub const CR0_WRITE_PROTECT: u64 = 1 << 16;
/// CR0: `fpu` instructions trap (never set here).
pub const CR0_TASK_SWITCHED: u64 = 1 << 3;
/// EFER: SYSCALL is enabled.
pub const EFER_SYSCALL: u64 = 1 << 0;
/// EFER: the no-execute bit is enabled.
pub const EFER_NO_EXECUTE: u64 = 1 << 11;

/// RFLAGS: interrupts are on.
pub const FLAG_INTERRUPT: u64 = 1 << 9;
/// RFLAGS: single step.
pub const FLAG_TRAP: u64 = 1 << 8;
/// RFLAGS: string instructions run backwards.
pub const FLAG_DIRECTION: u64 = 1 << 10;
/// RFLAGS: I/O privilege.
pub const FLAG_IOPL: u64 = 3 << 12;
/// RFLAGS: nested task.
pub const FLAG_NESTED: u64 = 1 << 14;
/// RFLAGS: alignment checks.
pub const FLAG_ALIGNMENT: u64 = 1 << 18;
/// RFLAGS: what ring 3 may choose for itself: the arithmetic flags, single
/// step, direction, alignment checks, `cpuid`.
pub const FLAGS_USER: u64 = 0x0024_0dd5 & !FLAG_INTERRUPT;

/// What CPUID offers of what the kernel can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// Global pages.
    pub const GLOBAL_PAGES: Self = Self(1 << 0);
    /// Tagged TLB entries.
    pub const PCID: Self = Self(1 << 1);
    /// No execution of user pages in ring 0.
    pub const SMEP: Self = Self(1 << 2);
    /// No access to user pages in ring 0.
    pub const SMAP: Self = Self(1 << 3);
    /// User-mode instruction prevention.
    pub const UMIP: Self = Self(1 << 4);
    /// `xsave` and what it saves.
    pub const XSAVE: Self = Self(1 << 5);
    /// APIC registers as MSRs.
    pub const X2APIC: Self = Self(1 << 6);
    /// Timer by TSC value.
    pub const TSC_DEADLINE: Self = Self(1 << 7);
    /// `rdrand`.
    pub const RDRAND: Self = Self(1 << 8);
    /// Not a CPUID bit: ring 0 is executed by an emulator, found by timing.
    pub const RING0_EMULATED: Self = Self(1 << 9);

    /// Whether `feature` is there.
    #[must_use]
    pub const fn has(self, feature: Self) -> bool {
        self.0 & feature.0 != 0
    }

    fn set(&mut self, feature: Self, present: bool) {
        if present {
            self.0 |= feature.0;
        }
    }
}

static FEATURES: AtomicU32 = AtomicU32::new(0);

/// The features that [`enable_features`] found.
#[must_use]
pub fn features() -> Features {
    Features(FEATURES.load(Ordering::Relaxed))
}

/// Finds the processor's features and turns on those that concern ring 0 and
/// paging. Called once, early.
pub fn enable_features() {
    let basic = __cpuid_count(1, 0);
    let max_leaf = __cpuid_count(0, 0).eax;
    let extended = if max_leaf >= 7 { __cpuid_count(7, 0) } else { __cpuid_count(0, 1 << 31) };
    let has_seven = max_leaf >= 7;
    let mut found = Features(0);
    found.set(Features::GLOBAL_PAGES, basic.edx & 1 << 13 != 0);
    found.set(Features::PCID, basic.ecx & 1 << 17 != 0);
    found.set(Features::X2APIC, basic.ecx & 1 << 21 != 0);
    found.set(Features::TSC_DEADLINE, basic.ecx & 1 << 24 != 0);
    found.set(Features::RDRAND, basic.ecx & 1 << 30 != 0);
    found.set(Features::SMEP, has_seven && extended.ebx & 1 << 7 != 0);
    found.set(Features::SMAP, has_seven && extended.ebx & 1 << 20 != 0);
    found.set(Features::UMIP, has_seven && extended.ecx & 1 << 2 != 0);
    found.set(Features::RING0_EMULATED, ring0_is_emulated());
    // An emulator of ring 0 knows no `xsetbv`, whatever CPUID says.
    let xsave = basic.ecx & 1 << 26 != 0 && !found.has(Features::RING0_EMULATED);
    found.set(Features::XSAVE, xsave);
    FEATURES.store(found.0, Ordering::Relaxed);

    let mut bits = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT;
    for (feature, bit) in [
        (Features::GLOBAL_PAGES, cr4::PGE),
        (Features::PCID, cr4::PCIDE),
        (Features::SMEP, cr4::SMEP),
        (Features::SMAP, cr4::SMAP),
        (Features::UMIP, cr4::UMIP),
        (Features::XSAVE, cr4::OSXSAVE),
    ] {
        if found.has(feature) {
            bits |= bit;
        }
    }
    // SAFETY: only features that CPUID offers, and the kernel is written for
    // them: it never executes or touches user pages in ring 0.
    unsafe { write_cr4(bits) };
    // SAFETY: write protection only takes rights away from ring 0.
    unsafe { write_cr0(read_cr0() | CR0_WRITE_PROTECT) };
    // SAFETY: the register is architectural in 64-bit mode.
    let efer = unsafe { read_msr(msr::EFER) };
    // SAFETY: so are both bits.
    unsafe { write_msr(msr::EFER, efer | EFER_SYSCALL | EFER_NO_EXECUTE) };
}

/// Gives `xsave` up again.
pub(crate) fn disable_xsave() {
    FEATURES.fetch_and(!Features::XSAVE.0, Ordering::Relaxed);
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    // SAFETY: only takes a feature away that nothing uses yet.
    unsafe { write_cr4(value & !cr4::OSXSAVE) };
}

/// Whether ring-0 instructions go through an emulator, by what they cost: sixty
/// instructions that a processor executes in some twenty cycles take an emulator
/// tens of thousands. What reading the counter itself costs is taken off.
fn ring0_is_emulated() -> bool {
    const PER_INSTRUCTION: u64 = 100;
    // The least of each: either may be interrupted.
    let (mut empty, mut full) = (u64::MAX, u64::MAX);
    for _ in 0..3 {
        let start = timestamp();
        empty = empty.min(timestamp() - start);
        let start = timestamp();
        // SAFETY: does nothing, sixty times.
        unsafe { asm!(".rept 60", "nop", ".endr", options(nomem, nostack, preserves_flags)) };
        full = full.min(timestamp() - start);
    }
    full.saturating_sub(empty) > 60 * PER_INSTRUCTION
}

/// The time-stamp counter.
#[must_use]
#[inline]
pub fn timestamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// CPUID.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> core::arch::x86_64::CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// A random number from the processor, if it has such an instruction.
#[must_use]
pub fn random() -> Option<u64> {
    if !features().has(Features::RDRAND) {
        return None;
    }
    let (value, valid): (u64, u8);
    // SAFETY: CPUID offers the instruction.
    unsafe {
        asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) valid, options(nomem, nostack))
    };
    (valid != 0).then_some(value)
}

/// Sets the bases of FS and GS for ring 3. Addresses beyond user space become 0:
/// the registers take canonical addresses only.
pub fn set_user_segments(fs_base: u64, gs_base: u64) {
    for (register, base) in [(msr::FS_BASE, fs_base), (msr::GS_BASE, gs_base)] {
        let base = if base < pagelab_abi::layout::USER_END.0 { base } else { 0 };
        // SAFETY: the kernel uses neither FS nor, outside its entry, GS.
        unsafe { write_msr(register, base) };
    }
}

global_asm!(
    ".global pagelab_wait_for_interrupt",
    ".global pagelab_halt",
    "pagelab_wait_for_interrupt:",
    "sti",
    "pagelab_halt:",
    "hlt",
    "cli",
    "ret",
);

unsafe extern "C" {
    fn pagelab_wait_for_interrupt();
    /// Its `hlt`.
    static pagelab_halt: u8;
}

/// Waits for an interrupt with interrupts on; they are off again afterwards.
pub fn wait_for_interrupt() {
    // SAFETY: interrupts are delivered only between `sti` and `cli`, where the
    // kernel holds no lock; the handlers return here.
    unsafe { pagelab_wait_for_interrupt() };
}

/// Where to return to from an interrupt that came at `rip`, in ring 0.
///
/// What it was waited for may have come, so the wait is over even if the processor
/// did not halt yet. It takes no interrupt between `sti` and `hlt`, but not every
/// emulation of a guest's processor remembers that when it is left in between; an
/// interrupt that came there would be slept through.
pub(crate) fn behind_halt(rip: u64) -> u64 {
    const LENGTH: u64 = 1;
    if rip == &raw const pagelab_halt as u64 { rip + LENGTH } else { rip }
}

/// Stops for ever.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: interrupts are off, so this never returns to do harm.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Address of the last page fault.
#[must_use]
#[inline]
pub fn read_cr2() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Root page table and its tag.
#[must_use]
#[inline]
pub fn read_cr3() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

fn read_cr0() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// # Safety
///
/// The bits must leave the kernel running.
unsafe fn write_cr0(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// # Safety
///
/// The bits must be supported and leave the kernel running.
unsafe fn write_cr4(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// # Safety
///
/// `value` must name a root table that maps the kernel as it is now.
#[inline]
pub(crate) unsafe fn write_cr3(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Forgets the translation of one page, in the current address space and in
/// what is global.
#[inline]
pub(crate) fn invalidate_page(address: u64) {
    // SAFETY: a forgotten translation is looked up again.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// # Safety
///
/// The register must exist.
pub(crate) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
             options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
///
/// The register must exist and take the value, with all that follows from it.
pub(crate) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nostack, preserves_flags));
    }
}

/// # Safety
///
/// Writing the port must not make the machine change memory that is in use.
#[inline]
pub(crate) unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// # Safety
///
/// As [`out8`].
#[inline]
pub(crate) unsafe fn out16(port: u16, value: u16) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// # Safety
///
/// As [`out8`].
#[inline]
pub(crate) unsafe fn out32(port: u16, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}

/// # Safety
///
/// Reading the port must not make the machine change memory that is in use.
#[inline]
pub(crate) unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller's promise.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// # Safety
///
/// As [`in8`].
#[inline]
pub(crate) unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    value
}
