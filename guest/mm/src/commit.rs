//! Promised memory: Linux's overcommit rules.
//!
//! A private writable mapping promises a frame for each of its pages. How many
//! promises may be given is the policy's matter; they are counted in any case.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::error::MmError;

/// Linux's `vm.overcommit_memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Overcommit {
    /// Refuse only what alone is more than all memory and swap.
    Heuristic = 0,
    /// Refuse nothing.
    Always = 1,
    /// Refuse what would exceed the limit.
    Never = 2,
}

/// What part of memory may be promised under [`Overcommit::Never`], in percent.
const RATIO: u64 = 50;
/// Pages kept back from everybody (Linux: `admin_reserve_kbytes`).
const ADMIN_RESERVE: u64 = 2048;
/// Most pages kept back from one process (Linux: `user_reserve_kbytes`).
const USER_RESERVE: u64 = 32768;

/// The count of promised pages.
pub struct Commit {
    promised: AtomicU64,
    policy: AtomicU8,
    /// All memory, in pages.
    memory: u64,
    /// All swap, in pages.
    swap: AtomicU64,
}

impl Commit {
    /// For `memory` pages.
    #[must_use]
    pub const fn new(memory: u64) -> Self {
        Self {
            promised: AtomicU64::new(0),
            policy: AtomicU8::new(Overcommit::Heuristic as u8),
            memory,
            swap: AtomicU64::new(0),
        }
    }

    /// The policy.
    pub fn policy(&self) -> Overcommit {
        match self.policy.load(Ordering::Relaxed) {
            1 => Overcommit::Always,
            2 => Overcommit::Never,
            _ => Overcommit::Heuristic,
        }
    }

    /// Sets the policy. What was promised stays.
    pub fn set_policy(&self, policy: Overcommit) {
        self.policy.store(policy as u8, Ordering::Relaxed);
    }

    /// Pages promised: `Committed_AS` of `/proc/meminfo`.
    pub fn promised(&self) -> u64 {
        self.promised.load(Ordering::Relaxed)
    }

    /// Pages that may be promised under [`Overcommit::Never`]: `CommitLimit`.
    pub fn limit(&self) -> u64 {
        self.memory * RATIO / 100 + self.swap.load(Ordering::Relaxed)
    }

    /// There are so many pages of swap more.
    pub(crate) fn add_swap(&self, pages: u64) {
        self.swap.fetch_add(pages, Ordering::Relaxed);
    }

    /// There are so many pages of swap less.
    pub(crate) fn take_swap(&self, pages: u64) {
        self.swap.fetch_sub(pages, Ordering::Relaxed);
    }

    /// Promises pages to an address space that has `mapped` pages.
    ///
    /// # Errors
    ///
    /// [`MmError::Overcommit`] if the policy forbids it.
    pub fn promise(&self, pages: u64, mapped: u64) -> Result<(), MmError> {
        let promised = self.promised.fetch_add(pages, Ordering::Relaxed) + pages;
        let allowed = match self.policy() {
            Overcommit::Always => true,
            Overcommit::Heuristic => pages <= self.memory + self.swap.load(Ordering::Relaxed),
            Overcommit::Never => {
                let reserve = ADMIN_RESERVE.min(self.memory / 32) + USER_RESERVE.min(mapped / 32);
                promised < self.limit().saturating_sub(reserve)
            }
        };
        if allowed {
            return Ok(());
        }
        self.take_back(pages);
        Err(MmError::Overcommit)
    }

    /// Takes promises back.
    pub fn take_back(&self, pages: u64) {
        self.promised.fetch_sub(pages, Ordering::Relaxed);
    }
}
