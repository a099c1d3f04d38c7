//! What memory the next instruction accesses, for watchpoints without debug
//! registers.
//!
//! An instruction that is about to be stepped is decoded, and its addresses are
//! computed from the registers as they are. Whether it then really was executed
//! shows in where the processor stands afterwards: a page fault or an interrupt
//! leads elsewhere.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess,
};
use kvm_ioctls::VcpuFd;
use pagelab_abi::addr::GuestVirt;

use super::guest_debug::Condition;
use super::registers;
use crate::inspect::AddressSpace;
use crate::inspect::disassemble::register_value;
use crate::memory::GuestRam;
use crate::stop::Registers;

/// Longest instruction there is.
const LONGEST: usize = 15;

/// An instruction that is about to access watched memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreseen {
    watched: (u64, Condition),
    at: u64,
    next: u64,
    /// Whether it may lead anywhere.
    jumps: bool,
    /// Whether it is repeated at the same place.
    repeats: bool,
}

/// What the next instruction does to the first of `watches` that it accesses, and
/// whether it halts the processor.
pub(super) fn look(
    vcpu: &VcpuFd,
    ram: &GuestRam,
    watches: &[(u64, Condition)],
) -> (Option<Foreseen>, bool) {
    const HALT: u8 = 0xf4;
    let registers = registers::read(vcpu);
    let space = AddressSpace::new(ram, registers.cr3);
    let code = space.read(GuestVirt(registers.rip), LONGEST);
    (Foreseen::of(&code, &registers, watches), code.first() == Some(&HALT))
}

impl Foreseen {
    fn of(code: &[u8], registers: &Registers, watches: &[(u64, Condition)]) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, code, registers.rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let watched = accessed(&instruction, registers, watches)?;
        Some(Self {
            watched,
            at: registers.rip,
            next: instruction.next_ip(),
            jumps: instruction.flow_control() != FlowControl::Next,
            repeats: instruction.has_rep_prefix() || instruction.has_repne_prefix(),
        })
    }

    /// The watched memory, if the instruction was executed: the processor now
    /// stands at `pc`.
    pub(super) const fn came_true(self, pc: u64) -> Option<(u64, Condition)> {
        let executed = pc == self.next
            || self.repeats && pc == self.at
            // Where it leads, but not from a program into the kernel: a fault.
            || self.jumps && pc >> 63 == self.at >> 63;
        if executed { Some(self.watched) } else { None }
    }
}

/// The first of `watches` that the instruction accesses in the way it waits for.
fn accessed(
    instruction: &Instruction,
    registers: &Registers,
    watches: &[(u64, Condition)],
) -> Option<(u64, Condition)> {
    let mut factory = InstructionInfoFactory::new();
    for used in factory.info(instruction).used_memory() {
        let access = used.access();
        let writes = matches!(
            access,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        let touches = writes || matches!(access, OpAccess::Read | OpAccess::CondRead);
        let address = used.virtual_address(0, |register, _, _| register_value(registers, register));
        let (Some(address), true) = (address, touches) else { continue };
        let length = used.memory_size().size().max(1) as u64;
        let hit = watches.iter().find(|(watched, condition)| {
            let (wide, wanted) = match condition {
                Condition::Write(wide) => (*wide, writes),
                Condition::Access(wide) => (*wide, true),
                Condition::Execute => (0, false),
            };
            let overlaps = address < watched.saturating_add(wide.into())
                && *watched < address.saturating_add(length);
            wanted && overlaps
        });
        if let Some(hit) = hit {
            return Some(*hit);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x1000;
    const DATA: u64 = 0x2000;

    /// RBX points to the data, RSP behind it.
    fn foresee(code: &[u8], condition: Condition) -> Option<Foreseen> {
        let mut registers = Registers { rip: AT, ..Registers::default() };
        registers.general[1] = DATA;
        registers.general[7] = DATA + 8;
        registers.general[4] = DATA;
        Foreseen::of(code, &registers, &[(DATA, condition)])
    }

    fn hits(code: &[u8], condition: Condition) -> bool {
        foresee(code, condition).is_some()
    }

    #[test]
    fn reads_writes_and_neighbours_are_told_apart() {
        let (write, access) = (Condition::Write(4), Condition::Access(4));
        // mov [rbx], eax; mov eax, [rbx]; lea rax, [rbx]; mov [rbx + 4], al
        assert!(hits(&[0x89, 0x03], write) && hits(&[0x89, 0x03], access));
        assert!(!hits(&[0x8b, 0x03], write) && hits(&[0x8b, 0x03], access));
        assert!(!hits(&[0x48, 0x8d, 0x03], access));
        assert!(!hits(&[0x88, 0x43, 0x04], access) && hits(&[0x88, 0x43, 0x03], write));
        // add [rbx - 4], rax reaches into it; xchg [rbx], eax does both.
        assert!(hits(&[0x48, 0x01, 0x43, 0xfc], write) && hits(&[0x87, 0x03], write));
        // What is not named: movsb reads it.
        assert!(hits(&[0xa4], access) && !hits(&[0xa4], write));
        // No instruction at all.
        assert!(!hits(&[0x06], access) && !hits(&[], access));
    }

    #[test]
    fn only_what_was_executed_comes_true() {
        let store = foresee(&[0x89, 0x03], Condition::Write(8)).unwrap();
        assert_eq!(store.came_true(AT + 2), Some((DATA, Condition::Write(8))));
        // A fault, in a handler of the kernel's.
        assert_eq!(store.came_true(0xffff_ffff_8020_0000), None);
        assert_eq!(store.came_true(AT), None);
        // rep movsb stays where it is; jmp [rbx] goes anywhere.
        assert!(foresee(&[0xf3, 0xa4], Condition::Access(1)).unwrap().came_true(AT).is_some());
        let jump = foresee(&[0xff, 0x23], Condition::Access(8)).unwrap();
        assert!(jump.came_true(0x7000).is_some() && jump.came_true(1 << 63).is_none());
    }
}
