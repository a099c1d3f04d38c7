//! Arbitrary memory as page tables.
//!
//! A scan ends and reads no table twice; what it says of a page is what a walk of
//! that page's address says; searches and aliases find what is there; nothing
//! differs from itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pagelab::inspect::pages::{
    DumpRequest, Filter, Pattern, Range, RowKind, SearchRequest, Shape, Snapshot, aliases, diff,
    dump, search,
};
use pagelab::inspect::walk::show;
use pagelab::inspect::{AddressSpace, PhysicalMemory};
use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_fuzz::{Input, Memory, PAGES};

/// Rows that are looked at.
const ROWS: usize = 60;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut memory = Memory::default();
    let root = GuestPhys(input.word());
    let range = match input.byte() % 3 {
        0 => Range::ALL,
        1 => Range::USER,
        _ => Range::new(input.word(), input.word()),
    };
    let physical = GuestPhys(input.word());
    let address = GuestVirt(input.word());
    let words = usize::from(input.byte());
    let question = input.byte() % 8;
    memory.fill(&mut input, words);
    let space = AddressSpace { memory: &memory, root };
    // One question an input: each costs as much as all the rest.
    match question {
        0 => dump_agrees_with_walks(&memory, root, range, Shape::Tree),
        1 => dump_agrees_with_walks(&memory, root, range, Shape::Runs),
        2 => dump_agrees_with_walks(&memory, root, range, Shape::Rights),
        3 | 4 => dump_agrees_with_walks(&memory, root, range, Shape::Entries),
        5 => {
            for alias in aliases(&memory, root, physical, range).iter().take(ROWS) {
                let found = space.walk(GuestVirt(alias.address.0)).physical().expect("a page");
                assert_eq!(found.0 & !0xfff, physical.0 & !0xfff);
            }
        }
        6 => searches_find_what_is_there(&memory, root, range, physical.0),
        _ => {
            let before = Snapshot::take(&memory, root, range);
            assert!(diff(&before, &before, ROWS).changes.is_empty());
            let mut later = memory.clone();
            later.fill(&mut input, 64);
            let after = Snapshot::take(&later, root, range);
            let _ = diff(&before, &after, ROWS).to_string();
        }
    }
    let _ = show(&space, address).conclusion();
});

fn dump_agrees_with_walks(memory: &Memory, root: GuestPhys, range: Range, shape: Shape) {
    let space = AddressSpace { memory, root };
    let request = DumpRequest {
        shape,
        ranges: vec![range],
        absent: true,
        limit: ROWS,
        ..DumpRequest::default()
    };
    let found = dump(memory, root, &request);
    assert!(found.cost.tables <= PAGES, "no table is read twice: {:?}", found.cost);
    let _ = (found.to_string(), found.csv(), found.dot());
    if shape == Shape::Rights {
        return;
    }
    for row in found.rows.iter().filter(|row| row.kind == RowKind::Page) {
        let walked = space.walk(GuestVirt(row.first.0)).physical();
        assert_eq!(walked.expect("a walk finds the page too").0, row.physical.0);
    }
}

fn searches_find_what_is_there(memory: &Memory, root: GuestPhys, range: Range, value: u64) {
    let request = SearchRequest {
        pattern: Pattern::eight_bytes(value),
        alignment: 1,
        range,
        filter: Filter { huge: Some(false), ..Filter::default() },
        limit: 20,
    };
    // A page of zeros is full of them, and there may be thousands of such pages.
    if value == 0 {
        return;
    }
    let found = search(memory, root, &request);
    for place in &found.places {
        let mut first = [0];
        assert!(memory.read_physical(GuestPhys(place.physical.0), &mut first));
        assert_eq!(first[0], value.to_le_bytes()[0]);
    }
    let _ = found.to_string();
}
