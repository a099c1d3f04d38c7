//! Ending badly on purpose (`provoke=` on the kernel's command line), to see
//! and to test what the host makes of it.

use core::arch::asm;
use core::hint::black_box;

use pagelab_abi::layout::STACKS_BASE;

/// Ends in the way that a word names; an unknown word does nothing.
pub fn provoke(word: &str) {
    match word {
        "panic" => panic!("provoked on purpose"),
        "fault" => read_unmapped(),
        "overflow" => {
            overflow(0);
        }
        "reset" => triple_fault(),
        "hang" => hang(),
        _ => log::error!("provoke: panic, fault, overflow, reset or hang, not {word}"),
    }
}

/// A page fault in ring 0: at the guard page of the first kernel stack.
fn read_unmapped() {
    // SAFETY: nothing is mapped there, so nothing is read.
    unsafe { (STACKS_BASE as *const u64).read_volatile() };
}

/// Uses up the kernel stack, which ends in its guard page.
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    overflow(depth + 1) + frame[0]
}

/// A fault that cannot be delivered: the table of handlers is taken away.
fn triple_fault() {
    let nowhere = [0_u8; 10];
    // SAFETY: ends the machine.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const nowhere) };
}

/// Never comes back, with interrupts off.
fn hang() {
    loop {
        core::hint::spin_loop();
    }
}
