//! Processes, threads, programs.

use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::general as linux;
use linux_raw_sys::prctl;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::trap::TrapFrame;
use pagelab_hal::{cpu, time};
use pagelab_vfs::Errno;
use pagelab_vfs::fd_table::MAX_DESCRIPTORS;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Arguments, Outcome, files, int};
use crate::files::process_file::ProcessFile;
use crate::process::fork::{self, CloneFlags, CloneRequest};
use crate::process::limits::{self, ResourceLimits, resource};
use crate::process::thread::Thread;
use crate::process::usage::Counters;
use crate::process::wait::{self, WaitOptions, Which};
use crate::process::{
    ExitStatus, Process, exec, exit, find, futex as futexes, rseq as sequences, scheduler,
};
use crate::publish;
use crate::signal::{SIGCHLD, SIGNALS, child_change};
use crate::user;

const EXIT_SIGNAL_MASK: u64 = 0xff;

/// `getpid`, `getppid` and `gettid`, which cannot fail, wait or be interrupted;
/// `None` for any other call.
#[inline]
pub fn own_number(call: u64) -> Option<u32> {
    const GETPID: u64 = linux::__NR_getpid as u64;
    const GETPPID: u64 = linux::__NR_getppid as u64;
    const GETTID: u64 = linux::__NR_gettid as u64;
    match call {
        GETPID => Some(scheduler::ask_current(|thread| thread.process.pid)),
        GETPPID => Some(scheduler::ask_current(|thread| thread.process.parent())),
        GETTID => Some(scheduler::ask_current(|thread| thread.tid())),
        _ => None,
    }
}

pub fn fork(frame: &TrapFrame) -> Outcome {
    Ok(fork::clone(frame, &CloneRequest::FORK)?)
}

pub fn vfork(frame: &TrapFrame) -> Outcome {
    Ok(fork::clone(frame, &CloneRequest::VFORK)?)
}

pub fn clone(frame: &TrapFrame, a: &Arguments) -> Outcome {
    let flags = known_flags(a[0] & !EXIT_SIGNAL_MASK)?;
    if flags.contains(CloneFlags::PIDFD | CloneFlags::PARENT_SETTID) {
        // Both would be stored at the same place.
        return Err(Errno::EINVAL.into());
    }
    let request = CloneRequest {
        flags,
        stack: a[1],
        parent_tid: GuestVirt(a[2]),
        process_file: GuestVirt(a[2]),
        child_tid: GuestVirt(a[3]),
        tls: a[4],
        exit_signal: exit_signal(a[0] & EXIT_SIGNAL_MASK)?,
    };
    Ok(fork::clone(frame, &request)?)
}

/// `struct clone_args` as far as every kernel knows it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

pub fn clone3(frame: &TrapFrame, a: &Arguments) -> Outcome {
    const LARGEST: u64 = 4096;
    let least = size_of::<CloneArguments>() as u64;
    if a[1] < least {
        return Err(Errno::EINVAL.into());
    }
    if a[1] > LARGEST {
        return Err(Errno::E2BIG.into());
    }
    // Fields that are not known must be zero.
    for offset in (least..a[1]).step_by(8) {
        let length = (a[1] - offset).min(8) as usize;
        let mut rest = [0; 8];
        user::read_bytes(GuestVirt(a[0] + offset), &mut rest[..length])?;
        if rest != [0; 8] {
            return Err(Errno::E2BIG.into());
        }
    }
    let given: CloneArguments = user::read(GuestVirt(a[0]))?;
    if (given.stack == 0) != (given.stack_size == 0) || given.exit_signal > EXIT_SIGNAL_MASK {
        return Err(Errno::EINVAL.into());
    }
    let request = CloneRequest {
        flags: known_flags(given.flags)?,
        stack: given.stack.wrapping_add(given.stack_size),
        parent_tid: GuestVirt(given.parent_tid),
        process_file: GuestVirt(given.pidfd),
        child_tid: GuestVirt(given.child_tid),
        tls: given.tls,
        exit_signal: exit_signal(given.exit_signal)?,
    };
    Ok(fork::clone(frame, &request)?)
}

/// Namespaces and tracing are not there.
fn known_flags(bits: u64) -> Result<CloneFlags, Errno> {
    CloneFlags::from_bits(bits).ok_or(Errno::EINVAL)
}

fn exit_signal(number: u64) -> Result<u8, Errno> {
    u8::try_from(number).ok().filter(|&signal| signal <= SIGNALS).ok_or(Errno::EINVAL)
}

pub fn execve(frame: &mut TrapFrame, a: &Arguments) -> Outcome {
    exec::execve(frame, GuestVirt(a[0]), GuestVirt(a[1]), GuestVirt(a[2]))?;
    // A new program finds zero in all registers.
    Ok(0)
}

pub fn exit(a: &Arguments) -> Outcome {
    exit::exit_thread(a[0] as u8)
}

pub fn exit_group(a: &Arguments) -> Outcome {
    exit::exit_process(ExitStatus::Exited(a[0] as u8))
}

pub fn wait4(a: &Arguments) -> Outcome {
    const KNOWN: WaitOptions = WaitOptions::NO_HANG
        .union(WaitOptions::STOPPED)
        .union(WaitOptions::CONTINUED)
        .union(WaitOptions::NO_THREAD)
        .union(WaitOptions::ALL)
        .union(WaitOptions::CLONE);
    let options = WaitOptions::from_bits(a[2] as u32)
        .filter(|&options| KNOWN.contains(options))
        .ok_or(Errno::EINVAL)?;
    let which = match int(a[0]) {
        -1 => Which::Any,
        0 => Which::Group(scheduler::current().process.family.lock().group),
        i32::MIN => return Err(Errno::ESRCH.into()),
        pid if pid < 0 => Which::Group(pid.unsigned_abs()),
        pid => Which::Process(pid.unsigned_abs()),
    };
    let Some(waited) = wait::wait(which, options | WaitOptions::EXITED)? else { return Ok(0) };
    user::write_optional(GuestVirt(a[1]), &waited.change.as_wait_status())?;
    user::write_optional(GuestVirt(a[3]), &ResourceUsage::from(&waited.usage))?;
    Ok(waited.pid.into())
}

/// `siginfo_t` of a child.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ChildInfo {
    signal: i32,
    error: i32,
    code: i32,
    padding: i32,
    pid: u32,
    uid: u32,
    status: u32,
    rest: [u32; 25],
}

/// The child that a descriptor is; waiting for one that must not block is waiting
/// without sleep, and EAGAIN.
fn child_of_file(descriptor: u64) -> Result<(Which, bool), Errno> {
    let file = files::file(descriptor)?;
    let pid = ProcessFile::process_of(&file)?.pid;
    Ok((Which::Process(pid), file.flags() & linux::O_NONBLOCK != 0))
}

pub fn waitid(a: &Arguments) -> Outcome {
    let options = WaitOptions::from_bits(a[3] as u32).ok_or(Errno::EINVAL)?;
    let wanted = WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED;
    if !options.intersects(wanted) {
        return Err(Errno::EINVAL.into());
    }
    let mut must_not_block = false;
    let which = match (a[0] as u32, a[1] as u32) {
        (linux::P_PIDFD, _) => {
            let (which, nonblocking) = child_of_file(a[1])?;
            must_not_block = nonblocking && !options.contains(WaitOptions::NO_HANG);
            which
        }
        (linux::P_ALL, _) => Which::Any,
        (linux::P_PID, pid) if pid != 0 => Which::Process(pid),
        (linux::P_PGID, 0) => Which::Group(scheduler::current().process.family.lock().group),
        (linux::P_PGID, group) => Which::Group(group),
        _ => return Err(Errno::EINVAL.into()),
    };
    let no_hang = if must_not_block { WaitOptions::NO_HANG } else { WaitOptions::empty() };
    let waited = wait::wait(which, options | no_hang)?;
    if waited.is_none() && must_not_block {
        return Err(Errno::EAGAIN.into());
    }
    if a[2] != 0 {
        let mut info = ChildInfo {
            signal: 0,
            error: 0,
            code: 0,
            padding: 0,
            pid: 0,
            uid: 0,
            status: 0,
            rest: [0; 25],
        };
        if let Some(waited) = &waited {
            let (code, status) = child_change(waited.change);
            let (signal, status) = (SIGCHLD.into(), status.into());
            info = ChildInfo { signal, code, pid: waited.pid, status, ..info };
        }
        user::write(GuestVirt(a[2]), &info)?;
    }
    if let Some(waited) = waited {
        user::write_optional(GuestVirt(a[4]), &ResourceUsage::from(&waited.usage))?;
    }
    Ok(0)
}

pub fn futex(a: &Arguments) -> Outcome {
    const PRIVATE: u32 = 0x80;
    const REALTIME: u32 = 0x100;
    let operation = a[1] as u32;
    let private = operation & PRIVATE != 0;
    let word = |address| futexes::Word { address, private };
    let (first, second) = ((word(a[0]), int(a[2])), (word(a[4]), int(a[3])));
    let (value, bits) = (a[2] as u32, a[5] as u32);
    let deadline = |absolute: bool| -> Result<Option<u64>, Errno> {
        if a[3] == 0 {
            return Ok(None);
        }
        let moment = super::time::nanoseconds(GuestVirt(a[3]))?;
        Ok(Some(match (absolute, operation & REALTIME != 0) {
            (false, _) => moment.saturating_add(time::since_start()),
            (true, false) => moment,
            (true, true) => super::time::from_wall_clock(moment),
        }))
    };
    let command = operation & !(PRIVATE | REALTIME);
    if operation & REALTIME != 0 && command != linux::FUTEX_WAIT_BITSET {
        return Err(Errno::ENOSYS.into());
    }
    match command {
        linux::FUTEX_WAIT => futexes::wait(first.0, value, futexes::ALL_BITS, deadline(false)?),
        linux::FUTEX_WAIT_BITSET => futexes::wait(first.0, value, bits, deadline(true)?),
        linux::FUTEX_WAKE => Ok(futexes::wake_bits(first.0, first.1, futexes::ALL_BITS)?),
        linux::FUTEX_WAKE_BITSET => Ok(futexes::wake_bits(first.0, first.1, bits)?),
        linux::FUTEX_REQUEUE => Ok(futexes::requeue(first, second, None)?),
        linux::FUTEX_CMP_REQUEUE => Ok(futexes::requeue(first, second, Some(bits))?),
        linux::FUTEX_WAKE_OP => Ok(futexes::wake_and_change(first, second, bits)?),
        linux::FUTEX_LOCK_PI..=linux::FUTEX_TRYLOCK_PI
        | linux::FUTEX_WAIT_REQUEUE_PI..=linux::FUTEX_LOCK_PI2 => {
            static SAID: AtomicBool = AtomicBool::new(false);
            if !SAID.swap(true, Ordering::Relaxed) {
                log::warn!("futexes with priority inheritance are not there: ENOSYS");
            }
            Err(Errno::ENOSYS.into())
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

pub fn set_tid_address(a: &Arguments) -> Outcome {
    let thread = scheduler::current();
    thread.clear_tid.store(a[0], Ordering::Relaxed);
    Ok(thread.tid().into())
}

pub fn rseq(a: &Arguments) -> Outcome {
    sequences::register(a[0], a[1] as u32, a[2] as u32, a[3] as u32)?;
    Ok(0)
}

const ROBUST_HEAD_SIZE: u64 = 24;

pub fn set_robust_list(a: &Arguments) -> Outcome {
    if a[1] != ROBUST_HEAD_SIZE {
        return Err(Errno::EINVAL.into());
    }
    scheduler::current().robust_list.store(a[0], Ordering::Relaxed);
    Ok(0)
}

pub fn get_robust_list(a: &Arguments) -> Outcome {
    let thread = match a[0] as u32 {
        0 => scheduler::current(),
        tid => crate::process::find_thread(tid).ok_or(Errno::ESRCH)?,
    };
    user::write(GuestVirt(a[1]), &thread.robust_list.load(Ordering::Relaxed))?;
    user::write(GuestVirt(a[2]), &ROBUST_HEAD_SIZE)?;
    Ok(0)
}

pub fn arch_prctl(a: &Arguments) -> Outcome {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    const GET_CPUID: u64 = 0x1011;
    const SET_CPUID: u64 = 0x1012;
    let thread = scheduler::current();
    let mut state = thread.user.lock();
    match a[0] {
        SET_FS | SET_GS if a[1] >= pagelab_abi::layout::USER_END.0 => {
            return Err(Errno::EPERM.into());
        }
        SET_FS => state.fs_base = a[1],
        SET_GS => state.gs_base = a[1],
        GET_FS | GET_GS => {
            let value = if a[0] == GET_FS { state.fs_base } else { state.gs_base };
            drop(state);
            user::write(GuestVirt(a[1]), &value)?;
            return Ok(0);
        }
        // CPUID does not fault: allowed, and that cannot be changed.
        GET_CPUID => return Ok(1),
        SET_CPUID => return Err(Errno::ENODEV.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    cpu::set_user_segments(state.fs_base, state.gs_base);
    Ok(0)
}

pub fn prctl(a: &Arguments) -> Outcome {
    const NAME_SIZE: usize = 16;
    let process = scheduler::current().process.clone();
    match a[0] as u32 {
        prctl::PR_SET_NAME => {
            let mut name = [0; NAME_SIZE];
            for (offset, byte) in name[..NAME_SIZE - 1].iter_mut().enumerate() {
                *byte = user::read(GuestVirt(a[1] + offset as u64))?;
                if *byte == 0 {
                    break;
                }
            }
            let length = name.iter().position(|&byte| byte == 0).unwrap_or(NAME_SIZE);
            let name = alloc::string::String::from_utf8_lossy(&name[..length]).into_owned();
            publish::name_changed(&process, &name);
            process.image.lock().name = name;
            Ok(0)
        }
        prctl::PR_GET_NAME => {
            let mut name = [0; NAME_SIZE];
            let own = process.image.lock().name.clone();
            let length = own.len().min(NAME_SIZE - 1);
            name[..length].copy_from_slice(&own.as_bytes()[..length]);
            user::write_bytes(GuestVirt(a[1]), &name)?;
            Ok(0)
        }
        // There are no transparent large pages, and no core dumps.
        prctl::PR_SET_THP_DISABLE | prctl::PR_SET_DUMPABLE => Ok(0),
        prctl::PR_GET_THP_DISABLE | prctl::PR_GET_DUMPABLE => Ok(1),
        _ => Err(Errno::EINVAL.into()),
    }
}

pub fn prlimit64(a: &Arguments) -> Outcome {
    let process = match a[0] as u32 {
        0 => scheduler::current().process.clone(),
        pid => find(pid).ok_or(Errno::ESRCH)?,
    };
    let new = if a[2] == 0 { None } else { Some(user::read::<[u64; 2]>(GuestVirt(a[2]))?) };
    let old = exchange_limit(&process, a[1], new)?;
    user::write_optional(GuestVirt(a[3]), &old)?;
    Ok(0)
}

pub fn getrlimit(a: &Arguments) -> Outcome {
    let old = exchange_limit(&scheduler::current().process.clone(), a[0], None)?;
    user::write(GuestVirt(a[1]), &old)?;
    Ok(0)
}

pub fn setrlimit(a: &Arguments) -> Outcome {
    let new = user::read::<[u64; 2]>(GuestVirt(a[1]))?;
    exchange_limit(&scheduler::current().process.clone(), a[0], Some(new))?;
    Ok(0)
}

fn exchange_limit(
    process: &Process,
    resource: u64,
    new: Option<[u64; 2]>,
) -> Result<[u64; 2], Errno> {
    let index = usize::try_from(resource).ok().filter(|&index| index < limits::COUNT);
    let index = index.ok_or(Errno::EINVAL)?;
    let mut all = process.limits.lock();
    let ResourceLimits(limits) = &mut *all;
    let old = [limits[index].0, limits[index].1];
    if let Some([soft, hard]) = new {
        if soft > hard {
            return Err(Errno::EINVAL);
        }
        if index == resource::FILES && hard > MAX_DESCRIPTORS as u64 {
            return Err(Errno::EPERM);
        }
        limits[index] = (soft, hard);
        process.space().lock().limits = all.of_memory();
    }
    Ok(old)
}

/// `struct rusage`.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
struct ResourceUsage {
    user_time: [i64; 2],
    system_time: [i64; 2],
    peak_resident_kib: i64,
    unused: [i64; 3],
    minor_faults: i64,
    major_faults: i64,
    unused_too: [i64; 6],
    voluntary_switches: i64,
    involuntary_switches: i64,
}

impl From<&Counters> for ResourceUsage {
    fn from(counters: &Counters) -> Self {
        const KIB_PER_PAGE: u64 = 4;
        let time = |nanoseconds: u64| {
            [(nanoseconds / 1_000_000_000) as i64, (nanoseconds / 1000 % 1_000_000) as i64]
        };
        Self {
            user_time: time(counters.time.user),
            system_time: time(counters.time.system),
            peak_resident_kib: (counters.peak_resident * KIB_PER_PAGE) as i64,
            unused: [0; 3],
            minor_faults: counters.minor_faults as i64,
            major_faults: counters.major_faults as i64,
            unused_too: [0; 6],
            voluntary_switches: counters.voluntary_switches as i64,
            involuntary_switches: counters.involuntary_switches as i64,
        }
    }
}

pub fn getrusage(a: &Arguments) -> Outcome {
    const CHILDREN: i32 = -1;
    const PROCESS: i32 = 0;
    const THREAD: i32 = 1;
    let process = scheduler::current().process.clone();
    let counters = match int(a[0]) {
        PROCESS => exit::current_usage(&process),
        THREAD => thread_usage(&scheduler::current()),
        CHILDREN => process.usage.lock().children,
        _ => return Err(Errno::EINVAL.into()),
    };
    user::write(GuestVirt(a[1]), &ResourceUsage::from(&counters))?;
    Ok(0)
}

/// What a thread has used; faults are counted by process.
fn thread_usage(thread: &Thread) -> Counters {
    let usage = *thread.usage.lock();
    Counters {
        time: scheduler::time_of_thread(thread),
        voluntary_switches: usage.voluntary_switches,
        involuntary_switches: usage.involuntary_switches,
        ..exit::current_usage(&thread.process)
    }
}

const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub fn times(a: &Arguments) -> Outcome {
    let process = scheduler::current().process.clone();
    let own = exit::current_usage(&process);
    let children = process.usage.lock().children;
    let ticks = [own.time.user, own.time.system, children.time.user, children.time.system]
        .map(|time| time / NANOSECONDS_PER_TICK);
    user::write_optional(GuestVirt(a[0]), &ticks)?;
    Ok(time::since_start() / NANOSECONDS_PER_TICK)
}

pub fn sched_yield() -> Outcome {
    scheduler::yield_now();
    Ok(0)
}
