//! Stepping and breakpoints by the hardware: `KVM_SET_GUEST_DEBUG`.

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
};
use kvm_ioctls::VcpuFd;

/// How many breakpoints the hardware has.
pub const HARDWARE_BREAKPOINTS: usize = 4;

/// What a hardware breakpoint waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// An instruction is about to be executed.
    Execute,
    /// Bytes are written: how many (1, 2, 4 or 8).
    Write(u8),
    /// Bytes are read or written.
    Access(u8),
}

/// The breakpoints of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakpoints {
    /// Those in debug registers.
    pub hardware: [Option<(u64, Condition)>; HARDWARE_BREAKPOINTS],
    /// Whether `int3` instructions are the debugger's.
    pub software: bool,
}

impl Breakpoints {
    const fn any_hardware(&self) -> bool {
        let [a, b, c, d] = &self.hardware;
        a.is_some() || b.is_some() || c.is_some() || d.is_some()
    }

    /// The debug registers that say so.
    fn registers(&self) -> [u64; 8] {
        /// DR7: exact data breakpoints, and the bit that is always set.
        const ALWAYS: u64 = 1 << 9 | 1 << 10;
        let mut registers = [0; 8];
        registers[7] = ALWAYS;
        for (index, breakpoint) in self.hardware.iter().enumerate() {
            let Some((address, condition)) = breakpoint else { continue };
            let (kind, length) = match condition {
                Condition::Execute => (0b00, 0b00),
                Condition::Write(length) => (0b01, length_bits(*length)),
                Condition::Access(length) => (0b11, length_bits(*length)),
            };
            registers[index] = *address;
            registers[7] |= 0b10 << (index * 2) | (kind | length << 2) << (16 + index * 4);
        }
        registers
    }
}

/// DR7's code of a length.
const fn length_bits(length: u8) -> u64 {
    match length {
        2 => 0b01,
        4 => 0b11,
        8 => 0b10,
        _ => 0b00,
    }
}

/// What KVM was last told.
#[derive(Debug)]
pub(super) struct Debugging {
    told: (Breakpoints, bool),
    block_interrupts: bool,
}

impl Debugging {
    /// Nothing; `block_interrupts` says whether KVM can hold back interrupts
    /// while it steps.
    pub(super) fn new(block_interrupts: bool) -> Self {
        Self { told: (Breakpoints::default(), false), block_interrupts }
    }

    /// Tells KVM, if something has changed.
    pub(super) fn apply(&mut self, vcpu: &VcpuFd, breakpoints: &Breakpoints, step: bool) {
        if self.told == (*breakpoints, step) {
            return;
        }
        let mut control = 0;
        if step {
            control |= KVM_GUESTDBG_SINGLESTEP;
            if self.block_interrupts {
                control |= KVM_GUESTDBG_BLOCKIRQ;
            }
        }
        if breakpoints.any_hardware() {
            control |= KVM_GUESTDBG_USE_HW_BP;
        }
        if breakpoints.software {
            control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if control != 0 {
            control |= KVM_GUESTDBG_ENABLE;
        }
        let mut debug = kvm_guest_debug { control, ..kvm_guest_debug::default() };
        debug.arch.debugreg = breakpoints.registers();
        match vcpu.set_guest_debug(&debug) {
            Ok(()) => self.told = (*breakpoints, step),
            Err(error) => log::warn!("KVM refuses to debug the guest: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_registers_say_what_is_waited_for() {
        let mut breakpoints = Breakpoints::default();
        assert_eq!(breakpoints.registers()[7], 0x600);
        breakpoints.hardware[0] = Some((0x1000, Condition::Execute));
        breakpoints.hardware[3] = Some((0x2000, Condition::Write(8)));
        let registers = breakpoints.registers();
        assert_eq!((registers[0], registers[3]), (0x1000, 0x2000));
        // Global enables of 0 and 3; kind 01 and length 10 in the top four bits.
        assert_eq!(registers[7], 0x600 | 0b10 | 0b10 << 6 | 0b1001 << 28);
    }
}
