//! Names: folders, links, renaming, removing, the current folder.

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_vfs::abi::{AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW};
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::{Errno, Lookup, Result};

use super::{Arguments, Outcome, Place, context, file, path};
use crate::files::buffers::UserBuffer;
use crate::files::vfs;
use crate::process::scheduler;
use crate::user;

/// The working directory, as a descriptor argument.
const HERE: u64 = AT_FDCWD as u32 as u64;

/// Calls about names.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    let done = match call {
        linux::__NR_mkdir => make_folder(HERE, a[0], a[1]),
        linux::__NR_mkdirat => make_folder(a[0], a[1], a[2]),
        linux::__NR_mknod => make_node(HERE, a[0], a[1], a[2]),
        linux::__NR_mknodat => make_node(a[0], a[1], a[2], a[3]),
        linux::__NR_rmdir => remove(HERE, a[0], AT_REMOVEDIR),
        linux::__NR_unlink => remove(HERE, a[0], 0),
        linux::__NR_unlinkat => remove(a[0], a[1], a[2] as u32),
        linux::__NR_rename => rename([HERE, a[0]], [HERE, a[1]], 0),
        linux::__NR_renameat => rename([a[0], a[1]], [a[2], a[3]], 0),
        linux::__NR_renameat2 => rename([a[0], a[1]], [a[2], a[3]], a[4] as u32),
        linux::__NR_link => link([HERE, a[0]], [HERE, a[1]], 0),
        linux::__NR_linkat => link([a[0], a[1]], [a[2], a[3]], a[4] as u32),
        linux::__NR_symlink => symlink(a[0], HERE, a[1]),
        linux::__NR_symlinkat => symlink(a[0], a[1], a[2]),
        linux::__NR_chdir => change_folder(a[0]),
        linux::__NR_fchdir => change_to_open(a[0]),
        linux::__NR_chroot => change_root(a[0]),
        _ => return others(call, a),
    };
    Some(done.map(|()| 0).map_err(Into::into))
}

fn others(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_getcwd => getcwd(a),
        linux::__NR_readlink => read_link(HERE, a[0], a[1], a[2]),
        linux::__NR_readlinkat => read_link(a[0], a[1], a[2], a[3]),
        linux::__NR_getdents64 => list(a),
        linux::__NR_umask => {
            let folders = scheduler::current().process.folders();
            let new = (a[0] & 0o777) as u16;
            let old = core::mem::replace(&mut folders.lock().umask, new);
            Ok(old.into())
        }
        _ => return None,
    })
}

fn make_folder(folder: u64, path: u64, mode: u64) -> Result<()> {
    let place = Place::at(folder, path)?;
    vfs().make_directory(&place.context, place.start(), &place.path, mode as u32)
}

fn make_node(folder: u64, path: u64, mode: u64, device: u64) -> Result<()> {
    let place = Place::at(folder, path)?;
    let device = DeviceNumber(u64::from(device as u32));
    vfs().make_node(&place.context, place.start(), &place.path, mode as u32, device)
}

fn remove(folder: u64, path: u64, flags: u32) -> Result<()> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let place = Place::at(folder, path)?;
    if flags & AT_REMOVEDIR != 0 {
        vfs().remove_directory(&place.context, place.start(), &place.path)
    } else {
        vfs().unlink(&place.context, place.start(), &place.path)
    }
}

fn rename(old: [u64; 2], new: [u64; 2], flags: u32) -> Result<()> {
    let old = Place::at(old[0], old[1])?;
    let new = Place::at(new[0], new[1])?;
    vfs().rename(&old.context, (old.start(), &old.path), (new.start(), &new.path), flags)
}

fn link(old: [u64; 2], new: [u64; 2], flags: u32) -> Result<()> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let old = Place::at(old[0], old[1])?;
    let new = Place::at(new[0], new[1])?;
    let how =
        Lookup { follow: flags & AT_SYMLINK_FOLLOW != 0, allow_empty: flags & AT_EMPTY_PATH != 0 };
    let node = vfs().resolve(&old.context, old.start(), &old.path, how)?;
    vfs().make_link(&new.context, &node, new.start(), &new.path)
}

fn symlink(text: u64, folder: u64, at: u64) -> Result<()> {
    let text = path(text)?;
    let place = Place::at(folder, at)?;
    vfs().make_symlink(&place.context, &text, place.start(), &place.path)
}

fn change_folder(address: u64) -> Result<()> {
    let path = path(address)?;
    let mut context = context();
    vfs().change_directory(&mut context, &path)?;
    set_folder(context.cwd);
    Ok(())
}

fn change_to_open(descriptor: u64) -> Result<()> {
    let node = file(descriptor)?.node().clone();
    if !node.dentry().is_directory() {
        return Err(Errno::ENOTDIR);
    }
    set_folder(node);
    Ok(())
}

fn set_folder(node: pagelab_vfs::PathNode) {
    let folders = scheduler::current().process.folders();
    let old = core::mem::replace(&mut folders.lock().cwd, node);
    drop(old);
}

fn change_root(address: u64) -> Result<()> {
    let path = path(address)?;
    let mut context = context();
    vfs().change_root(&mut context, &path)?;
    let folders = scheduler::current().process.folders();
    let old = core::mem::replace(&mut folders.lock().root, context.root);
    drop(old);
    Ok(())
}

fn getcwd(a: &Arguments) -> Outcome {
    let mut path = context().working_directory()?;
    path.push(0);
    if path.len() as u64 > a[1] {
        return Err(Errno::ERANGE.into());
    }
    user::write_bytes(GuestVirt(a[0]), &path)?;
    Ok(path.len() as u64)
}

fn read_link(folder: u64, path: u64, address: u64, length: u64) -> Outcome {
    let length = usize::try_from(super::int(length)).ok().filter(|&length| length > 0);
    let length = length.ok_or(Errno::EINVAL)?;
    let place = Place::at(folder, path)?;
    let how = Lookup { follow: false, allow_empty: true };
    let node = vfs().resolve(&place.context, place.start(), &place.path, how)?;
    let text = node.read_link()?;
    let text = &text[..text.len().min(length)];
    user::write_bytes(GuestVirt(address), text)?;
    Ok(text.len() as u64)
}

fn list(a: &Arguments) -> Outcome {
    let mut buffer = UserBuffer::new(a[1], a[2] & u64::from(u32::MAX))?;
    Ok(file(a[0])?.list(&mut buffer)? as u64)
}
