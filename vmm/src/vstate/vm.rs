//! Opening KVM and making a virtual machine of guest memory and interrupts.

#![allow(unsafe_code, reason = "KVM is given the address of guest memory")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_BLOCKIRQ, KVM_MAX_CPUID_ENTRIES,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VmFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use super::{KVM_PATH_VARIABLE, KvmError, failed};
use crate::host;
use crate::layout::KVM_TSS;
use crate::memory::GuestRam;

/// The path of KVM's device: `/dev/kvm`, or what [`KVM_PATH_VARIABLE`] says.
#[must_use]
pub fn device_path() -> PathBuf {
    std::env::var_os(KVM_PATH_VARIABLE)
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from("/dev/kvm"), PathBuf::from)
}

/// What a lab cannot do without.
const NEEDED: [(Cap, &str); 6] = [
    (Cap::UserMemory, "memory provided by user space (KVM_CAP_USER_MEMORY)"),
    (Cap::Irqchip, "an interrupt controller in the kernel (KVM_CAP_IRQCHIP)"),
    (Cap::Irqfd, "interrupts from event descriptors (KVM_CAP_IRQFD)"),
    (Cap::Ioeventfd, "notifications as event descriptors (KVM_CAP_IOEVENTFD)"),
    (Cap::ExtCpuid, "control over CPUID (KVM_CAP_EXT_CPUID)"),
    (Cap::ImmediateExit, "leaving the guest at once (KVM_CAP_IMMEDIATE_EXIT)"),
];

/// Opens KVM at `path` and checks that it can carry a lab.
///
/// # Errors
///
/// If there is none, if it may not be used, or if it lacks something.
pub fn open(path: &Path) -> Result<Kvm, KvmError> {
    let kvm = host::open(path)?;
    for (capability, name) in NEEDED {
        if !kvm.check_extension(capability) {
            return Err(KvmError::Capability(name));
        }
    }
    Ok(kvm)
}

/// A virtual machine with its memory.
///
/// The memory is kept alive as long as the machine: KVM holds its address.
#[derive(Debug)]
pub struct Vm {
    // Dropped first: afterwards KVM no longer uses the memory.
    fd: VmFd,
    cpuid: CpuId,
    ram: Arc<GuestRam>,
}

impl Vm {
    /// Makes a virtual machine with `ram` as its memory and the usual interrupt
    /// controllers (PIC, I/O APIC, local APIC) inside KVM.
    ///
    /// # Errors
    ///
    /// If KVM refuses.
    pub fn new(kvm: &Kvm, ram: Arc<GuestRam>) -> Result<Self, KvmError> {
        let fd = create(kvm)?;
        // First of all: once there are interrupt controllers, KVM takes some
        // milliseconds longer for this call (measured: 5 ms against 0.1 ms).
        add_memory(&fd, &ram)?;
        if fd.check_extension(Cap::SetTssAddr) {
            let address = usize::try_from(KVM_TSS.0).unwrap_or(usize::MAX);
            fd.set_tss_address(address).map_err(failed("set aside its own pages"))?;
        }
        fd.create_irq_chip().map_err(failed("create the interrupt controllers"))?;
        let mut cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("tell the processor's features"))?;
        super::entry::adjust_cpuid(&mut cpuid, fd.check_extension(Cap::TscDeadlineTimer));
        super::entry::check_cpuid(&cpuid)?;
        Ok(Self { fd, cpuid, ram })
    }

    /// The guest's memory.
    #[must_use]
    pub const fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// What the guest's CPUID instruction says.
    #[must_use]
    pub const fn cpuid(&self) -> &CpuId {
        &self.cpuid
    }

    /// KVM's handle of the machine.
    #[must_use]
    pub const fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Whether interrupts can be held back while the guest is stepped.
    #[must_use]
    pub fn can_block_interrupts(&self) -> bool {
        let flags = self.fd.check_extension_raw(KVM_CAP_SET_GUEST_DEBUG2.into());
        u32::try_from(flags).is_ok_and(|flags| flags & KVM_GUESTDBG_BLOCKIRQ != 0)
    }

    /// Raises the global system interrupt `gsi` whenever `event` is written.
    ///
    /// # Errors
    ///
    /// If KVM refuses.
    pub fn connect_interrupt(&self, event: &EventFd, gsi: u32) -> Result<(), KvmError> {
        self.fd.register_irqfd(event, gsi).map_err(failed("connect an interrupt"))
    }

    /// Writes `event` whenever the guest writes anything to `address`, where no
    /// RAM is, instead of leaving the guest.
    ///
    /// # Errors
    ///
    /// If KVM refuses.
    pub fn connect_notification(&self, event: &EventFd, address: u64) -> Result<(), KvmError> {
        self.fd
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(failed("connect a notification"))
    }
}

/// Gives `ram` to the machine. The caller keeps it as long as the machine.
fn add_memory(fd: &VmFd, ram: &GuestRam) -> Result<(), KvmError> {
    for (slot, region) in (0u32..).zip(ram.mapping().iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is a mapping of exactly this length, regions never
        // overlap, and `Vm` keeps them mapped until the machine is gone. What
        // the guest writes to them is only ever read as volatile.
        unsafe { fd.set_user_memory_region(region) }
            .map_err(failed("take over the guest's memory"))?;
    }
    Ok(())
}

/// `KVM_CREATE_VM`, which a signal may interrupt.
fn create(kvm: &Kvm) -> Result<VmFd, KvmError> {
    const ATTEMPTS: usize = 10;
    for _ in 1..ATTEMPTS {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(failed("create a virtual machine")),
        }
    }
    kvm.create_vm().map_err(failed("create a virtual machine"))
}
