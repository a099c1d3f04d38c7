//! Instructions, as the guest's memory holds them, in the syntax of nasm.

use std::fmt;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter, OpKind, Register,
};
use pagelab_abi::addr::GuestVirt;

use super::{AddressSpace, PhysicalMemory};

/// No instruction is longer.
pub const MAX_INSTRUCTION_BYTES: usize = 15;
/// How far before an address its function may begin to be decoded from there.
const MAX_LEAD_BYTES: u64 = 4096;

/// A decoded instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it lies.
    pub address: GuestVirt,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it says; `(bad)` if these bytes are no instruction.
    pub text: String,
    /// Whether it is the one that was asked about.
    pub current: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.current { '>' } else { ' ' };
        let bytes: Vec<_> = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "{mark} {:016x}  {:24}  {}", self.address.0, bytes.join(" "), self.text)
    }
}

/// Decodes `bytes`, which lie at `address`: at most `count` instructions.
#[must_use]
pub fn decode(bytes: &[u8], address: GuestVirt, count: usize) -> Vec<Line> {
    let mut formatter = formatter();
    instructions(bytes, address)
        .take(count)
        .map(|instruction| {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            let start = usize::try_from(instruction.ip() - address.0).unwrap_or(usize::MAX);
            let bytes = bytes.get(start..start + instruction.len()).unwrap_or_default().to_vec();
            Line { address: GuestVirt(instruction.ip()), bytes, text, current: false }
        })
        .collect()
}

/// Numbers as everywhere here: `0xff`, not `0FFh`.
fn formatter() -> NasmFormatter {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    formatter
}

fn instructions(bytes: &[u8], address: GuestVirt) -> impl Iterator<Item = Instruction> {
    // Nothing is decoded beyond the last address there is.
    let room = usize::try_from(u64::MAX - address.0).unwrap_or(usize::MAX);
    let bytes = &bytes[..bytes.len().min(room)];
    let mut decoder = Decoder::with_ip(64, bytes, address.0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

/// The instructions around `address`: up to `before` earlier ones, where
/// `function` says from where they can be decoded, and `after` from `address` on.
/// Empty if `address` cannot be read.
#[must_use]
pub fn around<M: PhysicalMemory>(
    space: &AddressSpace<'_, M>,
    address: GuestVirt,
    function: Option<GuestVirt>,
    before: usize,
    after: usize,
) -> Vec<Line> {
    let mut lines =
        function.map(|function| lead(space, function, address, before)).unwrap_or_default();
    let code = space.read(address, after.saturating_mul(MAX_INSTRUCTION_BYTES));
    let mut rest = decode(&code, address, after);
    if let Some(current) = rest.first_mut() {
        current.current = true;
    }
    lines.append(&mut rest);
    lines
}

/// The last `count` instructions of those from `start` to just before `end`;
/// none if decoding from `start` does not meet `end`.
fn lead<M: PhysicalMemory>(
    space: &AddressSpace<'_, M>,
    start: GuestVirt,
    end: GuestVirt,
    count: usize,
) -> Vec<Line> {
    let Some(length) = end.0.checked_sub(start.0).filter(|&length| length <= MAX_LEAD_BYTES) else {
        return Vec::new();
    };
    let length = usize::try_from(length).unwrap_or(0);
    let code = space.read(start, length);
    let lines = decode(&code, start, length);
    let met = code.len() == length
        && lines.last().is_none_or(|line| line.address.0 + line.bytes.len() as u64 == end.0)
        && lines.iter().all(|line| line.text != "(bad)");
    let skipped = lines.len().saturating_sub(count);
    if met { lines.into_iter().skip(skipped).collect() } else { Vec::new() }
}

/// Values of registers, for [`memory_operands`].
pub trait RegisterValues {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    fn general(&self) -> &[u64; 16];
    /// Bases of FS and GS.
    fn segment_bases(&self) -> (u64, u64);
}

/// The memory that the first instruction in `bytes` (at `address`) names:
/// operands in order, the same address only once.
#[must_use]
pub fn memory_operands(
    bytes: &[u8],
    address: GuestVirt,
    registers: &impl RegisterValues,
) -> Vec<GuestVirt> {
    let Some(instruction) = instructions(bytes, address).next() else { return Vec::new() };
    let mut found = Vec::new();
    // LEA computes an address and leaves the memory alone.
    if instruction.mnemonic() == Mnemonic::Lea {
        return found;
    }
    for operand in (0..instruction.op_count()).filter(|&n| is_memory(instruction.op_kind(n))) {
        let value = |register: Register, _, _| register_value(registers, register);
        if let Some(at) = instruction.virtual_address(operand, 0, value).map(GuestVirt)
            && !found.contains(&at)
        {
            found.push(at);
        }
    }
    found
}

const fn is_memory(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Memory
            | OpKind::MemorySegRSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRDI
            | OpKind::MemorySegEDI
            | OpKind::MemoryESRDI
            | OpKind::MemoryESEDI
    )
}

/// The value of a register that addresses are made of.
pub(crate) fn register_value(registers: &impl RegisterValues, register: Register) -> Option<u64> {
    let (fs, gs) = registers.segment_bases();
    match register {
        Register::FS => return Some(fs),
        Register::GS => return Some(gs),
        Register::CS | Register::DS | Register::ES | Register::SS => return Some(0),
        _ => {}
    }
    let place = |register| {
        WIDE.iter().zip(NARROW).position(|pair| *pair.0 == register || pair.1 == register)
    };
    let value = registers.general()[place(register)?];
    Some(if NARROW.contains(&register) { value & 0xffff_ffff } else { value })
}

/// The registers an address can be made of, in the order of
/// [`RegisterValues::general`].
#[rustfmt::skip]
const WIDE: [Register; 16] = [
    Register::RAX, Register::RBX, Register::RCX, Register::RDX,
    Register::RSI, Register::RDI, Register::RBP, Register::RSP,
    Register::R8, Register::R9, Register::R10, Register::R11,
    Register::R12, Register::R13, Register::R14, Register::R15,
];

/// Their lower halves.
#[rustfmt::skip]
const NARROW: [Register; 16] = [
    Register::EAX, Register::EBX, Register::ECX, Register::EDX,
    Register::ESI, Register::EDI, Register::EBP, Register::ESP,
    Register::R8D, Register::R9D, Register::R10D, Register::R11D,
    Register::R12D, Register::R13D, Register::R14D, Register::R15D,
];

#[cfg(test)]
mod tests {
    use super::super::testing::TestGuest;
    use super::*;

    struct Values([u64; 16]);

    impl RegisterValues for Values {
        fn general(&self) -> &[u64; 16] {
            &self.0
        }

        fn segment_bases(&self) -> (u64, u64) {
            (0x1000, 0x2000)
        }
    }

    /// push rbp; mov rbp, rsp; cmpxchg16b [rbx]; ret
    const CODE: [u8; 9] = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x0f, 0xc7, 0x0b, 0xc3];

    fn guest() -> TestGuest {
        let mut guest = TestGuest::new();
        guest.map(0xffff_ffff_8020_0000, 0x9000, TestGuest::KERNEL_CODE);
        guest.write(0x9000, &CODE);
        guest
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn instructions_before_need_a_beginning() {
        let guest = guest();
        let start = GuestVirt(0xffff_ffff_8020_0000);
        let at = GuestVirt(start.0 + 4);
        let lines = around(&guest.space(), at, Some(start), 8, 2);
        assert_eq!(texts(&lines), ["push rbp", "mov rbp,rsp", "cmpxchg16b [rbx]", "ret"]);
        assert_eq!(
            lines[2].to_string(),
            "> ffffffff80200004  48 0f c7 0b               cmpxchg16b [rbx]"
        );
        let without = around(&guest.space(), at, None, 8, 2);
        assert_eq!(texts(&without), ["cmpxchg16b [rbx]", "ret"]);
    }

    #[test]
    fn a_beginning_that_does_not_lead_here_is_not_used() {
        let guest = guest();
        let at = GuestVirt(0xffff_ffff_8020_0002);
        let lines = around(&guest.space(), at, Some(GuestVirt(0xffff_ffff_8020_0000)), 8, 1);
        assert_eq!(lines.len(), 1);
        let far = GuestVirt(0xffff_8000_0000_0000);
        assert_eq!(around(&guest.space(), at, Some(far), 8, 1).len(), 1);
    }

    #[test]
    fn unreadable_code_gives_no_lines_and_a_cut_one_is_bad() {
        let mut guest = guest();
        assert!(around(&guest.space(), GuestVirt(0x1000), None, 2, 2).is_empty());
        guest.write(0x9ffe, &[0x48, 0x8b]);
        let lines = around(&guest.space(), GuestVirt(0xffff_ffff_8020_0ffe), None, 0, 1);
        assert_eq!(texts(&lines), ["(bad)"]);
    }

    #[test]
    fn the_last_bytes_of_the_address_space_are_no_trap() {
        let lines = decode(&[0x90; 8], GuestVirt(u64::MAX - 3), 8);
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn operands_are_computed_from_registers() {
        let mut values = Values([0; 16]);
        values.0[1] = 0x40_0000;
        values.0[2] = 0x10;
        values.0[4] = 0x30;
        values.0[5] = 0x20;
        let at = GuestVirt(0x1_0000);
        let of = |bytes: &[u8]| memory_operands(bytes, at, &values);
        assert_eq!(of(&CODE[4..]), [GuestVirt(0x40_0000)]);
        // mov rax, [ebx + 1], with the upper half of RBX dropped
        assert_eq!(of(&[0x67, 0x48, 0x8b, 0x43, 0x01]), [GuestVirt(0x40_0001)]);
        // mov rax, [rbx + rcx*8 + 4]
        assert_eq!(of(&[0x48, 0x8b, 0x44, 0xcb, 0x04]), [GuestVirt(0x40_0084)]);
        // mov rax, fs:[0x28]
        let tls = [0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0];
        assert_eq!(of(&tls), [GuestVirt(0x1028)]);
        // mov rax, [rip + 9]
        assert_eq!(of(&[0x48, 0x8b, 0x05, 9, 0, 0, 0]), [GuestVirt(0x1_0010)]);
        // lea rax, [rbx]
        assert!(of(&[0x48, 0x8d, 0x03]).is_empty());
        // movsb
        assert_eq!(of(&[0xa4]), [GuestVirt(0x20), GuestVirt(0x30)]);
        assert!(of(&[0x90]).is_empty() && of(&[]).is_empty());
    }
}
