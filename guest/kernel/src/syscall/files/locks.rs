//! Locks on files: `flock`, and the records of `fcntl`. The rules are the file
//! tree's ([`pagelab_vfs::lock`]); here is the waiting.

use alloc::collections::BTreeMap;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::sync::Lock;
use pagelab_vfs::abi::LOCK_NB;
use pagelab_vfs::open_file::FLOCK_SIZE;
use pagelab_vfs::{Errno, OpenFile};

use super::{Arguments, Outcome, open_file};
use crate::files::wait;
use crate::process::{Pid, Process, scheduler};
use crate::syscall::Failure;
use crate::user;

/// `flock`.
pub(super) fn flock(a: &Arguments) -> Outcome {
    let file = open_file(a[0])?;
    let operation = a[1] as u32;
    take(&file, operation & LOCK_NB == 0, || file.lock_whole(operation))
}

/// `fcntl` with a command about record locks.
pub(super) fn record(file: &OpenFile, command: u32, address: u64) -> Outcome {
    let mut bytes: [u8; FLOCK_SIZE] = user::read(GuestVirt(address))?;
    let process = scheduler::current().process.pid;
    let waits = matches!(command, linux::F_SETLKW | linux::F_OFD_SETLKW);
    let taken = take(file, waits, || match file.lock_record(command, &mut bytes, process) {
        Err(Errno::EAGAIN) if command == linux::F_SETLKW => wait_for_holder(file, bytes, process),
        result => result,
    });
    WAITING.lock().remove(&process);
    taken?;
    if matches!(command, linux::F_GETLK | linux::F_OFD_GETLK) {
        user::write(GuestVirt(address), &bytes)?;
    }
    Ok(0)
}

/// Which process waits for a record of which other one.
static WAITING: Lock<BTreeMap<Pid, Pid>> = Lock::new(BTreeMap::new());

/// A process is to wait for a record: EAGAIN, or EDEADLK if whoever holds it waits
/// for this process. (Records of open files are nobody's: as on Linux, circles of
/// those are not found.)
fn wait_for_holder(
    file: &OpenFile,
    mut wanted: [u8; FLOCK_SIZE],
    process: Pid,
) -> Result<(), Errno> {
    file.lock_record(linux::F_GETLK, &mut wanted, process)?;
    let [.., a, b, c, d, _, _, _, _] = wanted;
    let Ok(holder) = Pid::try_from(i32::from_le_bytes([a, b, c, d])) else {
        return Err(Errno::EAGAIN);
    };
    let mut waiting = WAITING.lock();
    let mut next = Some(holder);
    // A circle that this process is not in was refused to somebody else.
    for _ in 0..=waiting.len() {
        match next {
            Some(other) if other == process => return Err(Errno::EDEADLK),
            Some(other) => next = waiting.get(&other).copied(),
            None => break,
        }
    }
    waiting.insert(process, holder);
    Err(Errno::EAGAIN)
}

fn take(file: &OpenFile, waits: bool, mut attempt: impl FnMut() -> Result<(), Errno>) -> Outcome {
    let channel = match attempt() {
        Err(Errno::EAGAIN) if waits => file.lock_channel().ok_or(Errno::EAGAIN)?,
        result => return result.map(|()| 0).map_err(Into::into),
    };
    let waited = wait::until(&[channel], None, || match attempt() {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    waited.map_err(|_| Failure::Restart)??;
    Ok(0)
}

/// A process closes a descriptor: with that it loses its records on the file.
pub(super) fn closed(file: &OpenFile) {
    file.release_process_locks(scheduler::current().process.pid);
}

/// A process ends: its descriptors are closed.
pub fn process_ended(process: &Process) {
    for (_, file) in process.files().lock().iter() {
        file.release_process_locks(process.pid);
    }
}
