//! What KVM's own numbers mean on this kind of host.
//!
//! KVM counts page faults under the same names wherever it runs, but they are
//! different things. With two-dimensional paging (EPT, NPT) the guest's page
//! faults never leave the guest: what KVM sees are missing entries of its second
//! level. With shadow paging every fault of the guest ends in KVM first, which
//! either repairs its shadow table or hands the fault on to the guest.
//!
//! Which of the two it is shows in the numbers themselves.

use std::fmt;

use serde::Serialize;

use crate::kvm_stats::Snapshot;

/// How this host translates for its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PagingKind {
    /// The processor walks two sets of tables.
    TwoDimensional,
    /// KVM keeps a shadow of the guest's tables.
    Shadow,
    /// The guest has not faulted yet, or KVM gives nothing out.
    Unknown,
}

/// One of KVM's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Number {
    /// KVM's name for it.
    pub name: String,
    /// Its value.
    pub value: u64,
    /// What it means here.
    pub meaning: &'static str,
}

/// KVM's numbers about memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatsReport {
    /// How this host translates.
    pub paging: PagingKind,
    /// Faults that the guest itself took, for comparison.
    pub guest_faults: u64,
    /// The numbers, those of the processor first.
    pub numbers: Vec<Number>,
}

impl PagingKind {
    /// Tells from what the processor's statistics say and how many page faults
    /// the guest counted: with shadow paging KVM hands each of those on.
    #[must_use]
    pub fn detect(vcpu: &Snapshot, guest_faults: u64) -> Self {
        match (vcpu.get("pf_guest"), guest_faults) {
            (None, _) | (Some(0), 0) => Self::Unknown,
            (Some(0), _) => Self::TwoDimensional,
            (Some(_), _) => Self::Shadow,
        }
    }

    /// In words.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::TwoDimensional => {
                "two-dimensional paging: the guest's page faults never leave the guest"
            }
            Self::Shadow => "shadow paging: every page fault of the guest ends in KVM first",
            Self::Unknown => "not known yet: the guest has taken no page fault",
        }
    }
}

/// Name, meaning with two-dimensional paging, meaning with shadow paging.
type Meaning = (&'static str, &'static str, &'static str);

const MEANINGS: [Meaning; 21] = [
    (
        "pf_taken",
        "faults at the second level (EPT violations, NPT faults) that reached KVM",
        "all page faults that reached KVM: the guest's own and those of the shadow table",
    ),
    (
        "pf_fixed",
        "second-level entries that KVM filled in",
        "shadow entries that KVM filled in; the guest noticed nothing",
    ),
    (
        "pf_guest",
        "faults handed on to the guest: none, it takes its own without KVM",
        "faults that were the guest's own: handed on to its handler",
    ),
    (
        "pf_emulate",
        "faults that ended in the emulator (device memory)",
        "faults that ended in the emulator (device memory, or writes to page tables)",
    ),
    (
        "pf_spurious",
        "faults that another processor had already repaired",
        "faults whose shadow entry was already right",
    ),
    (
        "pf_fast",
        "faults repaired without KVM's lock (access or dirty tracking)",
        "faults repaired without KVM's lock (write tracking)",
    ),
    (
        "pf_mmio_spte_created",
        "entries made that say: here is a device",
        "shadow entries made that say: here is a device",
    ),
    (
        "tlb_flush",
        "flushes of translations for this processor",
        "flushes of translations, and synchronisations of the shadow",
    ),
    (
        "invlpg",
        "invlpg instructions that reached KVM: none",
        "invlpg instructions of the guest, each handled by KVM",
    ),
    (
        "insn_emulation",
        "guest instructions that KVM carried out itself",
        "guest instructions that KVM carried out itself",
    ),
    ("exits", "times the guest left to KVM", "times the guest left to KVM"),
    ("pages_4k", "second-level entries of 4 KiB now", "shadow entries of 4 KiB now"),
    ("pages_2m", "second-level entries of 2 MiB now", "shadow entries of 2 MiB now"),
    ("pages_1g", "second-level entries of 1 GiB now", "shadow entries of 1 GiB now"),
    ("mmu_shadow_zapped", "tables of the second level thrown away", "shadow tables thrown away"),
    (
        "mmu_pte_write",
        "writes to guest page tables that KVM saw: none",
        "writes to guest page tables that KVM saw and followed",
    ),
    (
        "mmu_pde_zapped",
        "entries for tables that were dropped",
        "shadow entries for tables that were dropped",
    ),
    ("mmu_flooded", "not used", "shadowed pages given up because they were written too often"),
    ("mmu_recycled", "not used", "shadow tables thrown away to make room"),
    ("mmu_cache_miss", "tables of the second level made", "shadow tables made"),
    ("mmu_unsync", "not used", "shadow tables that are behind the guest's now"),
];

/// Puts KVM's numbers about memory beside their meaning.
#[must_use]
pub fn explain(vcpu: &Snapshot, vm: &Snapshot, guest_faults: u64) -> StatsReport {
    let paging = PagingKind::detect(vcpu, guest_faults);
    let numbers = MEANINGS.iter().filter_map(|&(name, two_dimensional, shadow)| {
        let value = vcpu.get(name).or_else(|| vm.get(name))?;
        let meaning = if paging == PagingKind::Shadow { shadow } else { two_dimensional };
        Some(Number { name: name.to_owned(), value, meaning })
    });
    StatsReport { paging, guest_faults, numbers: numbers.collect() }
}

impl fmt::Display for StatsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.paging.description())?;
        writeln!(f, "{:<22} {:>12}  the guest's own count", "guest faults", self.guest_faults)?;
        for Number { name, value, meaning } in &self.numbers {
            writeln!(f, "{name:<22} {value:>12}  {meaning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(values: &[(&str, u64)]) -> Snapshot {
        values.iter().copied().collect()
    }

    #[test]
    fn the_kind_of_paging_shows_in_the_numbers() {
        let shadow = snapshot(&[("pf_taken", 42), ("pf_guest", 22)]);
        let hardware = snapshot(&[("pf_taken", 300), ("pf_guest", 0)]);
        assert_eq!(PagingKind::detect(&shadow, 22), PagingKind::Shadow);
        assert_eq!(PagingKind::detect(&hardware, 22), PagingKind::TwoDimensional);
        assert_eq!(PagingKind::detect(&hardware, 0), PagingKind::Unknown);
        assert_eq!(PagingKind::detect(&Snapshot::default(), 22), PagingKind::Unknown);
    }

    #[test]
    fn numbers_mean_what_they_mean_on_this_host() {
        let vm = snapshot(&[("pages_4k", 7), ("something", 1)]);
        let shadow = explain(&snapshot(&[("pf_taken", 42), ("pf_guest", 22)]), &vm, 22);
        let hardware = explain(&snapshot(&[("pf_taken", 42), ("pf_guest", 0)]), &vm, 22);
        let names: Vec<_> = shadow.numbers.iter().map(|number| number.name.as_str()).collect();
        assert_eq!(names, ["pf_taken", "pf_guest", "pages_4k"]);
        assert_ne!(shadow.numbers[0].meaning, hardware.numbers[0].meaning);
        assert!(shadow.to_string().starts_with("shadow paging"));
        assert!(hardware.to_string().contains("EPT violations"));
    }
}
