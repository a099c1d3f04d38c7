//! The machine code of the probes, byte by byte.

/// Ports that probes write to; those below 32 are exception vectors.
pub(super) const PORT_SYSCALL: u8 = 0x40;
pub(super) const PORT_DONE: u8 = 0x41;
pub(super) const PORT_EXIT: u8 = 0x42;
pub(super) const PORT_STRING: u8 = 0x43;

/// Bytes of one exception stub.
pub(super) const STUB_BYTES: u64 = 4;

/// Tells the host the vector of an exception, touching no register.
pub(super) const fn stub(vector: u16) -> [u8; 4] {
    #[allow(clippy::cast_possible_truncation, reason = "vectors are below 32")]
    let port = vector as u8;
    [
        0xe6, port, // out vector, al
        0xf4, // hlt
        0x90, // nop
    ]
}

/// Ends an exception.
pub(super) const INTERRUPT_RETURN: [u8; 2] = [0x48, 0xcf]; // iretq

/// How many instructions [`TIMED_FAULT_HANDLER`] has.
pub(super) const TIMED_HANDLER_INSTRUCTIONS: u32 = 6;

/// A page-fault handler that does what every one must (keep registers, read the
/// address) and then skips the two bytes of the faulting instruction.
pub(super) const TIMED_FAULT_HANDLER: [u8; 16] = [
    0x50, // push rax
    0x0f, 0x20, 0xd0, // mov rax, cr2
    0x58, // pop rax
    0x48, 0x83, 0xc4, 0x08, // add rsp, 8: the error code
    0x48, 0x83, 0x04, 0x24, 0x02, // add qword [rsp], 2
    0x48, 0xcf, // iretq
];

/// Ring 3: a system call.
pub(super) const SYSCALL: [u8; 2] = [0x0f, 0x05]; // syscall

/// Where a system call enters, where it enters ring 0.
pub(super) const SYSCALL_ENTRY: [u8; 3] = [
    0xe6,
    PORT_SYSCALL, // out PORT_SYSCALL, al
    0xf4,         // hlt
];

/// Ring 3: a load from `[RBX]`, which a probe makes fault.
pub(super) const LOAD: [u8; 2] = [0x8a, 0x03]; // mov al, [rbx]

/// Either ring: a store to `[RBX]`, the second instruction.
pub(super) const STORE: [u8; 4] = [
    0x90, // nop
    0x88, 0x03, // mov [rbx], al
    0x90, // nop
];
/// Where its store is.
pub(super) const STORE_OFFSET: u64 = 1;

/// Ring 0, as a fault handler: back to ring 3, at RCX.
pub(super) const SYSRET: [u8; 4] = [
    0x48, 0x0f, 0x07, // sysretq
    0xf4, // hlt
];

/// Ring 3: an instruction that no processor has, to come back.
pub(super) const INVALID: [u8; 2] = [0x0f, 0x0b]; // ud2

/// Instructions between the two readings of the clock in [`counting_loop`].
pub(super) const fn counted_instructions(rounds: u32) -> u64 {
    // mov esi; mov ecx; the loop; the second rdtsc
    3 + 2 * rounds as u64
}

/// A loop of `rounds` × 2 instructions between two readings of the clock: ESI
/// has the first, EAX the second. `end` is what comes last.
pub(super) fn counting_loop(rounds: u32, end: [u8; 2]) -> Vec<u8> {
    timed_loop(rounds, &[], end)
}

/// The same loop with [`LOAD`] in each round.
pub(super) fn faulting_loop(rounds: u32, end: [u8; 2]) -> Vec<u8> {
    timed_loop(rounds, &LOAD, end)
}

fn timed_loop(rounds: u32, body: &[u8], end: [u8; 2]) -> Vec<u8> {
    let mut code = vec![
        0x0f, 0x31, // rdtsc
        0x89, 0xc6, // mov esi, eax
        0xb9, // mov ecx, rounds
    ];
    code.extend(rounds.to_le_bytes());
    code.extend(body); // again:
    code.extend([0xff, 0xc9]); // dec ecx
    code.extend(if body.is_empty() { [0x75, 0xfc] } else { [0x75, 0xfa] }); // jnz again
    code.extend([0x0f, 0x31]); // rdtsc
    code.extend(end);
    code
}

/// Tells the host that the code came to its end.
pub(super) const DONE: [u8; 2] = [0xe6, PORT_DONE]; // out PORT_DONE, al

/// As many exits as asked for, one after the other.
pub(super) fn exits(count: usize) -> Vec<u8> {
    let mut code = [0xe6, PORT_EXIT].repeat(count); // out PORT_EXIT, al
    code.extend(DONE);
    code
}

/// RCX bytes from RSI to the port in DX.
pub(super) const STRING_OUTPUT: [u8; 4] = [
    0xf3, 0x6e, // rep outsb
    0xe6, PORT_DONE, // out PORT_DONE, al
];

/// Words of eight bytes in a page.
const WORDS_PER_PAGE: u16 = 512;

/// Ring 0: clears the page at RDI between two readings of the clock, as
/// [`counting_loop`] does.
pub(super) fn clear_page() -> Vec<u8> {
    let mut code = vec![
        0x0f, 0x31, // rdtsc
        0x89, 0xc6, // mov esi, eax
        0x31, 0xc0, // xor eax, eax
        0xb9, // mov ecx, WORDS_PER_PAGE
    ];
    code.extend(u32::from(WORDS_PER_PAGE).to_le_bytes());
    code.extend([0xf3, 0x48, 0xab]); // rep stosq
    code.extend([0x0f, 0x31]); // rdtsc
    code.extend(DONE);
    code
}

/// An instruction that a kernel might use, and its bytes.
pub(super) struct Instruction {
    pub(super) name: &'static str,
    pub(super) bytes: &'static [u8],
}

/// Instructions that a host which emulates ring 0 may not know. All work with
/// the registers as [`super::measure`] sets them: RSP and RBX point to memory,
/// RCX is 0.
pub(super) const KERNEL_INSTRUCTIONS: [Instruction; 16] = [
    Instruction { name: "int3", bytes: &[0xcc] },
    Instruction { name: "popcnt", bytes: &[0xf3, 0x0f, 0xb8, 0xc0] }, // popcnt eax, eax
    Instruction { name: "cmpxchg16b", bytes: &[0x48, 0x0f, 0xc7, 0x0b] }, // [rbx]
    Instruction { name: "andn", bytes: &[0xc4, 0xe2, 0x78, 0xf2, 0xc0] }, // eax, eax, eax
    Instruction { name: "crc32", bytes: &[0xf2, 0x0f, 0x38, 0xf1, 0xc0] }, // eax, eax
    Instruction { name: "rdtscp", bytes: &[0x0f, 0x01, 0xf9] },
    Instruction { name: "xgetbv", bytes: &[0x0f, 0x01, 0xd0] },
    Instruction { name: "fxsave64", bytes: &[0x48, 0x0f, 0xae, 0x03] }, // [rbx]
    Instruction { name: "pxor", bytes: &[0x66, 0x0f, 0xef, 0xc0] },     // xmm0, xmm0
    Instruction { name: "movups", bytes: &[0x0f, 0x10, 0x03] },         // xmm0, [rbx]
    Instruction { name: "fild", bytes: &[0xdf, 0x2b] },                 // qword [rbx]
    Instruction { name: "rdrand", bytes: &[0x0f, 0xc7, 0xf0] },         // eax
    Instruction { name: "lock xadd", bytes: &[0xf0, 0x0f, 0xc1, 0x03] }, // [rbx], eax
    Instruction { name: "invlpg", bytes: &[0x0f, 0x01, 0x3b] },         // [rbx]
    Instruction { name: "stac", bytes: &[0x0f, 0x01, 0xcb] },
    Instruction { name: "swapgs", bytes: &[0x0f, 0x01, 0xf8] },
];
