//! The VMM of pagelab, as a library. See the modules.

pub mod cli;
pub mod host;
pub mod inspect;
pub mod kvm_stats;
