//! pagelab's guest kernel: as much of a kernel as memory management needs in
//! order to be real.
//!
//! | to read about | open |
//! | --- | --- |
//! | a page fault, from the trap on | [`fault`], then `pagelab_mm`'s `fault.rs` |
//! | system calls | [`syscall`] |
//! | processes, threads, who runs | [`process`] |
//! | the kernel's memory | [`memory`] |
//! | what the host sees while it runs | [`publish`] |
//! | hardware | the crate `pagelab_hal` |
//!
//! Unsafe code is in the hardware crate only. The kernel never touches a
//! program's memory by the program's addresses, is never preempted, and keeps
//! no lock while it sleeps.

#![no_std]
#![no_main]
#![deny(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "usize is u64 here, and arguments arrive in registers that Linux cuts as it needs"
)]
#![allow(unreachable_pub, reason = "nothing of a binary is reachable from outside")]

extern crate alloc;

mod elf;
mod fault;
mod files;
mod memory;
mod process;
mod publish;
mod random;
mod signal;
mod swap;
mod syscall;
mod user;

use pagelab_abi::boot::BootInfo;
use pagelab_hal::trap::{self, Handlers, vector};
use pagelab_hal::{interrupts, lab};

/// Where the hardware crate hands over.
#[allow(unsafe_code, reason = "the name is exported for the hardware crate, which declares it")]
#[unsafe(no_mangle)]
fn pagelab_kernel_main(info: &'static BootInfo) -> ! {
    trap::install(Handlers {
        system_call: syscall::system_call,
        page_fault: fault::page_fault,
        exception: fault::exception,
        interrupt,
    });
    memory::init();
    publish::init();
    random::init(info);
    files::init();
    if lab::is_present() {
        interrupts::enable_lab();
    }
    process::init::start(info)
}

/// An interrupt, in ring 3 or while the kernel waits for one.
fn interrupt(number: u8, program: Option<&mut trap::TrapFrame>) {
    if number != vector::SPURIOUS {
        interrupts::end_of_interrupt();
    }
    match number {
        vector::TIMER => process::scheduler::timer_interrupt(),
        vector::LAB => files::console::input_arrived(),
        _ => {}
    }
    if let Some(frame) = program {
        files::write_back::write_if_due();
        process::scheduler::sleepers_changed();
        process::scheduler::yield_now();
        process::rseq::interrupted(frame);
        syscall::before_return(frame, None);
    }
}
