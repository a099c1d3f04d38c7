//! A process's areas as `/proc/PID/maps` and its relatives show them.

use alloc::vec::Vec;

use pagelab_abi::addr::PAGE_SIZE;
use pagelab_mm::stats::AreaStats;
use pagelab_mm::{AddressSpace, Area, AreaFlags, Backing, ObjectKind, Protection};
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::procfs::{Area as Shown, AreaFlags as Flags, AreaUsage};

use crate::files::cache;
use crate::memory::memory;
use crate::process::Process;

/// What a mapped object is called.
struct Named {
    device: DeviceNumber,
    inode: u64,
    name: Vec<u8>,
}

/// Calls `show` with each area of a process that ends above `from`, as it is and
/// as it is shown, until it says no.
pub fn each(
    process: &Process,
    from: u64,
    mut show: impl FnMut(&AddressSpace, &Area, &Shown<'_>) -> bool,
) {
    let space = process.space();
    let space = space.lock();
    for area in space.areas().skip_while(|area| area.end.0 <= from) {
        let named = named(&space, area);
        let mapped = !area.is_anonymous();
        let shown = Shown {
            start: area.start.0,
            end: area.end.0,
            flags: flags(area),
            offset: if mapped { area.offset * PAGE_SIZE } else { 0 },
            device: named.device,
            inode: named.inode,
            name: &named.name,
        };
        if !show(&space, area, &shown) {
            return;
        }
    }
}

fn named(space: &AddressSpace, area: &Area) -> Named {
    let anonymous = |name: &[u8]| Named { device: DeviceNumber(0), inode: 0, name: name.to_vec() };
    let Backing::Object(object) = area.backing else {
        let (heap_start, heap_end) = space.heap();
        return if area.flags.contains(AreaFlags::STACK) {
            anonymous(b"[stack]")
        } else if area.start < heap_end && area.end > heap_start {
            anonymous(b"[heap]")
        } else {
            anonymous(b"")
        };
    };
    if memory().objects.kind(object) == ObjectKind::SharedMemory {
        // Linux backs it by a file without a name.
        return Named {
            device: DeviceNumber::new(0, 1),
            inode: object.number().into(),
            name: b"/dev/zero (deleted)".to_vec(),
        };
    }
    match cache().mapped_name(object) {
        Some(mapped) => Named { device: mapped.device, inode: mapped.inode, name: mapped.shown() },
        None => anonymous(b""),
    }
}

fn flags(area: &Area) -> Flags {
    let mut flags = Flags::MAY_READ | Flags::MAY_EXECUTE;
    for (bit, flag) in [
        (Protection::READ, Flags::READ),
        (Protection::WRITE, Flags::WRITE),
        (Protection::EXECUTE, Flags::EXECUTE),
    ] {
        flags.set(flag, area.protection.contains(bit));
    }
    for (bit, flag) in [
        (AreaFlags::MAY_WRITE, Flags::MAY_WRITE),
        (AreaFlags::SHARED, Flags::MAY_SHARE),
        (AreaFlags::SHARED.union(AreaFlags::MAY_WRITE), Flags::SHARED),
        (AreaFlags::GROWS_DOWN, Flags::GROWS_DOWN),
        (AreaFlags::LOCKED, Flags::LOCKED),
        (AreaFlags::LOCK_ON_FAULT, Flags::LOCK_ON_FAULT),
        (AreaFlags::SEQUENTIAL, Flags::SEQUENTIAL),
        (AreaFlags::RANDOM, Flags::RANDOM),
        (AreaFlags::DONT_FORK, Flags::DONT_COPY),
        (AreaFlags::ACCOUNTED, Flags::ACCOUNTED),
        (AreaFlags::NO_RESERVE, Flags::NO_RESERVE),
        (AreaFlags::WIPE_ON_FORK, Flags::WIPE_ON_FORK),
        (AreaFlags::DONT_DUMP, Flags::DONT_DUMP),
        (AreaFlags::SOFT_DIRTY, Flags::SOFT_DIRTY),
        (AreaFlags::HUGE_PAGE, Flags::HUGE_PAGES),
        (AreaFlags::NO_HUGE_PAGE, Flags::NO_HUGE_PAGES),
    ] {
        flags.set(flag, area.flags.contains(bit));
    }
    flags
}

/// The numbers of an area for `smaps`.
pub fn usage(stats: &AreaStats) -> AreaUsage {
    AreaUsage {
        resident: stats.resident,
        proportional: stats.proportional,
        proportional_dirty: stats.proportional_dirty,
        proportional_anonymous: stats.proportional_anonymous,
        proportional_file: stats.proportional_file,
        proportional_shared_memory: stats.proportional_shared_memory,
        shared_clean: stats.shared_clean,
        shared_dirty: stats.shared_dirty,
        private_clean: stats.private_clean,
        private_dirty: stats.private_dirty,
        referenced: stats.referenced,
        anonymous: stats.anonymous,
        lazily_freed: stats.lazily_freed,
        swap: stats.swapped,
        proportional_swap: stats.proportional_swapped,
        proportional_locked: stats.proportional_locked,
        ..AreaUsage::default()
    }
}
