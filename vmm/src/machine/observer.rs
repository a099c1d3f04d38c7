//! What becomes of what the lab device reports: log records go to the log,
//! events to whoever wants them, and a wish for input to the event loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagelab_abi::event::Event;
use pagelab_abi::lab::{FLAG_EVENTS, FLAG_LOSSLESS};
use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::EventFd;

use crate::devices::lab::LabObserver;
use crate::devices::output::{HostOutput, Output, Stream};
use crate::devices::shared::SharedPages;
use crate::devices::shared::events::{EventReader, EventSink, Guest};

/// Makes an event a line of text, without its end.
pub type EventFormat = fn(&Event) -> String;

/// Whether the guest's events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub enum EventLog {
    /// Only the counters.
    #[default]
    Off,
    /// Every one of them, as a line on standard error: a guest that is faster
    /// waits.
    Every(EventFormat),
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
/// for room, the event loop every now and then. The vCPU's thread waits for
/// whoever reads the lines; the event loop never does, so that it can stop the
/// guest at any time.
pub(crate) struct Events {
    shared: Arc<SharedPages>,
    reader: Mutex<(EventReader, Option<EventPrinter>)>,
}

impl Events {
    pub(crate) fn new(shared: Arc<SharedPages>, log: EventLog, output: HostOutput) -> Arc<Self> {
        let printer = match log {
            EventLog::Off => None,
            EventLog::Every(format) => Some(EventPrinter { format, output }),
        };
        Arc::new(Self { shared, reader: Mutex::new((EventReader::default(), printer)) })
    }

    /// Whether there is anything to read regularly.
    pub(crate) fn wanted(&self) -> bool {
        self.reader().1.is_some()
    }

    /// Reads what is there while the guest goes on, unless the vCPU's thread
    /// does that already.
    pub(crate) fn drain_running(&self) {
        if let Ok(reader) = self.reader.try_lock() {
            self.drain(reader, Guest::Running);
        }
    }

    /// Reads all that is there while the guest waits, or once it has stopped.
    pub(crate) fn drain_waiting(&self) {
        self.drain(self.reader(), Guest::Waiting);
    }

    /// How many events were handed over, and how many were lost.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let reader = self.reader();
        (reader.0.delivered(), reader.0.lost())
    }

    fn drain(&self, mut reader: ReaderGuard<'_>, guest: Guest) {
        if let (reader, Some(printer)) = &mut *reader {
            reader.drain(&self.shared, guest, printer);
        }
    }

    fn reader(&self) -> ReaderGuard<'_> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type ReaderGuard<'a> = MutexGuard<'a, (EventReader, Option<EventPrinter>)>;

/// Prints events as lines on standard error.
struct EventPrinter {
    format: EventFormat,
    output: HostOutput,
}

impl EventSink for EventPrinter {
    fn is_ready(&mut self, guest: Guest) -> bool {
        let may_wait = guest == Guest::Waiting && !self.output.is_stopping();
        may_wait || self.output.would_take_line()
    }

    fn take(&mut self, event: &Event) {
        let mut line = (self.format)(event).into_bytes();
        line.push(b'\n');
        let bytes = VolatileSlice::from(line.as_mut_slice());
        if let Err(error) = self.output.write(Stream::Error, &bytes) {
            // Nobody reads standard error: then nobody reads this either.
            log::debug!("cannot print an event: {error}");
        }
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
        self.events.drain_waiting();
    }

    fn log(&mut self, level: log::Level, text: &str) {
        log::log!(target: "guest", level, "{text}");
    }
}
