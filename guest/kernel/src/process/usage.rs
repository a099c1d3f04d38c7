//! What a process has used: `getrusage`, `times`, `wait4`.

use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::FaultCounters;

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the process.
    pub own: Counters,
    /// Of its children that were waited for, and theirs.
    pub children: Counters,
}

/// What a process or thread has had of the processor, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In ring 3.
    pub user: u64,
    /// In ring 0, on its behalf.
    pub system: u64,
}

impl CpuTime {
    /// Both together.
    pub const fn sum(self) -> u64 {
        self.user + self.system
    }
}

impl core::ops::AddAssign for CpuTime {
    fn add_assign(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }
}

/// The counters of one process or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Faults without reading.
    pub minor_faults: u64,
    /// Faults for which something was read.
    pub major_faults: u64,
    /// Most resident memory, in pages; of children, the largest.
    pub peak_resident: u64,
    /// Time.
    pub time: CpuTime,
    /// Switches because it had to wait.
    pub voluntary_switches: u64,
    /// Switches because its time was over.
    pub involuntary_switches: u64,
}

impl Counters {
    /// Adds a child that was waited for.
    pub fn add(&mut self, other: &Self) {
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.peak_resident = self.peak_resident.max(other.peak_resident);
        self.time += other.time;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }
}

/// Minor and major faults as Linux counts them: every fault that was mended is
/// one or the other; what ended in a signal is neither.
pub fn minor_and_major(faults: &FaultCounters) -> (u64, u64) {
    let mut counts = (0, 0);
    for kind in FaultKind::ALL {
        let count = faults.count[kind as usize];
        match kind {
            FaultKind::ProtectionViolation | FaultKind::NoMapping | FaultKind::NoBacking => {}
            FaultKind::PageInMajor | FaultKind::FileMajor | FaultKind::SwapIn => counts.1 += count,
            _ => counts.0 += count,
        }
    }
    counts
}
