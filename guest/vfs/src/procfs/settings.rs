//! The numbers below `/proc/sys`.

use core::ops::RangeInclusive;

/// A number that can be read and perhaps changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Setting {
    /// 0 heuristic, 1 always, 2 never more than the limit.
    OvercommitMemory,
    /// Percentage of memory that counts for the limit.
    OvercommitRatio,
    /// Writing 1 drops clean pages, 2 unused names, 3 both.
    DropCaches,
    /// Most areas of a process.
    MaxMapCount,
    /// Lowest address that can be mapped.
    MmapMinAddress,
    /// How readily anonymous memory is swapped out.
    Swappiness,
    /// 0: programs find their memory at the same addresses on every run.
    RandomizeAddresses,
    /// One more than the highest process number.
    PidMax,
    /// Most threads.
    ThreadsMax,
    /// Most groups of a process.
    GroupsMax,
    /// Most open files.
    FileMax,
    /// Most descriptors of a process.
    OpenMax,
    /// Largest capacity of a pipe.
    PipeMaxSize,
    /// What makes reports about the kernel doubtful, a bit each.
    Tainted,
}

/// Where a setting is found and what it can be.
pub(super) struct Place {
    pub(super) setting: Setting,
    pub(super) directory: Directory,
    pub(super) name: &'static [u8],
    /// What may be written; `None`: nothing.
    pub(super) range: Option<RangeInclusive<u64>>,
}

/// A directory below `/proc/sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Directory {
    Vm,
    Kernel,
    Fs,
}

impl Directory {
    pub(super) const ALL: [(Self, &'static [u8]); 3] =
        [(Self::Fs, b"fs"), (Self::Kernel, b"kernel"), (Self::Vm, b"vm")];
}

const fn place(
    setting: Setting,
    directory: Directory,
    name: &'static [u8],
    range: Option<RangeInclusive<u64>>,
) -> Place {
    Place { setting, directory, name, range }
}

/// All settings.
pub(super) static PLACES: [Place; 14] = [
    place(Setting::OvercommitMemory, Directory::Vm, b"overcommit_memory", Some(0..=2)),
    place(Setting::OvercommitRatio, Directory::Vm, b"overcommit_ratio", Some(0..=i32::MAX as u64)),
    place(Setting::DropCaches, Directory::Vm, b"drop_caches", Some(1..=4)),
    place(Setting::MaxMapCount, Directory::Vm, b"max_map_count", Some(0..=i32::MAX as u64)),
    place(Setting::MmapMinAddress, Directory::Vm, b"mmap_min_addr", Some(0..=1 << 47)),
    place(Setting::Swappiness, Directory::Vm, b"swappiness", Some(0..=200)),
    place(Setting::RandomizeAddresses, Directory::Kernel, b"randomize_va_space", Some(0..=2)),
    place(Setting::PidMax, Directory::Kernel, b"pid_max", None),
    place(Setting::ThreadsMax, Directory::Kernel, b"threads-max", None),
    place(Setting::GroupsMax, Directory::Kernel, b"ngroups_max", None),
    place(Setting::FileMax, Directory::Fs, b"file-max", None),
    place(Setting::OpenMax, Directory::Fs, b"nr_open", None),
    place(Setting::PipeMaxSize, Directory::Fs, b"pipe-max-size", None),
    place(Setting::Tainted, Directory::Kernel, b"tainted", None),
];

impl Setting {
    pub(super) fn place(self) -> &'static Place {
        // The table is in the order of the numbers: checked by a test.
        &PLACES[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::PLACES;

    #[test]
    fn the_table_is_in_order() {
        for (index, place) in PLACES.iter().enumerate() {
            assert_eq!(place.setting as usize, index);
            assert_eq!(place.setting.place().name, place.name);
        }
    }
}
