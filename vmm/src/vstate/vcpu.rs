//! The guest's processor: a thread that runs it and hands its exits to the buses.
//!
//! Stopping it without a race: whoever wants it stopped sets the stop flag, then
//! sends the thread a signal ([`VcpuHandle::stop`]). The thread looks at the flag
//! before each `KVM_RUN`; a signal that arrives between the look and the call is
//! not lost, because its handler sets `immediate_exit` in the page shared with
//! KVM, and `KVM_RUN` then returns at once.

#![allow(
    unsafe_code,
    reason = "the page shared with KVM: a flag set in a signal handler, and a union"
)]

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_run;
use kvm_ioctls::{VcpuExit, VcpuFd};
use pagelab_abi::lab::PORT_FIRST_USER;
use pagelab_abi::layout::LAB_PORT;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use super::control::{DebugExit, VcpuControl};
use super::entry;
use super::stepping::{BREAKPOINT, Debugging};
use super::vm::Vm;
use super::{KvmError, failed, registers};
use crate::devices::Ending;
use crate::devices::bus::Bus;
use crate::host::debugging::DebugHost;
use crate::kvm_stats::{KvmStats, KvmStatsError, Snapshot};
use crate::loader::EntryPoint;
use crate::stop::{InternalError, Registers, SUBERROR_EMULATION, StopReason};
use crate::timings::{self, Moment};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs, for the handler.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The handler of the signal that stops a vCPU.
extern "C" fn leave_guest(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: set by this same thread to a byte of the vCPU's `kvm_run`
        // page, which stays mapped until the pointer is cleared again. KVM reads
        // it at any time, so it is only ever accessed as an atomic.
        let flag = unsafe { AtomicU8::from_ptr(flag) };
        flag.store(1, Ordering::SeqCst);
    }
}

/// While it lives, the signal reaches the vCPU. Dropped before the vCPU is, also
/// when the thread panics.
struct Kickable;

impl Kickable {
    fn new(fd: &mut VcpuFd) -> Self {
        IMMEDIATE_EXIT.set(&raw mut fd.get_kvm_run().immediate_exit);
        Self
    }
}

impl Drop for Kickable {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

/// How often the guest left for user space, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Accesses to I/O ports.
    pub port: u64,
    /// Accesses to memory where no RAM is.
    pub mmio: u64,
    /// Accesses of both kinds that nothing answered to.
    pub unanswered: u64,
}

/// What KVM counted for the processor; empty on a host whose KVM gives nothing
/// out.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// When ring 3 was about to begin; empty if it never was.
    pub before_programs: Snapshot,
    /// At the end.
    pub at_end: Snapshot,
}

/// How a vCPU's thread ended.
#[derive(Debug)]
pub struct VcpuEnd {
    /// Why, unless it was asked to stop.
    pub reason: Option<StopReason>,
    /// The processor's state at the end.
    pub registers: Box<Registers>,
    /// Its exits.
    pub exits: ExitCounts,
    /// What KVM counted.
    pub statistics: Statistics,
    /// When the guest was entered for the first time.
    pub entered: Instant,
    /// How long the thread had a processor of the host's.
    pub processor_time: Duration,
}

/// A processor that is ready to run.
pub struct Vcpu {
    fd: VcpuFd,
    ports: Bus,
    mmio: Bus,
    stop: Arc<AtomicBool>,
    control: Arc<VcpuControl>,
    debugging: Debugging,
    exits: ExitCounts,
    /// What KVM had counted when ring 3 was about to begin.
    before_programs: Snapshot,
}

impl Vcpu {
    /// Makes the processor of `vm` in the state of its entry, but for where it
    /// starts.
    ///
    /// # Errors
    ///
    /// If KVM refuses.
    pub fn new(
        vm: &Vm,
        ports: Bus,
        mmio: Bus,
        stop: Arc<AtomicBool>,
        control: Arc<VcpuControl>,
        debug_host: Arc<DebugHost>,
    ) -> Result<Self, KvmError> {
        let fd = vm.fd().create_vcpu(0).map_err(failed("create a processor"))?;
        fd.set_cpuid2(vm.cpuid()).map_err(failed("set the processor's features"))?;
        Ok(Self {
            fd,
            ports,
            mmio,
            stop,
            control,
            debugging: Debugging::new(Arc::clone(vm.ram()), vm.can_block_interrupts(), debug_host),
            exits: ExitCounts::default(),
            before_programs: Snapshot::default(),
        })
    }

    /// Frequency of the time-stamp counter in kHz, 0 if KVM does not know.
    #[must_use]
    pub fn tsc_khz(&self) -> u64 {
        self.fd.get_tsc_khz().map_or(0, u64::from)
    }

    /// KVM's statistics of this processor, for whoever wants to read them while
    /// it runs.
    ///
    /// # Errors
    ///
    /// If KVM gives none out.
    pub fn open_statistics(&self) -> Result<KvmStats, KvmStatsError> {
        KvmStats::open(&self.fd)
    }

    /// Sets the registers for the first instruction.
    ///
    /// # Errors
    ///
    /// If KVM refuses them.
    pub fn set_entry(&self, point: &EntryPoint, global_pages: bool) -> Result<(), KvmError> {
        let mut special = self.fd.get_sregs().map_err(failed("read the special registers"))?;
        entry::set_special(&mut special, point.root, global_pages);
        self.fd.set_sregs(&special).map_err(failed("set the special registers"))?;
        self.fd.set_regs(&entry::general(point)).map_err(failed("set the registers"))
    }

    /// Starts the thread. `ended` is written when it is over.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(self, ended: EventFd) -> Result<VcpuHandle, KvmError> {
        /// The run loop and the devices need little.
        const STACK: usize = 256 << 10;
        register_signal_handler(SIGRTMIN(), leave_guest)
            .map_err(|error| KvmError::Thread(error.into()))?;
        let (stop, control) = (Arc::clone(&self.stop), Arc::clone(&self.control));
        let thread = thread::Builder::new()
            .name("vcpu0".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // Written also when the thread panics.
                let _announce = Announce(ended);
                let _attached = self.control.attach();
                self.run()
            })
            .map_err(KvmError::Thread)?;
        Ok(VcpuHandle { thread, stop, control })
    }

    fn run(mut self) -> VcpuEnd {
        let entered = Instant::now();
        let kicked = Kickable::new(&mut self.fd);
        timings::note_first_entry(&self.fd);
        let reason = self.run_loop();
        timings::note(Moment::End);
        drop(kicked);
        self.exits.unanswered = self.ports.unanswered() + self.mmio.unanswered();
        let registers = Box::new(registers::read(&self.fd));
        // Opened only now, so that it costs the start nothing: KVM has counted
        // since the processor was made.
        let at_end = self.statistics();
        let statistics = Statistics { before_programs: self.before_programs, at_end };
        let processor_time = processor_time();
        VcpuEnd { reason, registers, exits: self.exits, statistics, entered, processor_time }
    }

    /// What KVM has counted until now.
    fn statistics(&self) -> Snapshot {
        let statistics = KvmStats::open(&self.fd).and_then(|stats| stats.read());
        statistics.unwrap_or_else(|error| {
            log::debug!("{error}");
            Snapshot::default()
        })
    }

    /// Runs until the guest ends or the stop flag is set (then without reason).
    fn run_loop(&mut self) -> Option<StopReason> {
        while !self.stop.load(Ordering::SeqCst) {
            let flow = if self.control.wants_attention() { self.attend() } else { self.run_once() };
            timings::note(Moment::FirstExit);
            if let ControlFlow::Break(reason) = flow {
                return Some(reason);
            }
        }
        None
    }

    /// Pauses, if that is wanted.
    fn attend(&mut self) -> ControlFlow<StopReason> {
        // An access to a port or a device is complete only with the next entry,
        // so there is one that is interrupted before the guest's next
        // instruction.
        loop {
            self.fd.set_kvm_immediate_exit(1);
            self.run_once()?;
            if self.fd.get_kvm_run().immediate_exit == 0 {
                break;
            }
        }
        self.control.attend(&self.fd, &mut self.debugging, &self.stop);
        ControlFlow::Continue(())
    }

    fn run_once(&mut self) -> ControlFlow<StopReason> {
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                self.exits.port += 1;
                let flow = self.ports.write(port.into(), data);
                if port == LAB_PORT + PORT_FIRST_USER && self.before_programs.is_empty() {
                    self.before_programs = self.statistics();
                }
                return self.continue_or_end(flow);
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                self.exits.port += 1;
                self.ports.read(port.into(), data);
                return ControlFlow::Continue(());
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.exits.mmio += 1;
                let flow = self.mmio.write(address, data);
                return self.continue_or_end(flow);
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.exits.mmio += 1;
                self.mmio.read(address, data);
                return ControlFlow::Continue(());
            }
            Ok(VcpuExit::Debug(debug)) => {
                let software = u64::from(debug.exception) == BREAKPOINT;
                let exit = DebugExit { pc: debug.pc, dr6: debug.dr6, software };
                self.control.debug_exit(&self.fd, &mut self.debugging, exit);
                return ControlFlow::Continue(());
            }
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => return self.interrupted(),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                return self.interrupted();
            }
            Ok(VcpuExit::Shutdown) => Exit::TripleFault,
            Ok(VcpuExit::InternalError) => Exit::InternalError,
            Ok(VcpuExit::FailEntry(reason, cpu)) => Exit::FailEntry { reason, cpu },
            Ok(VcpuExit::MemoryFault { flags, gpa, size }) => {
                Exit::MemoryFault { flags, address: gpa, length: size }
            }
            Ok(other) => Exit::Unexpected(format!("{other:?}")),
            Err(error) => Exit::Failed(io::Error::from_raw_os_error(error.errno())),
        };
        ControlFlow::Break(self.explain(exit))
    }

    /// A signal came, or an entry was to be interrupted. Whatever the signal is
    /// about was set before it was sent, and is looked at before the next entry.
    fn interrupted(&mut self) -> ControlFlow<StopReason> {
        self.fd.set_kvm_immediate_exit(0);
        ControlFlow::Continue(())
    }

    fn continue_or_end(&self, flow: ControlFlow<Ending>) -> ControlFlow<StopReason> {
        flow.map_break(|ending| match ending {
            Ending::PoweredOff(status) => StopReason::PoweredOff(status),
            Ending::Panicked(report) => StopReason::Panicked(report, self.registers()),
            Ending::OutputClosed => StopReason::OutputClosed,
            Ending::OutputFailed(error) => StopReason::OutputFailed(error),
        })
    }

    fn registers(&self) -> Box<Registers> {
        Box::new(registers::read(&self.fd))
    }

    /// Adds the processor's state to an exit that ends the guest.
    fn explain(&mut self, exit: Exit) -> StopReason {
        let registers = self.registers();
        match exit {
            Exit::TripleFault => StopReason::TripleFault(registers),
            Exit::InternalError => {
                let error = internal_error(self.fd.get_kvm_run());
                StopReason::InternalError(Box::new(error), registers)
            }
            Exit::FailEntry { reason, cpu } => StopReason::FailEntry { reason, cpu, registers },
            Exit::MemoryFault { flags, address, length } => {
                StopReason::MemoryFault { flags, address, length, registers }
            }
            Exit::Unexpected(exit) => StopReason::UnexpectedExit(exit, registers),
            Exit::Failed(error) => StopReason::RunFailed(error, registers),
        }
    }
}

/// An exit after which the guest cannot go on, before its state was read.
enum Exit {
    TripleFault,
    InternalError,
    FailEntry { reason: u64, cpu: u32 },
    MemoryFault { flags: u64, address: u64, length: u64 },
    Unexpected(String),
    Failed(io::Error),
}

/// What the calling thread has had of the host's processors.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

/// Reads what KVM says about an internal error.
fn internal_error(run: &kvm_run) -> InternalError {
    /// The flag that says that instruction bytes are there.
    const INSTRUCTION_BYTES: u64 = 1;
    // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which KVM fills
    // this member; all of its bit patterns are valid.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let count = usize::try_from(internal.ndata).unwrap_or(0).min(internal.data.len());
    let data = internal.data[..count].to_vec();
    let mut instruction = Vec::new();
    if internal.suberror == SUBERROR_EMULATION
        && let [flags, first, second, ..] = data[..]
        && flags & INSTRUCTION_BYTES != 0
    {
        // One byte of length, then up to fifteen of the instruction.
        let bytes: Vec<u8> = [first, second].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = usize::from(bytes[0]).min(bytes.len() - 1);
        instruction = bytes[1..=length].to_vec();
    }
    InternalError { suberror: internal.suberror, data, instruction }
}

/// Writes an event descriptor when it is dropped.
struct Announce(EventFd);

impl Drop for Announce {
    fn drop(&mut self) {
        if let Err(error) = self.0.write(1) {
            log::error!("cannot announce the end of a vCPU: {error}");
        }
    }
}

/// A processor that runs.
#[derive(Debug)]
pub struct VcpuHandle {
    thread: JoinHandle<VcpuEnd>,
    stop: Arc<AtomicBool>,
    control: Arc<VcpuControl>,
}

impl VcpuHandle {
    /// Makes the processor leave the guest at once and its thread end. To be
    /// called again if it does not: a signal that falls between a device's look
    /// at the stop flag and a blocking call interrupts neither.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.control.wake();
        if let Err(error) = self.thread.kill(SIGRTMIN()) {
            log::debug!("cannot signal the vCPU: {error}");
        }
    }

    /// Waits for the thread.
    ///
    /// # Errors
    ///
    /// What it said if it panicked.
    pub fn join(self) -> Result<VcpuEnd, String> {
        self.thread.join().map_err(|panic| {
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "it panicked".to_owned())
        })
    }
}
