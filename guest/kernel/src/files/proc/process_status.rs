//! One process: its status, its arguments.

use alloc::vec;
use alloc::vec::Vec;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::procfs::{ProcessMemory, ProcessStatus, SignalSets};
use pagelab_vfs::{Errno, Result, device};

use crate::files::terminal;
use crate::memory::memory;
use crate::process::limits::resource;
use crate::process::thread::{RunState, Thread};
use crate::process::{ExitStatus, Process, State, exit, oom};
use crate::user;

/// Nanoseconds in a tick of 1/100 s.
const TICK: u64 = 10_000_000;

/// What `status` and `stat` show of a thread.
///
/// # Errors
///
/// ESRCH if the process has no such thread.
pub fn status(process: &Process, tid: u32) -> Result<ProcessStatus> {
    let state = process.state();
    let thread = process.thread(tid);
    let threads = process.threads.lock().len() as u32;
    // Process 1 and one that has ended have none in the list, and show one.
    if thread.is_none() && (threads != 0 || tid != process.pid) {
        return Err(Errno::ESRCH);
    }
    let own = exit::current_usage(process);
    let children = process.usage.lock().children;
    let image = process.image.lock().clone();
    let mut name = [0; 16];
    let length = image.name.len().min(name.len() - 1);
    name[..length].copy_from_slice(&image.name.as_bytes()[..length]);
    let (parent, group, session, exit_signal) = {
        let family = process.family.lock();
        (family.parent, family.group, family.session, family.exit_signal)
    };
    let terminal = terminal::terminal().filter(|terminal| terminal.session() == Some(session));
    let run_state = thread.as_ref().map(|thread| thread.run_state());
    Ok(ProcessStatus {
        name,
        state: match (state, run_state) {
            (State::Alive, _) if process.signals.is_stopped() => b'T',
            (State::Alive, Some(RunState::Ready)) => b'R',
            (State::Alive, _) => b'S',
            _ => b'Z',
        },
        process: process.pid,
        thread: tid,
        parent,
        group,
        session,
        terminal: terminal.map_or(DeviceNumber(0), |_| device::CONSOLE),
        foreground: terminal.map_or(-1, |terminal| terminal.foreground().cast_signed()),
        flags: 0,
        umask: process.folders().lock().umask,
        descriptors: process.files().lock().capacity() as u32,
        threads: threads.max(1),
        started: image.started / TICK,
        ticks: [own.time.user, own.time.system, children.time.user, children.time.system]
            .map(|time| time / TICK),
        faults: [own.minor_faults, children.minor_faults, own.major_faults, children.major_faults],
        signals: signals_of(process, thread.as_deref()),
        exit_signal: exit_signal.into(),
        exit_code: match state {
            State::Ended(status) | State::Reaped(status) => ExitStatus::as_wait_status(status),
            State::Alive => 0,
        },
        voluntary_switches: own.voluntary_switches,
        involuntary_switches: own.involuntary_switches,
        processor: 0,
        processors: 1,
        memory: (state == State::Alive)
            .then(|| memory_of(process, image.arguments, image.environment)),
    })
}

fn signals_of(process: &Process, thread: Option<&Thread>) -> SignalSets {
    let (ignored, handled) = process.signals.ignored_and_handled();
    let (_, most) = process.limits.lock().0[resource::PENDING_SIGNALS];
    SignalSets {
        pending: thread.map_or(0, |thread| thread.signals.pending().0),
        shared_pending: process.signals.pending().0,
        blocked: thread.map_or(0, |thread| thread.signals.mask().0),
        ignored: ignored.0,
        caught: handled.0,
        queued: (0, most),
    }
}

fn memory_of(process: &Process, arguments: (u64, u64), environment: (u64, u64)) -> ProcessMemory {
    let space = process.space();
    let space = space.lock();
    let (sizes, resident) = (space.sizes(), space.resident());
    let mut memory = ProcessMemory {
        size: sizes.total,
        peak_size: space.peak_total(),
        peak_resident: space.peak_resident(),
        anonymous: resident.anonymous,
        file: resident.file,
        shared_memory: resident.shared_memory,
        swap: space.swapped(),
        locked: sizes.locked,
        data: sizes.data,
        stack: sizes.stack,
        text: sizes.executable,
        page_table_bytes: (space.tables() + 1) * PAGE_SIZE,
        resident_limit: u64::MAX,
        start_brk: space.heap().0.0,
        start_stack: arguments.0,
        arguments,
        environment,
        ..ProcessMemory::default()
    };
    // Code and data of the program are its first areas that map a file.
    for area in space.areas().filter(|area| !area.is_anonymous()) {
        use pagelab_mm::Protection;
        let range = (area.start.0, area.end.0);
        if area.protection.contains(Protection::EXECUTE) && memory.code == (0, 0) {
            memory.code = range;
        } else if area.protection.contains(Protection::WRITE) && memory.initialised == (0, 0) {
            memory.initialised = range;
        }
    }
    memory
}

/// Appends a range of a process's memory, as far as it can be read.
pub fn append_memory(process: &Process, range: (u64, u64), out: &mut Vec<u8>) {
    /// Arguments and environment are a quarter of the stack at most.
    const MOST: u64 = 2 << 20;
    let length = range.1.saturating_sub(range.0).min(MOST) as usize;
    if length == 0 || process.state() != State::Alive {
        return;
    }
    let mut bytes = vec![0; length];
    let read = user::retry(&process.space(), |space, done| {
        space.read_user(memory(), GuestVirt(range.0 + done as u64), &mut bytes[done..])
    });
    if read.is_ok() {
        out.extend_from_slice(&bytes);
    }
}

/// Appends the auxiliary vector, which lies between the environment's pointers
/// and the strings.
pub fn append_auxiliary_vector(process: &Process, out: &mut Vec<u8>) {
    let image = process.image.lock().clone();
    append_memory(process, image.auxiliary, out);
}

/// Linux's formula: 0 for a process that is never chosen, 2000 at most.
pub fn oom_score(process: &Process) -> Result<u32> {
    const TYPICAL: i64 = 1000;
    if process.state() != State::Alive {
        return Ok(0);
    }
    let total = memory().frames.counters().total.cast_signed().max(1);
    let points = (TYPICAL + oom::score(process) * TYPICAL / total) * 2 / 3;
    Ok(u32::try_from(points).unwrap_or(0))
}
