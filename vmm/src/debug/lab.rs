//! What the port knows of the lab: everything that a command may ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pagelab_abi::lab::FaultCounters;
use serde_json::{Value, json};

use super::breakpoints::Breaker;
use super::fault_stops::FaultStops;
use super::history::History;
use super::protocol::CommandError;
use super::report::{Desk, Source};
use super::target::Target;
use crate::devices::shared::{SharedPages, Snapshot};
use crate::host::debugging::DebugHost;
use crate::inspect::AddressSpace;
use crate::inspect::pages::diff::Snapshot as TableSnapshot;
use crate::inspect::second_level::history::History as BackingHistory;
use crate::inspect::second_level::watch::FaultWatch;
use crate::kvm_stats::KvmStats;
use crate::machine::observer::{Events, Recording};
use crate::memory::GuestRam;
use crate::vstate::control::{Activity, ControlError, Pause, VcpuControl};
use crate::vstate::guest_debug::Condition;

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
    /// The counters of each process then.
    pub processes: BTreeMap<u32, FaultCounters>,
    /// The page tables of each process then.
    pub tables: BTreeMap<u32, Arc<TableSnapshot>>,
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
    /// What the host can do for a debugger.
    pub debug_host: Arc<DebugHost>,
    /// KVM's statistics, if it gives any out.
    pub statistics: Option<KvmStats>,
    /// The same of the whole machine.
    pub vm_statistics: Option<KvmStats>,
    /// The host's page faults, while they are watched.
    pub host_faults: Option<FaultWatch>,
    /// How the backing of the guest's memory grew, as far as somebody looked.
    pub backing: Arc<Mutex<BackingHistory>>,
    /// The places for long answers.
    pub desk: Desk,
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

    /// What sets breakpoints.
    #[must_use]
    pub fn breaker(&self) -> Breaker {
        Breaker {
            control: Arc::clone(&self.control),
            ram: Arc::clone(&self.ram),
            host: Arc::clone(&self.debug_host),
        }
    }

    /// What long answers are made from.
    #[must_use]
    pub fn source(&self) -> Source {
        Source { ram: Arc::clone(&self.ram), directory: self.shared.directory() }
    }

    /// The address space that a text means, see [`Target::given`].
    ///
    /// # Errors
    ///
    /// If it means none.
    pub fn space(&self, of: Option<&str>) -> Result<AddressSpace<'_, GuestRam>, CommandError> {
        let root = Target::given(self, of)?.root(&self.source())?;
        Ok(AddressSpace { memory: &*self.ram, root })
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
        Pause::Breakpoint { pc, watched: Some((address, condition)), .. } => {
            let how = match condition {
                Condition::Access(_) => "accessed",
                Condition::Write(_) | Condition::Execute => "written",
            };
            let value = json!({
                "state": "paused", "why": "watchpoint", "at": format!("{pc:#x}"),
                "address": format!("{address:#x}"), "how": how,
            });
            (value, format!("paused: {address:#x} was {how}, by the instruction before {pc:#x}"))
        }
        Pause::Breakpoint { pc, dr6, software, watched: None } => {
            let value = json!({
                "state": "paused", "why": "breakpoint", "at": format!("{pc:#x}"),
                "hardware": dr6 & 0xf, "software": software,
            });
            (value, format!("paused: breakpoint at {pc:#x}"))
        }
    }
}
