//! What becomes of what the lab device reports: log records go to the log,
//! events to whoever wants them, and a wish for input to the event loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagelab_abi::event::Event;
use pagelab_abi::lab::{FLAG_EVENTS, FLAG_LOSSLESS};
use vm_memory::VolatileSlice;
use vmm_sys_util::eventfd::EventFd;

use crate::debug::fault_stops::FaultStops;
use crate::debug::history::History;
use crate::devices::lab::LabObserver;
use crate::devices::output::{HostOutput, Output, Stream};
use crate::devices::shared::SharedPages;
use crate::devices::shared::events::{EventReader, EventSink, Guest, latest};

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

/// What is kept of the guest's events for the debug port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Recording {
    /// Nothing.
    #[default]
    Off,
    /// What is read in time: the guest does not wait.
    On,
    /// Everything: a guest that is faster waits.
    Lossless,
}

/// The event ring's only reader. The vCPU's thread reads when the guest waits
/// for room, the event loop and the debug port every now and then. The vCPU's
/// thread waits for whoever reads the lines; the others never do, so that they
/// can stop the guest at any time.
pub(crate) struct Events {
    shared: Arc<SharedPages>,
    printed: bool,
    reader: Mutex<Reading>,
}

struct Reading {
    reader: EventReader,
    sinks: Sinks,
    recording: Recording,
}

impl Events {
    pub(crate) fn new(
        shared: Arc<SharedPages>,
        log: EventLog,
        output: HostOutput,
        history: Option<Arc<History>>,
    ) -> Arc<Self> {
        let printer = match log {
            EventLog::Off => None,
            EventLog::Every(format) => Some(EventPrinter { format, output }),
        };
        let printed = printer.is_some();
        let reader = Reading {
            reader: EventReader::default(),
            sinks: Sinks { printer, history },
            recording: Recording::Off,
        };
        Arc::new(Self { shared, printed, reader: Mutex::new(reader) })
    }

    /// Whether events are printed.
    pub(crate) const fn printed(&self) -> bool {
        self.printed
    }

    /// The shared pages.
    pub(crate) const fn shared(&self) -> &Arc<SharedPages> {
        &self.shared
    }

    /// Says what the debug port wants.
    pub(crate) fn record(&self, recording: Recording) {
        let mut reading = self.reader();
        reading.recording = recording;
        let all = self.printed || recording == Recording::Lossless;
        let any = all || recording == Recording::On;
        let flags = if any { FLAG_EVENTS } else { 0 } | if all { FLAG_LOSSLESS } else { 0 };
        self.shared.set_flags(flags);
    }

    /// What the debug port wanted last.
    pub(crate) fn recording(&self) -> Recording {
        self.reader().recording
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
        let reading = self.reader();
        (reading.reader.delivered(), reading.reader.lost())
    }

    fn drain(&self, mut reading: MutexGuard<'_, Reading>, guest: Guest) {
        let Reading { reader, sinks, .. } = &mut *reading;
        if sinks.printer.is_none() && sinks.history.is_none() {
            return;
        }
        let lost = reader.lost();
        reader.drain(&self.shared, guest, sinks);
        if let Some(history) = &sinks.history {
            history.lose(reader.lost() - lost);
        }
    }

    fn reader(&self) -> MutexGuard<'_, Reading> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who gets the events.
struct Sinks {
    printer: Option<EventPrinter>,
    history: Option<Arc<History>>,
}

impl EventSink for Sinks {
    fn is_ready(&mut self, guest: Guest) -> bool {
        self.printer.as_mut().is_none_or(|printer| printer.is_ready(guest))
    }

    fn take(&mut self, event: &Event) {
        if let Some(printer) = &mut self.printer {
            printer.take(event);
        }
        if let Some(history) = &self.history {
            history.add(event);
        }
    }
}

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
    fault_stops: Arc<FaultStops>,
    input_wanted: EventFd,
}

impl HostObserver {
    pub(crate) const fn new(
        events: Arc<Events>,
        fault_stops: Arc<FaultStops>,
        input_wanted: EventFd,
    ) -> Self {
        Self { events, fault_stops, input_wanted }
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

    fn event_written(&mut self) {
        if let Some(event) = latest(self.events.shared()) {
            self.fault_stops.look_at(&event);
        }
    }

    fn log(&mut self, level: log::Level, text: &str) {
        log::log!(target: "guest", level, "{text}");
    }
}
