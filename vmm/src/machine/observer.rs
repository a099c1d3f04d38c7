//! What becomes of what the lab device reports: log records go to the log,
//! events to whoever wants them, and a wish for input to the event loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagelab_abi::event::Event;
use pagelab_abi::lab::{FLAG_EVENTS, FLAG_LOSSLESS};
use vmm_sys_util::eventfd::EventFd;

use crate::devices::lab::LabObserver;
use crate::devices::shared::SharedPages;
use crate::devices::shared::events::{EventReader, Guest};

/// Takes each event, in order.
pub type EventSink = fn(&Event);

/// Whether the guest's events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub enum EventLog {
    /// Only the counters.
    #[default]
    Off,
    /// Every one of them: a guest that is faster waits.
    Every(EventSink),
}

impl EventLog {
    /// The `FLAG_*` that tell the guest.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::Every(_) => FLAG_EVENTS | FLAG_LOSSLESS,
        }
    }
}

/// The event ring's only reader. The vCPU's thread reads when the guest waits
/// for room, the event loop every now and then.
#[derive(Debug)]
pub(crate) struct Events {
    shared: Arc<SharedPages>,
    log: EventLog,
    reader: Mutex<EventReader>,
}

impl Events {
    pub(crate) fn new(shared: Arc<SharedPages>, log: EventLog) -> Arc<Self> {
        Arc::new(Self { shared, log, reader: Mutex::default() })
    }

    /// Whether there is anything to read regularly.
    pub(crate) const fn wanted(&self) -> bool {
        matches!(self.log, EventLog::Every(_))
    }

    /// Reads what is there while the guest goes on.
    pub(crate) fn drain_running(&self) {
        self.drain(Guest::Running);
    }

    /// Reads the rest once the guest has stopped.
    pub(crate) fn drain_final(&self) {
        self.drain(Guest::Waiting);
    }

    /// How many events were handed over, and how many were lost.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let reader = self.reader();
        (reader.delivered(), reader.lost())
    }

    fn drain(&self, guest: Guest) {
        if let EventLog::Every(take) = self.log {
            self.reader().drain(&self.shared, guest, take);
        }
    }

    fn reader(&self) -> MutexGuard<'_, EventReader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lab device's observer in a real lab.
pub(crate) struct HostObserver {
    events: Arc<Events>,
    input_wanted: EventFd,
}

impl HostObserver {
    pub(crate) const fn new(events: Arc<Events>, input_wanted: EventFd) -> Self {
        Self { events, input_wanted }
    }

    fn want_input(&self) {
        if let Err(error) = self.input_wanted.write(1) {
            log::warn!("cannot ask for input: {error}");
        }
    }
}

impl LabObserver for HostObserver {
    fn registered(&mut self) {
        self.want_input();
    }

    fn input_taken(&mut self) {
        self.want_input();
    }

    fn drain_events(&mut self) {
        self.events.drain(Guest::Waiting);
    }

    fn log(&mut self, level: log::Level, text: &str) {
        log::log!(target: "guest", level, "{text}");
    }
}
