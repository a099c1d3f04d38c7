//! The virtual machine as KVM sees it. Nothing outside this folder talks to KVM
//! while a guest runs, so everything else can be tested without `/dev/kvm`.
//!
//! * [`vm`]: opening KVM, what it must be able to do, memory slots, interrupts
//! * [`vcpu`]: the processor: its thread, its run loop, stopping it
//! * [`entry`]: the state that a guest starts in
//! * [`registers`]: the processor's state, copied out

pub mod entry;
pub mod registers;
pub mod vcpu;
pub mod vm;

use std::io;
use std::path::PathBuf;

/// Environment variable with another path than `/dev/kvm`.
pub const KVM_PATH_VARIABLE: &str = "PAGELAB_KVM";

/// Why there is no virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No such device.
    #[error(
        "there is no {}: this host offers no KVM. Enable virtualization in the firmware and load \
         its module (`sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`); inside a virtual \
         machine or container, have the device passed in. `pagelab host` tells more",
        .0.display()
    )]
    Missing(PathBuf),
    /// The device may not be opened.
    #[error(
        "no permission to open {path}. Add yourself to its group and log in again \
         (`sudo usermod -aG kvm \"$USER\"`), or open it to all with a udev rule: \
         echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0666\"' | \
         sudo tee /etc/udev/rules.d/99-kvm.rules && sudo udevadm trigger --name-match=kvm",
        path = .0.display()
    )]
    Permission(PathBuf),
    /// The device cannot be opened for another reason.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Something else than KVM.
    #[error("{} is not a KVM device", .0.display())]
    NotKvm(PathBuf),
    /// Another KVM API.
    #[error("this host's KVM speaks API version {0}; 12 is the one there should be")]
    ApiVersion(i32),
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
    /// The vCPU's thread could not be started.
    #[error("cannot start the thread of the vCPU: {0}")]
    Thread(io::Error),
}

/// Makes an error of KVM's one that says what was tried.
fn failed(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Operation { what, source: io::Error::from_raw_os_error(error.errno()) }
}
