//! tmpfs: a file system in memory.
//!
//! Directories and attributes are here; the bytes of regular files are objects
//! of a [`PageStore`], which destroys them when the last user of a file without
//! a name lets go of it.
//!
//! Locking: each inode has one lock for its attributes and one for its
//! directory; a directory's comes before anyone's attributes. Two directories
//! are locked only by a renaming, the lower address first. No lock is held
//! while bytes move.

mod directory;
mod node;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Result;
use crate::inode::{Caching, DeviceNumber, FileSystem, FileSystemStatus, Inode, NewNode};
use crate::platform::Platform;
use crate::store::{PAGE_SIZE, PageStore};

pub use node::MemInode;

/// What all inodes of one tmpfs share.
pub(crate) struct Shared<S: PageStore> {
    pub(crate) store: Arc<S>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) next_ino: AtomicU64,
    /// Inodes in use.
    pub(crate) inodes: AtomicU64,
    limit_pages: u64,
}

/// A tmpfs.
pub struct MemFs<S: PageStore> {
    name: &'static str,
    shared: Arc<Shared<S>>,
    root: Arc<MemInode<S>>,
}

impl<S: PageStore> MemFs<S> {
    /// An empty one, shown as `name` in `/proc/mounts`, whose root has these
    /// permissions. `limit_pages` is what `statfs` shows as its size; the
    /// store is what refuses to hold more.
    pub fn new(
        name: &'static str,
        store: Arc<S>,
        platform: Arc<dyn Platform>,
        permissions: u16,
        limit_pages: u64,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            store,
            platform,
            next_ino: AtomicU64::new(1),
            inodes: AtomicU64::new(0),
            limit_pages,
        });
        let root = MemInode::new(&shared, NewNode::Directory, permissions, 0)?;
        Ok(Self { name, shared, root })
    }

    /// How many inodes there are: a leak shows here.
    #[must_use]
    pub fn inodes(&self) -> u64 {
        self.shared.inodes.load(Ordering::Relaxed)
    }
}

impl<S: PageStore> FileSystem for MemFs<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::<MemInode<S>>::clone(&self.root)
    }

    fn status(&self) -> FileSystemStatus {
        let used = self.shared.store.total_pages();
        FileSystemStatus {
            magic: crate::abi::TMPFS_MAGIC.into(),
            block_size: PAGE_SIZE,
            blocks: self.shared.limit_pages,
            blocks_free: self.shared.limit_pages.saturating_sub(used),
            files: self.shared.limit_pages,
            files_free: self.shared.limit_pages.saturating_sub(self.inodes()),
        }
    }

    fn caching(&self) -> Caching {
        Caching::Keep
    }
}

/// The device number in a request for a new node.
pub(crate) const fn device_of(node: &NewNode<'_>) -> DeviceNumber {
    match node {
        NewNode::Character(device) | NewNode::Block(device) => *device,
        _ => DeviceNumber(0),
    }
}
