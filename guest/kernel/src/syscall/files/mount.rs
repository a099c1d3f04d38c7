//! `mount` and `umount2`: file systems in memory, and `/proc`.
//!
//! There is no file system with anything behind it, and no mount of a part of
//! another one. Unlike on Linux a mapping alone does not keep a mount busy: the
//! pages stay with the mapping when the file goes.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;
use pagelab_vfs::abi::{O_ACCMODE, O_RDONLY};
use pagelab_vfs::inode::{Caching, FileSystem};
use pagelab_vfs::procfs::ProcFs;
use pagelab_vfs::{Errno, Lookup, OpenFile, PathNode, Result};

use super::{Arguments, Outcome, Place, path};
use crate::files::{new_tmpfs, proc, tree, vfs};
use crate::process::all;

/// The working directory, as a descriptor argument.
const HERE: u64 = pagelab_vfs::abi::AT_FDCWD as u32 as u64;
/// Each takes memory of the kernel's own.
const MOST_MOUNTS: usize = 1000;

/// Calls about mounts.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    let done = match call {
        linux::__NR_mount => mount(a),
        linux::__NR_umount2 => unmount(a[0], a[1] as u32),
        _ => return None,
    };
    Some(done.map(|()| 0).map_err(Into::into))
}

fn mount(a: &Arguments) -> Result<()> {
    // What these would forbid or delay does not happen here anyway.
    const WITHOUT_EFFECT: u32 = linux::MS_NOSUID
        | linux::MS_NODEV
        | linux::MS_NOEXEC
        | linux::MS_SYNCHRONOUS
        | linux::MS_DIRSYNC
        | linux::MS_NOATIME
        | linux::MS_NODIRATIME
        | linux::MS_SILENT
        | linux::MS_RELATIME
        | linux::MS_STRICTATIME
        | linux::MS_LAZYTIME;
    let mut flags = a[3] as u32;
    if flags & linux::MS_MGC_MSK == linux::MS_MGC_VAL {
        flags &= !linux::MS_MGC_MSK;
    }
    let place = Place::at(HERE, a[1])?;
    let at = vfs().resolve(&place.context, place.start(), &place.path, Lookup::FOLLOW)?;
    let read_only = flags & linux::MS_RDONLY != 0;
    flags &= !(WITHOUT_EFFECT | linux::MS_RDONLY);
    if flags == linux::MS_REMOUNT {
        return mount_again(&at, read_only);
    }
    if flags != 0 || a[2] == 0 {
        return Err(Errno::EINVAL);
    }
    let kind = path(a[2])?;
    if a[4] != 0 && !path(a[4])?.is_empty() {
        // No option is known.
        return Err(Errno::EINVAL);
    }
    if vfs().mounts().len() >= MOST_MOUNTS {
        return Err(Errno::ENOSPC);
    }
    let (name, file_system): (_, Arc<dyn FileSystem>) = match kind.as_slice() {
        b"tmpfs" => ("tmpfs", Arc::new(new_tmpfs()?)),
        b"proc" => ("proc", Arc::new(ProcFs::new(Arc::new(proc::Kernel)))),
        _ => return Err(Errno::ENODEV),
    };
    vfs().mount(at, name, file_system, read_only).map(drop)
}

/// `MS_REMOUNT`: the mount becomes read-only, unless a file is open for writing
/// there, or writable.
fn mount_again(at: &PathNode, read_only: bool) -> Result<()> {
    let mount = at.mount();
    // What may be done in a folder of the host is the host's affair.
    if !at.same(&mount.root()) || mount.file_system.caching() != Caching::Keep {
        return Err(Errno::EINVAL);
    }
    let is_written = |file: &OpenFile| {
        Arc::ptr_eq(file.node().mount(), mount) && file.flags() & O_ACCMODE != O_RDONLY
    };
    let anybody_writes =
        || all().iter().any(|it| it.files().lock().iter().any(|(_, file)| is_written(file)));
    if read_only && anybody_writes() {
        return Err(Errno::EBUSY);
    }
    mount.set_read_only(read_only);
    Ok(())
}

fn unmount(address: u64, flags: u32) -> Result<()> {
    const FORCE: u32 = 1;
    const NO_FOLLOW: u32 = 8;
    if flags & !(FORCE | NO_FOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let place = Place::at(HERE, address)?;
    let how = if flags & NO_FOLLOW == 0 { Lookup::FOLLOW } else { Lookup::NO_FOLLOW };
    let node = vfs().resolve(&place.context, place.start(), &place.path, how)?;
    let file_system = node.mount().file_system.clone();
    vfs().unmount(node)?;
    if file_system.caching() == Caching::Keep {
        tree::clear(&file_system.root());
    }
    Ok(())
}
