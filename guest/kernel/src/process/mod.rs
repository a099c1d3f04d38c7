//! Processes and threads.
//!
//! | file | what happens there |
//! | --- | --- |
//! | [`space`] | an address space that threads and processes may share |
//! | [`program`] | program files: their pages come in here |
//! | [`exec`] | a program is mapped, its stack is made |
//! | [`fork`] | `fork`, `vfork`, `clone`: processes and threads |
//! | [`exit`] | a thread ends, a process ends |
//! | [`wait`] | a parent learns of it |
//! | [`init`] | process 1: starts the first program, and balances the books |
//! | [`thread`], [`scheduler`], [`sleep`], [`futex`] | who runs, who waits |
//! | [`rseq`] | what a thread does if something came between its instructions |
//! | [`reclaim`], [`oom`] | what happens when memory runs short, and out |
//! | [`spaces`] | all address spaces, for the reverse map |
//!
//! Locks are held for pieces of computation, never over a sleep, and in this
//! order: a process's fields, [`TABLE`], the scheduler's.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

use pagelab_abi::directory::ProcessRecord;
use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::FaultCounters;
use pagelab_hal::sync::Lock;
use pagelab_hal::time;
use pagelab_mm::{Copies, ObjectId, Spaces};
use pagelab_vfs::{FdTable, FsContext, WaitChannel};

use self::sleep::WaitQueue;
use self::space::Space;
use self::thread::{Thread, Tid};
use self::usage::Usage;
use crate::memory::memory;
use crate::publish;
use crate::signal::ProcessSignals;

pub mod exec;
pub mod exit;
pub mod fork;
pub mod futex;
pub mod init;
pub mod limits;
pub mod oom;
pub mod program;
pub mod reclaim;
pub mod rseq;
pub mod scheduler;
pub mod sleep;
pub mod space;
pub mod spaces;
pub mod thread;
pub mod usage;
pub mod wait;

/// A process's number: what `getpid` gives.
pub type Pid = u32;

/// Numbers are given out up to here, then again from the start.
const LAST_PID: Pid = 32_767;

/// A process: what its threads share.
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Parent, children, group, session.
    pub family: Lock<Family>,
    /// Its threads that have not ended.
    pub threads: Lock<Vec<Arc<Thread>>>,
    /// The program it runs.
    pub image: Lock<Image>,
    /// Open files; shared after `clone(CLONE_FILES)`.
    pub files: Lock<Arc<Lock<FdTable>>>,
    /// Current folder, root, umask; shared after `clone(CLONE_FS)`.
    pub folders: Lock<Arc<Lock<FsContext>>>,
    /// Signals: what they do, which are pending.
    pub signals: ProcessSignals,
    /// Resource limits that are not the address space's.
    pub limits: Lock<limits::ResourceLimits>,
    /// What it and its children have used.
    pub usage: Lock<Usage>,
    /// Set once it is to end, with how.
    pub ending: Lock<Option<ExitStatus>>,
    /// Woken when a child ends, stops or goes on.
    pub child_changed: WaitQueue,
    /// Woken when it no longer uses the address space that `vfork` lent it, and
    /// when one of its threads has ended.
    pub released: WaitQueue,
    /// Woken when it ends, for those who have it as a file.
    pub ended: WaitChannel,
    /// Preference of the OOM killer, -1000 to 1000.
    pub oom_score_adj: AtomicI32,
    state: Lock<State>,
    space: Lock<Arc<Space>>,
    /// What the host sees of it; its faults are counted here.
    pub record: ProcessRecord,
    /// Where its record is in the list of records.
    pub place: AtomicU64,
}

/// Who a process belongs to.
pub struct Family {
    /// The parent's number; 0 for process 1.
    pub parent: Pid,
    /// Children that have not been waited for.
    pub children: Vec<Arc<Process>>,
    /// Process group.
    pub group: Pid,
    /// Session.
    pub session: Pid,
    /// The signal that the parent gets at the end; 0 for none.
    pub exit_signal: u8,
    /// It has called `execve`: `setpgid` by its parent is refused.
    pub has_executed: bool,
}

impl Family {
    /// A child is nobody's to wait for any more.
    pub fn remove_child(&mut self, child: &Process) {
        self.children.retain(|other| other.pid != child.pid);
        if let Some(room) = room_to_keep(self.children.len(), self.children.capacity()) {
            self.children.shrink_to(room);
        }
    }
}

/// How much room a list is to keep if it has far too much: nothing large stays
/// behind when a crowd has gone.
pub const fn room_to_keep(used: usize, capacity: usize) -> Option<usize> {
    let most = 4 * used + 64;
    if capacity > most { Some(most / 2) } else { None }
}

/// The program that a process runs, as `/proc` shows it.
#[derive(Clone, Default)]
pub struct Image {
    /// `comm`: at most 15 bytes.
    pub name: String,
    /// Path of the file.
    pub path: Vec<u8>,
    /// Where the arguments are on the stack.
    pub arguments: (u64, u64),
    /// Where the environment is.
    pub environment: (u64, u64),
    /// Where the auxiliary vector is.
    pub auxiliary: (u64, u64),
    /// When it was started, in nanoseconds since the kernel was.
    pub started: u64,
}

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has threads.
    Alive,
    /// It waits to be waited for.
    Ended(ExitStatus),
    /// It has been waited for.
    Reaped(ExitStatus),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl ExitStatus {
    /// As a shell reports it, and as the lab ends: 128 and the signal.
    pub const fn as_shell(self) -> u32 {
        match self {
            Self::Exited(status) => status as u32,
            Self::Killed(signal) => 128 + signal as u32,
        }
    }

    /// As `wait` reports it.
    pub const fn as_wait_status(self) -> u32 {
        match self {
            Self::Exited(status) => (status as u32) << 8,
            Self::Killed(signal) => signal as u32,
        }
    }
}

/// All processes that have not been waited for.
static TABLE: Lock<BTreeMap<Pid, Arc<Process>>> = Lock::new(BTreeMap::new());
static NEXT_PID: AtomicU32 = AtomicU32::new(1);

/// What a new process gets from its parent.
pub struct Inherited {
    /// Parent, group, session.
    pub family: Family,
    /// The program.
    pub image: Image,
    /// Open files.
    pub files: Arc<Lock<FdTable>>,
    /// Folders.
    pub folders: Arc<Lock<FsContext>>,
    /// Signals.
    pub signals: ProcessSignals,
    /// Limits.
    pub limits: limits::ResourceLimits,
    /// Address space.
    pub space: Arc<Space>,
    /// OOM preference.
    pub oom_score_adj: i32,
}

impl Process {
    /// A process without threads, in the table of processes.
    pub fn new(pid: Pid, inherited: Inherited) -> Arc<Self> {
        let image = Image { started: time::since_start(), ..inherited.image };
        let process = Arc::new(Self {
            pid,
            family: Lock::new(inherited.family),
            threads: Lock::new(Vec::new()),
            image: Lock::new(image),
            files: Lock::new(inherited.files),
            folders: Lock::new(inherited.folders),
            signals: inherited.signals,
            limits: Lock::new(inherited.limits),
            usage: Lock::new(Usage::default()),
            ending: Lock::new(None),
            child_changed: WaitQueue::new(),
            released: WaitQueue::new(),
            ended: WaitChannel::unique(),
            oom_score_adj: AtomicI32::new(inherited.oom_score_adj),
            state: Lock::new(State::Alive),
            space: Lock::new(inherited.space),
            record: ProcessRecord::default(),
            place: AtomicU64::new(0),
        });
        TABLE.lock().insert(pid, process.clone());
        publish::process_added(&process);
        process
    }

    /// Its address space.
    #[inline]
    pub fn space(&self) -> Arc<Space> {
        self.space.lock().clone()
    }

    /// Gives it another address space; the old one is returned.
    pub fn replace_space(&self, space: Arc<Space>) -> Arc<Space> {
        publish::space_changed(self, &space);
        core::mem::replace(&mut *self.space.lock(), space)
    }

    /// Its open files.
    #[inline]
    pub fn files(&self) -> Arc<Lock<FdTable>> {
        self.files.lock().clone()
    }

    /// Its folders.
    pub fn folders(&self) -> Arc<Lock<FsContext>> {
        self.folders.lock().clone()
    }

    /// Whether it lives.
    pub fn state(&self) -> State {
        *self.state.lock()
    }

    /// Says whether it lives.
    pub fn set_state(&self, state: State) {
        *self.state.lock() = state;
        publish::state_changed(self);
    }

    /// Its parent, which is process 1 if the real one is gone.
    pub fn parent(&self) -> Pid {
        self.family.lock().parent
    }

    /// One of its threads.
    pub fn thread(&self, tid: Tid) -> Option<Arc<Thread>> {
        self.threads.lock().iter().find(|thread| thread.tid() == tid).cloned()
    }

    /// Counts one of its faults.
    #[inline]
    pub fn count_fault(&self, kind: FaultKind, cost: u64) {
        self.record.count_fault(kind, cost);
    }

    /// Its faults so far.
    pub fn faults(&self) -> FaultCounters {
        self.record.faults()
    }
}

/// A number that no process and no thread has.
pub fn new_pid() -> Pid {
    loop {
        let mut pid = NEXT_PID.fetch_add(1, Ordering::Relaxed);
        if pid > LAST_PID {
            // Low numbers belong to those who started first and stayed.
            const FIRST_REUSED: Pid = 300;
            pid = FIRST_REUSED;
            NEXT_PID.store(FIRST_REUSED + 1, Ordering::Relaxed);
        }
        if !is_used(pid) {
            return pid;
        }
    }
}

fn is_used(pid: Pid) -> bool {
    let table = TABLE.lock();
    table.contains_key(&pid)
        || (NEXT_PID.load(Ordering::Relaxed) < 400
            && table.values().any(|process| {
                let family = process.family.lock();
                family.group == pid || family.session == pid || process.thread(pid).is_some()
            }))
}

/// The process with a number.
pub fn find(pid: Pid) -> Option<Arc<Process>> {
    TABLE.lock().get(&pid).cloned()
}

/// All processes, in the order of their numbers.
pub fn all() -> Vec<Arc<Process>> {
    TABLE.lock().values().cloned().collect()
}

/// Takes pages of an object out of every program's memory.
pub fn unmap_everywhere(object: ObjectId, pages: Range<u64>, copies: Copies) {
    let spaces = spaces::AllSpaces::now();
    for number in 0..spaces.count() {
        spaces.with(number, &mut |space| {
            space.unmap_object(memory(), object, (pages.start, pages.end), copies);
        });
    }
}

/// The thread with a number, whatever process it belongs to.
pub fn find_thread(tid: Tid) -> Option<Arc<Thread>> {
    if let Some(thread) = find(tid).and_then(|process| process.thread(tid)) {
        return Some(thread);
    }
    all().iter().find_map(|process| process.thread(tid))
}

/// Takes a process out of the table: it has been waited for.
pub fn forget(pid: Pid) {
    if let Some(process) = find(pid) {
        publish::process_removed(&process);
    }
    let process = TABLE.lock().remove(&pid);
    drop(process);
}
