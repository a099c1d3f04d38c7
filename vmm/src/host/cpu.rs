//! The processor: what it is, and what KVM lets guests see of it.

use std::fs;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use serde::Serialize;

/// The host's processor.
#[derive(Clone, Debug, Serialize)]
pub struct Cpu {
    /// Its name, as it calls itself.
    pub model: String,
    /// Intel's virtualization is visible.
    pub vmx: bool,
    /// AMD's virtualization is visible.
    pub svm: bool,
    /// This host is itself a virtual machine.
    pub hypervisor: bool,
}

impl Cpu {
    /// Reads `/proc/cpuinfo`.
    #[must_use]
    pub fn look() -> Self {
        Self::parse(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    fn parse(cpuinfo: &str) -> Self {
        let flags = flags(cpuinfo);
        Self {
            model: field(cpuinfo, "model name").unwrap_or("not known").to_owned(),
            vmx: flags.contains(&"vmx"),
            svm: flags.contains(&"svm"),
            hypervisor: flags.contains(&"hypervisor"),
        }
    }
}

fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The flags of the first processor in `/proc/cpuinfo`.
pub(super) fn flags(cpuinfo: &str) -> Vec<&str> {
    field(cpuinfo, "flags").map(|flags| flags.split_whitespace().collect()).unwrap_or_default()
}

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug)]
enum Register {
    Ebx,
    Ecx,
    Edx,
}

/// A feature that CPUID shows in one bit.
struct FeatureBit {
    name: &'static str,
    leaf: u32,
    register: Register,
    bit: u32,
    purpose: &'static str,
}

const FEATURES: [FeatureBit; 14] = [
    bit("SYSCALL", 0x8000_0001, Register::Edx, 11, "system calls of 64-bit programs"),
    bit("NX", 0x8000_0001, Register::Edx, 20, "pages that cannot be executed"),
    bit("1 GiB pages", 0x8000_0001, Register::Edx, 26, "large pages of level 3"),
    bit("PGE", 1, Register::Edx, 13, "global pages: kernel translations survive CR3 writes"),
    bit("PCID", 1, Register::Ecx, 17, "translations of several processes side by side"),
    bit("INVPCID", 7, Register::Ebx, 10, "dropping one process's translations"),
    bit("SMEP", 7, Register::Ebx, 7, "ring 0 cannot execute user pages"),
    bit("SMAP", 7, Register::Ebx, 20, "ring 0 touches user pages only on purpose"),
    bit("FSGSBASE", 7, Register::Ebx, 0, "thread pointers without an MSR"),
    bit("x2APIC", 1, Register::Ecx, 21, "interrupt controller by MSR instead of memory"),
    bit("TSC deadline", 1, Register::Ecx, 24, "a timer set in clock ticks of the processor"),
    bit("XSAVE", 1, Register::Ecx, 26, "saving AVX registers of programs"),
    bit("LA57", 7, Register::Ecx, 16, "5-level page tables (the lab uses 4)"),
    bit("RDRAND", 1, Register::Ecx, 30, "random numbers"),
];

const fn bit(
    name: &'static str,
    leaf: u32,
    register: Register,
    bit: u32,
    purpose: &'static str,
) -> FeatureBit {
    FeatureBit { name, leaf, register, bit, purpose }
}

/// A processor feature, and whether guests have it here.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// KVM offers it to guests.
    pub offered: bool,
    /// What it is for.
    pub purpose: &'static str,
}

/// What KVM offers to guests (`KVM_GET_SUPPORTED_CPUID`).
///
/// # Errors
///
/// If KVM does not say.
pub fn offered_features(kvm: &Kvm) -> Result<Vec<Feature>, kvm_ioctls::Error> {
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    Ok(FEATURES
        .iter()
        .map(|feature| Feature {
            name: feature.name,
            offered: feature.is_set(cpuid.as_slice()),
            purpose: feature.purpose,
        })
        .collect())
}

/// Whether `cpuid` has XSAVE, so that CR4.OSXSAVE may be set.
pub(super) fn has_xsave(cpuid: &CpuId) -> bool {
    FEATURES.iter().any(|feature| feature.name == "XSAVE" && feature.is_set(cpuid.as_slice()))
}

impl FeatureBit {
    fn is_set(&self, entries: &[kvm_cpuid_entry2]) -> bool {
        entries.iter().any(|entry| {
            let value = match self.register {
                Register::Ebx => entry.ebx,
                Register::Ecx => entry.ecx,
                Register::Edx => entry.edx,
            };
            entry.function == self.leaf && entry.index == 0 && value & (1 << self.bit) != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_read_by_field() {
        let text = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu svm nx\n\n\
                    processor\t: 1\nmodel name\t: Other\nflags\t\t: vmx\n";
        let cpu = Cpu::parse(text);
        assert_eq!(cpu.model, "Some CPU");
        assert!(cpu.svm && !cpu.vmx && !cpu.hypervisor);
        assert_eq!(Cpu::parse("").model, "not known");
    }

    #[test]
    fn features_are_read_from_their_leaf_only() {
        let smep = FEATURES.iter().find(|feature| feature.name == "SMEP").unwrap();
        let entry = kvm_cpuid_entry2 { function: 7, ebx: 1 << 7, ..Default::default() };
        assert!(smep.is_set(&[entry]));
        assert!(!smep.is_set(&[kvm_cpuid_entry2 { index: 1, ..entry }]));
        assert!(!smep.is_set(&[kvm_cpuid_entry2 { function: 1, ..entry }]));
    }
}
