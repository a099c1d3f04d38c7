//! Files that say when something happened: `eventfd`, `timerfd`, `signalfd`,
//! `pidfd`, `epoll`.

use alloc::sync::Arc;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_vfs::{Errno, OpenFile};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::descriptors::{add, limit};
use super::poll::with_mask;
use super::{Arguments, Outcome, file, int, open_file};
use crate::files::epoll::{Epoll, Event};
use crate::files::process_file::ProcessFile;
use crate::files::signal_file::SignalFile;
use crate::files::timer_file::TimerFile;
use crate::files::{vfs, wait};
use crate::process::sleep::NotYet;
use crate::process::{Pid, Process, find, find_thread, scheduler};
use crate::signal;
use crate::signal::timer::Setting;
use crate::syscall::Failure;
use crate::syscall::time::{from_wall_clock, nanoseconds};
use crate::user;

const CLOSE_ON_EXEC: u32 = linux::O_CLOEXEC;
const NONBLOCK: u32 = linux::O_NONBLOCK;

/// Calls about such files; `None` for other calls.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_eventfd => event_counter(a[0], 0),
        linux::__NR_eventfd2 => event_counter(a[0], a[1] as u32),
        linux::__NR_timerfd_create => timerfd_create(a),
        linux::__NR_timerfd_settime => timerfd_settime(a),
        linux::__NR_timerfd_gettime => timerfd_gettime(a),
        linux::__NR_signalfd => signalfd(a, 0),
        linux::__NR_signalfd4 => signalfd(a, a[3] as u32),
        linux::__NR_pidfd_open => pidfd_open(a),
        linux::__NR_epoll_create if int(a[0]) <= 0 => Err(Errno::EINVAL.into()),
        linux::__NR_epoll_create => epoll_create(0),
        linux::__NR_epoll_create1 => epoll_create(a[0] as u32),
        linux::__NR_epoll_ctl => epoll_ctl(a),
        linux::__NR_epoll_wait => epoll_wait(a, milliseconds(a[3])),
        linux::__NR_epoll_pwait => with_mask(a[4], a[5], || epoll_wait(a, milliseconds(a[3]))),
        linux::__NR_epoll_pwait2 => epoll_pwait2(a),
        _ => return None,
    })
}

fn event_counter(initial: u64, flags: u32) -> Outcome {
    add(vfs().event_counter(initial as u32, flags)?, flags)
}

fn timerfd_create(a: &Arguments) -> Outcome {
    let flags = a[1] as u32;
    if flags & !(CLOSE_ON_EXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let wall_clock = match a[0] as u32 {
        linux::CLOCK_REALTIME => true,
        linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    let timer = TimerFile::new(wall_clock);
    add(vfs().anonymous_file(timer, b"anon_inode:[timerfd]", flags & NONBLOCK), flags)
}

/// `struct itimerspec`: interval and what is left.
fn write_setting(address: u64, setting: &Setting, now: u64) -> Result<(), Errno> {
    const SECOND: u64 = 1_000_000_000;
    let pair = |length: u64| [length / SECOND, length % SECOND];
    user::write(GuestVirt(address), &[pair(setting.interval), pair(setting.remaining(now))])
}

fn timerfd_settime(a: &Arguments) -> Outcome {
    const ABSOLUTE: u32 = 1;
    const CANCEL_ON_SET: u32 = 2;
    let flags = a[1] as u32;
    if flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let interval = nanoseconds(GuestVirt(a[2]))?;
    let value = nanoseconds(GuestVirt(a[2].wrapping_add(16)))?;
    let file = file(a[0])?;
    let timer = TimerFile::of(&file)?;
    let now = time::since_start();
    let moment = match value {
        0 => None,
        length if flags & ABSOLUTE == 0 => Some(now.saturating_add(length)),
        moment if timer.is_by_wall_clock() => Some(from_wall_clock(moment)),
        moment => Some(moment),
    };
    let old = timer.set(Setting { moment, interval });
    if a[3] != 0 {
        write_setting(a[3], &old, now)?;
    }
    Ok(0)
}

fn timerfd_gettime(a: &Arguments) -> Outcome {
    let file = file(a[0])?;
    let now = time::since_start();
    write_setting(a[1], &TimerFile::of(&file)?.setting(now), now)?;
    Ok(0)
}

fn signalfd(a: &Arguments, flags: u32) -> Outcome {
    if flags & !(CLOSE_ON_EXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let signals = signal::calls::read_set(a[1], a[2])?;
    if int(a[0]) != -1 {
        SignalFile::change(&*file(a[0])?, signals)?;
        return Ok(a[0]);
    }
    let signals = SignalFile::new(signals)?;
    add(vfs().anonymous_file(signals, b"anon_inode:[signalfd]", flags & NONBLOCK), flags)
}

fn pidfd_open(a: &Arguments) -> Outcome {
    let flags = a[1] as u32;
    let pid = Pid::try_from(int(a[0])).ok().filter(|&pid| pid != 0).ok_or(Errno::EINVAL)?;
    if flags & !NONBLOCK != 0 {
        return Err(Errno::EINVAL.into());
    }
    let process = find(pid).ok_or_else(|| match find_thread(pid) {
        // A thread is no process.
        Some(_) => Errno::EINVAL,
        None => Errno::ESRCH,
    })?;
    add(ProcessFile::open(process, flags), CLOSE_ON_EXEC)
}

/// `CLONE_PIDFD`: gives the current process a new one as a file, and stores the
/// descriptor's number.
///
/// # Errors
///
/// EMFILE, EFAULT.
pub fn give_process_file(process: &Arc<Process>, place: GuestVirt) -> Result<(), Errno> {
    let own = scheduler::current().process.files();
    let file = ProcessFile::open(process.clone(), 0);
    let number = own.lock().insert(file, true, 0, limit())?;
    user::write(place, &number).inspect_err(|_| {
        let closed = own.lock().remove(number);
        drop(closed);
    })
}

fn epoll_create(flags: u32) -> Outcome {
    if flags & !CLOSE_ON_EXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    add(vfs().anonymous_file(Epoll::new(), b"anon_inode:[eventpoll]", 0), flags)
}

/// `struct epoll_event`, which is packed.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    events: u32,
    data: [u32; 2],
}

impl From<Record> for Event {
    fn from(record: Record) -> Self {
        let [low, high] = record.data;
        Self { events: record.events, data: u64::from(high) << 32 | u64::from(low) }
    }
}

impl From<Event> for Record {
    fn from(event: Event) -> Self {
        Self { events: event.events, data: [event.data as u32, (event.data >> 32) as u32] }
    }
}

fn epoll_ctl(a: &Arguments) -> Outcome {
    let operation = a[1] as u32;
    let event = || Ok::<_, Errno>(Event::from(user::read::<Record>(GuestVirt(a[3]))?));
    let event = if operation == linux::EPOLL_CTL_DEL { None } else { Some(event()?) };
    let epoll: Arc<OpenFile> = open_file(a[0])?;
    let target = open_file(a[2])?;
    // What can never be waited for comes before what is no instance.
    target.wait_channel().ok_or(Errno::EPERM)?;
    let instance = Epoll::of(&epoll)?;
    if Arc::ptr_eq(&epoll, &target) {
        return Err(Errno::EINVAL.into());
    }
    match (operation, event) {
        (linux::EPOLL_CTL_ADD, Some(event)) => instance.add(int(a[2]), &target, event)?,
        (linux::EPOLL_CTL_MOD, Some(event)) => instance.modify(int(a[2]), &target, event)?,
        (linux::EPOLL_CTL_DEL, _) => instance.remove(int(a[2]), &target)?,
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// A moment so many milliseconds from now; none for a negative number.
fn milliseconds(given: u64) -> Option<u64> {
    let length = u64::try_from(int(given)).ok()?;
    Some(time::since_start() + length * 1_000_000)
}

fn epoll_pwait2(a: &Arguments) -> Outcome {
    let deadline = if a[3] == 0 {
        None
    } else {
        Some(time::since_start().saturating_add(nanoseconds(GuestVirt(a[3]))?))
    };
    with_mask(a[4], a[5], || epoll_wait(a, deadline))
}

fn epoll_wait(a: &Arguments, deadline: Option<u64>) -> Outcome {
    const SIZE: u64 = size_of::<Record>() as u64;
    const MOST: i32 = i32::MAX / SIZE as i32;
    let most = Some(int(a[2])).filter(|most| (1..=MOST).contains(most)).ok_or(Errno::EINVAL)?;
    let file = file(a[0])?;
    let instance = Epoll::of(&file)?;
    let look = || Some(instance.take_ready(most as usize)).filter(|found| !found.is_empty());
    let channel = file.wait_channel();
    let found = match wait::until(channel.as_slice(), deadline, look) {
        Ok(found) => found,
        Err(NotYet::TimedOut) => return Ok(0),
        Err(NotYet::Interrupted) => return Err(Failure::Error(Errno::EINTR)),
    };
    for (index, &event) in (0..).zip(&found) {
        user::write(GuestVirt(a[1].wrapping_add(SIZE * index)), &Record::from(event))?;
    }
    Ok(found.len() as u64)
}
