//! Resource limits: `prlimit64`.

use pagelab_mm::Limits;

/// How many there are.
pub const COUNT: usize = 16;

/// Numbers of the limits that the kernel knows what to do with.
pub mod resource {
    /// Size of private writable memory.
    pub const DATA: usize = 2;
    /// Size of the stack.
    pub const STACK: usize = 3;
    /// Size of core files.
    pub const CORE: usize = 4;
    /// Number of processes.
    pub const PROCESSES: usize = 6;
    /// Number of open files.
    pub const FILES: usize = 7;
    /// Size of locked memory.
    pub const LOCKED: usize = 8;
    /// Size of the address space.
    pub const ADDRESS_SPACE: usize = 9;
    /// Number of queued signals.
    pub const PENDING_SIGNALS: usize = 11;
}

/// Soft and hard limit.
pub type Limit = (u64, u64);

/// No limit.
pub const UNLIMITED: u64 = u64::MAX;

/// All limits of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimits(pub [Limit; COUNT]);

impl Default for ResourceLimits {
    /// What a login on Linux has.
    fn default() -> Self {
        const STACK: u64 = 8 << 20;
        const LOCKED: u64 = 8 << 20;
        const FILES: Limit = (1024, 4096);
        const PROCESSES: u64 = 4096;
        const PENDING_SIGNALS: u64 = 4096;
        let mut limits = [(UNLIMITED, UNLIMITED); COUNT];
        limits[resource::STACK].0 = STACK;
        // None are written.
        limits[resource::CORE] = (0, 0);
        limits[resource::LOCKED] = (LOCKED, LOCKED);
        limits[resource::FILES] = FILES;
        limits[resource::PROCESSES] = (PROCESSES, PROCESSES);
        limits[resource::PENDING_SIGNALS] = (PENDING_SIGNALS, PENDING_SIGNALS);
        Self(limits)
    }
}

impl ResourceLimits {
    /// Those that memory management looks at.
    #[must_use]
    pub fn of_memory(&self) -> Limits {
        Limits {
            address_space: self.0[resource::ADDRESS_SPACE].0,
            data: self.0[resource::DATA].0,
            stack: self.0[resource::STACK].0,
            locked: self.0[resource::LOCKED].0,
            may_lock: true,
        }
    }
}
