//! A thread: a kernel stack, what it has in ring 3, and whether it may run.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use pagelab_hal::context::{self, Context};
use pagelab_hal::cpu;
use pagelab_hal::fpu::FpuState;
use pagelab_hal::sync::Lock;
use pagelab_hal::trap::TrapFrame;

use super::rseq::Registration;
use super::usage::CpuTime;
use super::{Process, scheduler};
use crate::publish;
use crate::signal::ThreadSignals;
use crate::syscall::before_return;

/// A thread's number: what `gettid` gives.
pub type Tid = u32;

/// What a thread has in ring 3 beside the registers in its trap frame.
#[derive(Debug)]
pub struct UserState {
    /// Floating-point and vector registers, while another thread runs; `None`
    /// until somebody else needs the processor's.
    fpu: Option<FpuState>,
    /// Base of FS: the C library's thread area.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
}

impl UserState {
    /// What the first program starts with, and a thread of the kernel's.
    pub const fn new() -> Self {
        Self { fpu: None, fs_base: 0, gs_base: 0 }
    }

    /// A copy of the running thread's, whose this is; `None` if memory has run
    /// out.
    pub fn copy_current(&mut self) -> Option<Self> {
        self.fpu()?;
        let mut fpu = FpuState::new()?;
        fpu.save();
        Some(Self { fpu: Some(fpu), ..*self })
    }

    /// The place for the floating-point state, made if need be; `None` if memory
    /// has run out.
    pub fn fpu(&mut self) -> Option<&mut FpuState> {
        if self.fpu.is_none() {
            self.fpu = FpuState::new();
        }
        self.fpu.as_mut()
    }

    /// What exec leaves, for the processor as well.
    pub fn reset(&mut self) {
        FpuState::restore_initial();
        (self.fs_base, self.gs_base) = (0, 0);
        self.load_segments();
    }

    fn load_segments(&self) {
        cpu::set_user_segments(self.fs_base, self.gs_base);
    }

    /// Takes the processor's floating-point state, in order to look at it.
    pub fn look_at_fpu(&mut self) -> Option<&mut FpuState> {
        let fpu = self.fpu()?;
        fpu.save();
        Some(fpu)
    }
}

/// Whether the scheduler may run a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RunState {
    /// It runs or waits for its turn.
    Ready = 0,
    /// It waits for something; [`scheduler::wake`] makes it ready.
    Blocked = 1,
    /// It has ended.
    Dead = 2,
}

/// What a thread has had of the processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadUsage {
    /// Time.
    pub time: CpuTime,
    /// Turns that ended because it had to wait.
    pub voluntary_switches: u64,
    /// Turns that ended because others were to run.
    pub involuntary_switches: u64,
}

/// A thread.
pub struct Thread {
    /// Whose it is.
    pub process: Arc<Process>,
    /// Its kernel stack.
    pub context: Context,
    /// Its state in ring 3.
    pub user: Lock<UserState>,
    /// Its signal mask, its own pending signals, its alternate stack.
    pub signals: ThreadSignals,
    /// It is to end, though its process goes on.
    pub ending: AtomicBool,
    /// Where to store 0 and wake a futex when it ends; 0 for nowhere.
    pub clear_tid: AtomicU64,
    /// Head of its list of robust futexes; 0 for none.
    pub robust_list: AtomicU64,
    /// Its restartable sequences.
    pub rseq: Registration,
    /// What it has had of the processor, without the turn that it has now.
    pub usage: Lock<ThreadUsage>,
    tid: AtomicU32,
    start: Lock<Option<TrapFrame>>,
    run_state: AtomicU8,
    /// There is something to do before it returns to ring 3: a signal, or its
    /// process ends.
    attention: AtomicBool,
}

impl Thread {
    /// A thread that will start in ring 3 with `frame`; `None` if memory has run
    /// out.
    pub fn new(
        tid: Tid,
        process: Arc<Process>,
        user: UserState,
        signals: ThreadSignals,
        frame: TrapFrame,
    ) -> Option<Arc<Self>> {
        Self::with(tid, process, user, signals, Some(frame), first_run)
    }

    /// A thread of the kernel itself, which never goes to ring 3.
    pub fn new_kernel(tid: Tid, process: Arc<Process>, main: fn() -> !) -> Option<Arc<Self>> {
        Self::with(tid, process, UserState::new(), ThreadSignals::default(), None, main)
    }

    fn with(
        tid: Tid,
        process: Arc<Process>,
        user: UserState,
        signals: ThreadSignals,
        start: Option<TrapFrame>,
        main: fn() -> !,
    ) -> Option<Arc<Self>> {
        let context = Context::new(main)?;
        publish::thread_changed(&process.record, None, RunState::Ready);
        if tid == process.pid {
            publish::leader_changed(&process.record, &context);
        }
        Some(Arc::new(Self {
            tid: AtomicU32::new(tid),
            process,
            context,
            user: Lock::new(user),
            signals,
            ending: AtomicBool::new(false),
            clear_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            rseq: Registration::default(),
            usage: Lock::new(ThreadUsage::default()),
            start: Lock::new(start),
            run_state: AtomicU8::new(RunState::Ready as u8),
            attention: AtomicBool::new(false),
        }))
    }

    /// Its number.
    #[inline]
    pub fn tid(&self) -> Tid {
        self.tid.load(Ordering::Relaxed)
    }

    /// Gives it the number of its process: it is the only thread now.
    pub fn become_leader(&self) {
        self.tid.store(self.process.pid, Ordering::Relaxed);
        publish::leader_changed(&self.process.record, &self.context);
    }

    /// Whether the scheduler may run it.
    pub fn run_state(&self) -> RunState {
        match self.run_state.load(Ordering::Relaxed) {
            0 => RunState::Ready,
            1 => RunState::Blocked,
            _ => RunState::Dead,
        }
    }

    /// Says whether the scheduler may run it.
    pub fn set_run_state(&self, state: RunState) {
        let before = self.run_state();
        self.run_state.store(state as u8, Ordering::Relaxed);
        publish::thread_changed(&self.process.record, Some(before), state);
    }

    /// Whether there is something to do before it returns to ring 3: a signal,
    /// or its process ends.
    pub fn has_attention(&self) -> bool {
        self.attention.load(Ordering::Relaxed)
    }

    /// Says that there is something to do before it returns to ring 3.
    pub fn call_attention(&self) {
        self.attention.store(true, Ordering::Relaxed);
        // If this is not the one that runs, that one looks in vain.
        scheduler::look_before_return(true);
    }

    /// Says that there is no more to do.
    pub fn end_attention(&self) {
        self.attention.store(false, Ordering::Relaxed);
    }

    /// Counts the end of a turn, which it gives up if it is blocked.
    pub fn count_turn(&self) {
        let mut own = self.usage.lock();
        let mut all = self.process.usage.lock();
        if self.run_state() == RunState::Ready {
            own.involuntary_switches += 1;
            all.own.involuntary_switches += 1;
        } else {
            own.voluntary_switches += 1;
            all.own.voluntary_switches += 1;
        }
    }

    /// Gives the processor this thread's segments for ring 3.
    pub fn load_segments(&self) {
        self.user.lock().load_segments();
    }

    /// Keeps the processor's floating-point state, which is this thread's, and
    /// gives it that of another one, which runs next.
    pub fn exchange_fpu(&self, next: &Self) {
        let mut this = self.user.lock();
        let next = next.user.lock();
        // A thread that has ended needs nothing any more.
        let keep = this.fpu.as_mut().filter(|_| self.run_state() != RunState::Dead);
        match (keep, &next.fpu) {
            (Some(this), Some(next)) => this.exchange(next),
            (Some(this), None) => this.save(),
            (None, Some(next)) => next.restore(),
            (None, None) => {}
        }
    }
}

/// Where a new thread starts on its kernel stack.
fn first_run() -> ! {
    scheduler::after_switch();
    let mut frame = scheduler::current().start.lock().take().unwrap_or_default();
    // Signals may have come before it ran.
    before_return(&mut frame, None);
    context::enter_program(&frame)
}
