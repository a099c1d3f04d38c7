//! The first program: says hello, takes page faults of several kinds on
//! purpose, and exits. It needs no C library, only `write` and `exit_group`.
//!
//! Its untouched memory, page by page:
//!
//! | pages | what it does | what that costs |
//! | --- | --- | --- |
//! | 8 | writes | 8 demand-zero faults |
//! | 4 | reads | 4 faults that map the shared zero page |
//! | 2 of these | writes after reading | 2 upgrades of the zero page |
//! | the rest | nothing | nothing |
//!
//! and four pages below the 33 that its stack starts with: the stack grows, a
//! fault each.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

const PAGE: usize = 4096;
const PAGES: usize = 64;
const WRITTEN: usize = 8;
const READ: usize = 4;
const UPGRADED: usize = 2;
const STACK_PAGES: usize = 4;
/// Further down than the stack reaches when the program starts.
const BELOW_STACK: usize = 40;

const SYS_WRITE: u64 = 1;
const SYS_EXIT_GROUP: u64 = 231;

#[repr(C, align(4096))]
struct Memory([u8; PAGES * PAGE]);

static mut MEMORY: Memory = Memory([0; PAGES * PAGE]);

global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym main,
);

extern "C" fn main() -> ! {
    say("Hello from ring 3.\n");
    let memory = (&raw mut MEMORY).cast::<u8>();
    for page in 0..WRITTEN {
        write(memory.wrapping_add(page * PAGE));
    }
    for page in WRITTEN..WRITTEN + READ {
        read(memory.wrapping_add(page * PAGE));
    }
    for page in WRITTEN..WRITTEN + UPGRADED {
        write(memory.wrapping_add(page * PAGE));
    }
    touch_stack();
    say("Of 64 fresh pages I wrote 8 and read 4, then wrote 2 of those, and grew my stack by 4.\n");
    exit(0)
}

/// Writes to one byte each of pages that the stack does not have yet.
fn touch_stack() {
    let here: *mut u8;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    for page in BELOW_STACK..BELOW_STACK + STACK_PAGES {
        write(here.wrapping_sub(page * PAGE));
    }
}

fn write(place: *mut u8) {
    // SAFETY: a byte of this program's memory or of its unused stack.
    unsafe { place.write_volatile(1) };
}

fn read(place: *mut u8) -> u8 {
    // SAFETY: as above.
    unsafe { place.read_volatile() }
}

fn say(text: &str) {
    // Standard output may be gone: there is nobody to tell.
    let _ = call(SYS_WRITE, 1, text.as_ptr() as u64, text.len() as u64);
}

fn exit(status: u64) -> ! {
    call(SYS_EXIT_GROUP, status, 0, 0);
    loop {
        core::hint::spin_loop();
    }
}

fn call(number: u64, first: u64, second: u64, third: u64) -> u64 {
    let result;
    // SAFETY: the two calls used read memory of this program, or end it.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") first, in("rsi") second,
             in("rdx") third, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(101)
}
