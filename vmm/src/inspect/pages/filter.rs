//! Which pages are wanted: by rights, by bits, by cache type, by address.

use pagelab_paging::{EntryFlags, Level};
use serde::{Deserialize, Serialize};

use super::scan::{Range, Run};

/// How accesses to a page are cached, by the two bits of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheType {
    /// Ordinary memory.
    WriteBack,
    /// Writes go through at once.
    WriteThrough,
    /// Not cached, unless the memory's range registers say otherwise.
    UncachedMinus,
    /// Not cached.
    Uncached,
}

impl CacheType {
    /// What the bits of an entry say, as long as the page attribute table is as
    /// it was at reset.
    #[must_use]
    pub const fn of(flags: EntryFlags) -> Self {
        let through = flags.contains(EntryFlags::WRITE_THROUGH);
        match (flags.contains(EntryFlags::NO_CACHE), through) {
            (false, false) => Self::WriteBack,
            (false, true) => Self::WriteThrough,
            (true, false) => Self::UncachedMinus,
            (true, true) => Self::Uncached,
        }
    }
}

/// What a page must be like; `None` and the [`Default`] ask for nothing.
/// `Some(false)` asks for the opposite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// All levels allow writing.
    pub writable: Option<bool>,
    /// All levels allow executing.
    pub executable: Option<bool>,
    /// All levels allow ring 3 (`Some(false)`: supervisor only).
    pub user: Option<bool>,
    /// It was used.
    pub accessed: Option<bool>,
    /// It was written.
    pub dirty: Option<bool>,
    /// It survives a change of CR3.
    pub global: Option<bool>,
    /// It is larger than 4 KiB.
    pub huge: Option<bool>,
    /// The kernel marked it copy-on-write.
    pub copy_on_write: Option<bool>,
    /// It was written since the soft-dirty bits were cleared.
    pub soft_dirty: Option<bool>,
    /// It is the shared zero page.
    pub special: Option<bool>,
    /// How it is cached.
    pub cache: Option<CacheType>,
    /// It holds this virtual address.
    pub has: Option<u64>,
    /// It begins below this virtual address.
    pub before: Option<u64>,
    /// It begins at or above this virtual address.
    pub after: Option<u64>,
    /// It lies in this guest-physical range: first and last byte.
    pub physical: Option<(u64, u64)>,
}

impl Filter {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the bits are as asked for; the same for all pages of a run.
    #[must_use]
    pub fn wants_bits(&self, run: &Run) -> bool {
        let flags = run.entry.flags();
        let has = |flag| flags.contains(flag);
        let is = |wanted: Option<bool>, found: bool| wanted.is_none_or(|wanted| wanted == found);
        is(self.writable, run.rights.writable())
            && is(self.executable, run.rights.executable())
            && is(self.user, run.rights.user())
            && is(self.accessed, has(EntryFlags::ACCESSED))
            && is(self.dirty, has(EntryFlags::DIRTY))
            && is(self.global, has(EntryFlags::GLOBAL))
            && is(self.huge, run.level != Level::One)
            && is(self.copy_on_write, has(EntryFlags::COPY_ON_WRITE))
            && is(self.soft_dirty, has(EntryFlags::SOFT_DIRTY))
            && is(self.special, has(EntryFlags::SPECIAL))
            && self.cache.is_none_or(|wanted| wanted == CacheType::of(flags))
    }

    /// The part of a run that is wanted, as whole pages.
    #[must_use]
    pub fn wanted(&self, run: &Run) -> Option<Run> {
        if !self.wants_bits(run) {
            return None;
        }
        let mut part = *run;
        if let Some(address) = self.has {
            part = part.clip(Range::new(address, 1))?;
        }
        if let Some(before) = self.before {
            part = part.clip(Range { first: 0, last: before.checked_sub(1)? })?;
        }
        if let Some(after) = self.after {
            // A page that begins below is not wanted, though it reaches there.
            let size = part.level.entry_size();
            let first = after.checked_next_multiple_of(size)?;
            part = part.clip(Range { first, last: u64::MAX })?;
        }
        if let Some((first, last)) = self.physical {
            let base = part.physical();
            let end = base.saturating_add(part.bytes() - 1);
            if last < base || end < first || last < first {
                return None;
            }
            let from = part.start + first.saturating_sub(base);
            let to = part.start + (last.min(end) - base);
            part = part.clip(Range { first: from, last: to })?;
        }
        Some(part)
    }
}
