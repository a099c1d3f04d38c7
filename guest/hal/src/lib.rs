//! The hardware layer: the only guest crate with unsafe code.
//!
//! Everything here is a safe face over something the compiler cannot check:
//! privileged instructions, descriptor tables, the way in and out of ring 3,
//! physical memory, the lab's device. The kernel above is ordinary safe Rust.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`boot`] | the entry points (the VMM's and PVH's) and the boot information |
//! | [`cpu`] | registers, ports, the features that are used |
//! | [`descriptors`] | GDT, TSS, IDT |
//! | [`trap`] | exceptions, interrupts and system calls in, `iretq`/`sysretq` out |
//! | [`context`] | kernel threads and the switch between them |
//! | [`stack`] | kernel stacks with guard pages |
//! | [`fpu`] | floating-point and vector state |
//! | [`ring3`] | instructions that only ring 3 has, where ring 0 is emulated |
//! | [`memory`] | physical memory, page tables, the TLB |
//! | [`heap`] | the kernel's heap |
//! | [`lab`] | the lab's device and the shared pages |
//! | [`serial`] | COM1, for VMMs without the lab's device |
//! | [`console`] | whichever of the two there is; the `log` sink |
//! | [`virtio`] | devices that carry files and swap |
//! | [`interrupts`] | the local APIC and the I/O APIC |
//! | [`time`] | the time-stamp counter as a clock |
//! | [`power`] | the end: power-off, and dying with a report |
//! | [`provoke`] | dying on purpose |
//! | [`sync`] | locks for one processor |
//!
//! One processor, and the kernel is never preempted in ring 0: interrupts are
//! off there except while it halts. Locks are therefore never waited for.

#![no_std]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "for one 64-bit processor: usize is u64, and registers are cut into pieces on purpose"
)]

extern crate alloc;

pub mod boot;
pub mod console;
pub mod context;
pub mod cpu;
pub mod descriptors;
pub mod fpu;
pub mod heap;
pub mod interrupts;
pub mod lab;
pub mod memory;
pub mod power;
pub mod provoke;
pub mod pvh;
mod ring3;
pub mod serial;
pub mod stack;
pub mod sync;
pub mod time;
pub mod trap;
pub mod virtio;
