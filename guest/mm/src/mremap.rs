//! mremap: making mappings longer, shorter, or be somewhere else. Entries of
//! page tables are moved, never contents.

use bitflags::bitflags;
use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT};
use pagelab_abi::layout::USER_END;
use pagelab_paging::{Entry, EntryFlags, Level};

use crate::area::{Area, AreaFlags, Backing};
use crate::areas::MAX_AREAS;
use crate::error::{MmError, OutOfMemory};
use crate::frames::Use;
use crate::live::{self, Edits};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::{AddressSpace, LOWEST, page_round_up};
use crate::table;

bitflags! {
    /// Linux's `MREMAP_*`, with Linux's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RemapFlags: u32 {
        /// It may be put somewhere else.
        const MAY_MOVE = 1;
        /// Exactly there, whatever is there.
        const FIXED = 2;
        /// The old range stays mapped, with nothing in it.
        const DONT_UNMAP = 4;
    }
}

/// The arguments of `mremap`.
#[derive(Clone, Copy, Debug)]
pub struct RemapRequest {
    /// Where it is.
    pub address: GuestVirt,
    /// How long it is; 0 for a second mapping of shared memory.
    pub old_length: u64,
    /// How long it shall be.
    pub new_length: u64,
    /// How.
    pub flags: RemapFlags,
    /// Where it shall be, with `FIXED`; a hint with `DONT_UNMAP`.
    pub new_address: GuestVirt,
}

/// Where a mapping is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remapped {
    /// Its first byte.
    pub start: GuestVirt,
    /// Locked memory that came to it: call [`AddressSpace::populate`] for this
    /// range next. Its failure is not the call's.
    pub populate: Option<(GuestVirt, GuestVirt)>,
}

/// Arguments that were checked; lengths are whole pages.
#[derive(Clone, Copy)]
struct Remap {
    start: GuestVirt,
    old: u64,
    new: u64,
    flags: RemapFlags,
    target: GuestVirt,
}

impl Remap {
    fn checked(request: &RemapRequest, areas: usize) -> Result<Self, MmError> {
        let flags = request.flags;
        let placed = flags.intersects(RemapFlags::FIXED | RemapFlags::DONT_UNMAP);
        let remap = Self {
            start: request.address,
            old: page_round_up(request.old_length).unwrap_or(0),
            new: page_round_up(request.new_length).unwrap_or(0),
            flags,
            target: if placed { request.new_address } else { GuestVirt(0) },
        };
        let unknown = flags.bits() & !RemapFlags::all().bits() != 0;
        if unknown || !remap.start.is_page_aligned() || remap.new == 0 {
            return Err(MmError::Invalid);
        }
        if remap.new > USER_END.0 || remap.target.0 > USER_END.0 - remap.new {
            return Err(MmError::Invalid);
        }
        if placed {
            let resizes = flags.contains(RemapFlags::DONT_UNMAP) && remap.old != remap.new;
            // An end that wraps around overlaps nothing; shrinking finds it later.
            let overlaps = remap.start.0 < remap.target.0 + remap.new
                && remap.target.0 < remap.start.0.wrapping_add(remap.old);
            if !remap.target.is_page_aligned()
                || !flags.contains(RemapFlags::MAY_MOVE)
                || resizes
                || overlaps
            {
                return Err(MmError::Invalid);
            }
            if areas + 2 >= MAX_AREAS - 3 {
                return Err(MmError::TooManyAreas);
            }
        }
        Ok(remap)
    }

    const fn is_placed(&self) -> bool {
        self.flags.intersects(RemapFlags::FIXED.union(RemapFlags::DONT_UNMAP))
    }

    const fn old_end(&self) -> GuestVirt {
        GuestVirt(self.start.0.saturating_add(self.old))
    }
}

impl AddressSpace {
    /// Resizes or moves a mapping.
    ///
    /// # Errors
    ///
    /// `Invalid`, `BadAddress` (not mapped, or more than one area),
    /// `LockLimitAgain`, and those of `mmap`.
    pub fn mremap<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        request: &RemapRequest,
    ) -> Result<Remapped, MmError> {
        let remap = Remap::checked(request, self.areas.len())?;
        let start = if remap.flags.contains(RemapFlags::FIXED) && remap.old == remap.new {
            self.move_many(memory, &remap)?
        } else if remap.is_placed() {
            self.remap_to(memory, remap)?
        } else if remap.new <= remap.old {
            self.area_at(remap.start).ok_or(MmError::BadAddress)?;
            self.shrink(memory, &remap)?;
            remap.start
        } else {
            self.grow(memory, &remap)?
        };
        let grown = (GuestVirt(start.0 + remap.old), GuestVirt(start.0 + remap.new));
        let populates = |area: &Area| {
            area.flags & (AreaFlags::LOCKED | AreaFlags::LOCK_ON_FAULT) == AreaFlags::LOCKED
        };
        let populate = grown.0 < grown.1 && self.area_at(start).is_some_and(populates);
        Ok(Remapped { start, populate: populate.then_some(grown) })
    }

    /// Checks what Linux checks before it makes or moves anything; returns the
    /// area.
    fn movable_area(&self, remap: &Remap) -> Result<Area, MmError> {
        let area = *self.area_at(remap.start).ok_or(MmError::BadAddress)?;
        if remap.old == 0 && area.is_private() {
            return Err(MmError::Invalid);
        }
        // What is given up may lie anywhere, the rest in one area.
        if area.end.0 - remap.start.0 < remap.old.min(remap.new) {
            return Err(MmError::BadAddress);
        }
        if remap.new <= remap.old {
            return Ok(area);
        }
        let growth = remap.new - remap.old;
        if area.flags.contains(AreaFlags::SPECIAL) {
            return Err(MmError::BadAddress);
        }
        self.check_lock_limit(area.flags, growth)?;
        self.check_limits(growth >> PAGE_SHIFT, area.is_data())?;
        Ok(area)
    }

    /// Gives up what lies behind the new length.
    fn shrink<M: Machine>(&mut self, memory: &Memory<M>, remap: &Remap) -> Result<(), MmError> {
        let (start, end) = (GuestVirt(remap.start.0 + remap.new), remap.old_end());
        if start >= end {
            return Ok(());
        }
        if end > USER_END {
            return Err(MmError::Invalid);
        }
        self.check_hole(start, end)?;
        self.areas.reserve(2)?;
        self.unmap_range(memory, start, end);
        Ok(())
    }

    /// Grows in place, or somewhere else if that is allowed.
    fn grow<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        remap: &Remap,
    ) -> Result<GuestVirt, MmError> {
        let area = self.movable_area(remap)?;
        let end = remap.start.checked_add(remap.new).filter(|&end| end <= USER_END);
        let fits = |end: GuestVirt| {
            remap.old_end() == area.end && self.areas.overlapping(area.end, end).next().is_none()
        };
        if let Some(end) = end.filter(|&end| remap.old > 0 && fits(end)) {
            return self.grow_in_place(memory, &area, end).map(|()| remap.start);
        }
        if !remap.flags.contains(RemapFlags::MAY_MOVE) {
            return Err(MmError::NoSpace);
        }
        let target = self.find_room(GuestVirt(0), remap.new, false)?;
        self.move_area(memory, &area, remap, target)?;
        Ok(target)
    }

    fn grow_in_place<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        area: &Area,
        end: GuestVirt,
    ) -> Result<(), MmError> {
        let pages = (end.0 - area.end.0) >> PAGE_SHIFT;
        if area.flags.contains(AreaFlags::ACCOUNTED) {
            memory.promise(pages, self.sizes.total)?;
        }
        let Some(place) = self.areas.containing(area.start) else { return Ok(()) };
        self.count_area(area, false);
        let grown = Area { end, ..*area };
        self.count_area(&grown, true);
        self.areas.replace(place, grown);
        // The pages to come are managed like the area's. What follows and has no
        // pages yet joins them, though it would not join the area after fork.
        if let Some(next) = self.areas.next(place) {
            let mut like = *self.areas.get(next);
            if like.family == 0 {
                like.family = grown.family;
            }
            if grown.continues_with(&like) {
                self.areas.change(next, |area| area.family = like.family);
            }
        }
        // With what follows only: as on Linux what lies before stays apart.
        self.merge(memory, GuestVirt(area.start.0 + 1), end);
        Ok(())
    }

    /// `FIXED` without a change of length: everything in the range is moved, area
    /// by area, gaps kept (Linux since 6.17). The range must start in an area.
    fn move_many<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        remap: &Remap,
    ) -> Result<GuestVirt, MmError> {
        let first = *self.area_at(remap.start).ok_or(MmError::BadAddress)?;
        if remap.old_end() <= first.end {
            return self.remap_to(memory, *remap);
        }
        let mut at = remap.start;
        while at < remap.old_end() {
            let Some(place) = self.areas.find(at) else { break };
            let area = *self.areas.get(place);
            if area.start >= remap.old_end() {
                break;
            }
            let start = area.start.max(at);
            let length = area.end.min(remap.old_end()).0 - start.0;
            let target = GuestVirt(remap.target.0 + (start.0 - remap.start.0));
            self.remap_to(memory, Remap { start, old: length, new: length, target, ..*remap })?;
            at = GuestVirt(start.0 + length);
        }
        Ok(remap.target)
    }

    /// Moves to a place that was asked for.
    fn remap_to<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        mut remap: Remap,
    ) -> Result<GuestVirt, MmError> {
        self.movable_area(&remap)?;
        let fixed = remap.flags.contains(RemapFlags::FIXED);
        if fixed {
            let end = GuestVirt(remap.target.0 + remap.new);
            self.check_hole(remap.target, end)?;
            self.areas.reserve(2)?;
            self.unmap_range(memory, remap.target, end);
            // That may have been the source.
            self.area_at(remap.start).ok_or(MmError::BadAddress)?;
        }
        if remap.new < remap.old {
            self.shrink(memory, &remap)?;
            remap.old = remap.new;
        }
        let area = *self.area_at(remap.start).ok_or(MmError::BadAddress)?;
        if remap.flags.contains(RemapFlags::DONT_UNMAP) {
            self.check_limits(remap.old >> PAGE_SHIFT, area.is_data())?;
        }
        let target = if fixed {
            if remap.target < LOWEST {
                return Err(MmError::NotPermitted);
            }
            remap.target
        } else {
            let hint = if remap.target.0 == 0 { remap.target } else { remap.target.max(LOWEST) };
            self.find_room(hint, remap.new, false)?
        };
        self.move_area(memory, &area, &remap, target)?;
        Ok(target)
    }

    /// Moves the range, which lies in `area`, to `target`, where nothing is.
    fn move_area<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        area: &Area,
        remap: &Remap,
        target: GuestVirt,
    ) -> Result<(), MmError> {
        if self.areas.len() >= MAX_AREAS - 3 {
            return Err(MmError::TooManyAreas);
        }
        let keeps = remap.flags.contains(RemapFlags::DONT_UNMAP);
        self.areas.reserve(4)?;
        let promised = if area.flags.contains(AreaFlags::ACCOUNTED) {
            let bytes = if keeps { remap.new } else { remap.new - remap.old };
            memory.promise(bytes >> PAGE_SHIFT, self.sizes.total)?;
            bytes >> PAGE_SHIFT
        } else {
            0
        };
        let mut edits = Edits::new(&memory.machine, self.root);
        if let Err(error) = self.make_tables(memory, remap, target) {
            memory.commit.take_back(promised);
            let end = GuestVirt(target.0 + remap.new);
            self.free_tables(memory, &mut edits, target, end);
            return Err(error.into());
        }
        if let Backing::Object(object) = area.backing {
            memory.objects.retain(object);
        }
        let end = GuestVirt(target.0 + remap.new);
        let untouched = area.is_anonymous() && area.family == 0;
        let offset = if untouched { target.0 >> PAGE_SHIFT } else { area.index_of(remap.start) };
        self.add_area(Area { start: target, end, offset, ..*area });
        // Now, as on Linux: with `DONT_UNMAP` this may be the source's area too.
        self.merge(memory, target, end);
        self.move_entries(memory, &mut edits, remap, target);
        if keeps {
            self.empty_source(area, remap);
        } else if remap.old > 0 {
            self.drop_source(memory, &mut edits, remap);
        }
        Ok(())
    }

    /// Makes the tables that the moved entries will need, so that moving them
    /// cannot fail half-way.
    fn make_tables<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        remap: &Remap,
        target: GuestVirt,
    ) -> Result<(), OutOfMemory> {
        let mut result = Ok(());
        let (root, tables) = (self.root, &mut self.tables);
        table::for_each(&memory.machine, root, remap.start, remap.old_end(), |span| {
            // The entries of one table may end up in two.
            for page in [span.first, span.end - 1].map(|index| span.address_of(index)) {
                let moved = GuestVirt(target.0 + (page.0 - remap.start.0));
                result = result
                    .and_then(|()| table::find_or_make(memory, root, moved, tables).map(|_| ()));
            }
            result.is_ok()
        });
        result
    }

    fn move_entries<M: Machine>(
        &self,
        memory: &Memory<M>,
        edits: &mut Edits<'_, M>,
        remap: &Remap,
        target: GuestVirt,
    ) {
        let machine = &memory.machine;
        table::for_each(machine, self.root, remap.start, remap.old_end(), |span| {
            // The table that the last entry went to, and what part of memory it maps.
            let mut table = None;
            let mut mapped = None;
            for index in span.first..span.end {
                let entry = machine.read_entry(span.table, index);
                if entry == Entry::EMPTY {
                    continue;
                }
                let page = span.address_of(index);
                let moved = GuestVirt(target.0 + (page.0 - remap.start.0));
                let slot = Level::One.index(moved);
                let part = Some(moved.0 >> Level::Two.shift());
                if part != mapped {
                    mapped = part;
                    table = table::find(machine, self.root, moved);
                }
                if let Some(table) = table {
                    edits.replace(span.table, index, page, Entry::EMPTY);
                    let mut held = memory.frames.hold();
                    if entry.is_present() && held.use_of(entry.frame()) == Use::Anonymous {
                        held.set_page(entry.frame(), moved);
                    }
                    live::fill(machine, (table, slot), entry.with(EntryFlags::SOFT_DIRTY));
                }
            }
            true
        });
    }

    /// `DONT_UNMAP`: what is left of the source is unlocked, and if all of it was
    /// moved, it is as if it had never been touched. Where the target was merged
    /// with it, the target is unlocked as well, as on Linux.
    fn empty_source(&mut self, area: &Area, remap: &Remap) {
        let Some(place) = self.areas.containing(remap.start) else { return };
        let whole = *self.areas.get(place);
        self.count_area(&whole, false);
        let mut left = whole;
        left.flags -= AreaFlags::LOCKED | AreaFlags::LOCK_ON_FAULT;
        let is_source = (whole.start, whole.end) == (area.start, area.end);
        if is_source && area.start == remap.start && area.end == remap.old_end() {
            left.family = 0;
            left.flags -= AreaFlags::INHERITED;
        }
        self.count_area(&left, true);
        self.areas.replace(place, left);
    }

    /// Takes the source out. Its promises went to where its pages went.
    fn drop_source<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        edits: &mut Edits<'_, M>,
        remap: &Remap,
    ) {
        self.note_peak();
        self.split_at(memory, remap.start);
        self.split_at(memory, remap.old_end());
        let Some(place) = self.areas.containing(remap.start) else { return };
        let source = self.areas.remove(place);
        self.count_area(&source, false);
        if let Backing::Object(object) = source.backing {
            memory.release_object(object);
        }
        self.free_tables(memory, edits, remap.start, remap.old_end());
    }
}
