//! The directory tree as it is known so far: names, parents, and the inode
//! behind each name.
//!
//! It answers `..`, keeps the working directory and the names of open files
//! right when something above them is renamed, and saves asking the file system
//! again. A node whose name was removed stays, marked as deleted, for those who
//! still use it.
//!
//! Locking: a node's `children` is locked before its file system is asked or
//! changed below it, so that the tree never shows what is no longer there; of
//! two directories the one at the lower address comes first. `place` is locked
//! last and held for a moment only. Whoever changes names holds the mutex of
//! the whole tree ([`Vfs`](crate::Vfs)), so parents cannot move meanwhile.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::{Mutex, MutexGuard};

use crate::errno::{Errno, Result};
use crate::inode::{Caching, FileKind, Inode};
use crate::name_map::{self, NameMap};

/// The entries of a directory that are known.
pub(crate) type Children = NameMap<Box<[u8]>, Arc<Dentry>>;

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Box<[u8]>,
    deleted: bool,
}

/// One name in the tree.
pub struct Dentry {
    inode: Arc<dyn Inode>,
    kind: FileKind,
    caching: Caching,
    place: Mutex<Place>,
    children: Mutex<Children>,
    /// How many file systems are mounted here, so that most steps of a walk
    /// need not look into the table.
    pub(crate) mounts: AtomicU32,
}

impl Dentry {
    /// The root of a file system, or a node without a parent such as a pipe's.
    #[must_use]
    pub fn root(inode: Arc<dyn Inode>, name: &[u8], caching: Caching) -> Arc<Self> {
        Self::new(inode, None, name, caching)
    }

    pub(crate) fn new(
        inode: Arc<dyn Inode>,
        parent: Option<Arc<Self>>,
        name: &[u8],
        caching: Caching,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind: inode.kind(),
            inode,
            caching,
            place: Mutex::new(Place { parent, name: name.into(), deleted: false }),
            children: Mutex::default(),
            mounts: AtomicU32::new(0),
        })
    }

    /// The inode of this name.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Its name in its parent.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        self.place.lock().name.to_vec()
    }

    /// The directory it is in; `None` for a file system's root.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.place.lock().parent.clone()
    }

    /// Whether its name was removed.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.place.lock().deleted
    }

    /// Whether something is mounted on it.
    #[must_use]
    pub fn is_mount_point(&self) -> bool {
        self.mounts.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn children(&self) -> MutexGuard<'_, Children> {
        self.children.lock()
    }

    /// The entry `name` of this directory.
    pub(crate) fn lookup(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>> {
        self.lookup_in(&mut self.children.lock(), name)
    }

    /// As [`lookup`](Self::lookup), for a caller that holds the children.
    pub(crate) fn lookup_in(
        self: &Arc<Self>,
        children: &mut Children,
        name: &[u8],
    ) -> Result<Arc<Self>> {
        if name.len() > crate::abi::NAME_MAX {
            // A removed directory has no names at all, not even bad ones.
            return Err(if self.is_deleted() { Errno::ENOENT } else { Errno::ENAMETOOLONG });
        }
        let known = children.get(name);
        if let Some(child) = known {
            let is_kept = match self.caching {
                // What is mounted on hides what is below in any case.
                _ if child.is_mount_point() => true,
                Caching::Keep => true,
                Caching::Revalidate => child.inode.is_believed(),
                Caching::Never => false,
            };
            if is_kept {
                return Ok(Arc::clone(child));
            }
        }
        let inode = match self.inode.lookup(name) {
            Ok(inode) => inode,
            Err(error) => {
                if error == Errno::ENOENT
                    && let Some(gone) = children.remove(name)
                {
                    gone.mark_deleted();
                }
                return Err(error);
            }
        };
        if let Some(child) = known
            && Arc::ptr_eq(&child.inode, &inode)
        {
            return Ok(Arc::clone(child));
        }
        Ok(self.insert(children, name, inode))
    }

    /// Adds an entry that the file system has.
    pub(crate) fn insert(
        self: &Arc<Self>,
        children: &mut Children,
        name: &[u8],
        inode: Arc<dyn Inode>,
    ) -> Arc<Self> {
        let child = Self::new(inode, Some(Arc::clone(self)), name, self.caching);
        name_map::make_room(children);
        if self.caching != Caching::Never
            && let Some(gone) = children.insert(name.into(), Arc::clone(&child))
        {
            gone.mark_deleted();
        }
        child
    }

    /// The name is gone; the node keeps its parent for `..` and its path. What is
    /// known below it, where others removed a whole directory, goes with it: parent
    /// and child would hold each other for ever.
    pub(crate) fn mark_deleted(&self) {
        let mut below = alloc::vec![self.delete()];
        while let Some(children) = below.pop() {
            below.extend(children.values().map(|child| child.delete()));
        }
    }

    /// Marks this node alone, and hands out what is known below it.
    fn delete(&self) -> Children {
        self.place.lock().deleted = true;
        self.inode.name_is_gone();
        core::mem::take(&mut *self.children.lock())
    }

    /// The node is now `name` of `parent`.
    pub(crate) fn place_at(&self, parent: &Arc<Self>, name: &[u8]) {
        let old = {
            let mut place = self.place.lock();
            place.name = name.into();
            place.parent.replace(Arc::clone(parent))
        };
        drop(old);
    }

    /// Whether `self` is `other` or lies above it in the same file system;
    /// returns the entry of `self` on the way down to `other` if it lies above.
    pub(crate) fn child_towards(self: &Arc<Self>, other: &Arc<Self>) -> Option<Arc<Self>> {
        let mut below = Arc::clone(other);
        while let Some(parent) = below.parent() {
            if Arc::ptr_eq(&parent, self) {
                return Some(below);
            }
            below = parent;
        }
        None
    }

    /// Forgets entries below that nobody uses, so that a walk over a large tree
    /// does not hold memory for ever. Returns how many went.
    pub fn prune(self: &Arc<Self>) -> usize {
        // Depth first without recursion: a node is looked at again after its
        // children were.
        let mut pruned = 0;
        let mut stack = alloc::vec![(Arc::clone(self), false)];
        while let Some((node, children_done)) = stack.pop() {
            let mut children = node.children.lock();
            if children_done {
                let before = children.len();
                children.retain(|_, child| Arc::strong_count(child) > 1 || child.is_mount_point());
                pruned += before - children.len();
                children.shrink_to_fit();
            } else if children.is_empty() {
                children.shrink_to_fit();
            } else {
                let below: Vec<_> = children.values().map(Arc::clone).collect();
                drop(children);
                stack.push((Arc::clone(&node), true));
                stack.extend(below.into_iter().map(|child| (child, false)));
            }
        }
        pruned
    }
}

impl Drop for Dentry {
    /// Lets go of the parents one by one: a chain of a hundred thousand
    /// directories must not take a stack frame for each.
    fn drop(&mut self) {
        let mut parent = self.place.get_mut().parent.take();
        while let Some(node) = parent {
            parent = Arc::into_inner(node).and_then(|mut last| last.place.get_mut().parent.take());
        }
    }
}

impl fmt::Debug for Dentry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dentry({})", self.name().escape_ascii())
    }
}
