//! `maps`, `smaps`, `smaps_rollup`.

use alloc::vec::Vec;

use super::data::{Area, AreaFlags, AreaUsage};
use crate::store::PAGE_SIZE;
use crate::text::{push_decimal, push_hex, push_padded};

/// Column at which the name stands.
const NAME_COLUMN: usize = 73;

/// Shift of the proportional numbers.
const PROPORTIONAL_SHIFT: u32 = 12;

/// The letters of `VmFlags`, by the number of the bit.
const FLAG_NAMES: [(AreaFlags, &[u8; 3]); 28] = [
    (AreaFlags::READ, b"rd "),
    (AreaFlags::WRITE, b"wr "),
    (AreaFlags::EXECUTE, b"ex "),
    (AreaFlags::SHARED, b"sh "),
    (AreaFlags::MAY_READ, b"mr "),
    (AreaFlags::MAY_WRITE, b"mw "),
    (AreaFlags::MAY_EXECUTE, b"me "),
    (AreaFlags::MAY_SHARE, b"ms "),
    (AreaFlags::GROWS_DOWN, b"gd "),
    (AreaFlags::FRAMES, b"pf "),
    (AreaFlags::LOCKED, b"lo "),
    (AreaFlags::IO, b"io "),
    (AreaFlags::SEQUENTIAL, b"sr "),
    (AreaFlags::RANDOM, b"rr "),
    (AreaFlags::DONT_COPY, b"dc "),
    (AreaFlags::DONT_EXPAND, b"de "),
    (AreaFlags::LOCK_ON_FAULT, b"lf "),
    (AreaFlags::ACCOUNTED, b"ac "),
    (AreaFlags::NO_RESERVE, b"nr "),
    (AreaFlags::HUGETLB, b"ht "),
    (AreaFlags::SYNCHRONOUS, b"sf "),
    (AreaFlags::WIPE_ON_FORK, b"wf "),
    (AreaFlags::DONT_DUMP, b"dd "),
    (AreaFlags::SOFT_DIRTY, b"sd "),
    (AreaFlags::MIXED, b"mm "),
    (AreaFlags::HUGE_PAGES, b"hg "),
    (AreaFlags::NO_HUGE_PAGES, b"nh "),
    (AreaFlags::MERGEABLE, b"mg "),
];

/// Appends the line of an area in `maps`.
pub fn write_area(out: &mut Vec<u8>, area: &Area<'_>) {
    let flags = area.flags;
    let letter = |flag, letter, other| if flags.contains(flag) { letter } else { other };
    let rights = [
        b' ',
        letter(AreaFlags::READ, b'r', b'-'),
        letter(AreaFlags::WRITE, b'w', b'-'),
        letter(AreaFlags::EXECUTE, b'x', b'-'),
        letter(AreaFlags::MAY_SHARE, b's', b'p'),
        b' ',
    ];
    write_line(out, area, rights);
}

fn write_line(out: &mut Vec<u8>, area: &Area<'_>, rights: [u8; 6]) {
    let start = out.len();
    push_hex(out, area.start, 8);
    out.push(b'-');
    push_hex(out, area.end, 8);
    out.extend_from_slice(&rights);
    push_hex(out, area.offset, 8);
    out.push(b' ');
    push_hex(out, area.device.major().into(), 2);
    out.push(b':');
    push_hex(out, area.device.minor().into(), 2);
    out.push(b' ');
    push_decimal(out, area.inode);
    out.push(b' ');
    if !area.name.is_empty() {
        let column = out.len() - start;
        out.resize(start + column.max(NAME_COLUMN - 1), b' ');
        out.push(b' ');
        for piece in area.name.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(line) => {
                    out.extend_from_slice(line);
                    out.extend_from_slice(b"\\012");
                }
                None => out.extend_from_slice(piece),
            }
        }
    }
    out.push(b'\n');
}

/// Appends a line such as `Rss:                   4 kB`.
fn line(out: &mut Vec<u8>, label: &[u8; 16], bytes: u64) {
    out.extend_from_slice(label);
    push_padded(out, bytes >> 10, 8, b' ');
    out.extend_from_slice(b" kB\n");
}

/// Appends what `smaps` says about an area.
pub fn write_area_usage(out: &mut Vec<u8>, area: &Area<'_>, usage: &AreaUsage) {
    write_area(out, area);
    line(out, b"Size:           ", area.end - area.start);
    line(out, b"KernelPageSize: ", PAGE_SIZE);
    line(out, b"MMUPageSize:    ", PAGE_SIZE);
    write_usage(out, usage, false);
    out.extend_from_slice(b"THPeligible:    ");
    push_padded(out, usage.huge_eligible.into(), 8, b' ');
    out.extend_from_slice(b"\nVmFlags: ");
    for (flag, name) in FLAG_NAMES {
        if area.flags.intersects(flag) {
            out.extend_from_slice(name);
        }
    }
    out.push(b'\n');
}

/// Appends `smaps_rollup`: the sum of all areas from `start` to `end`.
pub fn write_rollup(out: &mut Vec<u8>, start: u64, end: u64, sum: &AreaUsage) {
    let area = Area {
        start,
        end,
        flags: AreaFlags::empty(),
        offset: 0,
        device: crate::inode::DeviceNumber(0),
        inode: 0,
        name: b"[rollup]",
    };
    write_line(out, &area, *b" ---p ");
    write_usage(out, sum, true);
}

fn write_usage(out: &mut Vec<u8>, usage: &AreaUsage, rollup: bool) {
    line(out, b"Rss:            ", usage.resident);
    line(out, b"Pss:            ", usage.proportional >> PROPORTIONAL_SHIFT);
    line(out, b"Pss_Dirty:      ", usage.proportional_dirty >> PROPORTIONAL_SHIFT);
    if rollup {
        line(out, b"Pss_Anon:       ", usage.proportional_anonymous >> PROPORTIONAL_SHIFT);
        line(out, b"Pss_File:       ", usage.proportional_file >> PROPORTIONAL_SHIFT);
        line(out, b"Pss_Shmem:      ", usage.proportional_shared_memory >> PROPORTIONAL_SHIFT);
    }
    line(out, b"Shared_Clean:   ", usage.shared_clean);
    line(out, b"Shared_Dirty:   ", usage.shared_dirty);
    line(out, b"Private_Clean:  ", usage.private_clean);
    line(out, b"Private_Dirty:  ", usage.private_dirty);
    line(out, b"Referenced:     ", usage.referenced);
    line(out, b"Anonymous:      ", usage.anonymous);
    line(out, b"KSM:            ", 0);
    line(out, b"LazyFree:       ", usage.lazily_freed);
    line(out, b"AnonHugePages:  ", usage.huge);
    line(out, b"ShmemPmdMapped: ", 0);
    line(out, b"FilePmdMapped:  ", 0);
    line(out, b"Shared_Hugetlb: ", 0);
    line(out, b"Private_Hugetlb:", 0);
    line(out, b"Swap:           ", usage.swap);
    line(out, b"SwapPss:        ", usage.proportional_swap >> PROPORTIONAL_SHIFT);
    line(out, b"Locked:         ", usage.proportional_locked >> PROPORTIONAL_SHIFT);
}
