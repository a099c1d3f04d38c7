//! Pausing the processor and looking at it, from another thread.
//!
//! [`VcpuControl`] is shared by the vCPU's thread and whoever debugs the guest.
//! The processor itself is only ever touched by its own thread: a debugger hands
//! it questions ([`VcpuControl::registers`] and others), which it answers while
//! the guest is paused.
//!
//! A pause is wanted under the lock, then the thread is sent the signal that also
//! ends it (see [`super::vcpu`]); it looks at [`VcpuControl::wants_attention`]
//! before each entry into the guest. No lock is held while the guest runs.
//! Whenever something changes, the descriptor [`VcpuControl::announcements`]
//! becomes readable.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs, kvm_translation};
use kvm_ioctls::VcpuFd;
use pagelab_abi::event::Event;
use pagelab_abi::layout::USER_END;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN};

use super::guest_debug::{Breakpoints, Condition};
use super::registers;
use super::stepping::{BREAKPOINT, Debugging};
use crate::stop::Registers;

/// Why the guest is paused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pause {
    /// Before its first instruction.
    Start,
    /// Somebody asked for it.
    Asked,
    /// A step is done.
    Stepped,
    /// A fault that was waited for.
    Fault(Event),
    /// A breakpoint or watchpoint: where, and the debug status register.
    Breakpoint {
        /// The instruction.
        pc: u64,
        /// DR6: which of the hardware's breakpoints.
        dr6: u64,
        /// Whether an `int3` did it.
        software: bool,
        /// The memory that was accessed, where that was waited for.
        watched: Option<(u64, Condition)>,
    },
}

/// What the processor is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activity {
    /// The guest runs, or is about to.
    Running,
    /// The guest stands still.
    Paused(Pause),
    /// The guest has ended.
    Ended,
}

/// How the guest goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It runs.
    Run,
    /// It executes so many instructions, or fewer if one before is in ring 3 and
    /// that is enough.
    Step {
        /// How many.
        count: u64,
        /// Whether the first instruction in ring 3 is the end.
        until_user: bool,
    },
}

/// Why the processor cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It runs.
    #[error("the guest is running: pause it first")]
    Running,
    /// It is no more.
    #[error("the guest has ended")]
    Ended,
    /// KVM refused.
    #[error("KVM refused: {0}")]
    Kvm(io::Error),
    /// No answer came.
    #[error("the processor's thread gave no answer")]
    NoAnswer,
}

/// All that a debugger may read and write of the processor.
#[derive(Clone, Debug, Default)]
pub struct ProcessorState {
    /// General registers.
    pub general: kvm_regs,
    /// Segments and control registers.
    pub special: kvm_sregs,
    /// Floating point and vectors.
    pub fpu: kvm_fpu,
}

/// Something for the processor's thread to do while the guest is paused.
type Job = Box<dyn FnOnce(&VcpuFd) + Send>;

struct State {
    activity: Activity,
    /// The pause that is wanted.
    wanted: Option<Pause>,
    /// How to go on, once that is known.
    resume: Option<Resume>,
    /// Instructions that are still to be stepped.
    stepping: Option<(u64, bool)>,
    jobs: VecDeque<Job>,
    breakpoints: Breakpoints,
    /// How often the guest went on.
    resumed: u64,
    /// The thread, while it can be signalled.
    thread: Option<ThreadId>,
}

/// A thread that can be signalled.
#[derive(Clone, Copy)]
struct ThreadId(libc::pthread_t);

// SAFETY: `pthread_t` is the handle of a thread that is alive: the state holds
// it only while that thread has its `Attached`.
#[allow(unsafe_code, reason = "the handle is only held while the thread lives")]
unsafe impl Killable for ThreadId {
    fn pthread_handle(&self) -> libc::pthread_t {
        self.0
    }
}

/// See the module's documentation.
pub struct VcpuControl {
    attention: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    announce: EventFd,
}

impl std::fmt::Debug for VcpuControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VcpuControl").field("activity", &self.activity()).finish_non_exhaustive()
    }
}

impl VcpuControl {
    /// Control over a processor that has not begun; it stops before its first
    /// instruction if `paused`.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn new(paused: bool) -> io::Result<Self> {
        let state = State {
            activity: if paused { Activity::Paused(Pause::Start) } else { Activity::Running },
            wanted: paused.then_some(Pause::Start),
            resume: None,
            stepping: None,
            jobs: VecDeque::new(),
            breakpoints: Breakpoints::default(),
            resumed: 0,
            thread: None,
        };
        Ok(Self {
            attention: AtomicBool::new(paused),
            state: Mutex::new(state),
            changed: Condvar::new(),
            announce: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        })
    }

    /// Readable whenever something has changed.
    #[must_use]
    pub const fn announcements(&self) -> &EventFd {
        &self.announce
    }

    /// What the processor is doing.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.state().activity
    }

    /// How often the guest went on, if it stands still now. Two equal answers
    /// mean that it stood still in between.
    #[must_use]
    pub fn standing(&self) -> Option<u64> {
        let state = self.state();
        matches!(state.activity, Activity::Paused(_) | Activity::Ended).then_some(state.resumed)
    }

    /// Asks for a pause, which comes soon; to be called again if it does not.
    pub fn pause(&self) {
        let mut state = self.state();
        if state.activity != Activity::Running {
            return;
        }
        self.want(&mut state, Pause::Asked);
        if let Some(thread) = state.thread
            && let Err(error) = thread.kill(SIGRTMIN())
        {
            log::debug!("cannot signal the vCPU: {error}");
        }
    }

    /// Has the processor's own thread pause before it enters the guest again.
    pub fn pause_here(&self, why: Pause) {
        self.want(&mut self.state(), why);
    }

    fn want(&self, state: &mut State, why: Pause) {
        state.wanted.get_or_insert(why);
        self.attention.store(true, Ordering::SeqCst);
    }

    /// Lets a paused guest go on.
    ///
    /// # Errors
    ///
    /// If it is not paused.
    pub fn resume(&self, how: Resume) -> Result<(), ControlError> {
        let mut state = self.paused()?;
        state.resume = Some(how);
        // From now on: whoever looks next must not take it for paused.
        state.activity = Activity::Running;
        state.resumed += 1;
        self.changed.notify_all();
        Ok(())
    }

    /// The breakpoints.
    #[must_use]
    pub fn breakpoints(&self) -> Breakpoints {
        self.state().breakpoints.clone()
    }

    /// Sets the breakpoints that hold from the next time the guest goes on.
    ///
    /// # Errors
    ///
    /// If it is not paused.
    pub fn set_breakpoints(&self, breakpoints: Breakpoints) -> Result<(), ControlError> {
        self.paused()?.breakpoints = breakpoints;
        Ok(())
    }

    /// The processor's registers.
    ///
    /// # Errors
    ///
    /// If the guest is not paused.
    pub fn registers(&self) -> Result<Registers, ControlError> {
        self.ask(registers::read)
    }

    /// What KVM says that an address is translated to.
    ///
    /// # Errors
    ///
    /// If the guest is not paused, or KVM cannot.
    pub fn translate(&self, address: u64) -> Result<kvm_translation, ControlError> {
        self.ask(move |vcpu| vcpu.translate_gva(address)).and_then(|result| result.map_err(refused))
    }

    /// The processor's whole state.
    ///
    /// # Errors
    ///
    /// If the guest is not paused, or KVM refuses.
    pub fn processor(&self) -> Result<ProcessorState, ControlError> {
        self.ask(|vcpu| {
            Ok(ProcessorState {
                general: vcpu.get_regs()?,
                special: vcpu.get_sregs()?,
                fpu: vcpu.get_fpu()?,
            })
        })?
        .map_err(refused)
    }

    /// Sets the processor's general registers and floating point.
    ///
    /// # Errors
    ///
    /// If the guest is not paused, or KVM refuses.
    pub fn set_processor(&self, processor: &ProcessorState) -> Result<(), ControlError> {
        let ProcessorState { general, special, fpu } = processor.clone();
        self.ask(move |vcpu| {
            vcpu.set_regs(&general)?;
            vcpu.set_sregs(&special)?;
            vcpu.set_fpu(&fpu)
        })?
        .map_err(refused)
    }

    /// Has the processor's thread answer a question.
    fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&VcpuFd) -> R + Send + 'static,
    ) -> Result<R, ControlError> {
        /// The thread only waits for questions; this is for a host in distress.
        const PATIENCE: Duration = Duration::from_secs(5);
        let (sender, answer) = mpsc::sync_channel(1);
        let mut state = self.paused()?;
        state.jobs.push_back(Box::new(move |vcpu| {
            // Whoever asked may have given up.
            let _ = sender.send(question(vcpu));
        }));
        self.changed.notify_all();
        drop(state);
        answer.recv_timeout(PATIENCE).map_err(|_| ControlError::NoAnswer)
    }

    fn paused(&self) -> Result<MutexGuard<'_, State>, ControlError> {
        let state = self.state();
        match state.activity {
            Activity::Paused(_) => Ok(state),
            Activity::Running => Err(ControlError::Running),
            Activity::Ended => Err(ControlError::Ended),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self) {
        if let Err(error) = self.announce.write(1) {
            log::debug!("cannot announce a pause: {error}");
        }
    }
}

fn refused(error: kvm_ioctls::Error) -> ControlError {
    ControlError::Kvm(io::Error::from_raw_os_error(error.errno()))
}

/// While it lives, the processor's thread can be signalled. Dropped also when
/// that thread panics.
#[derive(Debug)]
pub(super) struct Attached(Arc<VcpuControl>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// What the processor's thread calls.
impl VcpuControl {
    /// The calling thread is the processor's from now on.
    #[allow(unsafe_code, reason = "no crate wraps pthread_self")]
    pub(super) fn attach(self: &Arc<Self>) -> Attached {
        // SAFETY: has no preconditions.
        self.state().thread = Some(ThreadId(unsafe { libc::pthread_self() }));
        Attached(Arc::clone(self))
    }

    /// The thread enters the guest no more.
    fn ended(&self) {
        let mut state = self.state();
        state.thread = None;
        state.activity = Activity::Ended;
        // Whoever waits for an answer is told so by the channel's end.
        state.jobs.clear();
        drop(state);
        self.say();
    }

    /// Wakes the thread if it is paused, because it must end.
    pub(super) fn wake(&self) {
        // With the lock, so that the thread is not just between its look at the
        // stop flag and its wait.
        let _state = self.state();
        self.changed.notify_all();
    }

    /// Whether [`VcpuControl::attend`] has something to do.
    pub(super) fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// Pauses if that is wanted, answers questions until the guest is to go on
    /// or `stop` is set.
    pub(super) fn attend(&self, vcpu: &VcpuFd, debugging: &mut Debugging, stop: &AtomicBool) {
        let mut state = self.state();
        self.attention.store(false, Ordering::SeqCst);
        let Some(why) = state.wanted.take() else { return };
        state.activity = Activity::Paused(why);
        state.stepping = None;
        debugging.pause();
        self.say();
        while !stop.load(Ordering::SeqCst) {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job(vcpu);
                state = self.state();
            } else if let Some(how) = state.resume.take() {
                if let Resume::Step { count, until_user } = how {
                    state.stepping = Some((count, until_user));
                }
                let step = state.stepping.is_some();
                if debugging.go_on(vcpu, &state.breakpoints, step) {
                    let pc = vcpu.get_regs().map_or(0, |regs| regs.rip);
                    self.step_on(&mut state, vcpu, debugging, pc);
                }
                break;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.activity = Activity::Running;
        drop(state);
        self.say();
    }

    /// A debug exit: decides whether the guest pauses, or goes on.
    pub(super) fn debug_exit(&self, vcpu: &VcpuFd, debugging: &mut Debugging, exit: DebugExit) {
        /// DR6: one of the four breakpoints.
        const HIT: u64 = 0xf;
        let DebugExit { mut pc, mut dr6, mut software } = exit;
        if let Some((vector, place)) = debugging.take_back(vcpu) {
            (pc, dr6, software) = (place, 0, vector == BREAKPOINT);
        }
        let mut state = self.state();
        let own = !software && debugging.is_guests_own(vcpu, pc);
        let by_register = state.breakpoints.hit(dr6 & HIT);
        let by_register = by_register.filter(|(_, condition)| *condition != Condition::Execute);
        let watched = debugging.watched(pc).or(by_register);
        if watched.is_some() || !own && (software || dr6 & HIT != 0) {
            return self.want(&mut state, Pause::Breakpoint { pc, dr6, software, watched });
        }
        let step = state.stepping.is_some();
        let watches = !state.breakpoints.stepped.is_empty();
        if !own && debugging.stepped_over(vcpu, step) && !step && !watches {
            return;
        }
        self.step_on(&mut state, vcpu, debugging, pc);
    }

    /// An instruction was stepped: pauses, or steps the next one.
    fn step_on(&self, state: &mut State, vcpu: &VcpuFd, debugging: &mut Debugging, mut pc: u64) {
        loop {
            let step = match &mut state.stepping {
                None => false,
                Some((left, until_user)) if *left > 1 && !(*until_user && pc < USER_END.0) => {
                    *left -= 1;
                    true
                }
                Some(_) => return self.want(state, Pause::Stepped),
            };
            if !debugging.go_on(vcpu, &state.breakpoints, step) {
                return;
            }
            pc = vcpu.get_regs().map_or(0, |regs| regs.rip);
        }
    }
}

/// What KVM says when it leaves the guest for the debugger.
#[derive(Clone, Copy, Debug)]
pub(super) struct DebugExit {
    pub(super) pc: u64,
    pub(super) dr6: u64,
    pub(super) software: bool,
}
