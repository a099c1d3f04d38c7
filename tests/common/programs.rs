//! Small programs in assembly, as a hostile or broken program would be. They run
//! in ring 3 at [`START`], on one page of code and one of data.

use super::elf::{CODE, DATA, Elf, Segment};

/// Where a program's code is.
pub const START: u64 = 0x40_0000;
/// Where its data is.
pub const DATA_PAGE: u64 = 0x40_1000;

/// Defines a function that gives the machine code of a program.
macro_rules! program {
    ($(#[$doc:meta])* $name:ident: $($line:literal)*) => {
        std::arch::global_asm!(
            ".pushsection .rodata.programs, \"a\"",
            concat!(".global program_", stringify!($name)),
            concat!(".global program_", stringify!($name), "_end"),
            concat!("program_", stringify!($name), ":"),
            $($line,)*
            concat!("program_", stringify!($name), "_end:"),
            ".popsection",
        );

        $(#[$doc])*
        pub fn $name() -> Vec<u8> {
            unsafe extern "C" {
                #[link_name = concat!("program_", stringify!($name))]
                safe static START: u8;
                #[link_name = concat!("program_", stringify!($name), "_end")]
                safe static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: both labels are around the bytes of this program, which
            // are read-only data of this test.
            file(unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) })
        }
    };
}

/// An executable with this code.
pub fn file(code: &[u8]) -> Vec<u8> {
    let mut elf = Elf::of_segments(vec![
        Segment::new(START, CODE, &page_of(code)),
        Segment::new(DATA_PAGE, DATA, &page_of(b"data")),
    ]);
    elf.entry = START;
    elf.build()
}

fn page_of(bytes: &[u8]) -> Vec<u8> {
    let mut page = bytes.to_vec();
    assert!(page.len() <= 4096, "a program fits into a page");
    page.resize(4096, 0);
    page
}

program! {
    /// Exits with status 42.
    exit_42:
    "mov eax, 231"
    "mov edi, 42"
    "syscall"
}

program! {
    /// Reads at address 0.
    read_null:
    "mov eax, [0]"
}

program! {
    /// Writes to its own code.
    write_code:
    "mov dword ptr [0x400000], 0"
}

program! {
    /// Jumps into its data.
    execute_data:
    "mov eax, 0x401000"
    "jmp rax"
}

program! {
    /// Reads the kernel's image.
    read_kernel:
    "mov rax, 0xffffffff80200000"
    "mov eax, [rax]"
}

program! {
    /// Reads all memory through the kernel's map.
    read_physical:
    "mov rax, 0xffff800000200000"
    "mov eax, [rax]"
}

program! {
    /// Jumps into the kernel.
    jump_to_kernel:
    "mov rax, 0xffffffff80200000"
    "jmp rax"
}

program! {
    /// Jumps to an address that is not canonical.
    jump_not_canonical:
    "mov rax, 0x8000000000000000"
    "jmp rax"
}

program! {
    /// Executes something that is no instruction.
    invalid_instruction:
    "ud2"
}

program! {
    /// Divides by zero.
    divide_by_zero:
    "xor ecx, ecx"
    "mov eax, 1"
    "xor edx, edx"
    "div ecx"
}

program! {
    /// Halts the processor, or tries to.
    halt:
    "hlt"
}

program! {
    /// Loads another page table, or tries to.
    load_cr3:
    "xor eax, eax"
    "mov cr3, rax"
}

program! {
    /// Powers the machine off by the lab device's port, or tries to.
    write_port:
    "mov edx, 0xb08"
    "mov eax, 0x504c0000"
    "out dx, eax"
}

program! {
    /// A breakpoint that nobody set.
    breakpoint:
    "int3"
}

program! {
    /// System calls with nonsense: number, pointers into the kernel, beyond user
    /// space, to nothing. Exits with 0 if every one of them only failed.
    bad_calls:
    "mov eax, 100000"               // no such call: -ENOSYS
    "syscall"
    "cmp rax, -38"
    "jne 9f"
    "mov eax, 1"                    // write from the kernel's memory: -EFAULT
    "mov edi, 1"
    "mov rsi, 0xffffffff80200000"
    "mov edx, 16"
    "syscall"
    "cmp rax, -14"
    "jne 9f"
    "mov eax, 1"                    // from the end of the address space
    "mov edi, 1"
    "mov rsi, -8"
    "mov edx, 16"
    "syscall"
    "cmp rax, -14"
    "jne 9f"
    "mov eax, 1"                    // from nowhere
    "mov edi, 1"
    "xor esi, esi"
    "mov edx, 16"
    "syscall"
    "cmp rax, -14"
    "jne 9f"
    "mov eax, 9"                    // mmap of everything: -ENOMEM
    "xor edi, edi"
    "mov rsi, 0x7fffffffffff"
    "mov edx, 3"
    "mov r10d, 0x22"
    "mov r8, -1"
    "xor r9d, r9d"
    "syscall"
    "cmp rax, -12"
    "jne 9f"
    "mov eax, 231"
    "xor edi, edi"
    "syscall"
    "9: mov eax, 231"
    "mov edi, 1"
    "syscall"
}

program! {
    /// Says nothing, does nothing, for ever.
    spin:
    "2: jmp 2b"
}

program! {
    /// Grows its stack until there is no more.
    overflow_stack:
    "2: push rax"
    "jmp 2b"
}

program! {
    /// Forks for ever, as all its children do.
    fork_bomb:
    "2: mov eax, 57"
    "syscall"
    "jmp 2b"
}

program! {
    /// Writes to memory without end: 64 TiB, page by page.
    take_all_memory:
    "mov eax, 9"
    "xor edi, edi"
    "mov rsi, 0x400000000000"
    "mov edx, 3"
    "mov r10d, 0x4022"              // private, anonymous, not accounted
    "mov r8, -1"
    "xor r9d, r9d"
    "syscall"
    "2: mov byte ptr [rax], 1"
    "add rax, 4096"
    "jmp 2b"
}

program! {
    /// Forks, fills private and shared memory, reads a zero page, writes what
    /// `/proc/self/maps` and `/proc/self/smaps` say, then `done`, and waits for
    /// ever, as its child does.
    shows_its_areas:
    // r14: 256 KiB of private memory, all of it there.
    "xor edi, edi"
    "mov esi, 0x40000"
    "mov edx, 3"
    "mov r10d, 0x8022"
    "mov r8, -1"
    "xor r9d, r9d"
    "mov eax, 9"
    "syscall"
    "mov r14, rax"
    // Three pages of private memory: one read, one written, one not touched.
    "xor edi, edi"
    "mov esi, 0x3000"
    "mov edx, 3"
    "mov r10d, 0x22"
    "mov eax, 9"
    "syscall"
    "mov cl, [rax]"
    "mov byte ptr [rax + 0x1000], 1"
    // Shared memory, one page of two written.
    "xor edi, edi"
    "mov esi, 0x2000"
    "mov r10d, 0x21"
    "mov eax, 9"
    "syscall"
    "mov byte ptr [rax], 1"
    // A heap of two pages, one of them written.
    "xor edi, edi"
    "mov eax, 12"
    "syscall"
    "lea rdi, [rax + 0x2000]"
    "mov rbx, rax"
    "mov eax, 12"
    "syscall"
    "mov byte ptr [rbx], 1"
    "mov eax, 57"
    "syscall"
    "test eax, eax"
    "jnz 3f"
    "2:"
    "mov eax, 34"
    "syscall"
    "jmp 2b"
    // The child goes first: what it maps counts in the parent's shares.
    "3: mov eax, 24"
    "syscall"
    // Twice: what the first round touches stays as it is in the second.
    "mov r13d, 2"
    "4:"
    "lea rdi, [rip + 8f]"
    "mov rbx, r14"
    "call 6f"
    "mov r15, rax"
    "lea rdi, [rip + 9f]"
    "lea rbx, [r14 + 0x10000]"
    "call 6f"
    "mov r12, rax"
    "dec r13d"
    "jnz 4b"
    "mov rsi, r14"
    "mov rdx, r15"
    "call 5f"
    "lea rsi, [r14 + 0x10000]"
    "mov rdx, r12"
    "call 5f"
    "lea rsi, [rip + 77f]"
    "mov edx, 5"
    "call 5f"
    "jmp 2b"
    // Writes rdx bytes from rsi on.
    "5:"
    "mov edi, 1"
    "mov eax, 1"
    "syscall"
    "ret"
    // Reads the file at rdi into rbx; returns its length.
    "6:"
    "mov eax, 2"
    "xor esi, esi"
    "xor edx, edx"
    "syscall"
    "mov ebp, eax"
    "mov r8, rbx"
    "7:"
    "mov edi, ebp"
    "mov rsi, r8"
    "mov edx, 0x8000"
    "xor eax, eax"
    "syscall"
    "add r8, rax"
    "test eax, eax"
    "jg 7b"
    "mov edi, ebp"
    "mov eax, 3"
    "syscall"
    "mov rax, r8"
    "sub rax, rbx"
    "ret"
    "8: .asciz \"/proc/self/maps\""
    "9: .asciz \"/proc/self/smaps\""
    "77: .ascii \"done\\n\""
}

/// Where [`known_faults`] has its memory: 32 pages.
pub const ARENA: u64 = 0x1000_0000;
/// Where it writes [`DONE`] when it has done all, and only spins any more.
pub const DONE_AT: u64 = DATA_PAGE + 8;
/// What it writes there.
pub const DONE: u64 = 0x1122_3344_5566_7788;
/// Where the kernel's `struct rusage` of it is then.
pub const USAGE_AT: u64 = DATA_PAGE + 0x200;

program! {
    /// Makes page faults whose number is known: of its arena, it writes pages 0
    /// to 7, reads pages 8 to 12 and writes pages 8 to 10. A child writes pages 0
    /// to 3 and ends; then it writes pages 0 to 7 again. It uses no stack.
    known_faults:
    "mov qword ptr [0x401000], 1"   // its data page, before it counts
    "mov eax, 9"                    // mmap
    "mov edi, 0x10000000"
    "mov esi, 0x20000"
    "mov edx, 3"
    "mov r10d, 0x32"                // private, anonymous, fixed
    "mov r8, -1"
    "xor r9d, r9d"
    "syscall"
    "xor ecx, ecx"
    "2: mov rax, rcx"
    "shl rax, 12"
    "add rax, 0x10000000"
    "lea rdx, [rcx + 100]"
    "mov [rax], rdx"                // page n holds n + 100
    "inc rcx"
    "cmp rcx, 8"
    "jne 2b"
    "3: mov rax, rcx"
    "shl rax, 12"
    "add rax, 0x10000000"
    "mov rdx, [rax]"
    "inc rcx"
    "cmp rcx, 13"
    "jne 3b"
    "mov qword ptr [0x10008000], 108"
    "mov qword ptr [0x10009000], 109"
    "mov qword ptr [0x1000a000], 110"
    "mov eax, 57"                   // fork
    "syscall"
    "test eax, eax"
    "jnz 5f"
    "xor ecx, ecx"
    "4: mov rax, rcx"
    "shl rax, 12"
    "add rax, 0x10000000"
    "mov qword ptr [rax], 7"
    "inc rcx"
    "cmp rcx, 4"
    "jne 4b"
    "mov eax, 231"                  // exit_group
    "xor edi, edi"
    "syscall"
    "5: mov edi, eax"
    "mov eax, 61"                   // wait4
    "xor esi, esi"
    "xor edx, edx"
    "xor r10d, r10d"
    "syscall"
    "xor ecx, ecx"
    "6: mov rax, rcx"
    "shl rax, 12"
    "add rax, 0x10000000"
    "lea rdx, [rcx + 200]"
    "mov [rax + 8], rdx"            // and n + 200 behind it
    "inc rcx"
    "cmp rcx, 8"
    "jne 6b"
    "mov qword ptr [0x401000], 2"
    "mov eax, 98"                   // getrusage of itself
    "xor edi, edi"
    "mov esi, 0x401200"
    "syscall"
    "mov rax, 0x1122334455667788"
    "mov [0x401008], rax"
    "7: jmp 7b"
}
