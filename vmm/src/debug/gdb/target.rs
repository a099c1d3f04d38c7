//! What a debugger may do with the guest.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_abi::layout::USER_END;

use super::{how_to_step, registers};
use crate::debug::breakpoints::{Breaker, BreakpointError};
use crate::devices::shared::SharedPages;
use crate::inspect::AddressSpace;
use crate::inspect::kernel::{Kernel, process::Process};
use crate::memory::GuestRam;
use crate::vstate::control::{Activity, ControlError, Pause, Resume, VcpuControl};
use crate::vstate::guest_debug::{Condition, Means};

/// The guest, as a debugger sees it.
pub struct Guest {
    breaker: Breaker,
    shared: Arc<SharedPages>,
    step: bool,
    /// Breakpoints that the debugger believes to be in memory.
    in_memory: BTreeSet<u64>,
}

impl Guest {
    /// The guest that `breaker` stops.
    #[must_use]
    pub const fn new(breaker: Breaker, shared: Arc<SharedPages>) -> Self {
        Self { breaker, shared, step: false, in_memory: BTreeSet::new() }
    }

    /// The processor.
    #[must_use]
    pub fn control(&self) -> &VcpuControl {
        &self.breaker.control
    }

    /// Pauses the guest; `false` if it has ended.
    #[must_use]
    pub fn stop_for_debugger(&self) -> bool {
        const PATIENCE: Duration = Duration::from_secs(10);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match self.control().activity() {
                Activity::Paused(_) => return true,
                Activity::Ended => return false,
                Activity::Running => self.control().pause(),
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// The debugger has gone: so do its breakpoints, and the guest goes on.
    pub fn leave(&mut self) {
        self.in_memory.clear();
        if self.stop_for_debugger() {
            let gone = self.breaker.remove(None, |_| true).map(|_| ());
            if let Err(error) = gone.and_then(|()| Ok(self.control().resume(Resume::Run)?)) {
                log::debug!("the guest does not go on: {error}");
            }
        }
    }

    fn kernel(&self) -> Option<Kernel<'_, GuestRam>> {
        Kernel::new(&*self.breaker.ram, self.shared.directory()).ok()
    }

    fn process(&self, tid: Tid) -> Option<Process> {
        self.kernel()?.process(u32::try_from(tid.get()).ok()?).ok()
    }

    /// The process that runs, as a thread. Before there is any, and for the
    /// kernel without one, there is a thread 1.
    #[must_use]
    pub fn current(&self) -> Tid {
        let pid = self.kernel().and_then(|kernel| kernel.current().ok()).map_or(1, |(pid, _)| pid);
        tid_of(pid)
    }

    fn space(&self, tid: Tid) -> Result<AddressSpace<'_, GuestRam>, TargetError<ControlError>> {
        let current = self.control().registers().map_err(TargetError::Fatal)?.cr3;
        let pid = u32::try_from(tid.get()).unwrap_or(0);
        let other =
            (tid != self.current()).then(|| self.kernel()?.process(pid).ok()?.root()).flatten();
        let root = other.map_or(current, |root| root.0);
        Ok(AddressSpace::new(&*self.breaker.ram, root))
    }

    /// Why the guest stands still, if it does.
    #[must_use]
    pub fn stop_reason(&self) -> Option<MultiThreadStopReason<u64>> {
        let pause = match self.control().activity() {
            Activity::Running => return None,
            Activity::Ended => return Some(MultiThreadStopReason::Exited(0)),
            Activity::Paused(pause) => pause,
        };
        let tid = self.current();
        Some(match pause {
            Pause::Breakpoint { watched: Some((addr, condition)), .. } => {
                let kind = match condition {
                    Condition::Access(_) => WatchKind::ReadWrite,
                    Condition::Write(_) | Condition::Execute => WatchKind::Write,
                };
                MultiThreadStopReason::Watch { tid, kind, addr }
            }
            Pause::Breakpoint { pc, software, .. } if software || self.in_memory.contains(&pc) => {
                MultiThreadStopReason::SwBreak(tid)
            }
            Pause::Breakpoint { .. } => MultiThreadStopReason::HwBreak(tid),
            Pause::Asked => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGINT },
            Pause::Start | Pause::Stepped | Pause::Fault(_) => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }
            }
        })
    }

    fn added(&self, address: u64, how: Result<Means, BreakpointError>) -> TargetResult<bool, Self> {
        match how {
            Ok(means) => {
                log::info!("breakpoint at {address:#x}: {means}");
                Ok(true)
            }
            Err(BreakpointError::Control(error)) => Err(TargetError::Fatal(error)),
            Err(error) => {
                log::warn!("no breakpoint at {address:#x}: {error}");
                Ok(false)
            }
        }
    }

    fn remove(&self, address: u64, meant: impl Fn(Condition) -> bool) -> TargetResult<bool, Self> {
        match self.breaker.remove(Some(address), meant) {
            Ok(count) => Ok(count > 0),
            Err(BreakpointError::Control(error)) => Err(TargetError::Fatal(error)),
            Err(_) => Ok(false),
        }
    }
}

fn tid_of(pid: u32) -> Tid {
    usize::try_from(pid).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

impl Target for Guest {
    type Arch = X86_64_SSE;
    type Error = ControlError;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    // Everything starts and stops together.
    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
}

impl MultiThreadBase for Guest {
    fn read_registers(&mut self, regs: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        *regs = if tid == self.current() {
            registers::to_debugger(&self.control().processor().map_err(TargetError::Fatal)?)
        } else {
            // Those of its program, where its way into the kernel saved them.
            let saved =
                self.process(tid).and_then(|process| self.kernel()?.user_registers(&process));
            saved.as_ref().map(registers::saved).unwrap_or_default()
        };
        Ok(())
    }

    fn write_registers(&mut self, regs: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        if tid != self.current() {
            return Err(TargetError::NonFatal);
        }
        let mut state = self.control().processor().map_err(TargetError::Fatal)?;
        registers::from_debugger(regs, &mut state);
        self.control().set_processor(&state).map_err(|_| TargetError::NonFatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let bytes = self.space(tid)?.read(GuestVirt(start), data.len());
        if bytes.is_empty() && !data.is_empty() {
            return Err(TargetError::NonFatal);
        }
        data[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let space = self.space(tid)?;
        let mut at = start;
        let mut rest = data;
        while !rest.is_empty() {
            let physical = space.walk(GuestVirt(at)).physical().ok_or(TargetError::NonFatal)?;
            let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(rest.len());
            let (piece, more) = rest.split_at(rest.len().min(in_page));
            self.breaker.ram.write(physical, piece).map_err(|_| TargetError::NonFatal)?;
            at = at.wrapping_add(piece.len() as u64);
            rest = more;
        }
        Ok(())
    }

    fn list_active_threads(&mut self, found: &mut dyn FnMut(Tid)) -> Result<(), ControlError> {
        // The one that runs first: a debugger that connects shows that.
        let current = self.current();
        found(current);
        let others = self.kernel().and_then(|kernel| kernel.processes().ok());
        for process in others.map(|list| list.processes).unwrap_or_default() {
            if tid_of(process.pid) != current {
                found(tid_of(process.pid));
            }
        }
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for Guest {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, ControlError> {
        let process = self.process(tid);
        let text = process.map_or_else(
            || "kernel".to_owned(),
            |process| {
                let kernel = self.kernel();
                let saved = kernel.and_then(|kernel| kernel.user_registers(&process));
                let known = match (tid == self.current(), saved) {
                    (true, _) => "",
                    (false, Some(_)) => ", in the kernel: its program's registers",
                    (false, None) => ", no registers",
                };
                format!(
                    "process {} {} ({}{known})",
                    process.pid,
                    process.name,
                    process.state.letter()
                )
            },
        );
        let length = text.len().min(buffer.len());
        buffer[..length].copy_from_slice(&text.as_bytes()[..length]);
        Ok(length)
    }
}

impl MultiThreadResume for Guest {
    fn resume(&mut self) -> Result<(), ControlError> {
        let how = if self.step {
            let registers = self.control().registers()?;
            how_to_step(registers.privilege() == 3 && registers.rip < USER_END.0)
        } else {
            Resume::Run
        };
        self.control().resume(how)
    }

    fn clear_resume_actions(&mut self) -> Result<(), ControlError> {
        self.step = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        _tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), ControlError> {
        Ok(())
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

/// The debugger asks for this before each step. There is one processor, and the
/// guest's kernel decides who has it: a step of a program is seldom so long that
/// another one comes in between.
impl MultiThreadSchedulerLocking for Guest {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), ControlError> {
        Ok(())
    }
}

impl MultiThreadSingleStep for Guest {
    fn set_resume_action_step(
        &mut self,
        _tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), ControlError> {
        self.step = true;
        Ok(())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

const fn is_execute(condition: Condition) -> bool {
    matches!(condition, Condition::Execute)
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let added = self.added(address, self.breaker.add(address, Condition::Execute))?;
        if added {
            self.in_memory.insert(address);
        }
        Ok(added)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.in_memory.remove(&address);
        self.remove(address, is_execute)
    }
}

impl HwBreakpoint for Guest {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.added(address, self.breaker.add_unseen(address))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.remove(address, is_execute)
    }
}

/// What is to be waited for. Reading alone is not told from writing, here as in
/// the processor: the debugger itself leaves out what changed the value.
fn condition(address: u64, length: u64, kind: WatchKind) -> Option<Condition> {
    let length = u8::try_from(length).ok().filter(|length| matches!(length, 1 | 2 | 4 | 8))?;
    if !address.is_multiple_of(length.into()) {
        return None;
    }
    match kind {
        WatchKind::Write => Some(Condition::Write(length)),
        WatchKind::Read | WatchKind::ReadWrite => Some(Condition::Access(length)),
    }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        condition(address, length, kind).map_or(Ok(false), |condition| {
            self.added(address, self.breaker.add(address, condition))
        })
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        condition(address, length, kind)
            .map_or(Ok(false), |condition| self.remove(address, |other| other == condition))
    }
}
