//! Breakpoints and watchpoints: in debug registers, and as `int3` instructions.

use pagelab_abi::addr::GuestPhys;

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

/// An `int3` that takes the place of an instruction's first byte, while the
/// guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareBreakpoint {
    /// Where it is executed.
    pub address: u64,
    /// Where its byte lies.
    pub physical: GuestPhys,
}

/// How a breakpoint or watchpoint is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// One of the processor's debug registers.
    Register,
    /// An `int3` in memory.
    Int3,
    /// Every instruction is stepped, and looked at before.
    Stepping,
}

impl std::fmt::Display for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Register => "debug register",
            Self::Int3 => "int3",
            Self::Stepping => "stepping",
        })
    }
}

/// The breakpoints of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breakpoints {
    /// Those in debug registers.
    pub hardware: [Option<(u64, Condition)>; HARDWARE_BREAKPOINTS],
    /// Those in memory.
    pub software: Vec<SoftwareBreakpoint>,
    /// Watchpoints that no debug register keeps: each instruction is stepped.
    pub stepped: Vec<(u64, Condition)>,
}

impl Breakpoints {
    /// Whether any is in a debug register.
    pub(super) const fn any_hardware(&self) -> bool {
        let [a, b, c, d] = &self.hardware;
        a.is_some() || b.is_some() || c.is_some() || d.is_some()
    }

    /// What the debug registers that a debug exception names wait for: the first.
    pub(super) fn hit(&self, dr6: u64) -> Option<(u64, Condition)> {
        let hit = self.hardware.iter().enumerate().filter(|(index, _)| dr6 >> index & 1 != 0);
        hit.filter_map(|(_, breakpoint)| *breakpoint).next()
    }

    /// Those that do not stop an instruction at `pc` from being executed.
    pub(super) fn without(&self, pc: u64) -> Self {
        let mut others = self.clone();
        others.software.retain(|breakpoint| breakpoint.address != pc);
        for place in &mut others.hardware {
            if *place == Some((pc, Condition::Execute)) {
                *place = None;
            }
        }
        others
    }

    /// The debug registers that say so.
    #[must_use]
    pub fn registers(&self) -> [u64; 8] {
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
