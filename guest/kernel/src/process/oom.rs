//! Memory has run out: what can be taken back is; else the largest process ends,
//! never the kernel.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::exit;
use super::{ExitStatus, Process, State, all, reclaim, scheduler};
use crate::files::write_back;
use crate::memory::memory;
use crate::signal::SIGKILL;

/// Takes memory back, or ends the process that uses most and takes its memory at
/// once. Returns whether it is worth trying again: not if the current process was
/// the one. No address space may be locked.
pub fn make_room() -> bool {
    if reclaim::free_some() || (write_back::give_up_unwritable() && reclaim::free_some()) {
        return true;
    }
    let current = scheduler::current().process.clone();
    let Some(victim) = choose() else { return false };
    log::error!(
        "out of memory: process {} ({}) ends, it uses {} of {} pages",
        victim.pid,
        victim.image.lock().name,
        size_of(&victim),
        memory().frames.counters().total
    );
    exit::kill(&victim, ExitStatus::Killed(SIGKILL));
    if Arc::ptr_eq(&victim, &current) {
        return false;
    }
    // It never returns to ring 3, so its pages can go before it does.
    let space = victim.space();
    let shared = Arc::ptr_eq(&space, &current.space());
    if !shared {
        space.lock().clear(memory());
    }
    !shared
}

fn choose() -> Option<Arc<Process>> {
    const INIT: u32 = 1;
    const NEVER: i32 = -1000;
    let candidates = all().into_iter().filter(|process| {
        process.pid != INIT
            && process.state() == State::Alive
            && process.ending.lock().is_none()
            && process.oom_score_adj.load(Ordering::Relaxed) != NEVER
    });
    candidates.max_by_key(|process| score(process))
}

/// Pages used, and as many thousandths of all memory as the process's
/// preference says.
pub fn score(process: &Process) -> i64 {
    let total = i64::try_from(memory().frames.counters().total).unwrap_or(i64::MAX);
    let preference = i64::from(process.oom_score_adj.load(Ordering::Relaxed));
    i64::try_from(size_of(process)).unwrap_or(i64::MAX) + preference * total / 1000
}

fn size_of(process: &Process) -> u64 {
    let space = process.space();
    let space = space.lock();
    space.resident().total() + space.swapped() + space.tables()
}
