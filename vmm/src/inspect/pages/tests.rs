//! Trees that are known entry by entry, trees that make no sense, and any memory
//! at all as page tables.

use std::collections::BTreeMap;

use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_abi::event::{EVENT_FAULT, Event};
use pagelab_abi::fault::FaultKind;
use pagelab_paging::entry::ADDRESS_MASK;
use pagelab_paging::walk::{Outcome, walk};
use pagelab_paging::{Entry, EntryFlags, Level};
use proptest::prelude::*;

use super::diff::ChangeKind;
use super::search::Place;
use super::*;
use crate::inspect::testing::{OPEN, ROOT, Words};
use crate::inspect::value::{Hex, Rights};

const PRESENT: EntryFlags = EntryFlags::PRESENT;
const DATA: EntryFlags = EntryFlags::PRESENT
    .union(EntryFlags::WRITABLE)
    .union(EntryFlags::USER)
    .union(EntryFlags::NO_EXECUTE);
const CODE: EntryFlags = EntryFlags::PRESENT.union(EntryFlags::USER);
fn dumped(memory: &Words, shape: Shape, filter: Filter) -> Dump {
    dump(memory, ROOT, &DumpRequest { shape, filter, ..DumpRequest::default() })
}

/// A tree with everything: runs, holes, rights, large pages, both halves.
fn known() -> Words {
    let mut memory = Words::new(64);
    for page in 0..3 {
        memory.map(0x40_0000 + page * 0x1000, 0x1_0000 + page * 0x1000, Level::One, CODE);
    }
    // The same frame again, and one with other bits behind it.
    memory.map(0x40_3000, 0x1_0000, Level::One, CODE);
    memory.map(0x40_4000, 0x1_1000, Level::One, DATA | EntryFlags::DIRTY);
    memory.map(0x8000_0000, 0x4000_0000, Level::Three, DATA);
    memory.map(0xffff_8000_0020_0000, 0x20_0000, Level::Two, PRESENT | EntryFlags::GLOBAL);
    memory.map(0xffff_8000_0040_0000, 0x40_0000, Level::Two, PRESENT | EntryFlags::GLOBAL);
    memory.map(0xffff_ffff_ffff_f000, 0x1_2000, Level::One, PRESENT);
    memory
}

#[test]
fn a_known_tree_is_shown_entry_by_entry() {
    let text = dumped(&known(), Shape::Tree, Filter::default()).to_string();
    let expected = "\
root table 0x1000
4[000]         0000000000000000-0000007fffffffff   512G PWU---------- urwx table 0x2000
 3[000]        0000000000000000-000000003fffffff     1G PWU---------- urwx table 0x3000
  2[002]       0000000000400000-00000000005fffff     2M PWU---------- urwx table 0x4000
   1[000-002]  0000000000400000-0000000000402fff    12K P-U---------- ur-x -> 0x10000-0x12fff
   1[003]      0000000000403000-0000000000403fff     4K P-U---------- ur-x -> 0x10000-0x10fff
   1[004]      0000000000404000-0000000000404fff     4K PWU---D-----N urw- -> 0x11000-0x11fff
 3[002]        0000000080000000-00000000bfffffff     1G PWU----H----N urw- -> \
0x40000000-0x7fffffff (1 GiB pages), not memory
4[100]         ffff800000000000-ffff807fffffffff   512G PWU---------- urwx table 0x5000
 3[000]        ffff800000000000-ffff80003fffffff     1G PWU---------- urwx table 0x6000
  2[001-002]   ffff800000200000-ffff8000005fffff     4M P------HG---- sr-x -> \
0x200000-0x5fffff (2 MiB pages), not memory
4[1ff]         ffffff8000000000-ffffffffffffffff   512G PWU---------- urwx table 0x7000
 3[1ff]        ffffffffc0000000-ffffffffffffffff     1G PWU---------- urwx table 0x8000
  2[1ff]       ffffffffffe00000-ffffffffffffffff     2M PWU---------- urwx table 0x9000
   1[1ff]      fffffffffffff000-ffffffffffffffff     4K P------------ sr-x -> 0x12000-0x12fff
6 pages of 4 KiB, 2 of 2 MiB, 1 of 1 GiB; 9 tables, 4608 entries read
";
    let shown = text.rsplit_once("P present").unwrap().0;
    assert_eq!(shown, expected, "\n{shown}");
}

#[test]
fn every_entry_is_a_row_of_its_own_if_wanted() {
    let memory = known();
    let dump = dumped(&memory, Shape::Entries, Filter::default());
    assert_eq!(dump.rows.len(), 9);
    for row in &dump.rows {
        let Outcome::Mapped { physical, level, rights } =
            walk(&memory, ROOT, GuestVirt(row.first.0)).outcome
        else {
            panic!("{row:?} is not mapped");
        };
        assert_eq!(
            (Hex(physical.0), level as u8, Rights(rights)),
            (row.physical, row.level, row.rights)
        );
        assert_eq!(memory.get(row.entry_address.0), row.entry.0);
    }
    assert_eq!(dump.pages.bytes(), (6 << 12) + (2 << 21) + (1 << 30));
    let json = serde_json::to_value(&dump).unwrap();
    assert_eq!(json["rows"][0]["first"], "0x400000");
    assert_eq!(json["rows"][0]["rights"], "ur-x");
    let csv = dump.csv();
    assert_eq!(csv.lines().count(), 10);
    assert!(
        csv.contains("page,1,0x4000,0,1,0x400000,0x400fff,0x10005,0x10000,P-U----------,ur-x,true")
    );
}

#[test]
fn equal_rights_are_joined_whatever_the_frames() {
    let dump = dumped(&known(), Shape::Rights, Filter::default());
    let ranges: Vec<_> =
        dump.rows.iter().map(|row| (row.first.0, row.last.0, row.rights.to_string())).collect();
    assert_eq!(
        ranges,
        [
            (0x40_0000, 0x40_3fff, "ur-x".to_owned()),
            (0x40_4000, 0x40_4fff, "urw-".to_owned()),
            (0x8000_0000, 0xbfff_ffff, "urw-".to_owned()),
            (0xffff_8000_0020_0000, 0xffff_8000_005f_ffff, "sr-x".to_owned()),
            (0xffff_ffff_ffff_f000, u64::MAX, "sr-x".to_owned()),
        ]
    );
}

#[test]
fn runs_are_joined_across_tables() {
    let mut memory = Words::new(2048);
    for page in 0..1024 {
        memory.map(0x1f_0000 + page * 0x1000, 0x10_0000 + page * 0x1000, Level::One, DATA);
    }
    let dump = dumped(&memory, Shape::Runs, Filter::default());
    assert_eq!(dump.rows.len(), 1);
    assert_eq!((dump.rows[0].entries, dump.rows[0].bytes()), (1024, 4 << 20));
    assert_eq!(dump.cost.tables, 6, "a root, two above, and three with pages");
}

#[test]
fn a_graph_has_a_node_for_each_row() {
    let dump = dumped(&known(), Shape::Tree, Filter::default());
    let dot = dump.dot();
    assert_eq!(dot.matches(" -> ").count(), dump.rows.len());
    assert!(dot.contains("t1000 -> t2000 [label=\"0\"]"));
    assert!(dot.starts_with("digraph pages {") && dot.ends_with("}\n"));
}

#[test]
fn filters_choose_pages() {
    let memory = known();
    let count = |filter| dumped(&memory, Shape::Entries, filter).rows.len();
    let none = Filter::default;
    assert_eq!(count(Filter { writable: Some(true), ..none() }), 2);
    assert_eq!(count(Filter { writable: Some(false), ..none() }), 7);
    assert_eq!(count(Filter { executable: Some(true), user: Some(true), ..none() }), 4);
    assert_eq!(count(Filter { user: Some(false), ..none() }), 3);
    assert_eq!(count(Filter { huge: Some(true), ..none() }), 3);
    assert_eq!(count(Filter { dirty: Some(true), ..none() }), 1);
    assert_eq!(count(Filter { accessed: Some(true), ..none() }), 0);
    assert_eq!(count(Filter { global: Some(true), ..none() }), 2);
    assert_eq!(count(Filter { cache: Some(CacheType::WriteBack), ..none() }), 9);
    assert_eq!(count(Filter { cache: Some(CacheType::Uncached), ..none() }), 0);
    assert_eq!(count(Filter { has: Some(0x8123_4567), ..none() }), 1);
    assert_eq!(count(Filter { before: Some(0x40_2000), ..none() }), 2);
    assert_eq!(count(Filter { after: Some(0x40_4000), before: Some(1 << 47), ..none() }), 2);
    assert_eq!(count(Filter { physical: Some((0x1_0000, 0x1_0fff)), ..none() }), 2);
    // A tree shows only the tables that lead to what is wanted.
    let tree = dumped(&memory, Shape::Tree, Filter { dirty: Some(true), ..none() });
    let rows: Vec<_> = tree.rows.iter().map(|row| (row.level, row.kind)).collect();
    use RowKind::{Page, Table};
    assert_eq!(rows, [(4, Table), (3, Table), (2, Table), (1, Page)]);
}

#[test]
fn ranges_and_limits_cut() {
    let memory = known();
    let ranges = vec![Range::new(0x40_1000, 0x2000), Range::KERNEL];
    let request = DumpRequest { shape: Shape::Entries, ranges, ..DumpRequest::default() };
    let part = dump(&memory, ROOT, &request);
    let first: Vec<_> = part.rows.iter().map(|row| row.first.0).collect();
    let high = [0xffff_8000_0020_0000, 0xffff_8000_0040_0000, 0xffff_ffff_ffff_f000];
    assert_eq!(first[..2], [0x40_1000, 0x40_2000]);
    assert_eq!(first[2..], high);
    let cut = dump(&memory, ROOT, &DumpRequest { limit: 2, ..request });
    assert!(cut.truncated && cut.rows.len() == 2);
}

#[test]
fn what_makes_no_sense_is_said_and_not_followed() {
    let mut memory = known();
    let open = OPEN.bits();
    // The root itself, a table seen already, and one outside memory.
    memory.set(0x1000 + 8, 0x1000 | open);
    memory.set(0x2000 + 8 * 9, 0x4000 | open);
    memory.set(0x2000 + 8 * 10, 0x2000 | open);
    memory.set(0x1000 + 16, 0xf_ffff_f000 | open);
    // Reserved: HUGE at level 4, and an address that no 2 MiB page has.
    memory.set(0x1000 + 24, 0x2000 | open | EntryFlags::HUGE.bits());
    memory.set(0x3000 + 8 * 7, 0x4000 | open | EntryFlags::HUGE.bits());
    let dump = dumped(&memory, Shape::Entries, Filter::default());
    assert_eq!(dump.rows.len(), 9, "the good ones are all there");
    let found: Vec<_> = dump
        .problems
        .iter()
        .map(|problem| (problem.kind, problem.level, problem.address.0))
        .collect();
    assert_eq!(
        found,
        [
            (ProblemKind::ReservedBits, 2, 7 << 21),
            (ProblemKind::SharedTable { first_seen: Hex(0x40_0000) }, 3, 9 << 30),
            (ProblemKind::Loop, 3, 10 << 30),
            (ProblemKind::Loop, 4, 1 << 39),
            (ProblemKind::OutsideMemory, 4, 2 << 39),
            (ProblemKind::ReservedBits, 4, 3 << 39),
        ]
    );
    assert_eq!(dump.cost.tables, 9);
    assert!(dump.to_string().contains("a loop, not followed"));
}

#[test]
fn a_root_outside_memory_is_a_problem() {
    let dump = dump(&Words::new(4), GuestPhys(0x7000_0000), &DumpRequest::default());
    assert_eq!(dump.problems.len(), 1);
    assert_eq!((dump.problems[0].level, dump.problems[0].kind), (5, ProblemKind::OutsideMemory));
}

#[test]
fn a_bomb_of_shared_tables_is_defused() {
    let mut memory = Words::new(8);
    for (table, below) in [(1_u64, 2), (2, 3), (3, 4), (4, 5)] {
        for index in 0..512 {
            memory.set(table * 0x1000 + index * 8, below << 12 | OPEN.bits());
        }
    }
    let dump = dumped(&memory, Shape::Tree, Filter::default());
    assert_eq!(dump.cost.tables, 4);
    assert_eq!(dump.problems.len() as u64 + dump.problems_left_out, 3 * 511);
}

#[test]
fn entries_that_are_not_present_show_if_wanted() {
    let mut memory = known();
    memory.set(0x4000 + 8 * 5, 0x1234_5678 << 12);
    let request = DumpRequest { shape: Shape::Runs, absent: true, ..DumpRequest::default() };
    let dump = dump(&memory, ROOT, &request);
    let absent: Vec<_> = dump.rows.iter().filter(|row| row.kind == RowKind::Absent).collect();
    assert_eq!(absent.len(), 1);
    assert_eq!((absent[0].first.0, absent[0].entry.0), (0x40_5000, 0x1234_5678 << 12));
}

#[test]
fn aliases_are_all_addresses_of_a_frame() {
    let mut memory = known();
    memory.map(0xffff_9000_0000_0000, 0, Level::Two, DATA);
    let found = aliases(&memory, ROOT, GuestPhys(0x1_0abc), Range::ALL);
    let addresses: Vec<_> = found.iter().map(|alias| alias.address.0).collect();
    assert_eq!(addresses, [0x40_0000, 0x40_3000, 0xffff_9000_0001_0000]);
    assert_eq!(found[2].level, 2);
    let user = aliases(&memory, ROOT, GuestPhys(0x1_0abc), Range::USER);
    assert_eq!(user.len(), 2);
}

fn looking_for(pattern: Pattern) -> SearchRequest {
    SearchRequest {
        pattern,
        alignment: 1,
        range: Range::ALL,
        filter: Filter::default(),
        limit: usize::MAX,
    }
}

#[test]
fn bytes_are_found_across_pages_that_follow_each_other() {
    let mut memory = Words::new(64);
    // Two pages in this order only in the address space.
    memory.map(0x40_0000, 0x2_1000, Level::One, DATA);
    memory.map(0x40_1000, 0x2_0000, Level::One, DATA);
    memory.put(0x2_1ffd, b"nee");
    memory.put(0x2_0000, b"dle needle");
    let request = looking_for(Pattern::bytes(b"needle").unwrap());
    let found = search(&memory, ROOT, &request);
    let place = |address, physical| Place { address: Some(Hex(address)), physical: Hex(physical) };
    assert_eq!(found.places, [place(0x40_0ffd, 0x2_1ffd), place(0x40_1004, 0x2_0004)]);
    assert_eq!(found.bytes, 0x2000);
    // Physically the first one is in two pieces that do not follow each other.
    let physical = search_physical(&memory, [(GuestPhys(0), 64 * 4096)], &request);
    assert_eq!(physical.places, [Place { address: None, physical: Hex(0x2_0004) }]);
    let limited = search(&memory, ROOT, &SearchRequest { limit: 1, ..request.clone() });
    assert!(limited.truncated && limited.places.len() == 1);
    let readable = Filter { writable: Some(false), ..Filter::default() };
    assert!(
        search(&memory, ROOT, &SearchRequest { filter: readable, ..request }).places.is_empty()
    );
}

#[test]
fn numbers_are_found_where_they_are_aligned() {
    let mut memory = Words::new(64);
    memory.map(0x40_0000, 0x2_0000, Level::One, DATA);
    memory.put(0x2_0003, &0x1234_5678_u32.to_le_bytes());
    memory.put(0x2_0007, &[1]);
    memory.put(0x2_0010, &0x1234_5678_u64.to_le_bytes());
    let request = looking_for(Pattern::four_bytes(0x1234_5678));
    assert_eq!(search(&memory, ROOT, &request).places.len(), 2);
    let aligned = SearchRequest { alignment: 4, ..request };
    assert_eq!(search(&memory, ROOT, &aligned).places.len(), 1);
    let eight = looking_for(Pattern::eight_bytes(0x1234_5678));
    assert_eq!(search(&memory, ROOT, &eight).places.len(), 1);
    assert!(Pattern::bytes(b"").is_err() && Pattern::bytes(&[0; 4097]).is_err());
}

#[test]
fn differences_name_each_entry_and_its_fault() {
    let mut memory = known();
    let before = Snapshot::take(&memory, ROOT, Range::ALL);
    assert_eq!(before.tables(), 9);
    assert_eq!(diff(&before, &before, 10), Difference::default());
    // A copy, a page that became writable, one that came, one that went, and a
    // page in a table that is new.
    let copied = memory.map(0x40_0000, 0x1_5000, Level::One, DATA);
    memory.map(0x40_1000, 0x1_1000, Level::One, CODE | EntryFlags::WRITABLE);
    memory.map(0x40_7000, 0x1_6000, Level::One, DATA);
    memory.map(0x40_4000, 0, Level::One, EntryFlags::empty());
    memory.map(0x7fff_0000_0000, 0x1_7000, Level::One, DATA);
    let after = Snapshot::take(&memory, ROOT, Range::ALL);
    let mut difference = diff(&before, &after, usize::MAX);
    let fault = |address, kind: FaultKind, frame_after, sequence| Event {
        class: EVENT_FAULT,
        kind: kind as u8,
        pid: 7,
        address,
        frame_after,
        sequence,
        ..Event::default()
    };
    let events = [
        fault(0x40_0123, FaultKind::DemandZero, 0x10, 1),
        fault(0x40_0456, FaultKind::CowCopy, 0x15, 2),
        fault(0x40_7000, FaultKind::DemandZero, 0x99, 3),
        Event { pid: 8, ..fault(0x7fff_0000_0000, FaultKind::DemandZero, 0x17, 4) },
    ];
    difference.attribute(7, &events);
    let changes: Vec<_> = difference
        .changes
        .iter()
        .map(|change| (change.level, change.address.0, change.kind, change.cause.map(|c| c.event)))
        .collect();
    assert_eq!(
        changes,
        [
            (4, 0x7f80_0000_0000, ChangeKind::Mapped, None),
            (1, 0x40_0000, ChangeKind::Replaced, Some(2)),
            (1, 0x40_1000, ChangeKind::Bits, None),
            (1, 0x40_4000, ChangeKind::Unmapped, None),
            (1, 0x40_7000, ChangeKind::Mapped, None),
            (3, 0x7fff_0000_0000 & !((1 << 30) - 1), ChangeKind::Mapped, None),
            (2, 0x7fff_0000_0000, ChangeKind::Mapped, None),
            (1, 0x7fff_0000_0000, ChangeKind::Mapped, None),
        ]
    );
    assert_eq!(difference.changes[1].entry_address.0, copied);
    assert_eq!((difference.tables_made, difference.tables_freed), (3, 0));
    let text = difference.to_string();
    assert!(text.contains("by cow_copy of process 7 at 0x400456"), "{text}");
    assert!(text.contains("+writable"), "{text}");
    let back = diff(&after, &before, 2);
    assert!(back.truncated && back.changes.len() == 2);
}

/// Pages of a random tree: what is mapped where.
fn mappings() -> impl Strategy<Value = Vec<(u64, u64, Level, u64)>> {
    let address = (
        prop::sample::select(vec![0_u64, 1, 255, 256, 511]),
        prop::sample::select(vec![0_u64, 1, 511]),
        prop::sample::select(vec![0_u64, 1, 2, 511]),
        0..512_u64,
    );
    let level =
        prop::sample::select(vec![Level::One, Level::One, Level::One, Level::Two, Level::Three]);
    let one =
        (address, 0..64_u64, level, any::<u64>()).prop_map(|((a, b, c, d), frame, level, bits)| {
            let address = a << 39 | b << 30 | c << 21 | d << 12;
            let high = if a >= 256 { 0xffff << 48 } else { 0 };
            let address = (address | high) & !(level.entry_size() - 1);
            (address, frame << level.shift(), level, bits)
        });
    prop::collection::vec(one, 1..60)
}

proptest! {
    #[test]
    fn a_dump_is_what_was_mapped_and_what_a_walk_finds(pages in mappings()) {
        let mut memory = Words::new(256);
        let mut model = BTreeMap::new();
        for (address, physical, level, bits) in pages {
            let end = address.wrapping_add(level.entry_size() - 1);
            // Pages of different sizes must not lie in one another.
            let overlaps = |(&start, &(level, _)): (&u64, &(Level, Entry))| {
                let level: Level = level;
                start <= end && address <= start.wrapping_add(level.entry_size() - 1)
            };
            if model.iter().any(overlaps) {
                continue;
            }
            let flags = (EntryFlags::from_bits_truncate(bits) - EntryFlags::HUGE) | PRESENT;
            let slot = memory.map(address, physical, level, flags);
            model.insert(address, (level, Entry(memory.get(slot))));
        }
        let entries = dumped(&memory, Shape::Entries, Filter::default());
        prop_assert_eq!(entries.rows.len(), model.len());
        prop_assert!(entries.problems.is_empty());
        for (row, (&address, &(level, entry))) in entries.rows.iter().zip(&model) {
            prop_assert_eq!((row.first.0, row.level, row.entry.0), (address, level as u8, entry.0));
        }
        check_against_walks(&memory, &entries)?;
        // Every other shape is about the same bytes.
        for shape in [Shape::Tree, Shape::Runs, Shape::Rights] {
            let dump = dumped(&memory, shape, Filter::default());
            let pages = dump.rows.iter().filter(|row| row.kind == RowKind::Page);
            let bytes: u128 = pages.map(|row| u128::from(row.bytes())).sum();
            prop_assert_eq!(bytes, u128::from(entries.pages.bytes()));
            prop_assert_eq!(dump.pages, entries.pages);
        }
    }

    #[test]
    fn filters_by_address_agree_with_every_entry(
        pages in mappings(),
        a in any::<u64>(),
        physical in (0..256_u64 << 12, 0..64_u64 << 12),
    ) {
        let mut memory = Words::new(256);
        for (address, physical, level, _) in pages.iter().filter(|page| page.2 == Level::One) {
            memory.map(*address, *physical, *level, DATA);
        }
        let pick = pages.first().map_or(0, |page| page.0 ^ a & 0x1_ffff);
        let all = dumped(&memory, Shape::Entries, Filter::default()).rows;
        let with = |filter| dumped(&memory, Shape::Entries, filter).rows;
        let wanted = |wanted: &dyn Fn(&Row) -> bool| -> Vec<Row> {
            all.iter().filter(|row| wanted(row)).copied().collect()
        };
        let none = Filter::default;
        let has = wanted(&|row| row.first.0 <= pick && pick <= row.last.0);
        prop_assert_eq!(with(Filter { has: Some(pick), ..none() }), has);
        let before = wanted(&|row| row.first.0 < pick);
        prop_assert_eq!(with(Filter { before: Some(pick), ..none() }), before);
        let after = wanted(&|row| row.first.0 >= pick);
        prop_assert_eq!(with(Filter { after: Some(pick), ..none() }), after);
        let (first, last) = (physical.0, physical.0 + physical.1);
        let inside = wanted(&|row| row.physical.0 <= last && first <= row.physical.0 + 0xfff);
        prop_assert_eq!(with(Filter { physical: Some((first, last)), ..none() }), inside);
        let part = Range { first: pick, last: pick.saturating_add(0x1_0000) };
        let request = DumpRequest {
            shape: Shape::Entries,
            ranges: vec![part],
            ..DumpRequest::default()
        };
        let ranged = wanted(&|row| row.first.0 <= part.last && part.first <= row.last.0);
        prop_assert_eq!(dump(&memory, ROOT, &request).rows, ranged);
    }

    #[test]
    fn any_memory_is_a_tree_that_ends(
        words in prop::collection::vec((0..24 * 512_usize, 0..26_u64, any::<u64>()), 0..400),
        addresses in prop::collection::vec(any::<u64>(), 50),
    ) {
        let mut memory = Words::new(24);
        for (index, frame, bits) in words {
            // Mostly inside memory, sometimes just behind it, sometimes anything.
            let address = if bits & 0xf00 == 0 { bits } else { frame << 12 };
            memory.words[index] = address & ADDRESS_MASK | bits & !ADDRESS_MASK | 1;
        }
        let entries = dumped(&memory, Shape::Entries, Filter::default());
        prop_assert!(entries.cost.tables <= 24);
        check_against_walks(&memory, &entries)?;
        for address in addresses {
            // Low bits of indexes, so that something is there.
            let address = GuestVirt(address & 0xff80_7fc0_1fff_ffff);
            check_address(&memory, &entries, address)?;
        }
        for shape in [Shape::Tree, Shape::Runs, Shape::Rights] {
            let dump = dumped(&memory, shape, Filter::default());
            prop_assert_eq!(&dump.problems, &entries.problems);
            let _ = (dump.to_string(), dump.csv(), dump.dot());
        }
        let snapshot = Snapshot::take(&memory, ROOT, Range::ALL);
        prop_assert_eq!(diff(&snapshot, &snapshot, 10), Difference::default());
    }
}

/// Every row is what a walk to its first and last address finds.
fn check_against_walks(memory: &Words, dump: &Dump) -> Result<(), TestCaseError> {
    for row in &dump.rows {
        for (address, offset) in [(row.first.0, 0), (row.last.0, row.bytes() - 1)] {
            let found = walk(memory, ROOT, GuestVirt(address)).outcome;
            let Outcome::Mapped { physical, level, rights } = found else {
                return Err(TestCaseError::fail(format!("{row:?}: a walk finds {found:?}")));
            };
            prop_assert_eq!(physical.0, row.physical.0 + offset);
            prop_assert_eq!((level as u8, Rights(rights)), (row.level, row.rights));
        }
    }
    Ok(())
}

/// What a walk finds is in the dump, or lies where the dump reports a problem.
fn check_address(memory: &Words, dump: &Dump, address: GuestVirt) -> Result<(), TestCaseError> {
    let is_mapped = walk(memory, ROOT, address).physical().is_some();
    let shown = dump.rows.iter().any(|row| row.first.0 <= address.0 && address.0 <= row.last.0);
    let excused = dump.problems.iter().any(|problem| {
        let shift = 12 + 9 * (u32::from(problem.level) - 1);
        shift >= 48 || (problem.address.0 ^ address.0) & ((1 << 48) - 1) >> shift << shift == 0
    });
    prop_assert!(shown == is_mapped || (is_mapped && excused), "{address:?}");
    Ok(())
}
