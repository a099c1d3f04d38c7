//! What `stat` shows, and changing it.

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_vfs::abi::{AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW};
use pagelab_vfs::attributes::NewTime;
use pagelab_vfs::{Errno, Lookup, PathNode, Result};

use super::{Arguments, Outcome, Place, file, int, open_file};
use crate::files::vfs;
use crate::user;

/// The working directory, as a descriptor argument.
const HERE: u64 = AT_FDCWD as u32 as u64;
const FOLLOW: u32 = 0;

/// Calls about attributes.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    let done = match call {
        linux::__NR_stat => find(HERE, a[0], FOLLOW).and_then(|node| put_stat(&node, a[1])),
        linux::__NR_lstat => {
            find(HERE, a[0], AT_SYMLINK_NOFOLLOW).and_then(|node| put_stat(&node, a[1]))
        }
        linux::__NR_fstat => file(a[0]).and_then(|file| put_stat(file.node(), a[1])),
        linux::__NR_newfstatat => newfstatat(a),
        linux::__NR_statx => statx(a),
        linux::__NR_statfs => find(HERE, a[0], FOLLOW).and_then(|node| put_statfs(&node, a[1])),
        linux::__NR_fstatfs => file(a[0]).and_then(|file| put_statfs(file.node(), a[1])),
        linux::__NR_access => access(HERE, a[0], a[1], 0),
        linux::__NR_faccessat => access(a[0], a[1], a[2], 0),
        linux::__NR_faccessat2 => access(a[0], a[1], a[2], a[3] as u32),
        linux::__NR_chmod => change_mode(HERE, a[0], a[1], FOLLOW),
        linux::__NR_fchmod => open_file(a[0]).and_then(|file| file.node().change_mode(a[1] as u32)),
        linux::__NR_fchmodat => change_mode(a[0], a[1], a[2], FOLLOW),
        linux::__NR_fchmodat2 => change_mode(a[0], a[1], a[2], a[3] as u32),
        linux::__NR_chown => change_owner(HERE, a[0], [a[1], a[2]], FOLLOW),
        linux::__NR_lchown => change_owner(HERE, a[0], [a[1], a[2]], AT_SYMLINK_NOFOLLOW),
        linux::__NR_fchown => {
            open_file(a[0]).and_then(|file| file.node().change_owner(a[1] as u32, a[2] as u32))
        }
        linux::__NR_fchownat => change_owner(a[0], a[1], [a[2], a[3]], a[4] as u32),
        linux::__NR_truncate => {
            find(HERE, a[0], FOLLOW).and_then(|node| node.truncate(a[1].cast_signed()))
        }
        linux::__NR_utimensat => utimensat(a),
        linux::__NR_utimes => times_of(HERE, a[0], a[1]),
        linux::__NR_futimesat => times_of(a[0], a[1], a[2]),
        linux::__NR_utime => utime(a),
        _ => return extended(call, a[0]),
    };
    Some(done.map(|()| 0).map_err(Into::into))
}

/// Extended attributes: files in memory have none.
fn extended(call: u32, file: u64) -> Option<Outcome> {
    match call {
        linux::__NR_fsetxattr
        | linux::__NR_fgetxattr
        | linux::__NR_flistxattr
        | linux::__NR_fremovexattr
            if open_file(file).is_err() =>
        {
            Some(Err(Errno::EBADF.into()))
        }
        linux::__NR_setxattr
        | linux::__NR_lsetxattr
        | linux::__NR_fsetxattr
        | linux::__NR_getxattr
        | linux::__NR_lgetxattr
        | linux::__NR_fgetxattr
        | linux::__NR_removexattr
        | linux::__NR_lremovexattr
        | linux::__NR_fremovexattr => Some(Err(Errno::EOPNOTSUPP.into())),
        linux::__NR_listxattr | linux::__NR_llistxattr | linux::__NR_flistxattr => Some(Ok(0)),
        _ => None,
    }
}

/// The node at a path, under the `AT_*` flags of a call that follows links
/// unless told not to.
fn find(folder: u64, path: u64, flags: u32) -> Result<PathNode> {
    let place = Place::at(folder, path)?;
    vfs().resolve(&place.context, place.start(), &place.path, Lookup::from_at_flags(flags))
}

/// The same for calls that also take a null pointer or an empty path for the
/// descriptor itself.
fn find_or_open(folder: u64, path: u64, flags: u32) -> Result<PathNode> {
    if path == 0 && flags & AT_EMPTY_PATH != 0 && int(folder) != AT_FDCWD {
        return file(folder).map(|file| file.node().clone());
    }
    find(folder, path, flags)
}

fn put_stat(node: &PathNode, address: u64) -> Result<()> {
    user::write(GuestVirt(address), &node.stat()?)
}

fn put_statfs(node: &PathNode, address: u64) -> Result<()> {
    user::write(GuestVirt(address), &node.statfs())
}

fn newfstatat(a: &Arguments) -> Result<()> {
    let flags = a[3] as u32;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    put_stat(&find_or_open(a[0], a[1], flags)?, a[2])
}

fn statx(a: &Arguments) -> Result<()> {
    const SYNC: u32 = linux::AT_STATX_SYNC_TYPE;
    const RESERVED: u32 = linux::STATX__RESERVED;
    let flags = a[2] as u32;
    let known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | SYNC;
    if flags & !known != 0 || flags & SYNC == SYNC || a[3] as u32 & RESERVED != 0 {
        return Err(Errno::EINVAL);
    }
    user::write(GuestVirt(a[4]), &find_or_open(a[0], a[1], flags)?.statx()?)
}

fn access(folder: u64, path: u64, mode: u64, flags: u32) -> Result<()> {
    if flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 || mode & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    vfs().access(&find(folder, path, flags & !AT_EACCESS)?, mode as u32)
}

fn change_mode(folder: u64, path: u64, mode: u64, flags: u32) -> Result<()> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    find(folder, path, flags)?.change_mode(mode as u32)
}

fn change_owner(folder: u64, path: u64, owner: [u64; 2], flags: u32) -> Result<()> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    find(folder, path, flags)?.change_owner(owner[0] as u32, owner[1] as u32)
}

fn utimensat(a: &Arguments) -> Result<()> {
    let flags = a[3] as u32;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let times = match a[2] {
        0 => None,
        address => {
            let [accessed, modified]: [[i64; 2]; 2] = user::read(GuestVirt(address))?;
            let time = |[seconds, nanoseconds]: [i64; 2]| NewTime { seconds, nanoseconds };
            Some([time(accessed), time(modified)])
        }
    };
    let node = if a[1] == 0 {
        // `futimens`.
        open_file(a[0])?.node().clone()
    } else {
        find(a[0], a[1], flags)?
    };
    vfs().set_times(&node, times)
}

/// `utimes`: microseconds.
fn times_of(folder: u64, path: u64, times: u64) -> Result<()> {
    let times = match times {
        0 => None,
        address => {
            let times: [[i64; 2]; 2] = user::read(GuestVirt(address))?;
            if times.iter().any(|&[_, micros]| !(0..1_000_000).contains(&micros)) {
                return Err(Errno::EINVAL);
            }
            Some(times.map(|[seconds, micros]| NewTime { seconds, nanoseconds: micros * 1000 }))
        }
    };
    vfs().set_times(&find(folder, path, FOLLOW)?, times)
}

fn utime(a: &Arguments) -> Result<()> {
    let times = match a[1] {
        0 => None,
        address => {
            let times: [i64; 2] = user::read(GuestVirt(address))?;
            Some(times.map(|seconds| NewTime { seconds, nanoseconds: 0 }))
        }
    };
    vfs().set_times(&find(HERE, a[0], FOLLOW)?, times)
}
