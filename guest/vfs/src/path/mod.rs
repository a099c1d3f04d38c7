//! Paths: where a process stands, and the walk from a text to a node.

mod name;
mod walk;

use alloc::sync::{Arc, Weak};

use crate::abi::{Stat, Statfs, Statx};
use crate::dentry::Dentry;
use crate::errno::Result;
use crate::inode::Inode;
use crate::mount::Mount;

pub(crate) use walk::{Followed, Last, Walk};

/// A place in the tree of all mounts.
#[derive(Clone)]
pub struct PathNode {
    pub(crate) mount: Arc<Mount>,
    pub(crate) dentry: Arc<Dentry>,
}

impl PathNode {
    /// Whether both are the same place (not only the same inode).
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// The mount it lies in.
    #[must_use]
    pub const fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// Its name in the tree.
    #[must_use]
    pub const fn dentry(&self) -> &Arc<Dentry> {
        &self.dentry
    }

    /// Its inode.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// The same place, which may go.
    #[must_use]
    pub fn downgrade(&self) -> WeakPathNode {
        WeakPathNode { mount: Arc::downgrade(&self.mount), dentry: Arc::downgrade(&self.dentry) }
    }

    /// What `stat` says.
    pub fn stat(&self) -> Result<Stat> {
        Ok(Stat::new(&self.inode().metadata()?, self.mount.device))
    }

    /// What `statx` says.
    pub fn statx(&self) -> Result<Statx> {
        let is_root = Arc::ptr_eq(&self.mount.root, &self.dentry);
        let metadata = self.inode().metadata()?;
        Ok(Statx::new(&metadata, self.mount.device, self.mount.id.into(), is_root))
    }

    /// What `statfs` says.
    #[must_use]
    pub fn statfs(&self) -> Statfs {
        /// `ST_RDONLY`, and `ST_RELATIME` which always holds here.
        const FLAGS: [u32; 2] = [0x1000, 0x1001];
        let status = self.mount.file_system.status();
        Statfs::new(&status, self.mount.device, FLAGS[usize::from(self.mount.is_read_only())])
    }
}

/// A place in the tree, for who does not keep it there.
#[derive(Clone)]
pub struct WeakPathNode {
    mount: Weak<Mount>,
    dentry: Weak<Dentry>,
}

impl WeakPathNode {
    /// The place, if it is still known.
    #[must_use]
    pub fn upgrade(&self) -> Option<PathNode> {
        Some(PathNode { mount: self.mount.upgrade()?, dentry: self.dentry.upgrade()? })
    }
}

impl core::fmt::Debug for PathNode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PathNode({}: {:?})", self.mount.id, self.dentry)
    }
}

/// Where a process stands: copied by fork, shared under `CLONE_FS`.
#[derive(Clone, Debug)]
pub struct FsContext {
    /// Its `/`.
    pub root: PathNode,
    /// Its working directory.
    pub cwd: PathNode,
    /// Permission bits that new files do not get.
    pub umask: u16,
}

impl FsContext {
    /// At the root of everything.
    #[must_use]
    pub fn at(root: PathNode) -> Self {
        Self { cwd: root.clone(), root, umask: 0o022 }
    }
}
