//! Pages of objects that come and go many at a time: one lock and one search of
//! the index for all of them.

use core::ops::Range;

use pagelab_abi::addr::Frame;

use crate::frames::{FrameRun, Frames};
use crate::machine::Machine;
use crate::object::{InsertError, ObjectId, Objects, owner_of};

impl Objects {
    /// Puts frames (of [`crate::Use::Cache`]) at pages in a row, up to the first
    /// that cannot be put; returns how many were. The object takes over the
    /// caller's ownership of those.
    ///
    /// # Errors
    ///
    /// See [`InsertError`], if it is the first that cannot.
    pub fn insert_run(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        index: u64,
        run: &[Frame],
    ) -> Result<usize, InsertError> {
        let mut inner = self.inner.lock();
        let object = inner.object(id);
        let room = usize::try_from(object.pages.saturating_sub(index)).unwrap_or(usize::MAX);
        let run = &run[..run.len().min(room)];
        if run.is_empty() {
            return Err(InsertError::PastEnd);
        }
        let kind = object.kind;
        let owner_of = |index| owner_of(kind, id, index);
        let mut done = 0;
        while done < run.len() {
            let rest = (&run[done..], owner_of);
            match object.index.insert_run(machine, frames, index + done as u64, rest) {
                Ok(count) => done += count,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Calls `visit` with number and frame of each page of a range that is present,
    /// in order; where it returns `true` the frame has one more owner. It must use
    /// neither objects nor frames.
    pub(crate) fn share_pages(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        id: ObjectId,
        range: Range<u64>,
        mut visit: impl FnMut(u64, Frame) -> bool,
    ) {
        let mut inner = self.inner.lock();
        let mut held = frames.hold();
        inner.object(id).index.for_each(machine, range, &mut |index, frame| {
            if visit(index, frame) {
                held.share(frame);
            }
            true
        });
    }

    /// Takes those pages of a run out that `bits` names, the first of it being page
    /// `index`, and frees their frames: where [`Objects::drop_clean`] would, once
    /// they have lost all their `owners` but the object. All are in one table of
    /// the index. Returns how many were.
    pub(crate) fn drop_clean_run(
        &self,
        machine: &impl Machine,
        frames: &Frames,
        (id, index): (ObjectId, u64),
        (run, bits, owners): (&FrameRun, u64, u32),
    ) -> u64 {
        let mut inner = self.inner.lock();
        let mut held = frames.hold();
        match inner.existing(id).filter(|object| object.stored) {
            Some(object) => object.index.free_run(machine, &mut held, index, (run, bits, owners)),
            None => held.free_run(machine, run, (bits, owners), |_, _| false),
        }
    }
}
