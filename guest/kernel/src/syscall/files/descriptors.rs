//! Descriptors: opening, closing, duplicating, and what belongs to them.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::sync::Lock;
use pagelab_vfs::abi::{AT_FDCWD, FD_CLOEXEC, O_CLOEXEC, O_CREAT, O_TRUNC, O_WRONLY};
use pagelab_vfs::{Errno, FdTable, Lookup, OpenFile, OpenHow};

use super::{Arguments, Outcome, Place, file, int, locks, open_file};
use crate::files::{first_folders, vfs, wait};
use crate::process::limits::resource;
use crate::process::scheduler;
use crate::syscall::Failure;
use crate::user;

/// The working directory, as a descriptor argument.
const HERE: u64 = AT_FDCWD as u32 as u64;

/// Calls about descriptors.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_open => open(HERE, a[0], a[1] as u32, a[2] as u32),
        linux::__NR_openat => open(a[0], a[1], a[2] as u32, a[3] as u32),
        linux::__NR_openat2 => openat2(a),
        linux::__NR_creat => open(HERE, a[0], O_CREAT | O_WRONLY | O_TRUNC, a[1] as u32),
        linux::__NR_close => close(a),
        linux::__NR_close_range => close_range(a),
        linux::__NR_dup => duplicate(a[0], 0, false),
        linux::__NR_dup2 => dup2(a),
        linux::__NR_dup3 => dup3(a),
        linux::__NR_fcntl => fcntl(a),
        linux::__NR_flock => locks::flock(a),
        linux::__NR_pipe => pipe(a[0], 0),
        linux::__NR_pipe2 => pipe(a[0], a[1] as u32),
        linux::__NR_memfd_create => memfd_create(a),
        _ => return None,
    })
}

fn table() -> Arc<Lock<FdTable>> {
    scheduler::current().process.files()
}

/// `RLIMIT_NOFILE`.
pub(super) fn limit() -> usize {
    let process = &scheduler::current().process;
    let (soft, _) = process.limits.lock().0[resource::FILES];
    usize::try_from(soft).unwrap_or(usize::MAX)
}

/// Gives a file the lowest free number.
pub(super) fn add(file: Arc<OpenFile>, flags: u32) -> Outcome {
    let number = table().lock().insert(file, flags & O_CLOEXEC != 0, 0, limit())?;
    Ok(number as u64)
}

fn open(folder: u64, path: u64, flags: u32, mode: u32) -> Outcome {
    let place = Place::at(folder, path)?;
    let how = OpenHow { flags, mode };
    let file = vfs().open(&place.context, place.start(), &place.path, how)?;
    if let Some(channel) = file.peer_missing() {
        let waited = wait::until(&[channel], None, || match file.peer_missing() {
            Some(_) => None,
            None => Some(()),
        });
        waited.map_err(|_| Failure::Restart)?;
    }
    add(file, flags)
}

/// `openat2` without restrictions on the walk.
fn openat2(a: &Arguments) -> Outcome {
    const SIZE: u64 = 24;
    if a[3] < SIZE {
        return Err(Errno::EINVAL.into());
    }
    let [flags, mode, resolve]: [u64; 3] = user::read(GuestVirt(a[2]))?;
    let flags = u32::try_from(flags).map_err(|_| Errno::EINVAL)?;
    if resolve != 0 || mode & !0o7777 != 0 {
        return Err(Errno::EINVAL.into());
    }
    open(a[0], a[1], flags, mode as u32)
}

fn close(a: &Arguments) -> Outcome {
    let closed = table().lock().remove(int(a[0]))?;
    locks::closed(&closed);
    closed.flush()?;
    Ok(0)
}

fn close_range(a: &Arguments) -> Outcome {
    const UNSHARE: u64 = 2;
    const MARK: u64 = 4;
    if a[2] & !(UNSHARE | MARK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    if a[2] & UNSHARE != 0 {
        let copy = Arc::new(Lock::new(table().lock().clone()));
        let old = core::mem::replace(&mut *scheduler::current().process.files.lock(), copy);
        drop(old);
    }
    let closed = table().lock().close_range(a[0] as u32, a[1] as u32, a[2] & MARK != 0)?;
    for file in &closed {
        locks::closed(file);
    }
    Ok(0)
}

fn duplicate(descriptor: u64, minimum: i32, close_on_exec: bool) -> Outcome {
    let limit = limit();
    let number = table().lock().duplicate(int(descriptor), minimum, close_on_exec, limit)?;
    Ok(number as u64)
}

fn dup2(a: &Arguments) -> Outcome {
    if int(a[0]) == int(a[1]) {
        file(a[0])?;
        return Ok(a[1]);
    }
    duplicate_to(a[0], a[1], false)
}

fn dup3(a: &Arguments) -> Outcome {
    if a[2] as u32 & !O_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    duplicate_to(a[0], a[1], a[2] as u32 & O_CLOEXEC != 0)
}

fn duplicate_to(old: u64, new: u64, close_on_exec: bool) -> Outcome {
    let limit = limit();
    let replaced = table().lock().duplicate_to(int(old), int(new), close_on_exec, limit)?;
    if let Some(file) = replaced {
        locks::closed(&file);
    }
    Ok(new & u64::from(u32::MAX))
}

fn fcntl(a: &Arguments) -> Outcome {
    let command = a[1] as u32;
    match command {
        linux::F_DUPFD => return duplicate(a[0], int(a[2]), false),
        linux::F_DUPFD_CLOEXEC => return duplicate(a[0], int(a[2]), true),
        linux::F_GETFD => return Ok(table().lock().close_on_exec(int(a[0]))?.into()),
        linux::F_SETFD => {
            table().lock().set_close_on_exec(int(a[0]), a[2] as u32 & FD_CLOEXEC != 0)?;
            return Ok(0);
        }
        linux::F_GETFL => return Ok(file(a[0])?.flags().into()),
        linux::F_SETFL => {
            file(a[0])?.set_flags(a[2] as u32)?;
            return Ok(0);
        }
        _ => {}
    }
    let file = open_file(a[0])?;
    match command {
        linux::F_GETPIPE_SZ => Ok(file.pipe().ok_or(Errno::EBADF)?.capacity() as u64),
        linux::F_SETPIPE_SZ => {
            let wanted = usize::try_from(a[2] as u32).unwrap_or(usize::MAX);
            Ok(file.pipe().ok_or(Errno::EBADF)?.set_capacity(wanted)? as u64)
        }
        linux::F_GETLK | linux::F_SETLK | linux::F_SETLKW => locks::record(&file, command, a[2]),
        linux::F_OFD_GETLK | linux::F_OFD_SETLK | linux::F_OFD_SETLKW => {
            locks::record(&file, command, a[2])
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn pipe(address: u64, flags: u32) -> Outcome {
    let (reader, writer) = vfs().pipe(flags)?;
    let (limit, close_on_exec) = (limit(), flags & O_CLOEXEC != 0);
    let table = table();
    let numbers = {
        let mut table = table.lock();
        let reader = table.insert(reader, close_on_exec, 0, limit)?;
        match table.insert(writer, close_on_exec, 0, limit) {
            Ok(writer) => Ok([reader, writer]),
            Err(error) => Err((error, table.remove(reader))),
        }
    };
    let numbers = numbers.map_err(|(error, _)| error)?;
    if let Err(error) = user::write(GuestVirt(address), &numbers) {
        for number in numbers {
            let closed = table.lock().remove(number);
            drop(closed);
        }
        return Err(error.into());
    }
    Ok(0)
}

/// A file without a name, in memory as all are.
fn memfd_create(a: &Arguments) -> Outcome {
    const CLOSE_ON_EXEC: u64 = 1;
    const LONGEST: usize = 250;
    if a[1] & !CLOSE_ON_EXEC != 0 {
        // Seals and huge pages.
        return Err(Errno::EINVAL.into());
    }
    let label = user::read_string(GuestVirt(a[0]), LONGEST, Errno::EINVAL)?;
    let home = vfs().resolve(&first_folders(), None, b"/dev/shm", Lookup::FOLLOW)?;
    let file = vfs().memory_file(&home, &label)?;
    add(file, if a[1] & CLOSE_ON_EXEC != 0 { O_CLOEXEC } else { 0 })
}
