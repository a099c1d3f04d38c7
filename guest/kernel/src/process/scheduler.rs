//! Who runs: a queue of ready threads, taken in turn.
//!
//! ```text
//!           yield_now, time slice over
//!        ┌──────────────────────────────┐
//!        ▼                              │
//!   ready queue ── schedule ────► running ── block ──► blocked
//!        ▲                                                │
//!        └───────────────────── wake ─────────────────────┘
//! ```
//!
//! A thread that cannot go on calls [`block`], which returns when something has
//! woken it. If nobody is ready, the one that ran last waits for interrupts on
//! its own stack. The timer is armed only while somebody else is ready (time
//! slices) or somebody waits for a moment: a lone program is never interrupted.
//!
//! Nothing is held across a switch: a thread that has ended leaves no reference
//! on its stack, and [`after_switch`] frees it.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use pagelab_hal::sync::Lock;
use pagelab_hal::{cpu, interrupts, memory, time};

use super::thread::{RunState, Thread};
use super::usage::CpuTime;
use super::{Process, State, room_to_keep, sleep};
use crate::files::{timer_file, write_back};
use crate::publish;
use crate::signal::timer;

/// How long a thread runs while others are ready, in nanoseconds.
const TIME_SLICE: u64 = 10_000_000;

struct Scheduler {
    ready: VecDeque<Arc<Thread>>,
    current: Option<Arc<Thread>>,
    /// A thread that has ended, kept until its stack is no longer in use.
    ended: Option<Arc<Thread>>,
    /// When the timer is armed for, if it is.
    alarm: Option<u64>,
    /// Since when the current thread's time is not charged yet, in ticks.
    charged_until: u64,
    /// How long nobody ran, in ticks.
    idle: u64,
    /// Nobody runs.
    is_idle: bool,
}

/// The one flag that every return to ring 3 looks at.
static LOOK_BEFORE_RETURN: AtomicBool = AtomicBool::new(false);

static SCHEDULER: Lock<Scheduler> = Lock::new(Scheduler {
    ready: VecDeque::new(),
    current: None,
    ended: None,
    alarm: None,
    charged_until: 0,
    idle: 0,
    is_idle: false,
});

/// The running thread.
///
/// # Panics
///
/// Before the first thread runs.
#[inline]
pub fn current() -> Arc<Thread> {
    SCHEDULER.lock().current.clone().expect("a thread is running")
}

/// What `question` finds out about the running thread: what it does not call
/// needs no more than a look.
#[inline]
pub fn ask_current<T>(question: impl FnOnce(&Thread) -> T) -> T {
    question(SCHEDULER.lock().current_thread())
}

/// Whether the running thread may have something to do before it returns to
/// ring 3 ([`Thread::has_attention`]).
#[inline]
pub fn looks_before_return() -> bool {
    LOOK_BEFORE_RETURN.load(Ordering::Relaxed)
}

/// Says whether it may.
pub fn look_before_return(look: bool) {
    LOOK_BEFORE_RETURN.store(look, Ordering::Relaxed);
}

/// The running thread, if there is one yet.
#[inline]
pub fn try_current() -> Option<Arc<Thread>> {
    SCHEDULER.try_lock()?.current.clone()
}

/// Makes a new thread ready.
pub fn add(thread: Arc<Thread>) {
    let mut scheduler = SCHEDULER.lock();
    scheduler.ready.push_back(thread);
    scheduler.set_alarm();
}

/// Makes a blocked thread ready; nothing to do if it is not blocked.
pub fn wake(thread: &Arc<Thread>) {
    if thread.run_state() == RunState::Blocked {
        thread.set_run_state(RunState::Ready);
        add(thread.clone());
    }
}

/// Runs the first thread; the boot stack is left for good.
pub fn start() -> ! {
    switch_to_next();
    unreachable!("nothing switches back to the boot stack")
}

/// Waits until something wakes the running thread.
pub fn block() {
    {
        let scheduler = SCHEDULER.lock();
        let this = scheduler.current_thread();
        this.set_run_state(RunState::Blocked);
        this.count_turn();
    }
    switch_to_next();
}

/// Lets others run, if there are any.
pub fn yield_now() {
    {
        let mut scheduler = SCHEDULER.lock();
        if scheduler.ready.is_empty() {
            return;
        }
        let this = scheduler.current_thread().clone();
        this.count_turn();
        scheduler.ready.push_back(this);
    }
    switch_to_next();
}

/// What a process has had of the processor until now.
pub fn time_of_process(process: &Process) -> CpuTime {
    let mut time = process.usage.lock().own.time;
    let scheduler = SCHEDULER.lock();
    if scheduler.current.as_ref().is_some_and(|thread| thread.process.pid == process.pid) {
        time += scheduler.not_charged(cpu::timestamp());
    }
    time
}

/// What a thread has had of the processor until now.
pub fn time_of_thread(thread: &Thread) -> CpuTime {
    let mut time = thread.usage.lock().time;
    let scheduler = SCHEDULER.lock();
    if scheduler.current.as_ref().is_some_and(|current| current.tid() == thread.tid()) {
        time += scheduler.not_charged(cpu::timestamp());
    }
    time
}

/// Ends the running thread. The caller must hold nothing that is to be dropped.
pub fn end_current() -> ! {
    {
        let mut scheduler = SCHEDULER.lock();
        let this = scheduler.current_thread().clone();
        this.set_run_state(RunState::Dead);
        scheduler.ended = Some(this);
    }
    switch_to_next();
    unreachable!("a thread that has ended is not run again")
}

/// The timer has interrupted: wakes who slept until now.
///
/// The timer is not armed again here, but by whoever was interrupted and then has
/// done what was due: something due that waits for the idle loop would have the
/// timer interrupt at once and again, and the idle loop might never go on.
pub fn timer_interrupt() {
    SCHEDULER.lock().alarm = None;
    let now = time::since_start();
    sleep::wake_sleepers(now);
    timer::expire(now);
    timer_file::expire(now);
}

/// Arms the timer anew after it interrupted, or a sleeper or an alarm came or went.
pub fn sleepers_changed() {
    SCHEDULER.lock().set_alarm();
}

/// Switches to the next ready thread, waiting for one if need be.
fn switch_to_next() {
    if SCHEDULER.lock().ready.is_empty() {
        wait_until_somebody_is_ready();
    }
    let switch = {
        let mut scheduler = SCHEDULER.lock();
        let Some(next) = scheduler.ready.pop_front() else { return };
        if let Some(room) = room_to_keep(scheduler.ready.len(), scheduler.ready.capacity()) {
            scheduler.ready.shrink_to(room);
        }
        if let Some(this) = &scheduler.current {
            if Arc::ptr_eq(this, &next) {
                return;
            }
            this.exchange_fpu(&next);
        }
        scheduler.charge();
        look_before_return(next.has_attention());
        let switch = next.context.prepare();
        scheduler.current = Some(next);
        scheduler.set_alarm();
        switch
    };
    switch.go();
    after_switch();
}

/// Nobody's time passes.
fn wait_until_somebody_is_ready() {
    SCHEDULER.lock().begin_idle_time();
    while SCHEDULER.lock().ready.is_empty() {
        sleepers_changed();
        cpu::wait_for_interrupt();
        write_back::write_if_due();
    }
    SCHEDULER.lock().end_idle_time();
}

/// How long nobody ran.
pub fn idle_time() -> u64 {
    time::to_nanoseconds(SCHEDULER.lock().idle)
}

/// What a thread does first when it runs again, or for the first time.
pub fn after_switch() {
    let ended = SCHEDULER.lock().ended.take();
    drop(ended);
    let this = current();
    this.load_segments();
    publish::now_running(&this);
    memory::activate(this.process.space().root());
}

impl Scheduler {
    fn current_thread(&self) -> &Arc<Thread> {
        self.current.as_ref().expect("a thread is running")
    }

    /// What the current thread has had of the processor and was not charged.
    fn not_charged(&self, now: u64) -> CpuTime {
        if self.is_idle {
            return CpuTime::default();
        }
        let system = time::kernel_ticks(now);
        let all = now.wrapping_sub(self.charged_until);
        CpuTime {
            user: time::to_nanoseconds(all.saturating_sub(system)),
            system: time::to_nanoseconds(system.min(all)),
        }
    }

    /// Adds it to what the thread and its process have had.
    fn charge(&mut self) {
        let now = cpu::timestamp();
        let time = self.not_charged(now);
        if let Some(thread) = &self.current {
            thread.usage.lock().time += time;
            // The last time of a process is noted when it ends.
            if thread.process.state() == State::Alive {
                thread.process.usage.lock().own.time += time;
            }
        }
        time::take_kernel_ticks(now);
        self.charged_until = now;
    }

    fn begin_idle_time(&mut self) {
        self.charge();
        self.is_idle = true;
    }

    /// What was since is nobody's.
    fn end_idle_time(&mut self) {
        self.is_idle = false;
        let now = cpu::timestamp();
        self.idle += now.wrapping_sub(self.charged_until);
        time::take_kernel_ticks(now);
        self.charged_until = now;
    }

    /// Arms the timer for whatever comes first: the end of the time slice, a
    /// sleeper's moment, or a timer.
    fn set_alarm(&mut self) {
        let now = time::since_start;
        let slice = (!self.ready.is_empty()).then(|| now() + TIME_SLICE);
        let running = self.current.as_ref().filter(|_| !self.is_idle);
        let own_time = running.and_then(|thread| {
            let not_charged = || self.not_charged(cpu::timestamp());
            Some(now() + timer::shortest_own_time(thread, not_charged)?)
        });
        let old = write_back::first_moment();
        let timers = timer_file::first_moment();
        let moments = [slice, sleep::first_moment(), timer::first_moment(), own_time, old, timers];
        let wanted = moments.into_iter().flatten().min();
        match (wanted, self.alarm) {
            (Some(moment), Some(armed)) if armed <= moment => {}
            (Some(moment), _) => {
                self.alarm = Some(moment);
                interrupts::arm_timer(moment);
            }
            (None, Some(_)) => {
                self.alarm = None;
                interrupts::disarm_timer();
            }
            (None, None) => {}
        }
    }
}
