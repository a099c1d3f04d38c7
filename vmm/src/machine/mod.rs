//! A lab from its parts: memory, kernel, virtual machine, devices, event loop.
//!
//! [`run`] builds everything that a [`MachineConfig`] asks for, runs the guest to
//! its end and says how it went ([`Finished`]). Commands decide what to run and
//! what to print; they do not touch KVM or the devices.

pub(crate) mod observer;
mod virtio;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pagelab_abi::layout::{LAB_IRQ, LAB_PORT, LAB_PORT_COUNT, SERIAL_IRQ, SERIAL_PORT};
use vmm_sys_util::eventfd::EventFd;

use crate::debug::breakpoints::Breaker;
use crate::debug::fault_stops::FaultStops;
use crate::debug::gdb::PreparedGdb;
use crate::debug::gdb::target::Guest;
use crate::debug::history::History;
use crate::debug::lab::Lab;
use crate::debug::report::Desk;
use crate::debug::{DebugConfig, PortError, Prepared};
use crate::devices::bus::{Bus, RangeTaken};
use crate::devices::lab::LabDevice;
use crate::devices::output::HostOutput;
use crate::devices::serial::{EventTrigger, SerialConsole};
use crate::devices::shared::{SharedPages, Snapshot};
use crate::devices::virtio::block::SwapError;
use crate::event_loop::{self, BlockedSignals, LoopError, LoopInput};
use crate::host::debugging::DebugHost;

use crate::kvm_stats::KvmStats;
use crate::layout::SERIAL_PORT_COUNT;
use crate::loader::{self, BootValues, LoadError, ModuleBytes};
use crate::memory::{GuestRam, MemoryError, MemorySize};
use crate::stop::StopReason;
use crate::timings::{self, Moment};
use crate::vstate::control::VcpuControl;
use crate::vstate::vcpu::{ExitCounts, Statistics, Vcpu};
use crate::vstate::vm::{self, Vm};
use crate::vstate::{KvmError, entry};

pub use event_loop::InputMode;
pub use observer::{EventFormat, EventLog};
pub use virtio::{VirtioConfig, VirtioReport};

/// Why a lab could not start.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No virtual machine.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The kernel or the program does not go into memory.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Devices overlap.
    #[error("devices collide: {0}")]
    Bus(#[from] RangeTaken),
    /// No event descriptor, or no stream.
    #[error("the host has no descriptor left: {0}")]
    Descriptor(std::io::Error),
    /// The event loop cannot be set up.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A folder cannot be shared.
    #[error("cannot share {}: {source}", folder.display())]
    Share {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No swap space.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// There is no debug port.
    #[error(transparent)]
    Debug(#[from] PortError),
}

/// What to run.
#[derive(Debug)]
pub struct MachineConfig<'a> {
    /// KVM's device.
    pub kvm: PathBuf,
    /// Guest memory.
    pub memory: MemorySize,
    /// The kernel's ELF.
    pub kernel: &'a [u8],
    /// What the kernel is given.
    pub modules: Vec<ModuleBytes<'a>>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Random bytes for the guest; zeros for a lab that repeats.
    pub entropy: [u8; 32],
    /// Most time that the lab may take.
    pub timeout: Option<Duration>,
    /// What becomes of the terminal's input.
    pub input: InputMode,
    /// What becomes of the guest's events.
    pub events: EventLog,
    /// Folders and swap.
    pub virtio: VirtioConfig,
    /// The debug port.
    pub debug: DebugConfig,
    /// Is told what people must know while the lab runs.
    pub announce: fn(std::fmt::Arguments<'_>),
}

/// How a lab went.
#[derive(Debug)]
pub struct Finished {
    /// Why it ended.
    pub reason: StopReason,
    /// The guest's counters at the end, if it registered shared pages.
    pub counters: Option<Snapshot>,
    /// Events that were handed over and lost.
    pub events: (u64, u64),
    /// How often the guest left for user space.
    pub exits: ExitCounts,
    /// What KVM counted for the processor.
    pub statistics: Statistics,
    /// Frequency of the guest's time-stamp counter in kHz, 0 if unknown.
    pub tsc_khz: u64,
    /// From the call of [`run`] to the first entry into the guest.
    pub setup: Duration,
    /// From the first entry to the end.
    pub running: Duration,
    /// How much of that its thread had a processor of the host's.
    pub processor_time: Duration,
    /// What folders and swap did.
    pub virtio: VirtioReport,
    /// The guest's memory, as it was left.
    pub ram: Arc<GuestRam>,
}

/// Runs a guest to its end.
///
/// # Errors
///
/// If it cannot start. How it ended, however badly, is in [`Finished`].
pub fn run(mut config: MachineConfig<'_>) -> Result<Finished, MachineError> {
    let began = Instant::now();
    let kvm = vm::open(&config.kvm)?;
    let ram = Arc::new(GuestRam::new(config.memory)?);
    let vm = Vm::new(&kvm, Arc::clone(&ram))?;
    let stop = Arc::new(AtomicBool::new(false));
    let wires = Wires::new(&vm)?;
    let shared = Arc::new(SharedPages::new(Arc::clone(&ram), config.events.flags()));
    let output = HostOutput::new(Arc::clone(&stop)).map_err(MachineError::Descriptor)?;
    let debugged = Debugged::new(&config, &shared)?;
    let history = debugged.history.clone();
    let events = observer::Events::new(Arc::clone(&shared), config.events, output.clone(), history);

    let ports = port_bus(&shared, &wires, output, &events, &debugged.stops)?;
    let mut memory = Bus::new("memory address");
    let virtio = virtio::Attached::new(&vm, &ram, &mut memory, &config.virtio)?;
    let control = Arc::clone(&debugged.control);
    let debug_host = Arc::clone(&debugged.host);
    let vcpu = Vcpu::new(&vm, ports, memory, Arc::clone(&stop), control, debug_host)?;
    let tsc_khz = vcpu.tsc_khz();
    let global_pages = entry::has_global_pages(vm.cpuid());
    let values = BootValues {
        tsc_khz,
        wall_clock_ns: wall_clock_ns(),
        entropy: config.entropy,
        global_pages,
        command_line: config.command_line,
        virtio_count: virtio.count(),
    };
    let point = loader::load(&ram, config.kernel, &config.modules, &values)?;
    vcpu.set_entry(&point, global_pages)?;
    // The guest has its copy now.
    config.modules = Vec::new();
    timings::note(Moment::Ready);

    // From here on there are sockets' files.
    let signals = BlockedSignals::new();
    let gdb = debugged.prepare_gdb(&config, &vm, &shared)?;
    let prepared = debugged.prepare(&config, &vcpu, &events, &vm)?;

    let input = LoopInput {
        signals,
        mode: config.input,
        timeout: config.timeout,
        shared: &shared,
        events: &events,
        input_wanted: wires.input_wanted,
        input_interrupt: wires.input_interrupt,
    };
    let virtio_report = virtio.report.clone();
    let mut worker = None;
    let mut ports = (None, None);
    let ended = event_loop::run(input, |exit_event| {
        worker = virtio.start().map_err(KvmError::Thread)?;
        ports.0 = prepared.map(Prepared::start).transpose().map_err(KvmError::Thread)?;
        ports.1 = gdb.map(PreparedGdb::start).transpose().map_err(KvmError::Thread)?;
        vcpu.start(exit_event)
    })?;
    let finished = Instant::now();
    if let Some(worker) = worker {
        worker.stop();
    }
    drop(ports);
    events.drain_waiting();
    let counters = shared.snapshot();
    if let Err(error) = timings::write(counters.as_ref().map(|counters| &counters.milestones)) {
        log::warn!("cannot write the timings: {error}");
    }
    Ok(Finished {
        reason: ended.reason,
        counters,
        events: events.totals(),
        exits: ended.exits,
        statistics: ended.statistics,
        tsc_khz,
        setup: ended.entered.saturating_duration_since(began),
        running: finished.saturating_duration_since(ended.entered),
        processor_time: ended.processor_time,
        virtio: virtio_report,
        ram,
    })
}

/// What a debugger needs of the machine while it is put together.
struct Debugged {
    control: Arc<VcpuControl>,
    stops: Arc<FaultStops>,
    host: Arc<DebugHost>,
    /// Events are kept only where somebody can ask for them.
    history: Option<Arc<History>>,
}

impl Debugged {
    fn new(config: &MachineConfig<'_>, shared: &Arc<SharedPages>) -> Result<Self, MachineError> {
        let host = Arc::new(DebugHost::new(config.kvm.clone()));
        let config = &config.debug;
        let control = VcpuControl::new(config.paused).map_err(MachineError::Descriptor)?;
        let control = Arc::new(control);
        let stops = Arc::new(FaultStops::new(Arc::clone(shared), Arc::clone(&control)));
        let history = config.address.as_ref().map(|_| Arc::default());
        Ok(Self { control, stops, host, history })
    }

    /// Prepares the debugger's port, if one is wanted.
    fn prepare_gdb(
        &self,
        config: &MachineConfig<'_>,
        vm: &Vm,
        shared: &Arc<SharedPages>,
    ) -> Result<Option<PreparedGdb>, MachineError> {
        let Some(address) = &config.debug.gdb else { return Ok(None) };
        let breaker = Breaker {
            control: Arc::clone(&self.control),
            ram: Arc::clone(vm.ram()),
            host: Arc::clone(&self.host),
        };
        let guest = Guest::new(breaker, Arc::clone(shared));
        Ok(Some(PreparedGdb::new(address, guest, config.announce)?))
    }

    /// Prepares the debug port, if one is wanted.
    fn prepare(
        self,
        config: &MachineConfig<'_>,
        vcpu: &Vcpu,
        events: &Arc<observer::Events>,
        vm: &Vm,
    ) -> Result<Option<Prepared>, MachineError> {
        let (Some(address), Some(history)) = (&config.debug.address, self.history) else {
            return Ok(None);
        };
        let statistics = vcpu.open_statistics();
        let shared = events.shared();
        let lab = Lab {
            ram: Arc::clone(shared.ram()),
            shared: Arc::clone(shared),
            events: Arc::clone(events),
            history,
            control: self.control,
            stops: self.stops,
            tsc_khz: vcpu.tsc_khz(),
            kernel: config.kernel.into(),
            debug_host: self.host,
            statistics: statistics.inspect_err(|error| log::info!("{error}")).ok(),
            vm_statistics: KvmStats::open(vm.fd()).ok(),
            host_faults: None,
            backing: Arc::default(),
            desk: Desk::default(),
            marks: BTreeMap::new(),
            began: Instant::now(),
            recording: observer::Recording::Off,
            watchers: 0,
            clients: (0, 0),
        };
        Ok(Some(Prepared::new(address, lab, config.announce)?))
    }
}

/// The event descriptors between devices, event loop and KVM.
struct Wires {
    serial_interrupt: EventFd,
    input_interrupt: EventFd,
    input_wanted: EventFd,
}

impl Wires {
    fn new(vm: &Vm) -> Result<Self, MachineError> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let wires = Self {
            serial_interrupt: event().map_err(MachineError::Descriptor)?,
            input_interrupt: event().map_err(MachineError::Descriptor)?,
            input_wanted: event().map_err(MachineError::Descriptor)?,
        };
        vm.connect_interrupt(&wires.serial_interrupt, SERIAL_IRQ)?;
        vm.connect_interrupt(&wires.input_interrupt, LAB_IRQ)?;
        Ok(wires)
    }
}

fn port_bus(
    shared: &Arc<SharedPages>,
    wires: &Wires,
    output: HostOutput,
    events: &Arc<observer::Events>,
    stops: &Arc<FaultStops>,
) -> Result<Bus, MachineError> {
    let duplicate = |event: &EventFd| event.try_clone().map_err(MachineError::Descriptor);
    let trigger = EventTrigger(duplicate(&wires.serial_interrupt)?);
    let serial = SerialConsole::new(trigger, output.clone());
    let wanted = duplicate(&wires.input_wanted)?;
    let observer = observer::HostObserver::new(Arc::clone(events), Arc::clone(stops), wanted);
    let lab = LabDevice::new(Arc::clone(shared), output, observer);
    let mut ports = Bus::new("port");
    ports.insert(SERIAL_PORT.into(), SERIAL_PORT_COUNT.into(), Box::new(serial))?;
    ports.insert(LAB_PORT.into(), LAB_PORT_COUNT.into(), Box::new(lab))?;
    Ok(ports)
}

fn wall_clock_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}
