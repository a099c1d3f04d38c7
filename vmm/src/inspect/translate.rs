//! One address through both levels: guest-virtual, the entries of the guest's
//! tables, guest-physical, memory slot, host-virtual, the host's page; and what
//! the walk costs in memory references.
//!
//! A walk through the guest's tables alone reads one entry per level. Where the
//! processor translates guest-physical addresses too, each of those reads, and
//! the final address, takes a walk of its own through the second level: with four
//! levels each (4 + 1) * 4 + 4 = 24 reads.

use std::fmt;

use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_paging::Level;
use pagelab_paging::entry::ADDRESS_MASK;
use pagelab_paging::walk::{Outcome, walk};
use serde::Serialize;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::second_level::backing::host_address;
use super::second_level::host_pages::{HostPage, HostPages};
use super::value::{Flags, Hex, Rights};
use super::walk::page_size_name;
use crate::memory::GuestRam;

/// One entry on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TranslationStep {
    /// Level of its table.
    pub level: u8,
    /// Where it lies in guest-physical memory.
    pub entry_address: Hex,
    /// The entry.
    pub entry: Hex,
    /// Its bits.
    pub flags: Flags,
    /// The host's page that it lies in.
    pub host: Option<HostPage>,
}

/// A piece of guest memory as KVM knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// First guest-physical address.
    pub first: Hex,
    /// Last one.
    pub last: Hex,
    /// Where it begins in the VMM.
    pub host: Hex,
}

/// One read of a table by the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// Level of the guest's table that is read or looked for; 0 for the page
    /// itself.
    pub guest_level: u8,
    /// Level of the second-level table that is read; 0 for the guest's own.
    pub second_level: u8,
    /// The guest-physical address that is being translated or read.
    pub physical: Hex,
}

/// How many reads a translation takes that nothing is cached of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct References {
    /// Through one set of tables: the guest's own, or a shadow of them.
    pub one_dimensional: usize,
    /// Through both.
    pub two_dimensional: usize,
    /// The latter, in order.
    pub list: Vec<Reference>,
}

/// A translation through both levels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Translation {
    /// What was translated.
    pub address: Hex,
    /// The root table.
    pub root: Hex,
    /// The entries, from the root down.
    pub steps: Vec<TranslationStep>,
    /// What it came to, in words.
    pub outcome: String,
    /// The guest-physical address, if there is one.
    pub physical: Option<Hex>,
    /// What all levels together allow.
    pub rights: Option<Rights>,
    /// Size of the guest's page.
    pub page_size: Option<u64>,
    /// The memory slot that it lies in.
    pub slot: Option<Slot>,
    /// The host-virtual address.
    pub host_address: Option<Hex>,
    /// The host's page.
    pub host: Option<HostPage>,
    /// What the walk costs.
    pub references: References,
}

/// Translates `address` through the tables below `root` and on to the host.
#[must_use]
pub fn translate(ram: &GuestRam, root: GuestPhys, address: GuestVirt) -> Translation {
    let pages = HostPages::open().ok();
    let host_page = |physical: GuestPhys| {
        let host = host_address(ram, physical)?;
        pages.as_ref()?.page(host).ok()
    };
    let root = GuestPhys(root.0 & ADDRESS_MASK);
    let walked = walk(ram, root, address);
    let steps: Vec<_> = walked
        .steps()
        .map(|step| TranslationStep {
            level: step.level as u8,
            entry_address: step.address.into(),
            entry: Hex(step.entry.0),
            flags: Flags(step.entry.flags()),
            host: host_page(step.address),
        })
        .collect();
    let mut translation = Translation {
        address: address.into(),
        root: root.into(),
        references: References::new(&steps, walked.physical(), |physical| {
            host_page(physical).and_then(|page| page.huge).unwrap_or(false)
        }),
        steps,
        outcome: describe(ram, walked.outcome),
        physical: walked.physical().map(Hex::from),
        rights: None,
        page_size: None,
        slot: None,
        host_address: None,
        host: None,
    };
    if let Outcome::Mapped { physical, level, rights } = walked.outcome {
        translation.rights = Some(Rights(rights));
        translation.page_size = Some(level.entry_size());
        translation.slot = slot_of(ram, physical);
        translation.host_address = host_address(ram, physical).map(Hex);
        translation.host = host_page(physical);
    }
    translation
}

/// The memory slot that holds a guest-physical address: slots are numbered as
/// the machine gave them to KVM.
fn slot_of(ram: &GuestRam, physical: GuestPhys) -> Option<Slot> {
    (0..).zip(ram.mapping().iter()).find_map(|(number, region)| {
        let first = region.start_addr().0;
        let offset = physical.0.checked_sub(first)?;
        (offset < region.len()).then(|| Slot {
            number,
            first: Hex(first),
            last: Hex(first + region.len() - 1),
            host: Hex(region.as_ptr() as u64),
        })
    })
}

fn describe(ram: &GuestRam, outcome: Outcome) -> String {
    match outcome {
        Outcome::Mapped { physical, level, rights } => {
            let place = if ram.contains(physical, 1) { "" } else { ", which is not memory" };
            let size = page_size_name(level);
            format!("guest-physical {physical}{place}, in a {size} page, {}", Rights(rights))
        }
        Outcome::NotPresent(level) => {
            format!("not mapped: the entry of level {} is not present", level as u8)
        }
        Outcome::TableOutsideMemory(level) => {
            format!("not translatable: its table of level {} is not memory", level as u8)
        }
        Outcome::NotCanonical => "not canonical: no page table can map it".to_owned(),
    }
}

impl References {
    /// Spells out the reads of a two-dimensional walk; `is_huge` tells whether
    /// the host backs a guest-physical address by a large page, whose
    /// second-level walk ends one level earlier.
    fn new(
        steps: &[TranslationStep],
        physical: Option<GuestPhys>,
        is_huge: impl Fn(GuestPhys) -> bool,
    ) -> Self {
        let mut list = Vec::new();
        let mut second_level = |guest_level: u8, physical: GuestPhys, own: bool| {
            let last = if is_huge(physical) { Level::Two } else { Level::One };
            for level in Level::DOWN.into_iter().filter(|&level| level >= last) {
                let second_level = level as u8;
                list.push(Reference { guest_level, second_level, physical: physical.into() });
            }
            if own {
                list.push(Reference { guest_level, second_level: 0, physical: physical.into() });
            }
        };
        for step in steps {
            second_level(step.level, GuestPhys(step.entry_address.0), true);
        }
        if let Some(physical) = physical {
            second_level(0, physical, false);
        }
        Self { one_dimensional: steps.len(), two_dimensional: list.len(), list }
    }
}

/// A host page in a few words.
struct Words<'a>(&'a HostPage);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = self.0;
        f.write_str(match (page.present, page.swapped) {
            (true, _) => "present",
            (false, true) => "swapped out",
            (false, false) => "not mapped",
        })?;
        if page.huge == Some(true) {
            f.write_str(", large page")?;
        }
        if page.present && !page.exclusive {
            f.write_str(", mapped elsewhere too")?;
        }
        match page.frame {
            Some(frame) => write!(f, ", host frame {frame:#x}"),
            None if page.present => f.write_str(", host frame not shown to this process"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "guest-virtual  {} through the root table at {}", self.address, self.root)?;
        for step in &self.steps {
            let TranslationStep { level, entry_address, entry, flags, host } = step;
            write!(f, "  level {level}  {entry_address:>12}  {:016x}  {flags}", entry.0)?;
            match host {
                Some(page) => writeln!(f, "  (host: {})", Words(page))?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "  {}", self.outcome)?;
        if let Some(Slot { number, first, last, host }) = self.slot {
            writeln!(f, "memory slot    {number}: {first}-{last} at host-virtual {host}")?;
        }
        if let Some(address) = self.host_address {
            write!(f, "host-virtual   {address}")?;
            match &self.host {
                Some(page) => writeln!(f, ": {}", Words(page))?,
                None => writeln!(f)?,
            }
        }
        let References { one_dimensional, two_dimensional, list } = &self.references;
        writeln!(
            f,
            "memory reads   {one_dimensional} through one set of tables, {two_dimensional} through \
             two:"
        )?;
        for group in list.chunk_by(|a, b| a.guest_level == b.guest_level) {
            let [first, ..] = group else { continue };
            let what = match first.guest_level {
                0 => "the page itself".to_owned(),
                level => format!("the guest's entry of level {level}"),
            };
            let nested = group.iter().filter(|reference| reference.second_level > 0).count();
            let own = if group.len() > nested { " + the entry itself" } else { "" };
            writeln!(f, "  {:<29} {nested} at the second level{own}", format!("{what}:"))?;
        }
        Ok(())
    }
}
