//! Changing properties of a range of areas: what mprotect, madvise and mlock
//! have in common. Areas are split at the ends of the range and merged again.

use pagelab_abi::addr::GuestVirt;

use crate::area::Area;
use crate::areas::MAX_AREAS;
use crate::error::MmError;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::space::AddressSpace;

impl AddressSpace {
    /// Calls `change` for each area of a range, in order, cut to the range; the
    /// area becomes what it returns. Stops at the first error, or at the first
    /// page that is not mapped with [`MmError::NotMapped`]: what was changed
    /// before stays changed, as on Linux.
    ///
    /// `change` may edit pages, but not areas.
    pub(crate) fn modify_areas<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        start: GuestVirt,
        end: GuestVirt,
        holes: Holes,
        mut change: impl FnMut(&mut Self, &Area) -> Result<Area, MmError>,
    ) -> Result<(), MmError> {
        self.areas.reserve(2)?;
        let mut result = Ok(());
        let mut at = start;
        while at < end {
            let next = self.areas.find(at).map(|place| *self.areas.get(place));
            let Some(whole) = next.filter(|area| area.start < end) else {
                result = Err(MmError::NotMapped);
                break;
            };
            if whole.start > at {
                result = Err(MmError::NotMapped);
                if holes == Holes::Stop {
                    break;
                }
                at = whole.start;
            }
            let stop = whole.end.min(end);
            if let Err(error) = self.modify_part(memory, &whole, at, stop, &mut change) {
                result = Err(error);
                break;
            }
            at = stop;
        }
        result
    }

    fn modify_part<M: Machine>(
        &mut self,
        memory: &Memory<M>,
        whole: &Area,
        start: GuestVirt,
        end: GuestVirt,
        change: &mut impl FnMut(&mut Self, &Area) -> Result<Area, MmError>,
    ) -> Result<(), MmError> {
        let mut part = *whole;
        if start > part.start {
            part = part.split(start).1;
        }
        if end < part.end {
            part = part.split(end).0;
        }
        let new = change(self, &part)?;
        if new == part {
            return Ok(());
        }
        self.split_at(memory, start);
        self.split_at(memory, end);
        self.count_area(&part, false);
        self.count_area(&new, true);
        if let Some(place) = self.areas.containing(start) {
            self.areas.replace(place, new);
        }
        // What was not changed is not merged either, as on Linux.
        self.merge(memory, start, end);
        Ok(())
    }

    /// Whether areas may be split at both ends of a range.
    pub(crate) fn check_splits(&self, start: GuestVirt, end: GuestVirt) -> Result<(), MmError> {
        let splits = |at| self.area_at(at).is_some_and(|area| area.start < at);
        let new = usize::from(splits(start)) + usize::from(splits(end));
        if new > 0 && self.areas.len() + new > MAX_AREAS {
            return Err(MmError::TooManyAreas);
        }
        Ok(())
    }
}

/// What to do about pages of a range that are not mapped. The call fails with
/// [`MmError::NotMapped`] in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holes {
    /// Leave everything behind as it is.
    Stop,
    /// Change what is mapped behind as well.
    PassOver,
}
