//! Processes and threads.
//!
//! | file | what happens there |
//! | --- | --- |
//! | [`space`] | an address space that threads and processes may share |
//! | [`program`] | program files: their pages come in here |
//! | [`exec`] | a program is mapped, its stack is made |
//! | [`exit`] | a process ends |
//! | [`init`] | process 1: starts the first program, and balances the books |
//! | [`thread`], [`scheduler`], [`sleep`] | who runs, who waits |

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::FaultCounters;
use pagelab_hal::sync::Lock;

use self::sleep::WaitQueue;
use self::space::Space;
use self::thread::Thread;

pub mod exec;
pub mod exit;
pub mod init;
pub mod program;
pub mod scheduler;
pub mod sleep;
pub mod space;
pub mod thread;

/// A process's number: what `getpid` gives.
pub type Pid = u32;

/// A process.
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its name: the program's, without the path.
    pub name: Lock<String>,
    /// Its threads.
    pub threads: Lock<Vec<Arc<Thread>>>,
    /// How it ended, as `wait` reports it.
    pub ended: Lock<Option<ExitStatus>>,
    /// Woken when it has ended.
    pub end: WaitQueue,
    space: Lock<Arc<Space>>,
    faults: Lock<FaultCounters>,
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
}

static PROCESSES: Lock<BTreeMap<Pid, Arc<Process>>> = Lock::new(BTreeMap::new());

impl Process {
    /// A process without threads, in the table of processes.
    pub fn new(pid: Pid, name: String, space: Arc<Space>) -> Arc<Self> {
        let process = Arc::new(Self {
            pid,
            name: Lock::new(name),
            threads: Lock::new(Vec::new()),
            ended: Lock::new(None),
            end: WaitQueue::new(),
            space: Lock::new(space),
            faults: Lock::new(FaultCounters::default()),
        });
        PROCESSES.lock().insert(pid, process.clone());
        process
    }

    /// Its address space.
    #[inline]
    pub fn space(&self) -> Arc<Space> {
        self.space.lock().clone()
    }

    /// Gives it another address space; the old one is returned.
    pub fn replace_space(&self, space: Arc<Space>) -> Arc<Space> {
        core::mem::replace(&mut *self.space.lock(), space)
    }

    /// Counts one of its faults.
    #[inline]
    pub fn count_fault(&self, kind: FaultKind, cost: u64) {
        let mut faults = self.faults.lock();
        faults.count[kind as usize] += 1;
        faults.cost[kind as usize] += cost;
    }

    /// Its faults so far.
    pub fn faults(&self) -> FaultCounters {
        *self.faults.lock()
    }
}

/// Takes a process out of the table.
pub fn forget(pid: Pid) {
    PROCESSES.lock().remove(&pid);
}
