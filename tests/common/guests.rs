//! Small guests in assembly. They run where a kernel would: in ring 0, at the
//! start of the image, and are assembled into the test binary's read-only data.
//!
//! A guest that uses the lab device has its shared pages in a data segment two
//! pages behind its code, prepared by [`with_shared_pages`]; RBX points there.

use pagelab_abi::lab::{
    Header, LAB_MAGIC, PanicState, Request, SHARED_PAGES, SHARED_SIZE, STREAM_OUTPUT, Segment,
};
use zerocopy::{FromZeros, IntoBytes};

use super::elf::{BASE, CODE, DATA, Elf, IMAGE, Segment as ElfSegment};

/// Where a guest's data segment is.
pub const DATA_START: u64 = IMAGE + 0x2000;
/// The same in physical memory.
pub const DATA_PHYS: u64 = DATA_START - BASE;

/// Defines a function that gives the machine code of a guest.
macro_rules! guest {
    ($(#[$doc:meta])* $name:ident: $($line:literal)*) => {
        std::arch::global_asm!(
            ".pushsection .rodata.guests, \"a\"",
            concat!(".global guest_", stringify!($name)),
            concat!(".global guest_", stringify!($name), "_end"),
            concat!("guest_", stringify!($name), ":"),
            $($line,)*
            concat!("guest_", stringify!($name), "_end:"),
            ".popsection",
        );

        $(#[$doc])*
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_", stringify!($name))]
                safe static START: u8;
                #[link_name = concat!("guest_", stringify!($name), "_end")]
                safe static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: both labels are around the bytes of this guest, which are
            // read-only data of this program.
            unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
        }
    };
}

guest! {
    /// Powers off with status 7.
    power_off:
    "mov edx, 0xb08"
    "mov eax, 0x504c0007"
    "out dx, eax"
}

guest! {
    /// Does nothing, for ever.
    hang:
    "2: jmp 2b"
}

guest! {
    /// Halts with interrupts off.
    halt:
    "cli"
    "2: hlt"
    "jmp 2b"
}

guest! {
    /// Faults without any way to handle it.
    triple_fault:
    "ud2"
}

guest! {
    /// Fills the serial console.
    serial_flood:
    "mov edx, 0x3f8"
    "mov al, 0x41"
    "2: out dx, al"
    "jmp 2b"
}

guest! {
    /// Rings the doorbell with the request in its pages for OP_WRITE, for ever.
    write_flood:
    "mov edx, 0xb00"
    "mov eax, 0x202"
    "out dx, eax"
    "mov edx, 0xb04"
    "mov eax, 1"
    "2: out dx, eax"
    "jmp 2b"
}

guest! {
    /// Rings the doorbell for OP_PANIC.
    panic:
    "mov edx, 0xb00"
    "mov eax, 0x202"
    "out dx, eax"
    "mov edx, 0xb04"
    "mov eax, 6"
    "out dx, eax"
}

guest! {
    /// Writes garbage to every port and reads from it: below 0x1000, where
    /// devices are, in every width.
    every_port:
    "xor edx, edx"
    "2: mov eax, 0xdeadbeef"
    "out dx, al"
    "out dx, ax"
    "out dx, eax"
    "in al, dx"
    "in ax, dx"
    "in eax, dx"
    "inc edx"
    "cmp edx, 0x1000"
    "jb 2b"
    "3: mov eax, 0xdeadbeef"
    "out dx, eax"
    "in eax, dx"
    "inc dx"
    "jnz 3b"
    "mov edx, 0xb08"
    "mov eax, 0x504c0000"
    "out dx, eax"
}

guest! {
    /// Maps the first 4 GiB by the tables of [`identity_tables`], then writes
    /// garbage to each 2 MiB from 16 MiB on and reads it, in every width, also
    /// across the end of an aligned word.
    every_address:
    "mov rbx, cr3"
    "movabs rcx, 0xffff800000000000"
    "mov eax, 0x202003"
    "mov [rbx+rcx], rax"
    "mov ebx, 0x1000000"
    "movabs rbp, 0x100000000"
    "movabs rax, 0xdeadbeefdeadbeef"
    "2: mov [rbx+0x7f8], al"
    "mov [rbx+0x7f8], ax"
    "mov [rbx+0x7f8], eax"
    "mov [rbx+0x7f8], rax"
    "mov [rbx+0x7fd], rax"
    "mov cl, [rbx+0x7f8]"
    "mov cx, [rbx+0x7f8]"
    "mov ecx, [rbx+0x7f8]"
    "mov rcx, [rbx+0x7f8]"
    "mov rcx, [rbx+0x7fd]"
    "add rbx, 0x200000"
    "cmp rbx, rbp"
    "jb 2b"
    "mov edx, 0xb08"
    "mov eax, 0x504c0000"
    "out dx, eax"
}

guest! {
    /// Maps as [`every_address`] and jumps to where no RAM is.
    jump_into_nothing:
    "mov rbx, cr3"
    "movabs rcx, 0xffff800000000000"
    "mov eax, 0x202003"
    "mov [rbx+rcx], rax"
    "mov ebx, 0xd0000000"
    "jmp rbx"
}

guest! {
    /// Copies its input to its output until the input ends.
    cat:
    "mov edx, 0xb00"
    "mov eax, 0x202"
    "out dx, eax"
    "mov rbx, 0xffffffff80202000"
    "2: mov rcx, [rbx+0x28]"        // input_written
    "mov rsi, [rbx+0x30]"           // input_read
    "sub rcx, rsi"
    "jnz 3f"
    "mov edi, [rbx+0x38]"           // input_ended
    "test edi, edi"
    "jz 2b"
    "cmp [rbx+0x28], rsi"
    "jne 2b"
    "mov edx, 0xb08"
    "mov eax, 0x504c0000"
    "out dx, eax"
    "3: mov edi, esi"               // offset in the ring
    "and edi, 4095"
    "mov ebp, 4096"
    "sub ebp, edi"                  // as much as lies in one piece
    "cmp rcx, rbp"
    "cmovb rbp, rcx"
    "add edi, 0x203000"
    "mov dword ptr [rbx+0x1a0], 1"  // request: to the output
    "mov dword ptr [rbx+0x1a4], 1"  // one segment
    "mov [rbx+0x1a8], rdi"
    "mov [rbx+0x1b0], rbp"
    "mov edx, 0xb04"
    "mov eax, 1"
    "out dx, eax"
    "add rsi, rbp"
    "mov [rbx+0x30], rsi"
    "cmp ecx, 4096"                 // it was full: say that there is room
    "jne 2b"
    "mov eax, 5"
    "out dx, eax"
    "jmp 2b"
}

guest! {
    /// Writes 9000 events, waiting for the host whenever the ring is full.
    events:
    "mov edx, 0xb00"
    "mov eax, 0x202"
    "out dx, eax"
    "mov rbx, 0xffffffff80202000"
    "xor esi, esi"
    "2: mov rax, rsi"
    "sub rax, [rbx+0x20]"           // events_read
    "cmp eax, 4096"
    "jne 3f"
    "mov edx, 0xb04"
    "mov eax, 4"
    "out dx, eax"
    "3: mov edi, esi"
    "and edi, 4095"
    "shl edi, 6"
    "lea rdi, [rbx+rdi+0x2000]"
    "lea rcx, [rsi+1]"
    "mov [rdi+0x10], rsi"           // address
    "mov byte ptr [rdi+0x30], 1"    // a fault
    "mov [rdi], rcx"                // sequence
    "mov [rbx+0x18], rcx"           // events_written
    "mov esi, ecx"
    "cmp esi, 9000"
    "jb 2b"
    "mov edx, 0xb08"
    "mov eax, 0x504c0000"
    "out dx, eax"
}

/// What a driver does before it uses its first device, at 0xd0000000 (RBX),
/// by the tables of [`with_identity_tables`]: a queue of eight descriptors at
/// 0x400000, the rings at 0x401000 and 0x402000.
macro_rules! virtio_guest {
    ($(#[$doc:meta])* $name:ident: $($line:literal)*) => {
        guest! {
            $(#[$doc])*
            $name:
            "mov rbx, cr3"
            "movabs rcx, 0xffff800000000000"
            "mov eax, 0x202003"
            "mov [rbx+rcx], rax"
            "mov ebx, 0xd0000000"
            "cmp dword ptr [rbx], 0x74726976"
            "jne 9f"
            "mov dword ptr [rbx+0x70], 0"
            "mov dword ptr [rbx+0x70], 3"
            "mov dword ptr [rbx+0x24], 1"
            "mov dword ptr [rbx+0x20], 1"
            "mov dword ptr [rbx+0x70], 11"
            "mov dword ptr [rbx+0x30], 0"
            "mov dword ptr [rbx+0x38], 8"
            "mov dword ptr [rbx+0x80], 0x400000"
            "mov dword ptr [rbx+0x90], 0x401000"
            "mov dword ptr [rbx+0xa0], 0x402000"
            "mov dword ptr [rbx+0x44], 1"
            "mov dword ptr [rbx+0x70], 15"
            "mov esi, 0x400000"
            $($line)*
            "8: mov edx, 0xb08"         // all is as it should be
            "mov eax, 0x504c0000"
            "out dx, eax"
            "9: mov edx, 0xb08"         // it is not
            "mov eax, 0x504c0001"
            "out dx, eax"
        }
    };
}

virtio_guest! {
    /// Asks a disk for its name, which begins with "page".
    virtio_disk_name:
    "mov dword ptr [rsi], 0x403000"     // descriptor 0: the header
    "mov dword ptr [rsi+8], 16"
    "mov dword ptr [rsi+12], 0x10001"   // one follows: 1
    "mov dword ptr [rsi+16], 0x403100"  // descriptor 1: the name
    "mov dword ptr [rsi+24], 20"
    "mov dword ptr [rsi+28], 0x20003"   // to be written, one follows: 2
    "mov dword ptr [rsi+32], 0x403200"  // descriptor 2: the status
    "mov dword ptr [rsi+40], 1"
    "mov dword ptr [rsi+44], 2"
    "mov dword ptr [rsi+0x3000], 8"     // VIRTIO_BLK_T_GET_ID
    "mov byte ptr [rsi+0x3200], 0xff"
    "mov dword ptr [rsi+0x1000], 0x10000"
    "mov dword ptr [rbx+0x50], 0"
    "2: cmp word ptr [rsi+0x2002], 1"
    "jne 2b"
    "cmp dword ptr [rsi+0x3100], 0x65676170"
    "jne 9f"
    "cmp byte ptr [rsi+0x3200], 0"
    "jne 9f"
    "cmp dword ptr [rbx+0x60], 1"       // the interrupt, acknowledged
    "jne 9f"
    "mov dword ptr [rbx+0x64], 1"
    "cmp dword ptr [rbx+0x60], 0"
    "jne 9f"
    "mov dword ptr [rbx+0x70], 0"       // a reset, until it is over
    "3: cmp dword ptr [rbx+0x70], 0"
    "jne 3b"
}

virtio_guest! {
    /// Gives a chain that leads to itself, and waits for DEVICE_NEEDS_RESET.
    virtio_loop:
    "mov dword ptr [rsi], 0x403000"
    "mov dword ptr [rsi+8], 16"
    "mov dword ptr [rsi+12], 1"
    "mov dword ptr [rsi+0x1000], 0x10000"
    "mov dword ptr [rbx+0x50], 0"
    "2: test dword ptr [rbx+0x70], 64"
    "jz 2b"
}

virtio_guest! {
    /// Gives the same empty request again and again, without end.
    virtio_flood:
    "mov dword ptr [rsi], 0x403000"
    "mov dword ptr [rsi+8], 16"
    "2: inc word ptr [rsi+0x1002]"
    "mov dword ptr [rbx+0x50], 0"
    "jmp 2b"
}

virtio_guest! {
    /// Writes to all registers of eight devices, in all widths, and reads them.
    virtio_garbage:
    "mov ecx, 0x8000"
    "mov eax, 0x5a5a5a5a"
    "2: mov [rbx], al"
    "mov [rbx], ax"
    "mov [rbx], eax"
    "mov [rbx], rax"
    "mov al, [rbx]"
    "mov ax, [rbx]"
    "mov edx, [rbx]"
    "mov rdx, [rbx]"
    "add rbx, 4"
    "sub ecx, 4"
    "jnz 2b"
}

/// How many events [`events`] writes.
pub const EVENTS: usize = 9000;

/// A kernel that is only `code`.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    Elf::of_code(code).build()
}

/// A kernel with shared pages whose request has `segments`; `more` lies right
/// behind the header.
pub fn with_shared_pages(code: &[u8], segments: &[Segment], more: &[u8]) -> Vec<u8> {
    let mut header = Header::new_zeroed();
    header.magic = LAB_MAGIC;
    header.version = pagelab_abi::VERSION;
    header.pages = SHARED_PAGES;
    header.request = request(segments);
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(4096, 0);
    bytes.extend(more);
    let mut data = ElfSegment::new(DATA_START, DATA, &bytes);
    data.memory_size = SHARED_SIZE as u64;
    Elf::of_segments(vec![ElfSegment::new(IMAGE, CODE, code), data]).build()
}

fn request(segments: &[Segment]) -> Request {
    let mut request = Request::new_zeroed();
    request.argument = STREAM_OUTPUT;
    request.segment_count = u32::try_from(segments.len()).expect("few segments");
    request.segments[..segments.len()].copy_from_slice(segments);
    request
}

/// A kernel that panics with `message` and a state whose RIP is `rip`.
pub fn panicking(message: &str, rip: u64) -> Vec<u8> {
    let state = PanicState { rip, vector: u64::MAX, ..PanicState::default() };
    let mut more = state.as_bytes().to_vec();
    let text = more.len() as u64;
    more.extend(message.as_bytes());
    let start = DATA_PHYS + 4096;
    let segments = [
        Segment { start: start + text, length: message.len() as u64 },
        Segment { start, length: text },
    ];
    with_shared_pages(panic(), &segments, &more)
}

/// A kernel with tables that map the first 4 GiB to themselves in its data.
pub fn with_identity_tables(code: &[u8]) -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 3;
    const HUGE: u64 = 0x80;
    const DIRECTORIES: u64 = 4;
    let mut tables = Vec::new();
    for index in 0..512u64 {
        let directory = (DATA_PHYS + 0x1000 * (index + 1)) | PRESENT_WRITABLE;
        tables.push(if index < DIRECTORIES { directory } else { 0 });
    }
    tables.extend((0..DIRECTORIES * 512).map(|index| (index << 21) | PRESENT_WRITABLE | HUGE));
    let data = ElfSegment::new(DATA_START, DATA, tables.as_bytes());
    Elf::of_segments(vec![ElfSegment::new(IMAGE, CODE, code), data]).build()
}
