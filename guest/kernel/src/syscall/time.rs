//! Clocks and sleeping.

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_vfs::Errno;

use super::{Arguments, Outcome, int};
use crate::process::sleep::{NotYet, wait_alone};
use crate::process::thread::{Thread, Tid};
use crate::process::usage::CpuTime;
use crate::process::{find_thread, scheduler};
use crate::signal::timer::Clock;
use crate::user;

const SECOND: u64 = 1_000_000_000;

/// Clock and sleeping calls.
pub fn dispatch(call: u32, a: &Arguments) -> Outcome {
    match call {
        linux::__NR_clock_gettime => {
            let now = read_clock(int(a[0]))?;
            write_timespec(GuestVirt(a[1]), now)
        }
        linux::__NR_clock_getres => {
            read_clock(int(a[0]))?;
            let is_coarse =
                matches!(a[0] as u32, linux::CLOCK_REALTIME_COARSE | linux::CLOCK_MONOTONIC_COARSE);
            let resolution = if is_coarse { TICK } else { 1 };
            if a[1] == 0 { Ok(0) } else { write_timespec(GuestVirt(a[1]), resolution) }
        }
        linux::__NR_gettimeofday => {
            let now = time::wall_clock();
            user::write_optional(GuestVirt(a[0]), &[now / SECOND, now % SECOND / 1000])?;
            user::write_optional(GuestVirt(a[1]), &[0_u64])?;
            Ok(0)
        }
        linux::__NR_time => {
            let seconds = time::wall_clock() / SECOND;
            user::write_optional(GuestVirt(a[0]), &seconds)?;
            Ok(seconds)
        }
        linux::__NR_nanosleep => {
            let length = nanoseconds(GuestVirt(a[0]))?;
            sleep_until(time::since_start().saturating_add(length), GuestVirt(a[1]))
        }
        _ => clock_nanosleep(a),
    }
}

fn clock_nanosleep(a: &Arguments) -> Outcome {
    const ABSOLUTE: u64 = 1;
    let clock = int(a[0]);
    read_clock(clock)?;
    let given = nanoseconds(GuestVirt(a[2]))?;
    if clock < 0 || clock == linux::CLOCK_PROCESS_CPUTIME_ID as i32 {
        let absolute = a[1] & ABSOLUTE != 0;
        return sleep_by_process_time(clock, given, absolute, GuestVirt(a[3]));
    }
    if clock == linux::CLOCK_THREAD_CPUTIME_ID as i32 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if a[1] & ABSOLUTE == 0 {
        return sleep_until(time::since_start().saturating_add(given), GuestVirt(a[3]));
    }
    let wall = clock == linux::CLOCK_REALTIME as i32;
    sleep_until(if wall { from_wall_clock(given) } else { given }, GuestVirt(0))
}

/// Sleeps until a process has had so much of the processor. It cannot have more
/// than passes, so after what is missing it is time to look again.
fn sleep_by_process_time(clock: i32, given: u64, absolute: bool, remaining: GuestVirt) -> Outcome {
    const SHORTEST: u64 = 1_000_000;
    let end = if absolute { given } else { read_clock(clock)?.saturating_add(given) };
    loop {
        let left = end.saturating_sub(read_clock(clock)?);
        if left == 0 {
            return Ok(0);
        }
        let moment = time::since_start().saturating_add(left.max(SHORTEST));
        if wait_alone::<()>(Some(moment), || None) == Err(NotYet::Interrupted) {
            let left = end.saturating_sub(read_clock(clock)?);
            if !absolute && remaining.0 != 0 {
                write_timespec(remaining, left)?;
            }
            return Err(Errno::EINTR.into());
        }
    }
}

/// Sleeps; what is left when a signal comes goes to `remaining`.
fn sleep_until(moment: u64, remaining: GuestVirt) -> Outcome {
    match wait_alone::<()>(Some(moment), || None) {
        Err(NotYet::Interrupted) => {
            let left = moment.saturating_sub(time::since_start());
            if remaining.0 != 0 {
                write_timespec(remaining, left)?;
            }
            Err(Errno::EINTR.into())
        }
        Ok(()) | Err(NotYet::TimedOut) => Ok(0),
    }
}

/// International atomic time: no leap seconds are told of, so it is the same.
const TAI: u32 = 11;

/// What the coarse clocks count in, as on a Linux with 250 ticks a second. There
/// are no ticks here, but programs take this for the shortest time that is worth
/// waiting for.
const TICK: u64 = 4_000_000;

const fn last_tick(time: u64) -> u64 {
    time - time % TICK
}

/// A clock's value in nanoseconds.
fn read_clock(clock: i32) -> Result<u64, Errno> {
    let Ok(clock) = u32::try_from(clock) else { return Ok(named_clock(clock)?.sum()) };
    match clock {
        linux::CLOCK_REALTIME | TAI => Ok(time::wall_clock()),
        linux::CLOCK_MONOTONIC | linux::CLOCK_MONOTONIC_RAW | linux::CLOCK_BOOTTIME => {
            Ok(time::since_start())
        }
        linux::CLOCK_REALTIME_COARSE => Ok(last_tick(time::wall_clock())),
        linux::CLOCK_MONOTONIC_COARSE => Ok(last_tick(time::since_start())),
        linux::CLOCK_PROCESS_CPUTIME_ID => {
            Ok(scheduler::time_of_process(&scheduler::current().process).sum())
        }
        linux::CLOCK_THREAD_CPUTIME_ID => {
            Ok(scheduler::time_of_thread(&scheduler::current()).sum())
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The clock of a process or thread that `clock_getcpuclockid` has named: the
/// number, inverted, in the upper bits; whose it is and what it counts below.
fn named_clock(clock: i32) -> Result<CpuTime, Errno> {
    const OF_THREAD: i32 = 4;
    const USER: i32 = 1;
    const KINDS: i32 = 3;
    let number = Tid::try_from(!(clock >> 3)).map_err(|_| Errno::EINVAL)?;
    let thread = if number == 0 {
        scheduler::current()
    } else {
        find_thread(number).ok_or(Errno::EINVAL)?
    };
    if clock & KINDS == KINDS {
        return Err(Errno::EINVAL);
    }
    let time = if clock & OF_THREAD == 0 {
        scheduler::time_of_process(&thread.process)
    } else {
        scheduler::time_of_thread(&thread)
    };
    Ok(if clock & KINDS == USER { CpuTime { system: 0, ..time } } else { time })
}

/// What a timer of `timer_create` goes by.
///
/// # Errors
///
/// EINVAL if there is no such clock, EOPNOTSUPP if it is another process's.
pub fn timer_clock(clock: i32, thread: &Thread) -> Result<Clock, Errno> {
    const OF_THREAD: i32 = 4;
    let Ok(known) = u32::try_from(clock) else {
        named_clock(clock)?;
        let number = Tid::try_from(!(clock >> 3)).map_err(|_| Errno::EINVAL)?;
        let number = if number == 0 { thread.tid() } else { number };
        thread.process.thread(number).ok_or(Errno::EOPNOTSUPP)?;
        return Ok(if clock & OF_THREAD == 0 { Clock::Process } else { Clock::Thread(number) });
    };
    match known {
        linux::CLOCK_REALTIME | TAI => Ok(Clock::Wall),
        linux::CLOCK_MONOTONIC | linux::CLOCK_BOOTTIME => Ok(Clock::Real),
        linux::CLOCK_PROCESS_CPUTIME_ID => Ok(Clock::Process),
        linux::CLOCK_THREAD_CPUTIME_ID => Ok(Clock::Thread(thread.tid())),
        _ => Err(Errno::EINVAL),
    }
}

/// A moment of the wall clock as nanoseconds since the start.
#[must_use]
pub fn from_wall_clock(moment: u64) -> u64 {
    let start = time::wall_clock() - time::since_start();
    moment.saturating_sub(start)
}

/// A `struct timespec` of the program in nanoseconds.
///
/// # Errors
///
/// EINVAL if it makes no sense, EFAULT.
pub fn nanoseconds(address: GuestVirt) -> Result<u64, Errno> {
    let [seconds, nanoseconds] = user::read::<[i64; 2]>(address)?;
    let seconds = u64::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    let nanoseconds = u64::try_from(nanoseconds).map_err(|_| Errno::EINVAL)?;
    if nanoseconds >= SECOND {
        return Err(Errno::EINVAL);
    }
    Ok(seconds.saturating_mul(SECOND).saturating_add(nanoseconds))
}

fn write_timespec(address: GuestVirt, nanoseconds: u64) -> Outcome {
    user::write(address, &[nanoseconds / SECOND, nanoseconds % SECOND])?;
    Ok(0)
}
