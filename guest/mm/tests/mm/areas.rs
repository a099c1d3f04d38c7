//! The ordered set of areas, against a sorted list.

use pagelab_abi::addr::GuestVirt;
use pagelab_mm::area::STACK_GUARD_PAGES;
use pagelab_mm::areas::Areas;
use pagelab_mm::{Area, AreaFlags, Backing, Protection};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::lab::PAGE;

/// Slots of this many pages; an area takes the first few of its slot.
const SLOT: u64 = 1024;

fn area(slot: u64, pages: u64, grows: bool) -> Area {
    let start = GuestVirt((slot + 1) * SLOT * PAGE);
    let mut flags = AreaFlags::empty();
    flags.set(AreaFlags::GROWS_DOWN, grows);
    Area {
        start,
        end: GuestVirt(start.0 + pages * PAGE),
        offset: 0,
        backing: Backing::Anonymous,
        family: 0,
        protection: Protection::READ,
        flags,
    }
}

/// The gaps between areas, guard gaps left out, cut to `low` and `high`.
fn gaps(list: &[Area], low: u64, high: u64) -> Vec<(u64, u64)> {
    let mut from = 0;
    let mut all = Vec::new();
    for area in list {
        let guard = if area.flags.contains(AreaFlags::GROWS_DOWN) { STACK_GUARD_PAGES } else { 0 };
        all.push((from, area.start.0.saturating_sub(guard * PAGE)));
        from = area.end.0;
    }
    all.push((from, u64::MAX));
    all.into_iter().map(|(from, to)| (from.max(low), to.min(high))).collect()
}

/// Linux's search from above: guard gaps are left out, but one that room was
/// found in lowers the limit.
fn highest(list: &[Area], length: u64, low: GuestVirt, high: GuestVirt) -> Option<GuestVirt> {
    let mut high = high.0;
    loop {
        let bounds = |index: usize| {
            let from = index.checked_sub(1).map_or(0, |before| list[before].end.0);
            let to = list.get(index).map_or(u64::MAX, |above| above.start.0);
            (from.max(low.0), to.min(high))
        };
        let index = (0..=list.len()).rev().find(|&index| {
            let (from, to) = bounds(index);
            to >= from && to - from >= length
        })?;
        let to = bounds(index).1;
        match list.get(index).map(Area::guarded_start) {
            Some(guard) if guard.0 < to => high = guard.0,
            _ => return Some(GuestVirt(to - length)),
        }
    }
}

#[test]
fn room_beside_a_guard_gap_is_passed_over() {
    let at = |page: u64, pages: u64, grows| {
        let mut new = area(0, pages, grows);
        (new.start, new.end) = (GuestVirt(page * PAGE), GuestVirt((page + pages) * PAGE));
        new
    };
    let mut areas = Areas::new();
    areas.reserve(3).unwrap();
    // Free: 0..1000, 1010..1100, 1101..1200.
    areas.insert(at(1000, 10, false));
    areas.insert(at(1100, 1, false));
    areas.insert(at(1200, 5, true));
    let highest = |pages| areas.highest_gap(pages * PAGE, GuestVirt(PAGE), GuestVirt(1205 * PAGE));
    assert_eq!(highest(99), Some(GuestVirt((1200 - STACK_GUARD_PAGES - 99) * PAGE)));
    assert_eq!(
        highest(100),
        Some(GuestVirt(900 * PAGE)),
        "no room above reached into the guard gap"
    );
}

/// The numbers below `count` in an order that looks random.
fn shuffled(count: u64) -> Vec<u64> {
    // Any number that has no factor in common with `count` visits all of them.
    assert!(!count.is_multiple_of(7919));
    (0..count).map(|number| number * 7919 % count).collect()
}

/// Enough areas for several runs of leaves, in the orders that programs have.
#[test]
fn thousands_of_areas() {
    const COUNT: u64 = 6000;
    let orders = [(0..COUNT).collect(), (0..COUNT).rev().collect(), shuffled(COUNT)];
    for order in orders {
        let mut areas = Areas::new();
        let mut list: Vec<Option<Area>> = vec![None; COUNT as usize];
        let check = |areas: &Areas, list: &[Option<Area>]| {
            let list: Vec<Area> = list.iter().flatten().copied().collect();
            assert!(areas.iter().eq(&list));
            let (low, high) = (GuestVirt(PAGE), GuestVirt((COUNT + 2) * SLOT * PAGE));
            for pages in [1, SLOT / 2, SLOT, 2 * SLOT, 40 * SLOT, 1000 * SLOT] {
                let length = pages * PAGE;
                let free = |&(from, to): &(u64, u64)| to >= from && to - from >= length;
                let first = gaps(&list, low.0, high.0).into_iter().find(free);
                assert_eq!(areas.lowest_gap(length, low, high), first.map(|gap| GuestVirt(gap.0)));
                let found = areas.highest_gap(length, low, high);
                assert_eq!(found, highest(&list, length, low, high));
            }
        };
        for (step, &slot) in order.iter().enumerate() {
            // Gaps of all lengths: not every slot has an area that fills it.
            let new = area(slot, SLOT - slot % 700, slot % 50 == 3);
            areas.reserve(1).unwrap();
            areas.insert(new);
            list[slot as usize] = Some(new);
            if step % 1500 == 0 {
                check(&areas, &list);
            }
        }
        assert!(areas.try_map(|area| Some(*area)).unwrap().iter().eq(areas.iter()));
        for (step, &slot) in order.iter().enumerate() {
            let place = areas.containing(list[slot as usize].unwrap().start).unwrap();
            assert_eq!(Some(areas.remove(place)), list[slot as usize].take());
            if step % 1500 == 0 {
                check(&areas, &list);
            }
        }
        assert!(areas.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn areas_are_found_and_gaps_too(
        steps in vec((0..400u64, 1..SLOT, any::<bool>(), prop::bool::weighted(0.6)), 1..600),
        length in 1..3 * SLOT,
        window in (0..200u64, 200..420u64),
    ) {
        let mut areas = Areas::new();
        let mut list: Vec<Area> = Vec::new();
        for (slot, pages, grows, insert) in steps {
            let new = area(slot, pages, grows);
            let found = areas.containing(new.start);
            prop_assert_eq!(found.is_some(), list.iter().any(|old| old.start == new.start));
            match found {
                None if insert => {
                    areas.reserve(1).unwrap();
                    areas.insert(new);
                    list.push(new);
                }
                Some(place) if insert => {
                    areas.replace(place, new);
                    list.retain(|old| old.start != new.start);
                    list.push(new);
                }
                Some(place) => {
                    let old = areas.remove(place);
                    list.retain(|other| *other != old);
                }
                None => {}
            }
            list.sort_by_key(|area| area.start);
        }
        prop_assert_eq!(areas.len(), list.len());
        prop_assert!(areas.iter().eq(list.iter()));
        prop_assert_eq!(areas.last(), list.last());
        for slot in 0..402 {
            let at = GuestVirt(slot * SLOT * PAGE + SLOT / 2 * PAGE);
            let first = list.iter().find(|area| area.end > at);
            prop_assert_eq!(areas.find(at).map(|place| areas.get(place)), first);
            prop_assert_eq!(areas.before(at), list.iter().rfind(|area| area.start < at));
        }
        let (low, high) = (window.0 * SLOT * PAGE, window.1 * SLOT * PAGE);
        let length = length * PAGE;
        let fitting: Vec<_> = gaps(&list, low, high)
            .into_iter()
            .filter(|&(from, to)| to >= from && to - from >= length)
            .collect();
        let (low, high) = (GuestVirt(low), GuestVirt(high));
        prop_assert_eq!(areas.highest_gap(length, low, high), highest(&list, length, low, high));
        let lowest = fitting.first().map(|gap| GuestVirt(gap.0));
        prop_assert_eq!(areas.lowest_gap(length, low, high), lowest);
    }
}
