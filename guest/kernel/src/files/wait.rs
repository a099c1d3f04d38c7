//! Sleeping until a file is ready.
//!
//! A file names those who wait for it by a [`WaitChannel`]; here each channel
//! that somebody waits on has a [`WaitQueue`]. A channel that nobody waits on
//! takes no memory, and waking it is one look into an empty map.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_hal::sync::Lock;
use pagelab_vfs::WaitChannel;

use crate::process::sleep::{self, NotYet, WaitQueue};

static QUEUES: Lock<BTreeMap<WaitChannel, Arc<WaitQueue>>> = Lock::new(BTreeMap::new());

/// Lets everybody who waits on `channel` look again.
pub fn wake(channel: WaitChannel) {
    let queue = QUEUES.lock().get(&channel).cloned();
    if let Some(queue) = queue {
        queue.wake_all();
    }
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
