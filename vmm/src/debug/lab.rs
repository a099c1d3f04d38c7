//! What the port knows of the lab: everything that a command may ask.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pagelab_abi::addr::GuestPhys;
use serde_json::{Value, json};

use super::fault_stops::FaultStops;
use super::history::History;
use super::protocol::CommandError;
use crate::devices::shared::{SharedPages, Snapshot};
use crate::inspect::AddressSpace;
use crate::kvm_stats::KvmStats;
use crate::machine::observer::{Events, Recording};
use crate::memory::GuestRam;
use crate::vstate::control::{Activity, ControlError, Pause, VcpuControl};

/// Most moments that are remembered.
pub const MOST_MARKS: usize = 256;

/// A moment that was given a name.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Instant,
    /// The counters then.
    pub counters: Snapshot,
    /// The place in the history then.
    pub place: u64,
}

/// A running lab, as the debug port sees it.
pub struct Lab {
    /// The guest's memory.
    pub ram: Arc<GuestRam>,
    /// The pages that it shares.
    pub shared: Arc<SharedPages>,
    /// The event ring's reader.
    pub(crate) events: Arc<Events>,
    /// The latest events.
    pub history: Arc<History>,
    /// The processor.
    pub control: Arc<VcpuControl>,
    /// Faults that are waited for.
    pub stops: Arc<FaultStops>,
    /// Frequency of the time-stamp counter in kHz, 0 if unknown.
    pub tsc_khz: u64,
    /// The kernel's ELF.
    pub kernel: Arc<[u8]>,
    /// KVM's statistics, if it gives any out.
    pub statistics: Option<KvmStats>,
    /// Moments with names.
    pub marks: BTreeMap<String, Mark>,
    /// When the port was opened.
    pub began: Instant,
    /// What was asked to be kept of the events, besides what is watched.
    pub(crate) recording: Recording,
    /// How many clients watch.
    pub watchers: usize,
    /// How many clients there are, and were.
    pub clients: (usize, u64),
}

impl Lab {
    /// The guest's counters.
    ///
    /// # Errors
    ///
    /// If its kernel has not registered them yet.
    pub fn counters(&self) -> Result<Snapshot, CommandError> {
        self.shared.snapshot().ok_or_else(|| {
            CommandError::new(
                CommandError::STATE,
                "the guest's kernel has not registered its counters yet",
            )
        })
    }

    /// Tells the guest which events are wanted by now.
    pub fn update_recording(&self) {
        let watched = self.watchers > 0 || self.stops.any();
        let wanted = if self.recording == Recording::Off && watched {
            Recording::On
        } else {
            self.recording
        };
        if wanted != self.events.recording() {
            self.events.record(wanted);
        }
    }

    /// The address space of a command: of a root table that was given, or the
    /// one that a paused processor uses.
    ///
    /// # Errors
    ///
    /// If none was given and the guest runs.
    pub fn space(&self, root: Option<u64>) -> Result<AddressSpace<'_, GuestRam>, CommandError> {
        let root = match root {
            Some(root) => root,
            None => self.control.registers().map_err(state_error)?.cr3,
        };
        Ok(AddressSpace { memory: &*self.ram, root: GuestPhys(root) })
    }
}

/// The processor cannot be asked.
pub fn state_error(error: ControlError) -> CommandError {
    let code = match error {
        ControlError::Running | ControlError::Ended => CommandError::STATE,
        _ => CommandError::FAILED,
    };
    CommandError::new(code, error.to_string())
}

/// What the processor is doing, for programs and for people.
#[must_use]
pub fn describe(activity: Activity) -> (Value, String) {
    match activity {
        Activity::Running => (json!({ "state": "running" }), "running".to_owned()),
        Activity::Ended => (json!({ "state": "ended" }), "the guest has ended".to_owned()),
        Activity::Paused(pause) => describe_pause(pause),
    }
}

fn describe_pause(pause: Pause) -> (Value, String) {
    let paused = |why: &str, text: &str| {
        (json!({ "state": "paused", "why": why }), format!("paused: {text}"))
    };
    match pause {
        Pause::Start => paused("start", "before the first instruction"),
        Pause::Asked => paused("asked", "as asked"),
        Pause::Stepped => paused("step", "after a step"),
        Pause::Fault(event) => {
            let value = json!({
                "state": "paused", "why": "fault", "event": super::event_text::value(&event),
            });
            (value, format!("paused: behind a fault\n{}", super::event_text::line(&event)))
        }
        Pause::Breakpoint { pc, dr6, software } => {
            let value = json!({
                "state": "paused", "why": "breakpoint", "at": format!("{pc:#x}"),
                "hardware": dr6 & 0xf, "software": software,
            });
            (value, format!("paused: breakpoint at {pc:#x}"))
        }
    }
}
