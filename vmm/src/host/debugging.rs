//! What stops a guest for a debugger, found out when somebody wants to know.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::probe::{self, DebugStops};

/// What the host's KVM can do for a debugger.
#[derive(Debug)]
pub struct DebugHost {
    kvm: PathBuf,
    stops: OnceLock<DebugStops>,
}

impl DebugHost {
    /// A host whose KVM is at `kvm`.
    #[must_use]
    pub const fn new(kvm: PathBuf) -> Self {
        Self { kvm, stops: OnceLock::new() }
    }

    /// What stops a guest, tried out at the first call.
    pub fn stops(&self) -> DebugStops {
        *self.stops.get_or_init(|| {
            let found = super::open(&self.kvm).map(|kvm| probe::debug_stops(&kvm));
            log::info!("what stops a guest: {found:?}");
            found.unwrap_or_default()
        })
    }

    /// Whether debug exceptions of ring 3 go to the guest instead of to KVM: there
    /// is no virtualization hardware, and ring 0 is emulated.
    pub fn lets_programs_exceptions_through(&self) -> bool {
        !self.stops().program_step
    }
}
