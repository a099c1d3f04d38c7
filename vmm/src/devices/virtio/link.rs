//! What the two halves of a device share: status, interrupt, and the latest wish
//! of the driver.
//!
//! The driver's writes become a [`Command`]; the worker carries it out in its own
//! time. A reset is over when the status reads 0, as the standard has it, so the
//! vCPU never waits here. A reset outweighs a start that was not yet carried out;
//! nothing outweighs a reset.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

use super::queue::Placement;

/// What the driver wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve the queues; none where the driver did not set one up.
    Start(Vec<Option<Placement>>),
    /// Forget everything.
    Reset,
}

#[derive(Debug, Default)]
struct State {
    status: u32,
    command: Option<Command>,
}

/// Between the registers and the worker.
#[derive(Debug)]
pub struct Link {
    state: Mutex<State>,
    interrupt_status: AtomicU32,
    interrupt: EventFd,
    command_given: EventFd,
    notify: EventFd,
}

/// An event descriptor that never makes anybody wait.
fn event() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

impl Link {
    /// A device after a reset.
    ///
    /// # Errors
    ///
    /// If the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            interrupt_status: AtomicU32::new(0),
            interrupt: event()?,
            command_given: event()?,
            notify: event()?,
        })
    }

    /// Raises the device's interrupt line when it is written: for KVM's irqfd.
    #[must_use]
    pub const fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Written when the driver notifies a queue: for KVM's ioeventfd.
    #[must_use]
    pub const fn notify(&self) -> &EventFd {
        &self.notify
    }

    /// Written when there is a command.
    #[must_use]
    pub const fn command_given(&self) -> &EventFd {
        &self.command_given
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device status as the driver reads it.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.state().status
    }

    /// Whether a reset is under way, during which the driver can do nothing.
    #[must_use]
    pub fn is_resetting(&self) -> bool {
        self.state().command == Some(Command::Reset)
    }

    /// Adds bits to the status.
    pub fn add_status(&self, bits: u32) {
        self.state().status |= bits;
    }

    /// Resets the device: at once if it was never started, since the worker then
    /// holds nothing of it.
    pub fn reset(&self) {
        {
            let mut state = self.state();
            if state.status & VIRTIO_CONFIG_S_DRIVER_OK == 0 {
                self.interrupt_status.store(0, Ordering::SeqCst);
                *state = State::default();
                return;
            }
        }
        self.give(Command::Reset);
    }

    /// Leaves a command for the worker.
    pub fn give(&self, command: Command) {
        {
            let mut state = self.state();
            if state.command != Some(Command::Reset) {
                state.command = Some(command);
            }
        }
        write(&self.command_given);
    }

    /// The command that is to be carried out. A reset stays until it is over
    /// ([`Self::reset_done`]).
    #[must_use]
    pub fn take_command(&self) -> Option<Command> {
        let mut state = self.state();
        match state.command {
            Some(Command::Reset) => Some(Command::Reset),
            _ => state.command.take(),
        }
    }

    /// The reset is over.
    pub fn reset_done(&self) {
        let mut state = self.state();
        self.interrupt_status.store(0, Ordering::SeqCst);
        *state = State::default();
    }

    /// The driver did what cannot be gone on from.
    pub fn needs_reset(&self) {
        self.add_status(VIRTIO_CONFIG_S_NEEDS_RESET);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Buffers were used.
    pub fn buffers_used(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn raise(&self, cause: u32) {
        self.interrupt_status.fetch_or(cause, Ordering::SeqCst);
        write(&self.interrupt);
    }

    /// Why the interrupt was raised.
    #[must_use]
    pub fn interrupt_status(&self) -> u32 {
        self.interrupt_status.load(Ordering::SeqCst)
    }

    /// The driver has seen `causes`.
    pub fn acknowledge(&self, causes: u32) {
        self.interrupt_status.fetch_and(!causes, Ordering::SeqCst);
    }

    /// The driver notified a queue, and KVM did not see it.
    pub fn notified(&self) {
        write(&self.notify);
    }
}

/// Writes an event. It can only fail with a full counter, which is readable all
/// the more.
fn write(event: &EventFd) {
    if let Err(error) = event.write(1) {
        log::debug!("an event of a virtio device: {error}");
    }
}
