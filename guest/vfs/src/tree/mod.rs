//! The file system as a whole: all mounts, and the operations on names.
//!
//! One file per group of operations: [`create`](self) and link, remove, rename,
//! open. Each takes the caller's [`FsContext`], a start directory (`None`: the
//! working directory) and a path as bytes without the final NUL, and fails with
//! Linux's error in Linux's order of checks.

mod create;
mod open;
mod remove;
mod rename;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use crate::anonymous::AnonymousFs;
use crate::dentry::{Children, Dentry};
use crate::device::Device;
use crate::errno::{Errno, Result};
use crate::inode::{Caching, DeviceNumber, FileKind, FileSystem, Inode};
use crate::mount::{Mount, MountTable};
use crate::path::{FsContext, PathNode, Walk};
use crate::platform::Platform;

pub use open::OpenHow;

/// How a path is looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    /// A link at the end is followed.
    pub follow: bool,
    /// An empty path means the start itself (`AT_EMPTY_PATH`).
    pub allow_empty: bool,
}

impl Lookup {
    /// Follows a link at the end, as `stat` does.
    pub const FOLLOW: Self = Self { follow: true, allow_empty: false };
    /// Stays at a link at the end, as `lstat` does.
    pub const NO_FOLLOW: Self = Self { follow: false, allow_empty: false };

    /// What the `AT_*` flags of a call ask for that follows unless told not to.
    #[must_use]
    pub const fn from_at_flags(flags: u32) -> Self {
        Self {
            follow: flags & crate::abi::AT_SYMLINK_NOFOLLOW == 0,
            allow_empty: flags & crate::abi::AT_EMPTY_PATH != 0,
        }
    }
}

/// All mounts and what goes with them.
pub struct Vfs {
    platform: Arc<dyn Platform>,
    mounts: MountTable,
    root: Arc<Mount>,
    anonymous: Arc<Mount>,
    devices: Mutex<BTreeMap<DeviceNumber, Arc<dyn Device>>>,
    /// Held by whoever changes names.
    names: Mutex<()>,
}

impl Vfs {
    /// A tree with `file_system` at its root.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>, file_system: Arc<dyn FileSystem>) -> Self {
        Self {
            platform,
            mounts: MountTable::new(3),
            root: Mount::detached(1, "tmpfs", file_system),
            anonymous: Mount::detached(2, "none", Arc::new(AnonymousFs)),
            devices: Mutex::new(BTreeMap::new()),
            names: Mutex::new(()),
        }
    }

    /// The kernel around it.
    #[must_use]
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// The root of everything.
    #[must_use]
    pub fn root(&self) -> PathNode {
        let root = self.root.root();
        self.mounts.on(&root).map_or(root, |mount| mount.root())
    }

    /// Walks to a node.
    pub fn resolve(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        how: Lookup,
    ) -> Result<PathNode> {
        if path.is_empty() && how.allow_empty {
            return Ok(start.unwrap_or(&context.cwd).clone());
        }
        self.walk(context, start, path)?.finish(how.follow)
    }

    pub(crate) fn walk<'a>(
        &'a self,
        context: &'a FsContext,
        start: Option<&PathNode>,
        path: &'a [u8],
    ) -> Result<Walk<'a>> {
        Walk::new(&self.mounts, context, start, path)
    }

    /// Mounts a file system on a directory.
    pub fn mount(
        &self,
        at: PathNode,
        source: &'static str,
        file_system: Arc<dyn FileSystem>,
        read_only: bool,
    ) -> Result<Arc<Mount>> {
        if !at.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let _names = self.names.lock();
        if at.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        Ok(self.mounts.add(at, source, file_system, read_only))
    }

    /// Mounts a file system on an entry that `directory` does not have and cannot
    /// get: it is there for walks, though not in listings, as long as the mount is.
    pub fn mount_on_missing(
        &self,
        directory: &PathNode,
        name: &[u8],
        source: &'static str,
        file_system: Arc<dyn FileSystem>,
        read_only: bool,
    ) -> Arc<Mount> {
        let _names = self.names.lock();
        let mut children = directory.dentry.children();
        let dentry = directory.dentry.insert(&mut children, name, file_system.root());
        drop(children);
        let at = PathNode { mount: Arc::clone(&directory.mount), dentry };
        self.mounts.add(at, source, file_system, read_only)
    }

    /// Takes away the mount whose root is `node`.
    pub fn unmount(&self, node: PathNode) -> Result<()> {
        let _names = self.names.lock();
        let PathNode { mount, dentry } = node;
        if !Arc::ptr_eq(&mount.root, &dentry) {
            return Err(Errno::EINVAL);
        }
        drop(dentry);
        mount.root.prune();
        mount.file_system.sync()?;
        // One reference in the table, one in our hands.
        self.mounts.remove(&mount, 1)
    }

    /// All mounts that have a place, the root first.
    #[must_use]
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let mut all = alloc::vec![Arc::clone(&self.root)];
        all.extend(self.mounts.all());
        all
    }

    /// Brings every file system to where it survives this kernel; the first
    /// error is returned after all were tried.
    pub fn sync(&self) -> Result<()> {
        let mut result = Ok(());
        for mount in self.mounts() {
            let synced = mount.file_system.sync();
            result = result.and(synced);
        }
        result
    }

    /// Forgets what nobody uses of the directory tree. Returns how many nodes.
    pub fn prune(&self) -> usize {
        self.mounts().iter().map(|mount| mount.root.prune()).sum()
    }

    /// Says which device answers to a number.
    pub fn register_device(&self, number: DeviceNumber, device: Arc<dyn Device>) {
        self.devices.lock().insert(number, device);
    }

    pub(crate) fn device(&self, number: DeviceNumber) -> Result<Arc<dyn Device>> {
        self.devices.lock().get(&number).cloned().ok_or(Errno::ENXIO)
    }

    /// A node without a place in the tree, shown as `name`.
    #[must_use]
    pub fn anonymous_node(&self, inode: Arc<dyn Inode>, name: &[u8]) -> PathNode {
        PathNode {
            mount: Arc::clone(&self.anonymous),
            dentry: Dentry::root(inode, name, Caching::Never),
        }
    }

    /// Changes to the directory `path` leads to, or to `node`.
    pub fn change_directory(&self, context: &mut FsContext, path: &[u8]) -> Result<()> {
        context.cwd = self.resolve_directory(context, path)?;
        Ok(())
    }

    /// Makes the directory `path` leads to the root of this process.
    pub fn change_root(&self, context: &mut FsContext, path: &[u8]) -> Result<()> {
        context.root = self.resolve_directory(context, path)?;
        Ok(())
    }

    fn resolve_directory(&self, context: &FsContext, path: &[u8]) -> Result<PathNode> {
        let node = self.resolve(context, None, path, Lookup::FOLLOW)?;
        if node.dentry.is_directory() { Ok(node) } else { Err(Errno::ENOTDIR) }
    }

    /// Whether the superuser may do what `mode` (`R_OK` 4, `W_OK` 2, `X_OK` 1)
    /// asks: everything, except writing to a read-only mount and executing a
    /// file that nobody may execute.
    pub fn access(&self, node: &PathNode, mode: u32) -> Result<()> {
        if mode & !7 != 0 {
            return Err(Errno::EINVAL);
        }
        if mode & 2 != 0 && !matches!(node.dentry.kind(), FileKind::Character | FileKind::Fifo) {
            node.mount.writable()?;
        }
        if mode & 1 != 0
            && !node.dentry.is_directory()
            && node.inode().metadata()?.permissions & 0o111 == 0
        {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// The node of a program that is about to be executed.
    pub fn executable(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        how: Lookup,
    ) -> Result<PathNode> {
        let node = self.resolve(context, start, path, how)?;
        match node.dentry.kind() {
            FileKind::Regular => self.access(&node, 1).map(|()| node),
            FileKind::Symlink => Err(Errno::ELOOP),
            _ => Err(Errno::EACCES),
        }
    }
}

/// The entry `name` of a directory whose children the caller holds; `None` if
/// there is none.
pub(crate) fn existing(
    directory: &Arc<Dentry>,
    children: &mut Children,
    name: &[u8],
) -> Result<Option<Arc<Dentry>>> {
    match directory.lookup_in(children, name) {
        Ok(entry) => Ok(Some(entry)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
