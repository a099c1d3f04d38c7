//! Names go: `unlinkat`.

use super::{Vfs, existing};
use crate::errno::{Errno, Result};
use crate::path::{FsContext, Last, PathNode};

impl Vfs {
    /// `unlink`.
    pub fn unlink(&self, context: &FsContext, start: Option<&PathNode>, path: &[u8]) -> Result<()> {
        let mut walk = self.walk(context, start, path)?;
        let Last::Name(range) = walk.walk_to_parent()? else { return Err(Errno::EISDIR) };
        let name = walk.name(&range);
        let directory = &walk.here.dentry;
        let _names = self.names.lock();
        let mut children = directory.children();
        let entry = existing(directory, &mut children, name)?.ok_or(Errno::ENOENT)?;
        if walk.must_be_directory && !entry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if entry.is_directory() {
            return Err(Errno::EISDIR);
        }
        walk.here.mount.writable()?;
        directory.inode().unlink(name)?;
        children.remove(name);
        drop(children);
        entry.mark_deleted();
        Ok(())
    }

    /// `rmdir`, or `unlinkat` with `AT_REMOVEDIR`.
    pub fn remove_directory(
        &self,
        context: &FsContext,
        start: Option<&PathNode>,
        path: &[u8],
    ) -> Result<()> {
        let mut walk = self.walk(context, start, path)?;
        let range = match walk.walk_to_parent()? {
            Last::Name(range) => range,
            Last::Dot => return Err(Errno::EINVAL),
            Last::DotDot => return Err(Errno::ENOTEMPTY),
            Last::Root => return Err(Errno::EBUSY),
        };
        let name = walk.name(&range);
        let directory = &walk.here.dentry;
        let _names = self.names.lock();
        let mut children = directory.children();
        let entry = existing(directory, &mut children, name)?.ok_or(Errno::ENOENT)?;
        walk.here.mount.writable()?;
        if !entry.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        if entry.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        directory.inode().rmdir(name)?;
        children.remove(name);
        drop(children);
        entry.mark_deleted();
        Ok(())
    }
}
