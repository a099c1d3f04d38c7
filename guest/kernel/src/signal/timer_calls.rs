//! The system calls about timers: `alarm`, `getitimer`, `setitimer`, and
//! `timer_create` with its kin.

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_vfs::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::info::SignalInfo;
use super::timer::{self, Clock, Notify, Setting, TimerId};
use super::{SIGALRM, SIGNALS};
use crate::process::limits::resource;
use crate::process::thread::Tid;
use crate::process::{Process, scheduler};
use crate::syscall::time::{from_wall_clock, nanoseconds, timer_clock};
use crate::syscall::{Arguments, Outcome, int};
use crate::user;

const SECOND: u64 = 1_000_000_000;
const MICROSECOND: u64 = 1000;

/// Timer calls; `None` for other calls.
pub fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_alarm => alarm(a),
        linux::__NR_getitimer => getitimer(a),
        linux::__NR_setitimer => setitimer(a),
        linux::__NR_timer_create => timer_create(a),
        linux::__NR_timer_settime => timer_settime(a),
        linux::__NR_timer_gettime => timer_gettime(a),
        linux::__NR_timer_getoverrun => timer_getoverrun(a),
        linux::__NR_timer_delete => timer_delete(a),
        _ => return None,
    })
}

fn alarm(a: &Arguments) -> Outcome {
    let seconds = u64::from(a[0] as u32);
    let now = time::since_start();
    let moment = (seconds != 0).then(|| now + seconds * SECOND);
    let process = scheduler::current().process.clone();
    let real = (timer::REAL, Clock::Real, SIGALRM);
    let left = timer::set_interval_timer(&process, real, Setting { moment, interval: 0 });
    // Rounded, but never to "there was none".
    let left = left.remaining(now);
    let rounded = (left + SECOND / 2) / SECOND;
    Ok(if left == 0 { 0 } else { rounded.max(1) })
}

/// `struct itimerval` of a timer: interval and value, each in seconds and
/// microseconds.
fn write_timer(address: u64, setting: &Setting, now: u64) -> Result<(), Errno> {
    let pair = |length: u64| [length / SECOND, length % SECOND / MICROSECOND];
    // What is left is rounded up: 0 would say that it is not set.
    let value = setting.remaining(now).next_multiple_of(MICROSECOND);
    user::write(GuestVirt(address), &[pair(setting.interval), pair(value)])
}

fn read_timer(address: u64, now: u64) -> Result<Setting, Errno> {
    const MICROSECONDS: u64 = SECOND / MICROSECOND;
    let given: [[i64; 2]; 2] = user::read(GuestVirt(address))?;
    let length = |[seconds, microseconds]: [i64; 2]| {
        let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
        let microseconds = u64::try_from(microseconds).map_err(|_| Errno::EINVAL)?;
        if microseconds >= MICROSECONDS {
            return Err(Errno::EINVAL);
        }
        Ok(seconds.saturating_mul(SECOND).saturating_add(microseconds * MICROSECOND))
    };
    let (interval, value) = (length(given[0])?, length(given[1])?);
    let moment = (value != 0).then(|| now.saturating_add(value));
    Ok(Setting { moment, interval })
}

fn getitimer(a: &Arguments) -> Outcome {
    let process = scheduler::current().process.clone();
    let (id, clock, _) = timer::interval_timer(int(a[0])).ok_or(Errno::EINVAL)?;
    write_timer(a[1], &timer::get(&process, id), clock.now(&process))?;
    Ok(0)
}

fn setitimer(a: &Arguments) -> Outcome {
    let process = scheduler::current().process.clone();
    let kind = timer::interval_timer(int(a[0])).ok_or(Errno::EINVAL)?;
    let now = kind.1.now(&process);
    let new = if a[1] == 0 { Setting::default() } else { read_timer(a[1], now)? };
    let old = timer::set_interval_timer(&process, kind, new);
    if a[2] != 0 {
        write_timer(a[2], &old, now)?;
    }
    Ok(0)
}

/// `struct sigevent`, the part that means something.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Event {
    value: u64,
    signal: i32,
    notify: i32,
    tid: i32,
    padding: i32,
}

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
/// What C libraries make a thread of; for the kernel it is a signal.
const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;

fn timer_create(a: &Arguments) -> Outcome {
    let thread = scheduler::current();
    let process = &thread.process;
    let clock = timer_clock(int(a[0]), &thread)?;
    let given = if a[1] == 0 { None } else { Some(user::read::<Event>(GuestVirt(a[1]))?) };
    let (signal, target) = match given {
        None => (Some(SIGALRM), None),
        Some(event) => whom_to_tell(process, &event)?,
    };
    let most = process.limits.lock().0[resource::PENDING_SIGNALS].0;
    if timer::count(process) as u64 >= most {
        return Err(Errno::EAGAIN.into());
    }
    let id = timer::create(process, clock, |id| match signal {
        None => Notify::Nobody,
        Some(signal) => {
            // Without an event, the timer's number is the value.
            let value = given.map_or(u64::from(id.cast_unsigned()), |event| event.value);
            Notify::Signal(SignalInfo::from_timer(signal, id, value), target)
        }
    });
    if let Err(error) = user::write(GuestVirt(a[2]), &id) {
        timer::delete(process, id);
        return Err(error.into());
    }
    Ok(0)
}

fn whom_to_tell(process: &Process, event: &Event) -> Result<(Option<u8>, Option<Tid>), Errno> {
    let signal = || match u8::try_from(event.signal) {
        Ok(signal) if (1..=SIGNALS).contains(&signal) => Ok(Some(signal)),
        _ => Err(Errno::EINVAL),
    };
    match event.notify {
        SIGEV_NONE => Ok((None, None)),
        SIGEV_SIGNAL | SIGEV_THREAD => Ok((signal()?, None)),
        SIGEV_THREAD_ID => {
            let tid = Tid::try_from(event.tid).map_err(|_| Errno::EINVAL)?;
            process.thread(tid).ok_or(Errno::EINVAL)?;
            Ok((signal()?, Some(tid)))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `struct itimerspec` of a timer: interval and value.
fn write_setting(address: u64, setting: &Setting, now: u64) -> Result<(), Errno> {
    let pair = |length: u64| [length / SECOND, length % SECOND];
    let value = setting.remaining(now);
    user::write(GuestVirt(address), &[pair(setting.interval), pair(value)])
}

/// One of the timers of `timer_create`, and its clock.
fn find_timer(process: &Process, id: u64) -> Result<(TimerId, Clock), Errno> {
    let id = Some(int(id)).filter(|&id| id >= 0).ok_or(Errno::EINVAL)?;
    Ok((id, timer::clock_of(process, id).ok_or(Errno::EINVAL)?))
}

fn timer_settime(a: &Arguments) -> Outcome {
    const ABSOLUTE: i32 = 1;
    let process = scheduler::current().process.clone();
    if a[2] == 0 {
        return Err(Errno::EINVAL.into());
    }
    let interval = nanoseconds(GuestVirt(a[2]))?;
    let value = nanoseconds(GuestVirt(a[2].wrapping_add(16)))?;
    let (id, clock) = find_timer(&process, a[0])?;
    let now = clock.now(&process);
    let moment = match (value, int(a[1]) & ABSOLUTE) {
        (0, _) => None,
        (length, 0) => Some(now.saturating_add(length)),
        (moment, _) if clock == Clock::Wall => Some(from_wall_clock(moment)),
        (moment, _) => Some(moment),
    };
    let old = timer::set(&process, id, Setting { moment, interval });
    if a[3] != 0 {
        write_setting(a[3], &old, now)?;
    }
    Ok(0)
}

fn timer_gettime(a: &Arguments) -> Outcome {
    let process = scheduler::current().process.clone();
    let (id, clock) = find_timer(&process, a[0])?;
    write_setting(a[1], &timer::get(&process, id), clock.now(&process))?;
    Ok(0)
}

fn timer_getoverrun(a: &Arguments) -> Outcome {
    let process = scheduler::current().process.clone();
    let (id, _) = find_timer(&process, a[0])?;
    Ok(timer::overrun(&process, id))
}

fn timer_delete(a: &Arguments) -> Outcome {
    let process = scheduler::current().process.clone();
    let (id, _) = find_timer(&process, a[0])?;
    timer::delete(&process, id);
    Ok(0)
}
