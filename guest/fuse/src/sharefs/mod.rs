//! A folder of the host as a file system.
//!
//! The host and other programs on it change the folder at any time, so nothing
//! is believed for long:
//!
//! - A name is looked up again at each walk, unless the server allowed to
//!   believe it for a while (a second at most) and that is not over.
//! - Attributes are believed as long. Opening a file asks again unless they are
//!   as good as new, so a file that the host changed is seen changed from the
//!   next `open` on: its size is the new one, and pages that were read before
//!   and not changed here are read anew. While a file stays open or mapped,
//!   its pages stay as they were read, as with NFS.
//! - Where the host and the guest change the same file at the same time, pages
//!   that were changed here win when they are written.
//!
//! A file of the server has one inode here as long as anybody uses it, however
//! many names it has, and thereby one set of pages. The server forgets what
//! nobody uses any more.
//!
//! Locks: a directory's prefetched entries and the table of inodes are held for
//! moments only and never while the server is asked.

mod directory;
mod inode;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use pagelab_vfs::inode::{Caching, FileSystem, FileSystemStatus, Inode};
use pagelab_vfs::{PageStore, Platform};
use spin::Mutex;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::node::{Node, belief, nanoseconds};
use crate::protocol::{EntryOut, ROOT_NODE};

pub use inode::ShareInode;

/// As `statfs` shows it (`FUSE_SUPER_MAGIC`).
const MAGIC: u64 = 0x6573_5546;

/// Room for one part of a listing: as much as programs usually ask for.
const LISTING_ROOM: usize = 16 * 1024;

/// Spreads the server's numbers; whoever chooses bad ones slows himself down.
#[derive(Default)]
struct NodeHasher(u64);

impl Hasher for NodeHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, value: u64) {
        // 2⁶⁴ divided by the golden ratio; the table looks at both ends.
        let product = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

/// What all inodes of a share have in common.
pub(crate) struct Shared<S: PageStore> {
    pub(crate) connection: Arc<Connection>,
    pub(crate) store: Arc<S>,
    pub(crate) platform: Arc<dyn Platform>,
    inodes: Mutex<HashMap<u64, Weak<ShareInode<S>>, BuildHasherDefault<NodeHasher>>>,
    /// Where listings arrive.
    listing: Mutex<Vec<u8>>,
}

/// A folder of the host.
pub struct ShareFs<S: PageStore> {
    shared: Arc<Shared<S>>,
    root: Arc<ShareInode<S>>,
}

impl<S: PageStore> ShareFs<S> {
    /// The folder behind a connection. The pages of its files are in `store`.
    ///
    /// # Errors
    ///
    /// The server's, if it does not even have a root directory.
    pub fn new(connection: Connection, store: Arc<S>, platform: Arc<dyn Platform>) -> Result<Self> {
        let connection = Arc::new(connection);
        let reply = connection.get_attributes(ROOT_NODE)?;
        let shared = Arc::new(Shared {
            connection,
            store,
            platform,
            inodes: Mutex::default(),
            listing: Mutex::new(alloc::vec![0; LISTING_ROOM]),
        });
        let now = shared.now();
        let belief = belief(reply.valid, reply.valid_nanoseconds);
        let node = Node::new(&shared.connection, ROOT_NODE, &reply.attributes, now, belief)?;
        let root = ShareInode::new(&shared, node);
        if root.kind() != pagelab_vfs::inode::FileKind::Directory {
            return Err(Error::Protocol("a root that is no directory"));
        }
        Ok(Self { shared, root })
    }

    /// Tells the server at once of what nobody uses any more, and gives back what
    /// the table of inodes does not need.
    pub fn forget_unused(&self) {
        self.shared.connection.flush_forgets();
        self.shared.inodes.lock().shrink_to_fit();
    }

    /// How many inodes are in use: a leak shows here.
    #[must_use]
    pub fn inodes(&self) -> usize {
        self.shared.inodes.lock().len()
    }
}

impl<S: PageStore> FileSystem for ShareFs<S> {
    fn name(&self) -> &'static str {
        "virtiofs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::<ShareInode<S>>::clone(&self.root)
    }

    fn status(&self) -> FileSystemStatus {
        let told = self.shared.connection.statistics().unwrap_or_default();
        let unit = if told.fragment_size == 0 { told.block_size } else { told.fragment_size };
        FileSystemStatus {
            magic: MAGIC,
            block_size: u64::from(unit.max(512)),
            blocks: told.blocks,
            blocks_free: told.blocks_free.min(told.blocks),
            files: told.files,
            files_free: told.files_free.min(told.files),
        }
    }

    fn caching(&self) -> Caching {
        Caching::Revalidate
    }

    fn sync(&self) -> pagelab_vfs::Result<()> {
        let inodes: Vec<_> = self.shared.inodes.lock().values().filter_map(Weak::upgrade).collect();
        let mut result = Ok(());
        for inode in inodes {
            result = result.and(inode.sync_data());
        }
        self.shared.connection.flush_forgets();
        result
    }
}

impl<S: PageStore> Shared<S> {
    /// Nanoseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        nanoseconds(self.platform.now())
    }

    /// The inode of a node that the server has just counted a lookup of.
    pub(crate) fn adopt(self: &Arc<Self>, entry: &EntryOut) -> Result<Arc<ShareInode<S>>> {
        let now = self.now();
        let belief = belief(
            entry.attributes_valid.min(entry.entry_valid),
            entry.attributes_valid_nanoseconds.min(entry.entry_valid_nanoseconds),
        );
        let known = self.inodes.lock().get(&entry.node).and_then(Weak::upgrade);
        if let Some(inode) = known {
            inode.node().count_lookup();
            inode.node().learn(&entry.attributes, now, belief)?;
            return Ok(inode);
        }
        let made = Node::new(&self.connection, entry.node, &entry.attributes, now, belief);
        let node = match made {
            Ok(node) => node,
            Err(error) => {
                self.connection.forget(entry.node, 1);
                return Err(error);
            }
        };
        let inode = ShareInode::new(self, node);
        self.inodes.lock().insert(entry.node, Arc::downgrade(&inode));
        Ok(inode)
    }

    /// An inode goes: unless another has taken its place already, so does its
    /// entry in the table.
    fn dismiss(&self, node: u64, inode: *const ShareInode<S>) {
        let mut inodes = self.inodes.lock();
        if inodes.get(&node).is_some_and(|known| core::ptr::eq(known.as_ptr(), inode)) {
            inodes.remove(&node);
        }
    }
}
