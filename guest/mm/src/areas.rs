//! The areas of an address space, in order of address.
//!
//! A list of leaves with up to `LEAF_AREAS` areas each. Finding an address is
//! two binary searches (or none, if it lies in the area that was found last);
//! each leaf knows its largest gap, so that a search for room passes over it
//! in one step, and over many at once where there are many ([`Gaps`]). Inserting
//! moves at most one leaf's areas.
//!
//! Nothing here fails half-way: whoever will insert up to *n* areas calls
//! [`Areas::reserve`] first.

use alloc::vec::Vec;
use core::cell::Cell;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::directory::{LEAF_STRIDE, LeafRecord};

use crate::area::Area;
use crate::error::OutOfMemory;
use crate::gaps::Gaps;

/// How many areas an address space may have (Linux: `vm.max_map_count`).
pub const MAX_AREAS: usize = 65530;

/// How many areas a leaf holds.
const LEAF_AREAS: usize = 32;

const _: () = {
    assert!(core::mem::offset_of!(Leaf, published) == 0);
    assert!(size_of::<Leaf>() == LEAF_STRIDE);
};

/// The first fields of [`Areas`], in the order of
/// `pagelab_abi::directory::SpaceRecord`.
#[derive(Default)]
#[repr(C)]
struct Published {
    leaves: u64,
    leaf_count: u64,
    area_count: u64,
}

/// Where an area is. Valid until areas are inserted or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    leaf: usize,
    slot: usize,
}

#[repr(C)]
struct Leaf {
    /// Where the host finds the areas.
    published: LeafRecord,
    /// Never empty, in order.
    areas: Vec<Area>,
    /// The largest gap before one of the areas, guard gaps included.
    largest_gap: u64,
}

/// The areas.
#[derive(Default)]
#[repr(C)]
pub struct Areas {
    /// Where the host finds the leaves: see `pagelab_abi::directory`.
    published: Published,
    leaves: Vec<Leaf>,
    /// The largest gaps of many leaves at once.
    gaps: Gaps,
    /// Empty leaves for insertions that must not fail.
    spare: Vec<Vec<Area>>,
    count: usize,
    /// Where the last search ended.
    last: Cell<Option<Place>>,
}

impl Areas {
    /// No areas.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            published: Published { leaves: 0, leaf_count: 0, area_count: 0 },
            leaves: Vec::new(),
            gaps: Gaps::new(),
            spare: Vec::new(),
            count: 0,
            last: Cell::new(None),
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All areas in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Area> {
        self.leaves.iter().flat_map(|leaf| leaf.areas.iter())
    }

    /// The areas that overlap a range, in order.
    pub fn overlapping(&self, start: GuestVirt, end: GuestVirt) -> impl Iterator<Item = &Area> {
        let mut at = self.find(start);
        core::iter::from_fn(move || {
            let place = at?;
            let area = self.get(place);
            if area.start >= end {
                return None;
            }
            at = self.next(place);
            Some(area)
        })
    }

    /// Makes sure that `count` insertions cannot fail.
    ///
    /// # Errors
    ///
    /// If there is no heap left.
    pub fn reserve(&mut self, count: usize) -> Result<(), OutOfMemory> {
        let has_room = |leaf: &Leaf| leaf.areas.len() + count <= LEAF_AREAS;
        let count = match self.leaves.len() {
            0 => 1,
            // Most address spaces are as small as that and need no spare leaf;
            // one that becomes empty in between is kept.
            1..=4 if self.leaves.iter().all(has_room) => 0,
            _ => count,
        };
        self.leaves.try_reserve(count)?;
        self.gaps.reserve(self.leaves.len() + count)?;
        self.publish();
        self.spare.try_reserve(count.max(1))?;
        while self.spare.len() < count {
            let mut leaf = Vec::new();
            leaf.try_reserve_exact(LEAF_AREAS)?;
            self.spare.push(leaf);
        }
        Ok(())
    }

    /// The first area that ends after `address` (Linux: `find_vma`).
    #[inline]
    pub fn find(&self, address: GuestVirt) -> Option<Place> {
        if let Some(last) = self.last.get()
            && self.get(last).contains(address)
        {
            return Some(last);
        }
        let leaf = self.leaves.partition_point(|leaf| end_of(leaf) <= address);
        let areas = &self.leaves.get(leaf)?.areas;
        let place = Place { leaf, slot: areas.partition_point(|area| area.end <= address) };
        self.last.set(Some(place));
        Some(place)
    }

    /// The area that holds `address`.
    #[inline]
    pub fn containing(&self, address: GuestVirt) -> Option<Place> {
        self.lookup(address).map(|(place, _)| place)
    }

    /// The area that holds `address`, and its place. Every fault starts here, most
    /// of them in the area of the last one.
    #[inline(always)]
    pub fn lookup(&self, address: GuestVirt) -> Option<(Place, &Area)> {
        if let Some(last) = self.last.get() {
            let area = self.get(last);
            if area.contains(address) {
                return Some((last, area));
            }
        }
        self.search(address)
    }

    #[inline(never)]
    fn search(&self, address: GuestVirt) -> Option<(Place, &Area)> {
        let place = self.find(address)?;
        let area = self.get(place);
        (area.start <= address).then_some((place, area))
    }

    /// The area at a place.
    #[inline]
    #[must_use]
    pub fn get(&self, place: Place) -> &Area {
        &self.leaves[place.leaf].areas[place.slot]
    }

    /// The place of the first area.
    #[must_use]
    pub fn first(&self) -> Option<Place> {
        (!self.leaves.is_empty()).then_some(Place { leaf: 0, slot: 0 })
    }

    /// The last area.
    #[must_use]
    pub fn last(&self) -> Option<&Area> {
        self.leaves.last()?.areas.last()
    }

    /// The place after this one.
    #[must_use]
    pub fn next(&self, place: Place) -> Option<Place> {
        if place.slot + 1 < self.leaves[place.leaf].areas.len() {
            return Some(Place { slot: place.slot + 1, ..place });
        }
        (place.leaf + 1 < self.leaves.len()).then_some(Place { leaf: place.leaf + 1, slot: 0 })
    }

    /// The place before this one.
    #[must_use]
    pub fn previous(&self, place: Place) -> Option<Place> {
        if place.slot > 0 {
            return Some(Place { slot: place.slot - 1, ..place });
        }
        let leaf = place.leaf.checked_sub(1)?;
        Some(Place { leaf, slot: self.leaves[leaf].areas.len() - 1 })
    }

    /// The last area that starts before `address`.
    pub fn before(&self, address: GuestVirt) -> Option<&Area> {
        let leaf =
            self.leaves.partition_point(|leaf| leaf.areas[0].start < address).checked_sub(1)?;
        let areas = &self.leaves[leaf].areas;
        let slot = areas.partition_point(|area| area.start < address).checked_sub(1)?;
        areas.get(slot)
    }

    /// Changes an area without moving its bounds.
    pub fn change(&mut self, place: Place, change: impl FnOnce(&mut Area)) {
        change(&mut self.leaves[place.leaf].areas[place.slot]);
    }

    /// Changes all areas without moving their bounds.
    pub fn change_all(&mut self, change: impl FnMut(&mut Area)) {
        self.leaves.iter_mut().flat_map(|leaf| leaf.areas.iter_mut()).for_each(change);
    }

    /// Replaces an area by one that lies in its place: between the same
    /// neighbours.
    pub fn replace(&mut self, place: Place, area: Area) {
        self.leaves[place.leaf].areas[place.slot] = area;
        self.measure_from(place.leaf);
    }

    /// Adds an area where there is none. [`Self::reserve`] was called.
    ///
    /// # Panics
    ///
    /// If it was not.
    pub fn insert(&mut self, area: Area) {
        self.last.set(None);
        self.count += 1;
        let leaf = self.leaves.partition_point(|leaf| leaf.areas[0].start <= area.start);
        let Some(leaf) = leaf.checked_sub(1).or((!self.leaves.is_empty()).then_some(0)) else {
            let mut areas = self.take_spare();
            areas.push(area);
            self.leaves.push(Leaf::new(areas));
            self.measure_from(0);
            return self.publish();
        };
        let areas = &mut self.leaves[leaf].areas;
        let slot = areas.partition_point(|other| other.start < area.start);
        if areas.len() < LEAF_AREAS {
            areas.insert(slot, area);
            self.measure_from(leaf);
            return self.publish();
        }
        self.split_for(leaf, slot, area);
    }

    /// Adds an area to a leaf that is full. Many programs add areas in order,
    /// upwards or downwards: what lies behind the new one is then not touched
    /// again, and its leaf stays as full as it is.
    fn split_for(&mut self, leaf: usize, slot: usize, area: Area) {
        const HALF: usize = LEAF_AREAS / 2;
        let next = self.leaves.get_mut(leaf + 1);
        if let Some(next) = next.filter(|next| slot == LEAF_AREAS && next.areas.len() < LEAF_AREAS)
        {
            next.areas.insert(0, area);
            self.measure_from(leaf + 1);
            return self.publish();
        }
        let mut upper = self.take_spare();
        let lower = &mut self.leaves[leaf].areas;
        if slot <= HALF {
            upper.extend(lower.drain(slot..));
            lower.push(area);
        } else {
            let at = if slot == LEAF_AREAS { slot } else { HALF };
            upper.extend(lower.drain(at..));
            upper.insert(slot - at, area);
        }
        self.leaves.insert(leaf + 1, Leaf::new(upper));
        self.recount_gaps(leaf + 1);
        self.measure_from(leaf);
        self.measure_from(leaf + 1);
        self.publish();
    }

    /// Takes an area out.
    pub fn remove(&mut self, place: Place) -> Area {
        self.last.set(None);
        self.count -= 1;
        let area = self.leaves[place.leaf].areas.remove(place.slot);
        if self.leaves[place.leaf].areas.is_empty() {
            let leaf = self.leaves.remove(place.leaf);
            self.recount_gaps(place.leaf);
            self.keep_spare(leaf.areas);
        } else {
            self.join_with_next(place.leaf);
        }
        if place.leaf < self.leaves.len() {
            self.measure_from(place.leaf);
        }
        self.publish();
        area
    }

    /// Makes one leaf of two that hold little. Places up to this leaf stay valid.
    fn join_with_next(&mut self, leaf: usize) {
        let Some(next) = self.leaves.get(leaf + 1) else { return };
        if self.leaves[leaf].areas.len() + next.areas.len() <= LEAF_AREAS / 2 {
            let mut next = self.leaves.remove(leaf + 1);
            self.recount_gaps(leaf + 1);
            self.leaves[leaf].areas.append(&mut next.areas);
            self.keep_spare(next.areas);
        }
    }

    fn keep_spare(&mut self, leaf: Vec<Area>) {
        if self.spare.len() < self.spare.capacity() {
            self.spare.push(leaf);
        }
    }

    /// The highest start of `length` free bytes between `low` and `high`, with the
    /// guard gaps of areas that grow down kept free as Linux does it: where the
    /// highest room reaches into one, the search goes on below that guard gap,
    /// and passes over whatever room lies beside it.
    #[must_use]
    pub fn highest_gap(&self, length: u64, low: GuestVirt, high: GuestVirt) -> Option<GuestVirt> {
        let mut high = high.0;
        let fits = |from: u64, to: u64| to >= from && to - from >= length;
        let from = self.last().map_or(0, |area| area.end.0).max(low.0);
        if fits(from, high) {
            return Some(GuestVirt(high - length));
        }
        let has_one = |leaf: usize| self.leaves[leaf].largest_gap >= length;
        let mut end = self.leaves.len();
        while let Some(index) = self.gaps.last(end, length, has_one) {
            end = index;
            for slot in (0..self.leaves[index].areas.len()).rev() {
                let place = Place { leaf: index, slot };
                let from = self.end_before(place);
                let above = self.get(place);
                if fits(from.max(low.0), above.start.0.min(high)) {
                    high = above.guarded_start().0.min(high);
                    if fits(from.max(low.0), high) {
                        return Some(GuestVirt(high - length));
                    }
                }
                if from < low.0 {
                    return None;
                }
            }
        }
        None
    }

    /// The lowest start of `length` free bytes between `low` and `high`, with the
    /// guard gaps of areas that grow down kept free.
    #[must_use]
    pub fn lowest_gap(&self, length: u64, low: GuestVirt, high: GuestVirt) -> Option<GuestVirt> {
        let fits = |from: u64, to: u64| {
            let (from, to) = (from.max(low.0), to.min(high.0));
            (to >= from && to - from >= length).then_some(GuestVirt(from))
        };
        let has_one = |leaf: usize| self.leaves[leaf].largest_gap >= length;
        let mut start = 0;
        while let Some(index) = self.gaps.first(start..self.leaves.len(), length, has_one) {
            start = index + 1;
            for slot in 0..self.leaves[index].areas.len() {
                let place = Place { leaf: index, slot };
                let (from, to) = (self.end_before(place), self.get(place).guarded_start().0);
                if let Some(found) = fits(from, to) {
                    return Some(found);
                }
            }
        }
        fits(self.last().map_or(0, |area| area.end.0), high.0)
    }

    /// A new set with what `copy` makes of each area, between the same bounds or
    /// nothing.
    ///
    /// # Errors
    ///
    /// If there is no heap left.
    pub fn try_map(
        &self,
        mut copy: impl FnMut(&Area) -> Option<Area>,
    ) -> Result<Self, OutOfMemory> {
        let mut new = Self::new();
        new.leaves.try_reserve(self.leaves.len())?;
        new.gaps.reserve(self.leaves.len())?;
        for leaf in &self.leaves {
            let mut areas = Vec::new();
            areas.try_reserve_exact(LEAF_AREAS)?;
            areas.extend(leaf.areas.iter().filter_map(&mut copy));
            if !areas.is_empty() {
                new.count += areas.len();
                new.leaves.push(Leaf::new(areas));
            }
        }
        (0..new.leaves.len()).for_each(|leaf| new.measure(leaf));
        new.recount_gaps(0);
        new.publish();
        Ok(new)
    }

    fn take_spare(&mut self) -> Vec<Area> {
        assert!(!self.spare.is_empty(), "areas inserted without reserving");
        self.spare.pop().unwrap_or_default()
    }

    /// Says where the leaves are; called whenever that or their number changed.
    fn publish(&mut self) {
        self.published = Published {
            leaves: self.leaves.as_ptr() as u64,
            leaf_count: self.leaves.len() as u64,
            area_count: self.count as u64,
        };
    }

    fn end_before(&self, place: Place) -> u64 {
        self.previous(place).map_or(0, |previous| self.get(previous).end.0)
    }

    /// Brings up to date the gaps of a leaf, and of the next one, whose first
    /// gap begins where this one ends.
    fn measure_from(&mut self, leaf: usize) {
        self.measure(leaf);
        if leaf + 1 < self.leaves.len() {
            self.measure(leaf + 1);
        }
    }

    fn measure(&mut self, index: usize) {
        let mut end = index.checked_sub(1).map_or(0, |before| end_of(&self.leaves[before]).0);
        let leaf = &mut self.leaves[index];
        let mut largest = 0;
        for area in &leaf.areas {
            largest = largest.max(area.start.0 - end);
            end = area.end.0;
        }
        let before = core::mem::replace(&mut leaf.largest_gap, largest);
        leaf.published =
            LeafRecord { areas: leaf.areas.as_ptr() as u64, count: leaf.areas.len() as u64 };
        let leaves = &self.leaves;
        self.gaps.changed(index, before, largest, leaves.len(), |leaf| leaves[leaf].largest_gap);
        self.publish();
    }

    /// After leaves came, went or moved, `from` being the first of them.
    fn recount_gaps(&mut self, from: usize) {
        let leaves = &self.leaves;
        self.gaps.recount(from, leaves.len(), |leaf| leaves[leaf].largest_gap);
    }
}

impl Leaf {
    /// One that is measured next.
    const fn new(areas: Vec<Area>) -> Self {
        Self { published: LeafRecord { areas: 0, count: 0 }, areas, largest_gap: 0 }
    }
}

fn end_of(leaf: &Leaf) -> GuestVirt {
    leaf.areas.last().map_or(GuestVirt(0), |area| area.end)
}
