//! Which file system is mounted where.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use spin::Mutex;

use crate::dentry::Dentry;
use crate::errno::{Errno, Result};
use crate::inode::{DeviceNumber, FileSystem};
use crate::path::PathNode;

/// A mounted file system.
pub struct Mount {
    /// Its number, as in `mountinfo` and `statx`.
    pub id: u32,
    /// Device number of its inodes (major 0: no device behind it).
    pub device: DeviceNumber,
    /// The file system.
    pub file_system: Arc<dyn FileSystem>,
    /// What it was mounted from, for `/proc/mounts`.
    pub source: &'static str,
    /// Nothing may be changed through it.
    read_only: AtomicBool,
    pub(crate) root: Arc<Dentry>,
    /// Where it is mounted; `None` for the root and for what has no place.
    pub(crate) at: Option<PathNode>,
}

impl Mount {
    /// A mount that is in no table: the root, or the home of anonymous files.
    pub(crate) fn detached(
        id: u32,
        source: &'static str,
        file_system: Arc<dyn FileSystem>,
    ) -> Arc<Self> {
        Self::new(id, source, file_system, false, None)
    }

    fn new(
        id: u32,
        source: &'static str,
        file_system: Arc<dyn FileSystem>,
        read_only: bool,
        at: Option<PathNode>,
    ) -> Arc<Self> {
        let root = Dentry::root(file_system.root(), b"/", file_system.caching());
        let device = DeviceNumber::new(0, id);
        let read_only = AtomicBool::new(read_only);
        Arc::new(Self { id, device, file_system, source, read_only, root, at })
    }

    /// The node of its root.
    #[must_use]
    pub fn root(self: &Arc<Self>) -> PathNode {
        PathNode { mount: Arc::clone(self), dentry: Arc::clone(&self.root) }
    }

    /// Whether nothing may be changed through it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Mounts it again, where it is: things may be changed through it, or not.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// `EROFS` if nothing may be changed here.
    pub(crate) fn writable(&self) -> Result<()> {
        if self.is_read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Where it is mounted, if it has a place in the tree other than `/`.
    #[must_use]
    pub fn mount_point(&self) -> Option<&PathNode> {
        self.at.as_ref()
    }
}

impl Drop for Mount {
    /// Parents and children in the tree hold each other.
    fn drop(&mut self) {
        self.root.prune();
    }
}

/// All mounts that are on top of something.
pub(crate) struct MountTable {
    mounts: Mutex<Vec<Arc<Mount>>>,
    next_id: AtomicU32,
}

impl MountTable {
    pub(crate) const fn new(first_id: u32) -> Self {
        Self { mounts: Mutex::new(Vec::new()), next_id: AtomicU32::new(first_id) }
    }

    /// What is mounted on `node`.
    pub(crate) fn on(&self, node: &PathNode) -> Option<Arc<Mount>> {
        let mounts = self.mounts.lock();
        mounts.iter().rev().find(|mount| mount.at.as_ref().is_some_and(|at| at.same(node))).cloned()
    }

    pub(crate) fn add(
        &self,
        at: PathNode,
        source: &'static str,
        file_system: Arc<dyn FileSystem>,
        read_only: bool,
    ) -> Arc<Mount> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        at.dentry.mounts.fetch_add(1, Ordering::Relaxed);
        let mount = Mount::new(id, source, file_system, read_only, Some(at));
        self.mounts.lock().push(Arc::clone(&mount));
        mount
    }

    /// Takes `mount` away; `EBUSY` while something is mounted below it or it is
    /// in use other than by `users` references of the caller.
    pub(crate) fn remove(&self, mount: &Arc<Mount>, users: usize) -> Result<()> {
        let mut mounts = self.mounts.lock();
        let covered = mounts
            .iter()
            .any(|other| other.at.as_ref().is_some_and(|at| Arc::ptr_eq(&at.mount, mount)));
        let index = mounts.iter().position(|other| Arc::ptr_eq(other, mount));
        let index = index.ok_or(Errno::EINVAL)?;
        if covered || Arc::strong_count(mount) > users + 1 {
            return Err(Errno::EBUSY);
        }
        mounts.remove(index);
        if let Some(at) = &mount.at {
            at.dentry.mounts.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Mount>> {
        self.mounts.lock().clone()
    }
}
