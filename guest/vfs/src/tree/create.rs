//! New names: directories, nodes, symbolic and hard links.

use alloc::sync::Arc;

use super::{Vfs, existing};
use crate::abi::PATH_MAX;
use crate::errno::{Errno, Result};
use crate::inode::{DeviceNumber, FileKind, Inode, NewNode};
use crate::path::{FsContext, Last, PathNode};

impl Vfs {
    /// `mkdirat`.
    pub fn make_directory(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        mode: u32,
    ) -> Result<()> {
        let permissions = permissions(mode & 0o1777, context);
        self.new_entry(context, start, path, true, |directory, name| {
            directory.create(name, NewNode::Directory, permissions)
        })
    }

    /// `mknodat`.
    pub fn make_node(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        mode: u32,
        device: DeviceNumber,
    ) -> Result<()> {
        let node = match FileKind::from_mode(mode) {
            None if mode & 0xf000 == 0 => NewNode::Regular,
            Some(FileKind::Regular) => NewNode::Regular,
            Some(FileKind::Fifo) => NewNode::Fifo,
            Some(FileKind::Socket) => NewNode::Socket,
            Some(FileKind::Character) => NewNode::Character(device),
            Some(FileKind::Block) => NewNode::Block(device),
            Some(FileKind::Directory) => return Err(Errno::EPERM),
            _ => return Err(Errno::EINVAL),
        };
        let permissions = permissions(mode, context);
        self.new_entry(context, start, path, false, |directory, name| {
            directory.create(name, node, permissions)
        })
    }

    /// `symlinkat`: makes `path` a link to `text`.
    pub fn make_symlink(
        &self,
        context: &FsContext,
        text: &[u8],
        start: Option<&PathNode>,
        path: &[u8],
    ) -> Result<()> {
        match text.len() {
            0 => return Err(Errno::ENOENT),
            length if length >= PATH_MAX => return Err(Errno::ENAMETOOLONG),
            _ => {}
        }
        self.new_entry(context, start, path, false, |directory, name| {
            directory.create(name, NewNode::Symlink(text), 0o777)
        })
    }

    /// `linkat`, with the old name already resolved.
    pub fn make_link(
        &self,
        context: &FsContext,
        old: &PathNode,
        start: Option<&PathNode>,
        path: &[u8],
    ) -> Result<()> {
        let mut walk = self.walk(context, start, path)?;
        let Last::Name(range) = walk.walk_to_parent()? else { return Err(Errno::EEXIST) };
        let name = walk.name(&range);
        let directory = &walk.here.dentry;
        let _names = self.names.lock();
        let mut children = directory.children();
        match existing(directory, &mut children, name)? {
            Some(_) => return Err(Errno::EEXIST),
            None if walk.must_be_directory => return Err(Errno::ENOENT),
            None => walk.here.mount.writable()?,
        }
        if !Arc::ptr_eq(&old.mount, &walk.here.mount) {
            return Err(Errno::EXDEV);
        }
        if directory.is_deleted() {
            return Err(Errno::ENOENT);
        }
        if old.dentry.is_directory() {
            return Err(Errno::EPERM);
        }
        directory.inode().link(name, old.inode())?;
        directory.insert(&mut children, name, Arc::clone(old.inode()));
        Ok(())
    }

    /// Finds the directory for a new entry, checks that there is none of that
    /// name, and has it made.
    fn new_entry(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
        may_end_in_slash: bool,
        make: impl FnOnce(&dyn Inode, &[u8]) -> Result<Arc<dyn Inode>>,
    ) -> Result<()> {
        let mut walk = self.walk(context, start, path)?;
        let Last::Name(range) = walk.walk_to_parent()? else { return Err(Errno::EEXIST) };
        let name = walk.name(&range);
        let directory = &walk.here.dentry;
        let _names = self.names.lock();
        let mut children = directory.children();
        match existing(directory, &mut children, name)? {
            Some(_) => return Err(Errno::EEXIST),
            None if walk.must_be_directory && !may_end_in_slash => return Err(Errno::ENOENT),
            None => walk.here.mount.writable()?,
        }
        if directory.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let inode = make(&**directory.inode(), name)?;
        directory.insert(&mut children, name, inode);
        Ok(())
    }
}

/// The permission bits that a mode gives to a new node.
pub(super) fn permissions(mode: u32, context: &FsContext) -> u16 {
    (mode & 0o7777) as u16 & !context.umask
}
