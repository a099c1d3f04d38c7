//! The main thread's loop: waits for the vCPU's end, for signals, for the time
//! limit and for input, all as descriptors of one `event-manager`.
//!
//! Whatever comes first decides how the lab ends. The loop then makes the vCPU
//! leave the guest and waits for its thread, so that nothing runs any more when
//! it returns.
//!
//! * [`signals`]: SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGWINCH as a descriptor
//! * [`terminal`]: the terminal's mode, put back on every way out
//! * [`input`]: standard input into the guest's input ring
//! * [`timers`]: the time limit and the regular look at the event ring

mod input;
mod signals;
mod terminal;
mod timers;
mod watch;

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use vmm_sys_util::eventfd::EventFd;

pub(crate) use signals::BlockedSignals;

use crate::devices::shared::SharedPages;
use crate::machine::observer::Events;
use crate::stop::StopReason;
use crate::vstate::KvmError;
use crate::vstate::vcpu::{ExitCounts, Statistics, VcpuEnd, VcpuHandle};

/// Why the loop cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// No epoll descriptor, or something could not be added to it.
    #[error("cannot watch for events: {0}")]
    Watch(#[from] event_manager::Error),
    /// A timer, a signal descriptor or an event descriptor.
    #[error("cannot {what}: {source}")]
    Descriptor {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The vCPU's thread could not start.
    #[error(transparent)]
    Vcpu(#[from] KvmError),
}

/// What becomes of standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputMode {
    /// The guest gets none.
    #[default]
    None,
    /// The guest gets it; a terminal keeps its line editing.
    Lines,
    /// The guest gets every key at once; a terminal neither edits nor echoes.
    Keys,
}

/// What the loop works with.
pub(crate) struct LoopInput<'a> {
    /// The signals that end the lab, blocked before there is anything that has to
    /// be cleaned up, or a second thread.
    pub(crate) signals: BlockedSignals,
    /// What becomes of standard input.
    pub(crate) mode: InputMode,
    /// Most time that the guest may take.
    pub(crate) timeout: Option<Duration>,
    /// The shared pages.
    pub(crate) shared: &'a Arc<SharedPages>,
    /// The event ring's reader.
    pub(crate) events: &'a Arc<Events>,
    /// Written when the guest may have room for input.
    pub(crate) input_wanted: EventFd,
    /// Raises the lab device's interrupt.
    pub(crate) input_interrupt: EventFd,
}

/// How it ended.
pub(crate) struct LoopEnd {
    pub(crate) reason: StopReason,
    pub(crate) exits: ExitCounts,
    pub(crate) statistics: Statistics,
    pub(crate) entered: Instant,
    pub(crate) processor_time: Duration,
}

/// What ended the wait.
enum Cause {
    VcpuEnded,
    Timeout(Duration),
    Signal(i32),
    Failed(String),
}

/// Where subscribers say that the wait is over; the first cause counts.
#[derive(Clone, Default)]
struct Verdict(Rc<RefCell<VerdictState>>);

#[derive(Default)]
struct VerdictState {
    cause: Option<Cause>,
    vcpu_ended: bool,
}

impl Verdict {
    fn set(&self, cause: Cause) {
        let mut state = self.0.borrow_mut();
        state.vcpu_ended |= matches!(cause, Cause::VcpuEnded);
        state.cause.get_or_insert(cause);
    }

    fn take(&self) -> Option<Cause> {
        self.0.borrow_mut().cause.take()
    }

    /// Whether the vCPU's thread has nothing left to do, whatever the cause is.
    fn vcpu_has_ended(&self) -> bool {
        self.0.borrow().vcpu_ended
    }
}

type Manager = EventManager<Box<dyn MutEventSubscriber>>;

/// Starts the vCPU with `start` and waits until the lab is over.
pub(crate) fn run(
    input: LoopInput<'_>,
    start: impl FnOnce(EventFd) -> Result<VcpuHandle, KvmError>,
) -> Result<LoopEnd, LoopError> {
    let verdict = Verdict::default();
    let mut manager = Manager::new()?;
    let signals = signals::Signals::new(input.signals, verdict.clone(), Arc::clone(input.shared))?;
    let _terminal = terminal::Mode::set(input.mode);
    // With its own line editing here, the guest's must stay away: it has a
    // terminal only if it gets every key.
    if input.mode == InputMode::Keys && io::stdin().is_terminal() {
        terminal::publish_size(input.shared);
    }
    manager.add_subscriber(Box::new(signals));
    if let Some(limit) = input.timeout {
        manager.add_subscriber(Box::new(timers::TimeLimit::new(limit, verdict.clone())?));
    }
    if input.events.printed() {
        let tick = timers::EventTick::new(Arc::clone(input.events), verdict.clone())?;
        manager.add_subscriber(Box::new(tick));
    }
    let pump = input::InputPump::new(
        input.mode,
        Arc::clone(input.shared),
        input.input_wanted,
        input.input_interrupt,
        verdict.clone(),
    )?;
    manager.add_subscriber(Box::new(pump));
    let ended = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
    let ended = ended.map_err(descriptor("create an event descriptor"))?;
    let announce = ended.try_clone().map_err(descriptor("duplicate a descriptor"))?;
    manager.add_subscriber(Box::new(watch::VcpuWatch::new(ended, verdict.clone())));

    let vcpu = start(announce)?;
    let cause = wait(&mut manager, &verdict);
    Ok(finish(&mut manager, &verdict, vcpu, cause))
}

/// Makes an error that says what was tried.
fn descriptor(what: &'static str) -> impl Fn(io::Error) -> LoopError {
    move |source| LoopError::Descriptor { what, source }
}

/// Waits until a subscriber says that the lab is over.
fn wait(manager: &mut Manager, verdict: &Verdict) -> Cause {
    loop {
        if let Some(cause) = verdict.take() {
            return cause;
        }
        if let Err(error) = poll(manager, -1) {
            return Cause::Failed(error.to_string());
        }
    }
}

/// One round of the loop; a signal that interrupts it is no error.
fn poll(manager: &mut Manager, milliseconds: i32) -> Result<(), event_manager::Error> {
    match manager.run_with_timeout(milliseconds) {
        Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => Ok(()),
        result => result.map(|_| ()),
    }
}

/// Stops the vCPU and adds up how the lab ended.
fn finish(manager: &mut Manager, verdict: &Verdict, vcpu: VcpuHandle, cause: Cause) -> LoopEnd {
    /// A stopped vCPU is over in microseconds. The signal is repeated for the
    /// one that falls into a gap (see [`VcpuHandle::stop`]).
    const REPEAT_MS: i32 = 10;
    /// Then the thread hangs in the host's kernel and is left behind.
    const PATIENCE: Duration = Duration::from_secs(3);
    let asked = Instant::now();
    while !verdict.vcpu_has_ended() {
        if asked.elapsed() > PATIENCE {
            let what = "it does not leave the host's kernel".to_owned();
            return LoopEnd {
                reason: explain(cause, None).unwrap_or(StopReason::VcpuLost(what)),
                exits: ExitCounts::default(),
                statistics: Statistics::default(),
                entered: asked,
                processor_time: Duration::ZERO,
            };
        }
        vcpu.stop();
        if poll(manager, REPEAT_MS).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    match vcpu.join() {
        Ok(VcpuEnd { reason, registers, exits, statistics, entered, processor_time }) => {
            let nothing = || StopReason::VcpuLost("it was not asked to".to_owned());
            // A guest that ended by itself just before it was stopped did so.
            let reason = reason.or_else(|| explain(cause, Some(registers))).unwrap_or_else(nothing);
            LoopEnd { reason, exits, statistics, entered, processor_time }
        }
        Err(what) => LoopEnd {
            reason: StopReason::VcpuLost(what),
            exits: ExitCounts::default(),
            statistics: Statistics::default(),
            entered: asked,
            processor_time: Duration::ZERO,
        },
    }
}

/// Why the loop stopped the vCPU, if it did.
fn explain(cause: Cause, registers: Option<Box<crate::stop::Registers>>) -> Option<StopReason> {
    match cause {
        Cause::VcpuEnded => None,
        Cause::Timeout(limit) => Some(StopReason::Timeout(limit, registers)),
        Cause::Signal(number) => Some(StopReason::Signal(number, registers)),
        Cause::Failed(error) => Some(StopReason::LoopFailed(error)),
    }
}
