//! Maps, smaps and pagemap, as the tester shows them.

use std::fmt::Write as _;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_mm::{Area, AreaFlags, Protection, Use};
use pagelab_paging::EntryFlags;

use crate::process::{Host, Process};
use crate::windows::PAGE_STEP;

/// The line of an area in maps, cut to what a window shows of it.
fn area_line(process: &Process, area: &Area) -> Option<String> {
    let (start, end) = process.windows.clip(area.start.0, area.end.0)?;
    let letter = |bit, letter| if area.protection.contains(bit) { letter } else { '-' };
    Some(format!(
        "    {} {} {}{}{}{}\n",
        process.windows.name(start),
        process.windows.name(end),
        letter(Protection::READ, 'r'),
        letter(Protection::WRITE, 'w'),
        letter(Protection::EXECUTE, 'x'),
        if area.is_private() { 'p' } else { 's' },
    ))
}

pub(crate) fn maps(process: &Process, text: &mut String) {
    text.push('\n');
    text.extend(process.space.areas().filter_map(|area| area_line(process, area)));
}

/// Pages of an area by what smaps counts them as, in bytes; the shares are
/// Linux's fixed-point numbers.
#[derive(Default)]
struct Counts {
    resident: u64,
    shares: u64,
    /// Shared, then private ones; each clean, then dirty.
    kinds: [[u64; 2]; 2],
    anonymous: u64,
}

/// Bits behind the point of [`Counts::shares`].
const SHARE_SHIFT: u32 = 12;

impl Counts {
    fn of(host: &Host, process: &Process, area: &Area) -> Self {
        let mut counts = Self::default();
        let root = process.space.root();
        for page in (area.start.0..area.end.0).step_by(PAGE_STEP) {
            let Some((_, _, entry)) = host.memory.machine.walk(root, GuestVirt(page)) else {
                continue;
            };
            if entry.has(EntryFlags::SPECIAL) {
                continue;
            }
            let owners = u64::from(host.memory.frames.count(entry.frame()));
            let private = usize::from(owners == 1);
            let dirty = usize::from(entry.has(EntryFlags::DIRTY));
            counts.resident += PAGE_SIZE;
            counts.shares += (PAGE_SIZE << SHARE_SHIFT) / owners.max(1);
            counts.kinds[private][dirty] += PAGE_SIZE;
            if host.memory.frames.use_of(entry.frame()) == Use::Anonymous {
                counts.anonymous += PAGE_SIZE;
            }
        }
        counts
    }
}

/// The two-letter names of an area's flags, in Linux's order.
fn flag_names(area: &Area) -> String {
    let has = |flag| area.flags.contains(flag);
    let may = |bit| area.protection.contains(bit);
    let shared = !area.is_private();
    let names = [
        (may(Protection::READ), "rd"),
        (may(Protection::WRITE), "wr"),
        (may(Protection::EXECUTE), "ex"),
        (shared, "sh"),
        (true, "mr mw me"),
        (shared, "ms"),
        (has(AreaFlags::GROWS_DOWN), "gd"),
        (has(AreaFlags::LOCKED), "lo"),
        (has(AreaFlags::SEQUENTIAL), "sr"),
        (has(AreaFlags::RANDOM), "rr"),
        (has(AreaFlags::DONT_FORK), "dc"),
        (has(AreaFlags::LOCK_ON_FAULT), "lf"),
        (has(AreaFlags::ACCOUNTED), "ac"),
        (has(AreaFlags::NO_RESERVE), "nr"),
        (has(AreaFlags::WIPE_ON_FORK), "wf"),
        (has(AreaFlags::DONT_DUMP), "dd"),
        (has(AreaFlags::NO_HUGE_PAGE), "nh"),
    ];
    names.into_iter().filter(|name| name.0).map(|name| name.1).collect::<Vec<_>>().join(" ")
}

pub(crate) fn smaps(host: &Host, process: &Process, text: &mut String) {
    text.push('\n');
    for area in process.space.areas() {
        let Some(line) = area_line(process, area) else { continue };
        let counts = Counts::of(host, process, area);
        let private = [
            ("Rss", counts.resident),
            ("Pss", counts.shares >> SHARE_SHIFT),
            ("Shared_Clean", counts.kinds[0][0]),
            ("Shared_Dirty", counts.kinds[0][1]),
            ("Private_Clean", counts.kinds[1][0]),
            ("Private_Dirty", counts.kinds[1][1]),
            ("Anonymous", counts.anonymous),
        ];
        let shown = if area.is_private() { &private[..] } else { &[] };
        text.push_str(&line);
        for (name, bytes) in [("Size", area.size())].iter().chain(shown) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "     {name}: {} kB", bytes / 1024);
        }
        let _ = writeln!(text, "     VmFlags: {}", flag_names(area));
    }
}

pub(crate) fn pagemap(host: &Host, process: &Process, text: &mut String) {
    let root = process.space.root();
    let exclusive = |frame| {
        host.memory.frames.use_of(frame) == Use::Anonymous && host.memory.frames.count(frame) == 1
    };
    text.push('\n');
    for (name, pages) in process.windows.pages() {
        let states: String = pages
            .map(|(page, inexact)| match host.memory.machine.walk(root, page) {
                _ if inexact => '?',
                None => '.',
                Some((_, _, entry)) if entry.has(EntryFlags::SPECIAL) => '2',
                Some((_, _, entry)) if exclusive(entry.frame()) => '1',
                Some(_) => '2',
            })
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {name} {}", states.trim_end_matches('.'));
    }
}
