//! What only directories have: listings, and entries that came with one.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use pagelab_vfs::inode::DirectoryEntry;
use pagelab_vfs::{Errno, PageStore};
use spin::Mutex;

use super::{ShareInode, Shared};
use crate::entries::Entries;
use crate::error::{Error, Result};
use crate::node::Node;

/// Positions of the host lie below this, but for a few (ext4's end of a directory
/// is the largest number there is), which are numbered from here on, so that the
/// tree has room for `.` and `..`.
const NUMBERED: u64 = (1 << 63) - (1 << 20);

/// Inodes by their names.
type Prefetched<S> = BTreeMap<Box<[u8]>, Arc<ShareInode<S>>>;

/// State of a directory.
pub(super) struct Directory<S: PageStore> {
    /// Entries that came with the last listing, until they are looked up.
    prefetched: Mutex<Prefetched<S>>,
    /// Somebody looked up entries since the last listing, as `ls -l` does
    /// between one part and the next: the next part brings attributes.
    was_walked: AtomicBool,
    /// The host's positions that are too large to be shown.
    large: Mutex<Vec<u64>>,
}

impl<S: PageStore> Default for Directory<S> {
    fn default() -> Self {
        Self {
            prefetched: Mutex::default(),
            was_walked: AtomicBool::new(false),
            large: Mutex::default(),
        }
    }
}

impl<S: PageStore> Directory<S> {
    /// The entry `name`, if it came with the last listing. It is had once: the
    /// tree keeps it from then on.
    pub(super) fn take_prefetched(&self, name: &[u8]) -> Option<Arc<ShareInode<S>>> {
        self.was_walked.store(true, Ordering::Relaxed);
        let mut prefetched = self.prefetched.lock();
        if prefetched.is_empty() { None } else { prefetched.remove(name) }
    }

    /// Names changed.
    pub(super) fn drop_prefetched(&self) {
        let dropped = core::mem::take(&mut *self.prefetched.lock());
        drop(dropped);
    }

    /// Lists one part, from `position` on.
    pub(super) fn list(
        &self,
        shared: &Arc<Shared<S>>,
        node: &Node,
        position: u64,
        emit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> Result<()> {
        self.drop_prefetched();
        let with_attributes = shared.connection.lists_attributes()
            && position != 0
            && self.was_walked.swap(false, Ordering::Relaxed);
        let mut offset = self.host_position(position)?;
        let mut fetched = Prefetched::new();
        let mut buffer = shared.listing.lock();
        loop {
            let handle = node.open_directory()?;
            let length =
                shared.connection.list(node.id(), handle, offset, with_attributes, &mut buffer)?;
            if length == 0 {
                node.close_directory();
                break;
            }
            let mut shown = 0;
            let mut wants_more = true;
            for listed in Entries::new(&buffer[..length], with_attributes) {
                let listed = listed?;
                offset = listed.next;
                if listed.is_dots() {
                    continue;
                }
                // The server counted a lookup, whether it is shown or not.
                if let Some(entry) = listed.entry {
                    fetched.insert(listed.name.into(), shared.adopt(&entry)?);
                }
                if wants_more {
                    let next = self.shown_position(listed.next);
                    let (name, ino, kind) = (listed.name, listed.ino, listed.kind);
                    wants_more = emit(DirectoryEntry { name, ino, kind, next });
                    shown += 1;
                }
            }
            if shown > 0 || !wants_more {
                break;
            }
        }
        drop(buffer);
        *self.prefetched.lock() = fetched;
        Ok(())
    }

    fn host_position(&self, position: u64) -> Result<u64> {
        match position.checked_sub(NUMBERED) {
            None => Ok(position),
            Some(number) => {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                self.large.lock().get(number).copied().ok_or(Error::Server(Errno::EINVAL))
            }
        }
    }

    fn shown_position(&self, offset: u64) -> u64 {
        if offset != 0 && offset < NUMBERED {
            return offset;
        }
        let mut large = self.large.lock();
        let number = large.iter().rposition(|&known| known == offset).unwrap_or_else(|| {
            large.push(offset);
            large.len() - 1
        });
        NUMBERED + number as u64
    }
}
