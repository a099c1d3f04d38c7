//! The reverse map: who maps a frame.
//!
//! Nothing is kept per mapping, so faults pay one word per frame
//! ([`crate::owner`]). A frame's reference count says how many mappers there
//! are; a search ends when all are found, mostly at the first look:
//!
//! * anonymous: the page where it was mapped first, in each address space. The
//!   rest (shared by fork, then moved by one side) is found through its area:
//!   its number in the area ([`Area::index_of`]) never changes.
//! * of an object: each area that maps that page of the object, beginning with
//!   the one that the last search ended in, as neighbours are often asked for
//!   one after the other.
//!
//! Exact as long as the address spaces do not change meanwhile. One that is
//! being made (exec, fork) is not among them: then fewer mappers are found than
//! the count says, and the caller leaves the frame alone.

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SHIFT};
use pagelab_paging::{Entry, Level};

use crate::area::{Area, AreaFlags, Backing};
use crate::live::{self, Edits};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::object::ObjectId;
use crate::owner::Owner;
use crate::space::AddressSpace;
use crate::table::{self, Span};

/// All address spaces, each once. None may be locked by the caller.
pub trait Spaces {
    /// How many there are.
    fn count(&self) -> usize;

    /// Calls `visit` with one of them.
    fn with(&self, number: usize, visit: &mut dyn FnMut(&mut AddressSpace));
}

/// An entry that maps a frame.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// The page that shows the frame.
    pub page: GuestVirt,
    /// The entry.
    pub entry: Entry,
    /// Flags of the area that the page is in.
    pub flags: AreaFlags,
    slot: (Frame, usize),
}

/// What is called with each mapping. It may change the entry, but no areas.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&mut AddressSpace, &Mapping);

/// A frame whose mappers are searched.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) frame: Frame,
    pub(crate) owner: Owner,
    /// How many there are.
    pub(crate) mappers: u32,
}

/// Searches, one after the other; each begins where the last one found something.
pub(crate) struct Search<'a, M, S: ?Sized> {
    memory: &'a Memory<M>,
    spaces: &'a S,
    last_space: usize,
    /// The page that was found last.
    last_page: GuestVirt,
    /// Its number in the object.
    last_index: u64,
}

impl<M: Machine> Memory<M> {
    /// Calls `visit` with each mapping of a frame, and its address space. Returns
    /// how many there are: all, unless an address space is being made or the kernel
    /// itself holds the frame.
    pub fn for_each_mapping<S: Spaces + ?Sized>(
        &self,
        spaces: &S,
        frame: Frame,
        mut visit: impl FnMut(&mut AddressSpace, &Mapping),
    ) -> u32 {
        let wanted = {
            let held = self.frames.hold();
            let usage = held.use_of(frame);
            Wanted::new(frame, Owner::decode(usage, held.owner(frame)), held.count(frame))
        };
        Search::new(self, spaces).for_each(&wanted, &mut visit)
    }
}

impl Wanted {
    /// A frame with this word and so many owners, one of which may be an object.
    pub(crate) const fn new(frame: Frame, owner: Owner, count: u32) -> Self {
        let mappers = match owner {
            Owner::Anonymous { slot: None, .. } => count,
            Owner::Anonymous { .. } | Owner::Page { .. } => count.saturating_sub(1),
            Owner::Unknown => 0,
        };
        Self { frame, owner, mappers }
    }
}

impl<'a, M: Machine, S: Spaces + ?Sized> Search<'a, M, S> {
    pub(crate) const fn new(memory: &'a Memory<M>, spaces: &'a S) -> Self {
        Self { memory, spaces, last_space: 0, last_page: GuestVirt(0), last_index: 0 }
    }

    /// Calls `visit` with each mapping; returns how many were found.
    pub(crate) fn for_each(&mut self, wanted: &Wanted, visit: Visit<'_>) -> u32 {
        if wanted.mappers == 0 {
            return 0;
        }
        match wanted.owner {
            Owner::Unknown => 0,
            Owner::Anonymous { page, .. } => self.anonymous(wanted, page, visit),
            Owner::Page { object, index } => self.of_object(wanted, object, index, visit),
        }
    }

    fn anonymous(&mut self, wanted: &Wanted, page: GuestVirt, visit: Visit<'_>) -> u32 {
        let (machine, spaces, frame) = (&self.memory.machine, self.spaces, wanted.frame);
        let count = spaces.count();
        let first = self.last_space;
        let mut found = 0;
        for step in 0..count {
            let number = (first + step) % count;
            let before = found;
            spaces.with(number, &mut |space| {
                let Some((slot, entry)) = shows(machine, space, page, frame) else { return };
                let Some((_, area)) = space.areas.lookup(page) else { return };
                let flags = area.flags;
                found += 1;
                visit(space, &Mapping { page, entry, flags, slot });
            });
            if found > before {
                self.last_space = number;
            }
            if found == wanted.mappers {
                return found;
            }
        }
        found + self.moved(wanted, page, (found > 0).then_some(self.last_space), visit)
    }

    /// The mappings of an anonymous frame other than at `page`. If some address
    /// space maps it there, its area says which page of what it is, and that has
    /// not changed where it was moved; else it may be anywhere.
    #[cold]
    fn moved(
        &self,
        wanted: &Wanted,
        page: GuestVirt,
        known: Option<usize>,
        visit: Visit<'_>,
    ) -> u32 {
        let (machine, spaces) = (&self.memory.machine, self.spaces);
        let mut place = None;
        if let Some(number) = known {
            spaces.with(number, &mut |space| {
                place = space.area_at(page).map(|area| (area.backing, area.index_of(page)));
            });
        }
        let mut found = 0;
        for number in 0..spaces.count() {
            spaces.with(number, &mut |space| {
                found += moved_in(machine, space, (page, place), wanted.frame, visit);
            });
        }
        found
    }

    fn of_object(
        &mut self,
        wanted: &Wanted,
        object: ObjectId,
        index: u64,
        visit: Visit<'_>,
    ) -> u32 {
        let (machine, spaces) = (&self.memory.machine, self.spaces);
        let mut found = 0;
        // Next to the last one.
        let distance = index.wrapping_sub(self.last_index) << PAGE_SHIFT;
        let near = GuestVirt(self.last_page.0.wrapping_add(distance));
        let near_space = self.last_space;
        if near_space < spaces.count() {
            spaces.with(near_space, &mut |space| {
                let Some((_, area)) = space.areas.lookup(near) else { return };
                let flags = area.flags;
                if area.backing == Backing::Object(object)
                    && area.index_of(near) == index
                    && let Some((slot, entry)) = shows(machine, space, near, wanted.frame)
                {
                    found += 1;
                    visit(space, &Mapping { page: near, entry, flags, slot });
                }
            });
        }
        for number in 0..spaces.count() {
            if found == wanted.mappers {
                break;
            }
            let mut last_page = None;
            spaces.with(number, &mut |space| {
                let mut next = space.areas.first();
                while let Some(place) = next {
                    let area = *space.areas.get(place);
                    next = space.areas.next(place);
                    let Some(page) = page_of(&area, Backing::Object(object), index) else {
                        continue;
                    };
                    if (number, page) != (near_space, near)
                        && visit_at(machine, space, (page, area), wanted.frame, visit) > 0
                    {
                        found += 1;
                        last_page = Some(page);
                    }
                }
            });
            if let Some(page) = last_page {
                (self.last_space, self.last_page, self.last_index) = (number, page, index);
            }
        }
        found
    }
}

/// Entries that show pages of an object in a row.
pub(crate) struct Shown {
    /// Where they are.
    pub(crate) span: Span,
    /// Which page the first of them shows, counted from the first that is searched.
    pub(crate) place: usize,
    /// Flags of the area.
    pub(crate) flags: AreaFlags,
}

impl<M: Machine, S: Spaces + ?Sized> Search<'_, M, S> {
    /// Calls `visit` with all entries that may show one of `count` pages of an
    /// object from number `index` on, until it returns `false`. It may change the
    /// entries through the [`Edits`].
    pub(crate) fn for_each_of_run(
        &self,
        (object, index): (ObjectId, u64),
        count: u64,
        visit: &mut dyn FnMut(&mut AddressSpace, &mut Edits<'_, M>, &Shown) -> bool,
    ) {
        let (machine, spaces) = (&self.memory.machine, self.spaces);
        let mut goes_on = true;
        for number in 0..spaces.count() {
            spaces.with(number, &mut |space| {
                let mut next = space.areas.first();
                while let Some(place) = next.filter(|_| goes_on) {
                    let area = *space.areas.get(place);
                    next = space.areas.next(place);
                    if area.backing != Backing::Object(object) {
                        continue;
                    }
                    let from = index.max(area.offset);
                    let to = (index + count).min(area.offset + area.pages());
                    if from >= to {
                        continue;
                    }
                    let page = |index: u64| {
                        GuestVirt(area.start.0 + ((index - area.offset) << PAGE_SHIFT))
                    };
                    let (start, end, flags) = (page(from), page(to), area.flags);
                    let mut edits = Edits::new(machine, space.root);
                    table::for_each(machine, space.root, start, end, |span| {
                        let before = (span.start.0 - start.0) >> PAGE_SHIFT;
                        let place = usize::try_from(from - index + before).unwrap_or(usize::MAX);
                        goes_on = visit(space, &mut edits, &Shown { span, place, flags });
                        goes_on
                    });
                }
            });
            if !goes_on {
                return;
            }
        }
    }
}

impl Mapping {
    /// Puts another entry in its place, and flushes.
    pub(crate) fn replace<M: Machine>(&self, machine: &M, space: &AddressSpace, new: Entry) {
        live::replace(machine, space.root, self.slot, self.page, new);
    }
}

/// The page of an area that shows page `index` of what it maps.
fn page_of(area: &Area, backing: Backing, index: u64) -> Option<GuestVirt> {
    let within = index.wrapping_sub(area.offset);
    (area.backing == backing && within < area.pages())
        .then(|| GuestVirt(area.start.0 + (within << PAGE_SHIFT)))
}

/// The entry for a page and where it is, if it shows this frame.
#[inline]
fn shows<M: Machine>(
    machine: &M,
    space: &AddressSpace,
    page: GuestVirt,
    frame: Frame,
) -> Option<((Frame, usize), Entry)> {
    let table = table::find(machine, space.root, page)?;
    let index = Level::One.index(page);
    let entry = machine.read_entry(table, index);
    (entry.is_present() && entry.frame() == frame).then_some(((table, index), entry))
}

/// Visits a page of an area, if it shows this frame; returns how many did.
fn visit_at<M: Machine>(
    machine: &M,
    space: &mut AddressSpace,
    (page, area): (GuestVirt, Area),
    frame: Frame,
    visit: Visit<'_>,
) -> u32 {
    let Some((slot, entry)) = shows(machine, space, page, frame) else { return 0 };
    visit(space, &Mapping { page, entry, flags: area.flags, slot });
    1
}

/// Visits where a space maps an anonymous frame other than at `page`: if it is
/// known which page of what it is, in areas that have it; else anywhere.
fn moved_in<M: Machine>(
    machine: &M,
    space: &mut AddressSpace,
    (page, place): (GuestVirt, Option<(Backing, u64)>),
    frame: Frame,
    visit: Visit<'_>,
) -> u32 {
    let mut found = 0;
    let mut next = space.areas.first();
    while let Some(at) = next {
        let area = *space.areas.get(at);
        next = space.areas.next(at);
        if area.family == 0 || !area.is_private() {
            continue;
        }
        if let Some((backing, index)) = place {
            let elsewhere = page_of(&area, backing, index).filter(|&other| other != page);
            found +=
                elsewhere.map_or(0, |other| visit_at(machine, space, (other, area), frame, visit));
            continue;
        }
        table::for_each(machine, space.root, area.start, area.end, |span| {
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if entry.is_present() && entry.frame() == frame {
                    let slot = (span.table, index);
                    let page = span.address_of(index);
                    visit(space, &Mapping { page, entry, flags: area.flags, slot });
                    found += 1;
                }
            }
            true
        });
    }
    found
}
