//! Which kind of breakpoint does what is wanted, on this kind of host.
//!
//! A program is stopped by an `int3` in its memory, the kernel by a debug
//! register. Memory is watched by debug registers, which needs virtualization
//! hardware: without it, ring 3 runs with the host's own debug registers, and
//! ring 0 is emulated without looking at what it accesses.

use std::sync::Arc;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::layout::USER_END;

use crate::inspect::AddressSpace;
use crate::memory::GuestRam;
use crate::vstate::control::{ControlError, VcpuControl};
use crate::vstate::guest_debug::{Condition, SoftwareBreakpoint};

/// Why there is no breakpoint.
#[derive(Debug, thiserror::Error)]
pub enum BreakpointError {
    /// All debug registers are used.
    #[error("no debug register is free for it: there are four, and one is needed for programs")]
    NoneFree,
    /// The host cannot.
    #[error("this host's KVM works without virtualization hardware and cannot watch memory")]
    NoWatchpoints,
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
    /// Whether there is no virtualization hardware.
    pub without_hardware: bool,
}

impl Breaker {
    /// Stops the guest at `address` under `condition`.
    ///
    /// # Errors
    ///
    /// If that cannot be done.
    pub fn add(&self, address: u64, condition: Condition) -> Result<(), BreakpointError> {
        let mut breakpoints = self.control.breakpoints();
        let is_program = address < USER_END.0;
        if condition == Condition::Execute && is_program {
            let root = self.control.registers()?.cr3;
            let space = AddressSpace::new(&*self.ram, root);
            let physical = space.walk(GuestVirt(address)).physical();
            let physical = physical.ok_or(BreakpointError::NotMapped(address))?;
            let breakpoint = SoftwareBreakpoint { address, physical };
            if !breakpoints.software.contains(&breakpoint) {
                breakpoints.software.push(breakpoint);
            }
        } else {
            if condition != Condition::Execute && self.without_hardware {
                return Err(BreakpointError::NoWatchpoints);
            }
            // There, the last one is for the guest's handler of int3.
            let usable = breakpoints.hardware.len() - usize::from(self.without_hardware);
            let free = breakpoints.hardware[..usable].iter_mut().find(|place| place.is_none());
            *free.ok_or(BreakpointError::NoneFree)? = Some((address, condition));
        }
        Ok(self.control.set_breakpoints(breakpoints)?)
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
