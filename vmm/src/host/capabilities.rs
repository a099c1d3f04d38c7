//! What the lab asks of KVM, extension by extension (`KVM_CHECK_EXTENSION`).

use kvm_bindings as kvm_abi;
use kvm_ioctls::Kvm;
use serde::Serialize;

/// An extension of KVM and what the lab needs it for.
struct Wanted {
    name: &'static str,
    number: u32,
    /// Without it nothing runs.
    required: bool,
    purpose: &'static str,
}

const fn required(name: &'static str, number: u32, purpose: &'static str) -> Wanted {
    Wanted { name, number, required: true, purpose }
}

const fn useful(name: &'static str, number: u32, purpose: &'static str) -> Wanted {
    Wanted { name, number, required: false, purpose }
}

const WANTED: [Wanted; 16] = [
    required("user memory", kvm_abi::KVM_CAP_USER_MEMORY, "guest RAM is memory of this process"),
    required("CPUID", kvm_abi::KVM_CAP_EXT_CPUID, "64-bit mode and a choice of features"),
    required("irqchip", kvm_abi::KVM_CAP_IRQCHIP, "interrupt controllers and the timer in KVM"),
    required("immediate exit", kvm_abi::KVM_CAP_IMMEDIATE_EXIT, "stopping a vCPU without a race"),
    required("irqfd", kvm_abi::KVM_CAP_IRQFD, "a device raises an interrupt by an eventfd"),
    useful("ioeventfd", kvm_abi::KVM_CAP_IOEVENTFD, "a guest's write rings an eventfd, no exit"),
    useful("TSC frequency", kvm_abi::KVM_CAP_GET_TSC_KHZ, "guest clock ticks as nanoseconds"),
    useful("TSC deadline", kvm_abi::KVM_CAP_TSC_DEADLINE_TIMER, "the guest's timer in clock ticks"),
    useful(
        "statistics",
        kvm_abi::KVM_CAP_BINARY_STATS_FD,
        "KVM's own counts: faults, emulated instructions, exits",
    ),
    useful("sync mmu", kvm_abi::KVM_CAP_SYNC_MMU, "backing on first touch, COW, giving it back"),
    useful(
        "dirty log",
        kvm_abi::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        "which frames the guest has written",
    ),
    useful("read-only memory", kvm_abi::KVM_CAP_READONLY_MEM, "memory that the guest cannot write"),
    useful("guest debug", kvm_abi::KVM_CAP_SET_GUEST_DEBUG, "single steps and breakpoints"),
    useful("error details", kvm_abi::KVM_CAP_INTERNAL_ERROR_DATA, "why KVM gave up on a guest"),
    useful("vCPU events", kvm_abi::KVM_CAP_VCPU_EVENTS, "pending exceptions, for reports"),
    useful("XSAVE state", kvm_abi::KVM_CAP_XSAVE, "reading and setting a program's registers"),
];

/// An extension, and whether this KVM has it.
#[derive(Clone, Debug, Serialize)]
pub struct Capability {
    /// A short name.
    pub name: &'static str,
    /// KVM's number for it.
    pub number: u32,
    /// What `KVM_CHECK_EXTENSION` answered; not positive: not there.
    pub value: i32,
    /// Without it the lab cannot run.
    pub required: bool,
    /// What the lab needs it for.
    pub purpose: &'static str,
}

impl Capability {
    /// Whether this KVM has it.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.value > 0
    }
}

/// Asks KVM for everything the lab wants.
#[must_use]
pub fn check(kvm: &Kvm) -> Vec<Capability> {
    WANTED
        .iter()
        .map(|wanted| Capability {
            name: wanted.name,
            number: wanted.number,
            value: kvm.check_extension_raw(wanted.number.into()),
            required: wanted.required,
            purpose: wanted.purpose,
        })
        .collect()
}
