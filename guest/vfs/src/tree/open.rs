//! `openat`: from a path to an open file.

use alloc::sync::Arc;

use super::create::permissions;
use super::{Vfs, existing};
use crate::abi::{
    NAME_MAX, O_ACCMODE, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY,
    O_RDWR, O_TMPFILE, O_TRUNC,
};
use crate::dentry::Dentry;
use crate::errno::{Errno, Result};
use crate::file::File;
use crate::inode::{FileKind, NewNode};
use crate::open_file::{O_LARGEFILE, OpenFile};
use crate::path::{Followed, FsContext, Last, PathNode};

/// `__O_TMPFILE` without the directory bit that always goes with it.
const TMPFILE_BIT: u32 = O_TMPFILE & !O_DIRECTORY;

/// How a file is to be opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHow {
    /// `O_*`.
    pub flags: u32,
    /// Permissions, should it be created.
    pub mode: u32,
}

impl OpenHow {
    /// Only for reading.
    pub const READ: Self = Self { flags: O_RDONLY, mode: 0 };

    /// Drops what has no meaning, refuses what contradicts itself.
    fn checked(self) -> Result<Self> {
        let Self { mut flags, mode } = self;
        if flags & O_PATH != 0 {
            flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        }
        if flags & TMPFILE_BIT != 0 {
            let writes = matches!(flags & O_ACCMODE, 1 | 2);
            if flags & O_DIRECTORY == 0 || !writes || flags & O_CREAT != 0 {
                return Err(Errno::EINVAL);
            }
        } else if flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY {
            return Err(Errno::EINVAL);
        }
        Ok(Self { flags, mode })
    }
}

impl Vfs {
    /// Opens the file at `path`. Opening one end of a named pipe may have to
    /// wait: see [`OpenFile::peer_missing`].
    pub fn open(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        how: OpenHow,
    ) -> Result<Arc<OpenFile>> {
        let how = how.checked()?;
        let flags = how.flags;
        if flags & TMPFILE_BIT != 0 {
            return self.open_unnamed(context, start, path, how);
        }
        let (node, created) = if flags & O_CREAT != 0 {
            self.find_or_create(context, start, path, how)?
        } else {
            let follow = flags & O_NOFOLLOW == 0;
            (self.walk(context, start, path)?.finish(follow)?, false)
        };
        if flags & O_CREAT != 0 && !created {
            if flags & O_EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            if node.dentry.is_directory() {
                return Err(Errno::EISDIR);
            }
        }
        self.open_node_inner(node, flags, created)
    }

    /// Opens a node that is already known: a program for its execution, or
    /// `/proc/self/fd/N` once more.
    pub fn open_node(&self, node: PathNode, flags: u32) -> Result<Arc<OpenFile>> {
        self.open_node_inner(node, flags, false)
    }

    fn open_node_inner(&self, node: PathNode, flags: u32, created: bool) -> Result<Arc<OpenFile>> {
        let kind = node.dentry.kind();
        if flags & O_DIRECTORY != 0 && kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if flags & O_PATH != 0 {
            return Ok(OpenFile::new(node, None, flags));
        }
        let writes = flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0;
        match kind {
            FileKind::Symlink => return Err(Errno::ELOOP),
            FileKind::Directory if writes => return Err(Errno::EISDIR),
            FileKind::Regular if writes => node.mount.writable()?,
            _ => {}
        }
        if writes && let Some(users) = node.inode().text_use() {
            users.check_writable()?;
        }
        let file = self.behaviour(&node, kind, flags)?;
        if flags & O_TRUNC != 0 && kind == FileKind::Regular && file.is_none() && !created {
            node.inode().truncate(0)?;
        }
        Ok(OpenFile::new(node, file, flags))
    }

    /// What stands behind the node, if it is more than its inode's data.
    fn behaviour(
        &self,
        node: &PathNode,
        kind: FileKind,
        flags: u32,
    ) -> Result<Option<Arc<dyn File>>> {
        let inode = node.inode();
        match kind {
            FileKind::Character => {
                let number = inode.metadata()?.device;
                self.device(number)?.open(flags).map(Some)
            }
            FileKind::Fifo => {
                let slot = inode.fifo().ok_or(Errno::ENXIO)?;
                slot.open(&self.platform, flags).map(Some)
            }
            FileKind::Block | FileKind::Socket | FileKind::Anonymous => Err(Errno::ENXIO),
            FileKind::Regular | FileKind::Directory | FileKind::Symlink => inode.open(flags),
        }
    }

    /// The node at `path`, made as a regular file if it is missing; and whether
    /// it was.
    fn find_or_create(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        how: OpenHow,
    ) -> Result<(PathNode, bool)> {
        let follow = how.flags & (O_NOFOLLOW | O_EXCL) == 0;
        let mut walk = self.walk(context, start, path)?;
        loop {
            let range = match walk.walk_to_parent()? {
                Last::Name(_) if walk.must_be_directory => return Err(Errno::EISDIR),
                Last::Name(range) => range,
                Last::DotDot => {
                    walk.go_up();
                    return Ok((walk.here, false));
                }
                Last::Dot | Last::Root => return Ok((walk.here, false)),
            };
            let entry = {
                let name = walk.name(&range);
                let directory = &walk.here.dentry;
                let _names = self.names.lock();
                let mut children = directory.children();
                match existing(directory, &mut children, name)? {
                    Some(entry) => entry,
                    None => {
                        walk.here.mount.writable()?;
                        if directory.is_deleted() {
                            return Err(Errno::ENOENT);
                        }
                        let permissions = permissions(how.mode, context);
                        let inode =
                            directory.inode().create(name, NewNode::Regular, permissions)?;
                        let entry = directory.insert(&mut children, name, inode);
                        drop(children);
                        return Ok((walk.node_of(entry), true));
                    }
                }
            };
            if entry.kind() != FileKind::Symlink || !follow {
                return Ok((walk.node_of(entry), false));
            }
            if let Followed::Node(node) = walk.follow_last(&entry)? {
                return Ok((node, false));
            }
        }
    }

    /// `memfd_create`: a file without a name in the tmpfs at `home`, shown as
    /// `memfd:` and `label`.
    pub fn memory_file(&self, home: &PathNode, label: &[u8]) -> Result<Arc<OpenFile>> {
        // What is left of a name after `memfd:`.
        if label.len() > NAME_MAX - b"memfd:".len() {
            return Err(Errno::EINVAL);
        }
        let inode = home.mount.root.inode().create_unnamed(0o777, false)?;
        let mut name = b"/memfd:".to_vec();
        name.extend_from_slice(label);
        let dentry = Dentry::root(inode, &name, home.mount.file_system.caching());
        dentry.mark_deleted();
        let node = PathNode { mount: Arc::clone(&home.mount), dentry };
        Ok(OpenFile::new(node, None, O_RDWR | O_LARGEFILE))
    }

    /// `O_TMPFILE`: a file that never had a name.
    fn open_unnamed(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        how: OpenHow,
    ) -> Result<Arc<OpenFile>> {
        let node = self.walk(context, start, path)?.finish(how.flags & O_NOFOLLOW == 0)?;
        if !node.dentry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        node.mount.writable()?;
        let linkable = how.flags & O_EXCL == 0;
        let inode = node.inode().create_unnamed(permissions(how.mode, context), linkable)?;
        let mut name = alloc::vec![b'#'];
        crate::text::push_decimal(&mut name, inode.ino());
        let caching = node.mount.file_system.caching();
        let dentry = Dentry::new(inode, Some(node.dentry), &name, caching);
        dentry.mark_deleted();
        Ok(OpenFile::new(PathNode { mount: node.mount, dentry }, None, how.flags))
    }
}
