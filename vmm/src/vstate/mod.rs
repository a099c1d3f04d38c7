//! The virtual machine as KVM sees it. Nothing outside this folder talks to KVM
//! while a guest runs, so everything else can be tested without `/dev/kvm`.
//!
//! * [`vm`]: opening KVM, what it must be able to do, memory slots, interrupts
//! * [`vcpu`]: the processor: its thread, its run loop, stopping it
//! * [`control`]: pausing the processor and looking at it, from another thread
//! * [`guest_debug`]: breakpoints and watchpoints
//! * `stepping`: making the processor stop there; `foresight`: what memory the
//!   next instruction accesses
//! * [`entry`]: the state that a guest starts in
//! * [`registers`]: the processor's state, copied out

pub mod control;
pub mod entry;
mod foresight;
pub mod guest_debug;
pub mod registers;
mod stepping;
pub mod vcpu;
pub mod vm;

use std::io;

use crate::host::OpenError;

/// Environment variable with another path than `/dev/kvm`.
pub const KVM_PATH_VARIABLE: &str = "PAGELAB_KVM";

/// Why there is no virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// KVM cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// KVM lacks something.
    #[error("this host's KVM cannot do what a lab needs: {0} is missing")]
    Capability(&'static str),
    /// An operation on KVM failed.
    #[error("KVM failed to {what}: {source}")]
    Operation {
        /// What was tried.
        what: &'static str,
        /// What KVM said.
        source: io::Error,
    },
    /// The processor lacks 64-bit mode or something as basic.
    #[error("KVM offers the guest no {0}, which the kernel needs")]
    Processor(&'static str),
    /// A thread of the machine could not be started.
    #[error("cannot start a thread of the lab: {0}")]
    Thread(io::Error),
}

/// Makes an error of KVM's one that says what was tried.
fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Operation { what, source: io::Error::from_raw_os_error(error.errno()) }
}
