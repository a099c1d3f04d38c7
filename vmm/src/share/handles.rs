//! What the guest has opened: files and folders, by numbers that are never used
//! twice.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleKind {
    /// A regular file.
    File,
    /// A folder, to read its entries.
    Folder,
}

#[derive(Debug)]
struct Handle {
    kind: HandleKind,
    descriptor: OwnedFd,
}

/// All handles of a session.
#[derive(Debug)]
pub struct Handles {
    handles: HashMap<u64, Handle>,
    next: u64,
    limit: usize,
}

impl Handles {
    /// None, and room for `limit`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { handles: HashMap::new(), next: 1, limit }
    }

    /// Whether one more can be opened.
    ///
    /// # Errors
    ///
    /// ENFILE if not.
    pub fn has_room(&self) -> Result<(), Errno> {
        if self.handles.len() < self.limit { Ok(()) } else { Err(Errno::NFILE) }
    }

    /// Keeps `descriptor`; gives its number.
    ///
    /// # Errors
    ///
    /// As [`Self::has_room`].
    pub fn add(&mut self, kind: HandleKind, descriptor: OwnedFd) -> Result<u64, Errno> {
        self.has_room()?;
        let number = self.next;
        self.next += 1;
        self.handles.insert(number, Handle { kind, descriptor });
        Ok(number)
    }

    /// The descriptor of handle `number`.
    ///
    /// # Errors
    ///
    /// EBADF if there is none of that kind.
    pub fn get(&self, kind: HandleKind, number: u64) -> Result<BorrowedFd<'_>, Errno> {
        match self.handles.get(&number) {
            Some(handle) if handle.kind == kind => Ok(handle.descriptor.as_fd()),
            _ => Err(Errno::BADF),
        }
    }

    /// Closes handle `number`.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn close(&mut self, kind: HandleKind, number: u64) -> Result<(), Errno> {
        self.get(kind, number)?;
        self.handles.remove(&number);
        Ok(())
    }

    /// Closes all of them.
    pub fn clear(&mut self) {
        self.handles.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }
}
