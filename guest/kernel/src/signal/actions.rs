//! What is done about each signal.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::set::SignalSet;
use super::{
    SIGCHLD, SIGCONT, SIGKILL, SIGNALS, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH,
};

/// Signals that stop a process by default.
pub const STOPPING: SignalSet = SignalSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
/// Signals that are neither blocked, ignored nor handled.
pub const UNBLOCKABLE: SignalSet = SignalSet::of(&[SIGKILL, SIGSTOP]);
const IGNORED_BY_DEFAULT: SignalSet = SignalSet::of(&[SIGCHLD, SIGURG, SIGWINCH]);

const DEFAULT: u64 = 0;
const IGNORE: u64 = 1;

bitflags! {
    /// Linux's `SA_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ActionFlags: u64 {
        /// No SIGCHLD when a child stops or goes on.
        const NO_CHILD_STOP = 0x1;
        /// Children are not waited for.
        const NO_CHILD_WAIT = 0x2;
        /// The handler takes three arguments: it gets them always.
        const SIGINFO = 0x4;
        /// There is a restorer.
        const RESTORER = 0x0400_0000;
        /// On the alternate stack, if there is one.
        const ON_STACK = 0x0800_0000;
        /// System calls begin anew.
        const RESTART = 0x1000_0000;
        /// The signal is not blocked while it is handled.
        const NO_DEFER = 0x4000_0000;
        /// Handled once, then the default.
        const RESET = 0x8000_0000;
    }
}

/// `struct sigaction` as the system call has it.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Action {
    /// Address of the handler, 0 for the default, 1 to ignore.
    pub handler: u64,
    flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while it runs.
    pub mask: SignalSet,
}

/// What an action comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The process ends.
    End,
    /// Nothing.
    Nothing,
    /// The process stops.
    Stop,
    /// A handler runs.
    Handle,
}

impl Action {
    /// Its flags.
    pub const fn flags(&self) -> ActionFlags {
        ActionFlags::from_bits_truncate(self.flags)
    }

    /// Whether it is `SIG_IGN`.
    pub const fn is_ignore(&self) -> bool {
        self.handler == IGNORE
    }

    /// Whether there is a handler.
    pub const fn is_handler(&self) -> bool {
        self.handler > IGNORE
    }

    /// The same with the default action: its flags and mask can still be seen.
    pub const fn without_handler(mut self) -> Self {
        self.handler = DEFAULT;
        self
    }

    /// As a program may set it: flags that are not known are dropped, so that
    /// it can find out.
    pub const fn normalized(mut self) -> Self {
        self.flags &= ActionFlags::all().bits();
        self.mask = self.mask.without(UNBLOCKABLE);
        self
    }

    /// What it comes to for a signal.
    pub const fn effect(&self, signal: u8) -> Effect {
        match self.handler {
            IGNORE => Effect::Nothing,
            DEFAULT if IGNORED_BY_DEFAULT.contains(signal) || signal == SIGCONT => Effect::Nothing,
            DEFAULT if STOPPING.contains(signal) => Effect::Stop,
            DEFAULT => Effect::End,
            _ => Effect::Handle,
        }
    }
}

/// The actions of a process; those who share signal actions share one of these.
#[derive(Clone)]
pub struct Actions([Action; SIGNALS as usize]);

impl Default for Actions {
    fn default() -> Self {
        Self([Action::default(); SIGNALS as usize])
    }
}

impl Actions {
    /// The action of a signal; the default for what is not a signal.
    pub fn get(&self, signal: u8) -> Action {
        self.0.get(usize::from(signal).wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// Sets the action of a signal.
    pub fn set(&mut self, signal: u8, action: Action) {
        if let Some(place) = self.0.get_mut(usize::from(signal).wrapping_sub(1)) {
            *place = action;
        }
    }

    /// Handlers become defaults; what is ignored stays so.
    pub fn reset_handlers(&mut self) {
        for action in &mut self.0 {
            if action.is_handler() {
                *action = Action::default();
            } else {
                *action = Action { handler: action.handler, ..Action::default() };
            }
        }
    }
}
