//! Which kind of breakpoint does what is wanted, on this kind of host.
//!
//! | to stop… | with virtualization hardware | without |
//! | --- | --- | --- |
//! | a program | `int3` in its memory | the same |
//! | the kernel | `int3` in its memory | a debug register: ring 0 is emulated |
//! | at an access | a debug register | stepping |
//!
//! Without hardware, ring 3 runs with the host's own debug registers, and ring 0
//! is emulated without looking at what it accesses. There are hosts with hardware,
//! emulated ones, whose debug registers do nothing in a guest: that is found out
//! by trying, once somebody wants one ([`DebugHost`]).

use std::sync::Arc;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::layout::USER_END;

use crate::host::debugging::DebugHost;
use crate::inspect::AddressSpace;
use crate::memory::GuestRam;
use crate::vstate::control::{ControlError, VcpuControl};
use crate::vstate::guest_debug::{Condition, Means, SoftwareBreakpoint};

/// Most watchpoints that are kept by stepping.
const MOST_STEPPED: usize = 16;

/// Why there is no breakpoint.
#[derive(Debug, thiserror::Error)]
pub enum BreakpointError {
    /// All places are used.
    #[error("there is no room for another one; take one away first")]
    NoneFree,
    /// The host's KVM stops a guest nowhere.
    #[error(
        "this host's KVM stops a guest neither at int3 nor by debug registers, as emulated \
         AMD-V does not: use `break` for faults, `step`, or a watchpoint"
    )]
    NoBreakpoints,
    /// There is no instruction to replace.
    #[error("{0:#x} is not mapped (yet): stop at its page fault first")]
    NotMapped(u64),
    /// The guest runs.
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// Sets and removes breakpoints.
#[derive(Clone, Debug)]
pub struct Breaker {
    /// The processor.
    pub control: Arc<VcpuControl>,
    /// The guest's memory.
    pub ram: Arc<GuestRam>,
    /// What the host can do.
    pub host: Arc<DebugHost>,
}

impl Breaker {
    /// Stops the guest at `address` under `condition`; says how.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    pub fn add(&self, address: u64, condition: Condition) -> Result<Means, BreakpointError> {
        let without_hardware = self.host.lets_programs_exceptions_through();
        let in_memory = address < USER_END.0 || !without_hardware;
        let means = match condition {
            // Without hardware, int3 stops programs in another way, which always works.
            Condition::Execute if in_memory && !without_hardware => {
                if !self.host.stops().int3 {
                    return Err(BreakpointError::NoBreakpoints);
                }
                Means::Int3
            }
            Condition::Execute if in_memory => Means::Int3,
            Condition::Execute => Means::Register,
            Condition::Write(_) | Condition::Access(_) => self.means_to_watch(),
        };
        self.add_by(means, address, condition)
    }

    /// The same, for an instruction, without changing memory where that is
    /// possible.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    pub fn add_unseen(&self, address: u64) -> Result<Means, BreakpointError> {
        let found = self.host.stops();
        let heeded =
            if address < USER_END.0 { found.program_execute } else { found.kernel_execute };
        if !heeded || self.free_register().is_none() {
            return self.add(address, Condition::Execute);
        }
        self.add_by(Means::Register, address, Condition::Execute)
    }

    fn means_to_watch(&self) -> Means {
        let found = self.host.stops();
        let watches = found.kernel_write && found.program_write;
        if watches && self.free_register().is_some() { Means::Register } else { Means::Stepping }
    }

    fn free_register(&self) -> Option<usize> {
        let hardware = self.control.breakpoints().hardware;
        // There, the last one is for the guest's handler of int3.
        let usable = hardware.len() - usize::from(self.host.lets_programs_exceptions_through());
        hardware[..usable].iter().position(Option::is_none)
    }

    fn add_by(
        &self,
        means: Means,
        address: u64,
        condition: Condition,
    ) -> Result<Means, BreakpointError> {
        let mut breakpoints = self.control.breakpoints();
        match means {
            Means::Register => {
                let free = self.free_register().ok_or(BreakpointError::NoneFree)?;
                breakpoints.hardware[free] = Some((address, condition));
            }
            Means::Stepping if breakpoints.stepped.len() >= MOST_STEPPED => {
                return Err(BreakpointError::NoneFree);
            }
            Means::Stepping => breakpoints.stepped.push((address, condition)),
            Means::Int3 => {
                let root = self.control.registers()?.cr3;
                let physical = AddressSpace::new(&*self.ram, root).walk(GuestVirt(address));
                let physical = physical.physical().ok_or(BreakpointError::NotMapped(address))?;
                let breakpoint = SoftwareBreakpoint { address, physical };
                if !breakpoints.software.contains(&breakpoint) {
                    breakpoints.software.push(breakpoint);
                }
            }
        }
        self.control.set_breakpoints(breakpoints)?;
        Ok(means)
    }

    /// Removes those at `address` that `meant` says, or all of them; says how many.
    ///
    /// # Errors
    ///
    /// If the guest runs.
    pub fn remove(
        &self,
        address: Option<u64>,
        meant: impl Fn(Condition) -> bool,
    ) -> Result<usize, BreakpointError> {
        let mut breakpoints = self.control.breakpoints();
        let mut removed = breakpoints.software.len();
        let hit = |other: u64| address.is_none_or(|address| address == other);
        breakpoints.software.retain(|other| !(hit(other.address) && meant(Condition::Execute)));
        removed -= breakpoints.software.len();
        let stepped = breakpoints.stepped.len();
        breakpoints.stepped.retain(|(other, condition)| !(hit(*other) && meant(*condition)));
        removed += stepped - breakpoints.stepped.len();
        for place in &mut breakpoints.hardware {
            if place.is_some_and(|(other, condition)| hit(other) && meant(condition)) {
                *place = None;
                removed += 1;
            }
        }
        if removed > 0 {
            self.control.set_breakpoints(breakpoints)?;
        }
        Ok(removed)
    }
}
