//! A process's file descriptors.
//!
//! A bitmap finds the lowest free number a word at a time, starting at a hint
//! below which everything is taken.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::abi::AT_FDCWD;
use crate::errno::{Errno, Result};
use crate::open_file::OpenFile;
use crate::path::PathNode;

/// What no limit can raise the number of descriptors above (`fs.nr_open`).
pub const MAX_DESCRIPTORS: usize = 1 << 20;

#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    close_on_exec: bool,
}

/// The descriptors of a process; `Clone` is what fork does.
#[derive(Clone, Default)]
pub struct FdTable {
    slots: Vec<Option<Slot>>,
    /// A set bit: taken.
    taken: Vec<u64>,
    /// No word before this one has a free bit.
    first_free_word: usize,
}

/// The index a descriptor stands for.
fn index_of(fd: i32) -> Result<usize> {
    usize::try_from(fd).map_err(|_| Errno::EBADF)
}

/// The descriptor of an index below [`MAX_DESCRIPTORS`].
fn number_of(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

impl FdTable {
    /// No descriptors.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Vec::new(), taken: Vec::new(), first_free_word: 0 }
    }

    /// The open file behind `fd`.
    pub fn get(&self, fd: i32) -> Result<&Arc<OpenFile>> {
        match self.slots.get(index_of(fd)?) {
            Some(Some(slot)) => Ok(&slot.file),
            _ => Err(Errno::EBADF),
        }
    }

    /// As [`get`](Self::get), and not one opened with `O_PATH`.
    pub fn get_open(&self, fd: i32) -> Result<&Arc<OpenFile>> {
        let file = self.get(fd)?;
        if file.is_path_only() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Where the `*at` call with this descriptor and path starts: `None` is the
    /// working directory.
    pub fn start(&self, fd: i32, path: &[u8]) -> Result<Option<PathNode>> {
        if fd == AT_FDCWD || path.first() == Some(&b'/') {
            return Ok(None);
        }
        Ok(Some(self.get(fd)?.node().clone()))
    }

    /// Gives `file` the lowest free number from `minimum` on, below `limit`
    /// (`RLIMIT_NOFILE`).
    pub fn insert(
        &mut self,
        file: Arc<OpenFile>,
        close_on_exec: bool,
        minimum: usize,
        limit: usize,
    ) -> Result<i32> {
        let index = self.lowest_free(minimum);
        if index >= limit.min(MAX_DESCRIPTORS) {
            return Err(Errno::EMFILE);
        }
        self.put(index, Slot { file, close_on_exec });
        Ok(number_of(index))
    }

    /// `F_DUPFD` and `F_DUPFD_CLOEXEC`; `dup` with 0 as minimum.
    pub fn duplicate(
        &mut self,
        fd: i32,
        minimum: i32,
        close_on_exec: bool,
        limit: usize,
    ) -> Result<i32> {
        let file = Arc::clone(self.get(fd)?);
        let minimum = usize::try_from(minimum).map_err(|_| Errno::EINVAL)?;
        if minimum >= limit {
            return Err(Errno::EINVAL);
        }
        self.insert(file, close_on_exec, minimum, limit)
    }

    /// `dup3`: makes `new` another number of `old`. Returns what `new` was
    /// before. `EINVAL` if both are the same, which `dup2` has to treat first.
    pub fn duplicate_to(
        &mut self,
        old: i32,
        new: i32,
        close_on_exec: bool,
        limit: usize,
    ) -> Result<Option<Arc<OpenFile>>> {
        if old == new {
            return Err(Errno::EINVAL);
        }
        let index = index_of(new)?;
        if index >= limit.min(MAX_DESCRIPTORS) {
            return Err(Errno::EBADF);
        }
        let file = Arc::clone(self.get(old)?);
        Ok(self.put(index, Slot { file, close_on_exec }))
    }

    /// `close`. The file is returned so that it is let go of outside of locks.
    pub fn remove(&mut self, fd: i32) -> Result<Arc<OpenFile>> {
        self.take(index_of(fd)?).ok_or(Errno::EBADF)
    }

    /// `F_GETFD`.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool> {
        match self.slots.get(index_of(fd)?) {
            Some(Some(slot)) => Ok(slot.close_on_exec),
            _ => Err(Errno::EBADF),
        }
    }

    /// `F_SETFD`.
    pub fn set_close_on_exec(&mut self, fd: i32, value: bool) -> Result<()> {
        match self.slots.get_mut(index_of(fd)?) {
            Some(Some(slot)) => {
                slot.close_on_exec = value;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// `close_range`: closes the descriptors `first..=last`, or only marks
    /// them. Returns what was closed.
    pub fn close_range(
        &mut self,
        first: u32,
        last: u32,
        only_mark: bool,
    ) -> Result<Vec<Arc<OpenFile>>> {
        if first > last {
            return Err(Errno::EINVAL);
        }
        let end = (last as usize).saturating_add(1).min(self.slots.len());
        let mut closed = Vec::new();
        for index in first as usize..end {
            if only_mark {
                if let Some(slot) = &mut self.slots[index] {
                    slot.close_on_exec = true;
                }
            } else {
                closed.extend(self.take(index));
            }
        }
        Ok(closed)
    }

    /// What exec closes, which is returned.
    pub fn close_for_exec(&mut self) -> Vec<Arc<OpenFile>> {
        let marked = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.close_on_exec);
        (0..self.slots.len())
            .filter_map(|index| marked(&self.slots[index]).then(|| self.take(index)).flatten())
            .collect()
    }

    /// All descriptors, from the lowest on.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Arc<OpenFile>)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| slot.as_ref().map(|slot| (number_of(index), &slot.file)))
    }

    /// How many numbers there is room for at present (`FDSize`).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.len().next_multiple_of(64).max(64)
    }

    fn lowest_free(&mut self, minimum: usize) -> usize {
        while self.taken.get(self.first_free_word) == Some(&u64::MAX) {
            self.first_free_word += 1;
        }
        let mut word = self.first_free_word.max(minimum / 64);
        loop {
            let Some(taken) = self.taken.get(word) else {
                return minimum.max(word * 64);
            };
            let below = if word == minimum / 64 { (1 << (minimum % 64)) - 1 } else { 0 };
            let free = !(taken | below);
            if free != 0 {
                return word * 64 + free.trailing_zeros() as usize;
            }
            word += 1;
        }
    }

    fn put(&mut self, index: usize, slot: Slot) -> Option<Arc<OpenFile>> {
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
            self.taken.resize(index / 64 + 1, 0);
        }
        self.taken[index / 64] |= 1 << (index % 64);
        self.slots[index].replace(slot).map(|slot| slot.file)
    }

    fn take(&mut self, index: usize) -> Option<Arc<OpenFile>> {
        let slot = self.slots.get_mut(index)?.take()?;
        self.taken[index / 64] &= !(1 << (index % 64));
        self.first_free_word = self.first_free_word.min(index / 64);
        Some(slot.file)
    }
}
