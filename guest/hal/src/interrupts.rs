//! The local APIC (timer) and the I/O APIC (devices).
//!
//! The timer is armed for one moment at a time and only while somebody waits
//! for it: an idle or lone program is never interrupted.

use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::GuestPhys;
use pagelab_abi::layout::LAB_IRQ;

use crate::cpu::{self, Features, msr};
use crate::trap::vector;
use crate::{stack, time};

const LOCAL_APIC: GuestPhys = GuestPhys(0xfee0_0000);
const IO_APIC: GuestPhys = GuestPhys(0xfec0_0000);

const APIC_ENABLE: u64 = 1 << 11;
const APIC_X2: u64 = 1 << 10;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const MODE_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
const MASKED: u32 = 1 << 16;

/// Registers of the local APIC, as offsets in its page; divided by 16 they are
/// MSRs from `X2_FIRST` on.
mod register {
    pub(super) const END_OF_INTERRUPT: u32 = 0xb0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const COMMAND: u32 = 0x300;
    pub(super) const TIMER: u32 = 0x320;
    pub(super) const INITIAL_COUNT: u32 = 0x380;
    pub(super) const DIVIDE: u32 = 0x3e0;
}

const X2_FIRST: u32 = 0x800;

/// Ports of the interrupt controllers of old, which are masked for good.
const OLD_CONTROLLERS: [u16; 2] = [0x21, 0xa1];

/// Where the local APIC's registers are mapped; 0 if they are MSRs.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Sets up both controllers; all device interrupts stay masked.
pub(crate) fn init() {
    for port in OLD_CONTROLLERS {
        // SAFETY: masks interrupts.
        unsafe { cpu::out8(port, 0xff) };
    }
    if cpu::features().has(Features::X2APIC) {
        // SAFETY: CPUID offers the mode.
        unsafe {
            cpu::write_msr(msr::APIC_BASE, LOCAL_APIC.0 | APIC_ENABLE | APIC_X2);
        }
    } else if let Some(address) = stack::map_device(LOCAL_APIC) {
        REGISTERS.store(address, Ordering::Relaxed);
    }
    write(register::SPURIOUS, SOFTWARE_ENABLE | u32::from(vector::SPURIOUS));
    if cpu::features().has(Features::TSC_DEADLINE) {
        write(register::TIMER, MODE_DEADLINE | u32::from(vector::TIMER));
    } else {
        write(register::DIVIDE, DIVIDE_BY_1);
        write(register::TIMER, u32::from(vector::TIMER));
    }
}

fn write(register: u32, value: u32) {
    let base = REGISTERS.load(Ordering::Relaxed);
    if base == 0 {
        // SAFETY: in x2APIC mode the register is this MSR.
        unsafe { cpu::write_msr(X2_FIRST + (register >> 4), u64::from(value)) };
    } else {
        // SAFETY: a register in the page that `init` mapped.
        unsafe { ((base + u64::from(register)) as *mut u32).write_volatile(value) };
    }
}

/// Tells the local APIC that an interrupt has been handled.
pub fn end_of_interrupt() {
    write(register::END_OF_INTERRUPT, 0);
}

/// Has the timer interrupt once, at about the given moment (nanoseconds since
/// the start). It may come early: whoever waits looks at the clock.
pub fn arm_timer(moment: u64) {
    if cpu::features().has(Features::TSC_DEADLINE) {
        // SAFETY: CPUID offers the register; 0 would disarm it.
        unsafe { cpu::write_msr(msr::TSC_DEADLINE, time::to_timestamp(moment).max(1)) };
        return;
    }
    // The timer of virtual machines counts nanoseconds (KVM and QEMU agree).
    let count = moment.saturating_sub(time::since_start()).clamp(1, u64::from(u32::MAX));
    write(register::INITIAL_COUNT, count as u32);
}

/// Has the timer keep quiet.
pub fn disarm_timer() {
    if cpu::features().has(Features::TSC_DEADLINE) {
        // SAFETY: CPUID offers the register; 0 disarms it.
        unsafe { cpu::write_msr(msr::TSC_DEADLINE, 0) };
    } else {
        write(register::INITIAL_COUNT, 0);
    }
}

/// Lets the interrupts of the lab's device through.
pub fn enable_lab() {
    enable_line(LAB_IRQ, vector::LAB);
}

/// Lets the interrupts of a device through; `false` without memory.
pub(crate) fn enable_line(line: u32, vector: u8) -> bool {
    let base = stack::map_device(IO_APIC);
    if let Some(base) = base {
        enable_at(base, line, vector);
    }
    base.is_some()
}

/// `base` is where the I/O APIC's page is mapped.
fn enable_at(base: u64, line: u32, vector: u8) {
    const FIRST_ENTRY: u32 = 0x10;
    let entry = FIRST_ENTRY + 2 * line;
    // Edge-triggered, to the only processor; the low half unmasks it last.
    for (index, value) in [(entry, MASKED), (entry + 1, 0), (entry, u32::from(vector))] {
        // SAFETY: the I/O APIC's two registers in the page just mapped.
        unsafe { (base as *mut u32).write_volatile(index) };
        // SAFETY: as above.
        unsafe { ((base + 0x10) as *mut u32).write_volatile(value) };
    }
}

/// Has an interrupt come as soon as the processor takes any.
pub(crate) fn raise(vector: u8) {
    const TO_SELF: u32 = 1 << 18;
    if REGISTERS.load(Ordering::Relaxed) == 0 {
        // SAFETY: the register of x2APIC mode for this.
        unsafe { cpu::write_msr(msr::X2_SELF_INTERRUPT, vector.into()) };
    } else {
        write(register::COMMAND, TO_SELF | u32::from(vector));
    }
}
