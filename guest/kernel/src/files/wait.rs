//! Sleeping until a file is ready.
//!
//! A file names those who wait for it by a [`WaitChannel`]; here each channel
//! that somebody waits on has a [`WaitQueue`]. A channel that nobody waits on
//! takes no memory, and waking it is one look into an empty map.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_hal::sync::Lock;
use pagelab_vfs::{Readiness, WaitChannel};

use crate::process::sleep::{self, NotYet, WaitQueue};

static QUEUES: Lock<BTreeMap<WaitChannel, Arc<WaitQueue>>> = Lock::new(BTreeMap::new());

/// Bits that [`Readiness`] has, and those below them.
const BITS: usize = (u16::BITS - Readiness::all().bits().leading_zeros()) as usize;

/// A channel whose changes are passed on.
#[derive(Default)]
struct Watched {
    /// How often it was woken for each bit of readiness.
    generations: [u64; BITS],
    /// Channels that are woken with it, each as often as it watches.
    by: Vec<Watcher>,
}

/// A channel that is woken with another one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Watcher {
    /// Which.
    pub channel: WaitChannel,
    /// It watches for this only, and of all watchers that say the same, one that
    /// somebody waits on is enough.
    pub one_for: Option<Readiness>,
}

static WATCHED: Lock<BTreeMap<WaitChannel, Watched>> = Lock::new(BTreeMap::new());

/// Lets everybody who waits on `channel` look again, which may be `ready` now;
/// says whether anybody waited.
pub fn wake(channel: WaitChannel, ready: Readiness) -> bool {
    let queue = QUEUES.lock().get(&channel).cloned();
    let mut somebody = queue.is_some_and(|queue| queue.wake_all());
    let by = {
        let mut watched = WATCHED.lock();
        let Some(watched) = watched.get_mut(&channel) else { return somebody };
        for bit in bits_of(ready) {
            watched.generations[bit] += 1;
        }
        watched.by.clone()
    };
    // No loop: `epoll` lets none be made.
    let mut had_theirs = Vec::new();
    for watcher in by {
        let is_for_it = watcher.one_for.is_none_or(|wanted| wanted.intersects(ready));
        let has_theirs = watcher.one_for.is_some() && had_theirs.contains(&watcher.one_for);
        if is_for_it && !has_theirs && wake(watcher.channel, Readiness::READ) {
            somebody = true;
            had_theirs.push(watcher.one_for);
        }
    }
    somebody
}

/// Wakes `by` whenever `channel` is woken.
pub fn watch(channel: WaitChannel, by: Watcher) {
    let mut watched = WATCHED.lock();
    let watched = watched.entry(channel).or_default();
    watched.by.push(by);
}

/// Does so no longer.
pub fn unwatch(channel: WaitChannel, by: Watcher) {
    let mut all = WATCHED.lock();
    let Some(watched) = all.get_mut(&channel) else { return };
    if let Some(place) = watched.by.iter().position(|&other| other == by) {
        watched.by.remove(place);
    }
    if watched.by.is_empty() {
        all.remove(&channel);
    }
}

/// How often a channel was woken for any of `wanted` while it was watched.
pub fn generation(channel: WaitChannel, wanted: Readiness) -> u64 {
    let watched = WATCHED.lock();
    let Some(watched) = watched.get(&channel) else { return 0 };
    bits_of(wanted).map(|bit| watched.generations[bit]).sum()
}

fn bits_of(readiness: Readiness) -> impl Iterator<Item = usize> {
    (0..BITS).filter(move |&bit| readiness.bits() >> bit & 1 != 0)
}

/// Waits until `condition` gives something. It is asked at once, and again
/// whenever one of the channels is woken.
///
/// # Errors
///
/// If a signal comes first, or the `deadline`.
pub fn until<T>(
    channels: &[WaitChannel],
    deadline: Option<u64>,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, NotYet> {
    if let Some(value) = condition() {
        return Ok(value);
    }
    let queues: Vec<_> = channels.iter().map(|&channel| join(channel)).collect();
    let result = sleep::wait_in_all(&queues, deadline, condition);
    drop(queues);
    let mut all = QUEUES.lock();
    for channel in channels {
        // Only the map has it: nobody else waits.
        if all.get(channel).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            all.remove(channel);
        }
    }
    result
}

fn join(channel: WaitChannel) -> Arc<WaitQueue> {
    QUEUES.lock().entry(channel).or_insert_with(|| Arc::new(WaitQueue::new())).clone()
}
