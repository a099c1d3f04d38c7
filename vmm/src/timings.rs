//! When what happened in the life of a lab, for whoever measures it from
//! outside (`pagelab bench boot`).
//!
//! If [`VARIABLE`] names a file, a lab writes one line of JSON there when it is
//! over ([`Timings`]): moments on the host's monotonic clock, which all
//! processes share, so that the parent can relate them to its own `exec`; the
//! guest's milestones on the same clock; resident memory; KVM's statistics.
//! Otherwise noting a moment is one look at an atomic.

use std::env;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use pagelab_abi::lab::Milestones;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::resident::ResidentMemory;

/// Environment variable with the file to write to.
pub const VARIABLE: &str = "PAGELAB_TIMINGS";

/// A moment on the host's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Moment {
    /// `main` began.
    Main,
    /// Virtual machine, memory and devices are there, the kernel is loaded.
    Ready,
    /// Just before the guest is entered for the first time.
    FirstEntry,
    /// The guest left for this program for the first time.
    FirstExit,
    /// The guest ran for the last time.
    End,
}

const MOMENTS: usize = 5;

/// Nanoseconds of the monotonic clock, 0: not yet.
static NOTED: [AtomicU64; MOMENTS] = [const { AtomicU64::new(0) }; MOMENTS];
static GUEST_CLOCK: OnceLock<GuestClock> = OnceLock::new();

/// How the guest's time-stamp counter relates to the host's monotonic clock.
#[derive(Clone, Copy, Debug)]
struct GuestClock {
    ticks: u64,
    nanoseconds: u64,
    khz: u64,
}

impl GuestClock {
    /// The moment at which the guest's counter showed `ticks`.
    fn moment(&self, ticks: u64) -> Option<u64> {
        if ticks == 0 || self.khz == 0 {
            return None;
        }
        let since = i128::from(ticks) - i128::from(self.ticks);
        let nanoseconds = since * 1_000_000 / i128::from(self.khz);
        u64::try_from(i128::from(self.nanoseconds) + nanoseconds).ok()
    }
}

/// What is written to the file. All moments are nanoseconds of the host's
/// monotonic clock; those that never came are missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timings {
    /// `main` began.
    pub main: Option<u64>,
    /// The guest is ready to be entered.
    pub ready: Option<u64>,
    /// Just before the first entry.
    pub first_entry: Option<u64>,
    /// The first exit.
    pub first_exit: Option<u64>,
    /// The guest ran for the last time.
    pub end: Option<u64>,
    /// The kernel's first instructions.
    pub kernel_entry: Option<u64>,
    /// The kernel is set up.
    pub kernel_ready: Option<u64>,
    /// Just before the first return to ring 3.
    pub first_user: Option<u64>,
    /// Just before the guest powered off.
    pub power_off: Option<u64>,
    /// Resident memory when the guest was over, its RAM still mapped.
    pub memory: Option<ResidentMemory>,
}

/// The host's monotonic clock in nanoseconds.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

fn wanted() -> Option<&'static PathBuf> {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    FILE.get_or_init(|| env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from))
        .as_ref()
}

/// Notes that a moment has come, if timings are wanted; only its first time
/// counts, but for [`Moment::End`].
pub fn note(moment: Moment) {
    let slot = &NOTED[moment as usize];
    if wanted().is_none() || (moment != Moment::End && slot.load(Ordering::Relaxed) != 0) {
        return;
    }
    slot.store(now(), Ordering::Relaxed);
}

/// Notes [`Moment::FirstEntry`], and how the clock of this vCPU runs.
pub fn note_first_entry(vcpu: &VcpuFd) {
    if wanted().is_none() {
        return;
    }
    let khz = vcpu.get_tsc_khz().map_or(0, u64::from);
    let before = now();
    if let Some(ticks) = time_stamp_counter(vcpu) {
        let nanoseconds = before.midpoint(now());
        let _ = GUEST_CLOCK.set(GuestClock { ticks, nanoseconds, khz });
    }
    note(Moment::FirstEntry);
}

/// The guest's time-stamp counter now.
fn time_stamp_counter(vcpu: &VcpuFd) -> Option<u64> {
    const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
    let entry = kvm_msr_entry { index: IA32_TIME_STAMP_COUNTER, ..Default::default() };
    let mut msrs = Msrs::from_entries(&[entry]).ok()?;
    match vcpu.get_msrs(&mut msrs) {
        Ok(1) => Some(msrs.as_slice().first()?.data),
        _ => None,
    }
}

/// Writes the file, if one is wanted. `milestones` are the guest's.
///
/// # Errors
///
/// If it cannot be written.
pub fn write(milestones: Option<&Milestones>) -> io::Result<()> {
    let Some(path) = wanted() else { return Ok(()) };
    let noted = |moment: Moment| match NOTED[moment as usize].load(Ordering::Relaxed) {
        0 => None,
        nanoseconds => Some(nanoseconds),
    };
    let guest = |ticks: fn(&Milestones) -> u64| {
        GUEST_CLOCK.get().zip(milestones).and_then(|(clock, moments)| clock.moment(ticks(moments)))
    };
    let timings = Timings {
        main: noted(Moment::Main),
        ready: noted(Moment::Ready),
        first_entry: noted(Moment::FirstEntry),
        first_exit: noted(Moment::FirstExit),
        end: noted(Moment::End),
        kernel_entry: guest(|moments| moments.kernel_entry),
        kernel_ready: guest(|moments| moments.kernel_ready),
        first_user: guest(|moments| moments.first_user),
        power_off: guest(|moments| moments.power_off),
        memory: ResidentMemory::of_process("self").ok(),
    };
    let mut text = serde_json::to_string(&timings)?;
    text.push('\n');
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ticks_become_moments_of_the_host() {
        let clock = GuestClock { ticks: 1_000, nanoseconds: 5_000, khz: 2_000_000 };
        assert_eq!(clock.moment(1_000), Some(5_000));
        assert_eq!(clock.moment(3_000), Some(6_000));
        assert_eq!(clock.moment(500), Some(4_750));
        assert_eq!(clock.moment(0), None);
        assert_eq!(clock.moment(u64::MAX), Some(9_223_372_036_854_780_307));
        assert_eq!(GuestClock { khz: 0, ..clock }.moment(1_000), None);
    }

    #[test]
    fn the_clock_goes_on() {
        let first = now();
        assert!(first > 0 && now() >= first);
    }
}
