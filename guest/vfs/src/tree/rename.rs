//! `renameat2`.

use alloc::sync::Arc;

use super::Vfs;
use crate::abi::{RENAME_EXCHANGE, RENAME_NOREPLACE};
use crate::dentry::{Children, Dentry};
use crate::errno::{Errno, Result};
use crate::path::{FsContext, Last, PathNode};

/// One side of a renaming.
struct Side<'a> {
    directory: &'a Arc<Dentry>,
    name: &'a [u8],
    /// A slash follows the name.
    slash: bool,
}

impl Vfs {
    /// Renames `old` to `new`, with the flags of `renameat2`.
    pub fn rename(
        &self,
        context: &FsContext,
        old: (Option<&PathNode>, &[u8]),
        new: (Option<&PathNode>, &[u8]),
        flags: u32,
    ) -> Result<()> {
        if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE) != 0
            || flags == RENAME_NOREPLACE | RENAME_EXCHANGE
        {
            return Err(Errno::EINVAL);
        }
        let mut from = self.walk(context, old.0, old.1)?;
        let from_last = from.walk_to_parent()?;
        let mut to = self.walk(context, new.0, new.1)?;
        let to_last = to.walk_to_parent()?;
        if !Arc::ptr_eq(&from.here.mount, &to.here.mount) {
            return Err(Errno::EXDEV);
        }
        let Last::Name(from_range) = from_last else { return Err(Errno::EBUSY) };
        let Last::Name(to_range) = to_last else {
            let keep = flags & RENAME_NOREPLACE != 0;
            return Err(if keep { Errno::EEXIST } else { Errno::EBUSY });
        };
        from.here.mount.writable()?;
        let from_side = Side {
            directory: &from.here.dentry,
            name: from.name(&from_range),
            slash: from.must_be_directory,
        };
        let to_side = Side {
            directory: &to.here.dentry,
            name: to.name(&to_range),
            slash: to.must_be_directory,
        };
        let _names = self.names.lock();
        rename_locked(&from_side, &to_side, flags)
    }
}

/// The renaming, with the names of the tree locked.
fn rename_locked(from: &Side<'_>, to: &Side<'_>, flags: u32) -> Result<()> {
    let exchange = flags & RENAME_EXCHANGE != 0;
    let source = from.directory.lookup(from.name)?;
    let target = match to.directory.lookup(to.name) {
        Ok(_) if flags & RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
        Ok(target) => Some(target),
        Err(Errno::ENOENT) if !exchange => None,
        Err(error) => return Err(error),
    };
    check_slashes(from, to, &source, target.as_ref(), exchange)?;
    check_ancestors(from, to, &source, target.as_ref(), exchange)?;
    if let Some(target) = &target
        && target.inode().ino() == source.inode().ino()
    {
        return Ok(());
    }
    check_kinds(to, &source, target.as_ref(), exchange)?;
    from.directory.inode().rename(from.name, to.directory.inode(), to.name, exchange)?;
    with_children(from.directory, to.directory, |from_children, to_children| {
        from_children.remove(from.name);
        let into = to_children.unwrap_or(from_children);
        into.insert(to.name.into(), Arc::clone(&source));
    });
    source.place_at(to.directory, to.name);
    match target {
        Some(target) if exchange => {
            from.directory.children().insert(from.name.into(), Arc::clone(&target));
            target.place_at(from.directory, from.name);
        }
        Some(target) => target.mark_deleted(),
        None => {}
    }
    Ok(())
}

/// A name with a slash behind it has to be a directory.
fn check_slashes(
    from: &Side<'_>,
    to: &Side<'_>,
    source: &Dentry,
    target: Option<&Arc<Dentry>>,
    exchange: bool,
) -> Result<()> {
    if let Some(target) = target
        && exchange
        && to.slash
        && !target.is_directory()
    {
        return Err(Errno::ENOTDIR);
    }
    let slash = from.slash || (to.slash && !exchange);
    if slash && !source.is_directory() { Err(Errno::ENOTDIR) } else { Ok(()) }
}

/// Nothing can be moved into itself, nor replace what it lies in.
fn check_ancestors(
    from: &Side<'_>,
    to: &Side<'_>,
    source: &Arc<Dentry>,
    target: Option<&Arc<Dentry>>,
    exchange: bool,
) -> Result<()> {
    if Arc::ptr_eq(from.directory, to.directory) {
        return Ok(());
    }
    if let Some(towards) = from.directory.child_towards(to.directory) {
        return if Arc::ptr_eq(&towards, source) { Err(Errno::EINVAL) } else { Ok(()) };
    }
    if let Some(towards) = to.directory.child_towards(from.directory)
        && let Some(target) = target
        && Arc::ptr_eq(&towards, target)
    {
        return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    Ok(())
}

/// A directory replaces only a directory, and no mount point moves.
fn check_kinds(
    to: &Side<'_>,
    source: &Dentry,
    target: Option<&Arc<Dentry>>,
    exchange: bool,
) -> Result<()> {
    match target {
        None if to.directory.is_deleted() => return Err(Errno::ENOENT),
        Some(target) if !exchange => match (source.is_directory(), target.is_directory()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        },
        _ => {}
    }
    if source.is_mount_point() || target.is_some_and(|target| target.is_mount_point()) {
        return Err(Errno::EBUSY);
    }
    Ok(())
}

/// Locks the children of both directories, the one at the lower address first;
/// the second is `None` if they are the same.
fn with_children(
    first: &Arc<Dentry>,
    second: &Arc<Dentry>,
    act: impl FnOnce(&mut Children, Option<&mut Children>),
) {
    if Arc::ptr_eq(first, second) {
        act(&mut first.children(), None);
    } else if Arc::as_ptr(first) < Arc::as_ptr(second) {
        let mut first = first.children();
        act(&mut first, Some(&mut second.children()));
    } else {
        let mut second = second.children();
        act(&mut first.children(), Some(&mut second));
    }
}
