//! What the host has given the guest so far, and its own page faults.
//!
//! Three tables stand between a guest-physical address and a page of the host,
//! and they must not be mixed up:
//!
//! 1. the **memfd**: does the page exist at all? ([`mod@backing`])
//! 2. the **VMM's page tables**: is it mapped there? ([`host_pages`])
//! 3. **KVM's second level** (EPT, NPT, or shadow tables): can the guest reach it
//!    without leaving to the host? Nobody outside of KVM sees that table; its
//!    faults show in KVM's statistics ([`stats`]).
//!
//! [`watch`] counts exactly what happens at the first two: every access, by the
//! guest or by the VMM, to a page that is not there or not mapped, in order and
//! with its time. [`advice`] makes the host use large pages, or take pages out of
//! the tables so that they fault again. [`history`] keeps how the backing grew.

pub mod advice;
pub mod backing;
pub mod history;
pub mod host_pages;
pub mod stats;
pub mod watch;

pub use advice::{HugePages, Reclaimed, reclaim, use_huge_pages};
pub use backing::{BackingMap, Extent, PageState, backing};
pub use history::{History, Sample};
pub use host_pages::HostPage;
pub use stats::{PagingKind, StatsReport, explain};
pub use watch::{FaultLog, FaultWatch, HostFault, WatchError};
