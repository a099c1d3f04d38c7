//! Waiting for several files: `poll`, `select` and their variants.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_vfs::{Errno, OpenFile, Readiness, WaitChannel};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arguments, Outcome};
use crate::files::wait;
use crate::process::limits::resource;
use crate::process::scheduler;
use crate::process::sleep::NotYet;
use crate::signal::{self, SignalSet};
use crate::syscall::{Failure, time as clocks};
use crate::user;

const POLL_IN: u16 = 0x001;
const POLL_OUT: u16 = 0x004;
const POLL_ERROR: u16 = 0x008;
const POLL_HANG_UP: u16 = 0x010;
const POLL_INVALID: u16 = 0x020;
const POLL_READ_NORMAL: u16 = 0x040;
const POLL_WRITE_NORMAL: u16 = 0x100;

/// Calls that wait for several files.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_poll => {
            let milliseconds = super::int(a[2]);
            let deadline = u64::try_from(milliseconds)
                .ok()
                .map(|milliseconds| time::since_start() + milliseconds * 1_000_000);
            poll(a[0], a[1], deadline)
        }
        linux::__NR_ppoll => deadline_at(a[2])
            .and_then(|deadline| with_mask(a[3], a[4], || poll(a[0], a[1], deadline))),
        linux::__NR_select => select_deadline(a[4]).and_then(|deadline| select(a, deadline)),
        linux::__NR_pselect6 => pselect(a),
        _ => return None,
    })
}

fn pselect(a: &Arguments) -> Outcome {
    let deadline = deadline_at(a[4])?;
    // The last argument is the address of a mask's address and size.
    let [mask, size] = if a[5] == 0 { [0; 2] } else { user::read::<[u64; 2]>(GuestVirt(a[5]))? };
    with_mask(mask, size, || select(a, deadline))
}

/// Waits with the signal mask at an address, unless that is null.
pub(super) fn with_mask(address: u64, size: u64, wait: impl FnOnce() -> Outcome) -> Outcome {
    if address == 0 {
        return wait();
    }
    if size != size_of::<SignalSet>() as u64 {
        return Err(Errno::EINVAL.into());
    }
    let mask = user::read::<SignalSet>(GuestVirt(address))?;
    signal::wait_with_mask(mask, wait)
}

/// A `struct timespec` from now on; none for a null pointer.
fn deadline_at(address: u64) -> Result<Option<u64>, Failure> {
    if address == 0 {
        return Ok(None);
    }
    let length = clocks::nanoseconds(GuestVirt(address))?;
    Ok(Some(time::since_start().saturating_add(length)))
}

/// The same for a `struct timeval`.
fn select_deadline(address: u64) -> Result<Option<u64>, Failure> {
    if address == 0 {
        return Ok(None);
    }
    let [seconds, micros]: [i64; 2] = user::read(GuestVirt(address))?;
    let (Ok(seconds), Ok(micros)) = (u64::try_from(seconds), u64::try_from(micros)) else {
        return Err(Errno::EINVAL.into());
    };
    let length = seconds.saturating_mul(1_000_000_000).saturating_add(micros.saturating_mul(1000));
    Ok(Some(time::since_start().saturating_add(length)))
}

/// What `poll` says of a file.
fn events_of(file: &OpenFile) -> u16 {
    let ready = file.poll();
    let mut events = 0;
    for (readiness, bits) in [
        (Readiness::READ, POLL_IN | POLL_READ_NORMAL),
        (Readiness::WRITE, POLL_OUT | POLL_WRITE_NORMAL),
        (Readiness::ERROR, POLL_ERROR),
        (Readiness::HANG_UP, POLL_HANG_UP),
    ] {
        if ready.contains(readiness) {
            events |= bits;
        }
    }
    events
}

/// A file that is waited for: what it is waited for is `wanted`.
struct Watched {
    file: Option<Arc<OpenFile>>,
    wanted: u16,
}

impl Watched {
    fn happened(&self) -> u16 {
        match &self.file {
            Some(file) => events_of(file) & (self.wanted | POLL_ERROR | POLL_HANG_UP),
            None => 0,
        }
    }
}

/// Waits until `look` finds something among the files, or the deadline.
fn wait_for(watched: &[Watched], deadline: Option<u64>, mut look: impl FnMut() -> u64) -> Outcome {
    let found = look();
    if found > 0 || deadline.is_some_and(|moment| moment <= time::since_start()) {
        return Ok(found);
    }
    let mut channels: Vec<WaitChannel> =
        watched.iter().filter_map(|watched| watched.file.as_ref()?.wait_channel()).collect();
    channels.sort_unstable();
    channels.dedup();
    let waited = wait::until(&channels, deadline, || Some(look()).filter(|&found| found > 0));
    match waited {
        Ok(found) => Ok(found),
        Err(NotYet::TimedOut) => Ok(0),
        Err(NotYet::Interrupted) if deadline.is_none() => Err(Failure::RestartUnlessHandled),
        // Begun anew it would wait for all of the time once more.
        Err(NotYet::Interrupted) => Err(Errno::EINTR.into()),
    }
}

/// `struct pollfd`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct PollEntry {
    descriptor: i32,
    wanted: u16,
    happened: u16,
}

fn poll(address: u64, count: u64, deadline: Option<u64>) -> Outcome {
    const SIZE: u64 = size_of::<PollEntry>() as u64;
    let process = scheduler::current().process.clone();
    if count > process.limits.lock().0[resource::FILES].0 {
        return Err(Errno::EINVAL.into());
    }
    let mut entries = Vec::with_capacity(count as usize);
    for index in 0..count {
        entries.push(user::read::<PollEntry>(GuestVirt(address + SIZE * index))?);
    }
    let watched: Vec<Watched> = {
        let files = process.files();
        let files = files.lock();
        let watch = |entry: &PollEntry| Watched {
            file: files.get_open(entry.descriptor).ok().cloned(),
            wanted: entry.wanted,
        };
        entries.iter().map(watch).collect()
    };
    let look = || {
        let mut found = 0;
        for (entry, watched) in entries.iter_mut().zip(&watched) {
            entry.happened = match watched.file {
                None if entry.descriptor >= 0 => POLL_INVALID,
                _ => watched.happened(),
            };
            found += u64::from(entry.happened != 0);
        }
        found
    };
    let found = wait_for(&watched, deadline, look)?;
    for (index, entry) in (0..).zip(&entries) {
        const HAPPENED: u64 = core::mem::offset_of!(PollEntry, happened) as u64;
        user::write(GuestVirt(address + SIZE * index + HAPPENED), &entry.happened)?;
    }
    Ok(found)
}

/// Descriptors that `select` can name.
const MOST: usize = 1024;
const WORDS: usize = MOST / 64;

/// What makes a descriptor appear in the sets for reading, writing, exceptions.
const SELECT_EVENTS: [u16; 3] = [
    POLL_IN | POLL_READ_NORMAL | POLL_HANG_UP | POLL_ERROR,
    POLL_OUT | POLL_WRITE_NORMAL | POLL_ERROR,
    0,
];

fn select(a: &Arguments, deadline: Option<u64>) -> Outcome {
    let count = usize::try_from(super::int(a[0])).map_err(|_| Errno::EINVAL)?.min(MOST);
    let words = count.div_ceil(64);
    let mut sets = [[0_u64; WORDS]; 3];
    for (set, &address) in sets.iter_mut().zip(&a[1..4]) {
        if address != 0 {
            user::read_bytes(GuestVirt(address), set[..words].as_mut_bytes())?;
        }
    }
    let mut watched = Vec::new();
    let mut places = Vec::new();
    {
        let files = scheduler::current().process.files();
        let files = files.lock();
        for descriptor in 0..count {
            let is_in = |set: &[u64; WORDS]| set[descriptor / 64] >> (descriptor % 64) & 1 != 0;
            let asked = [is_in(&sets[0]), is_in(&sets[1]), is_in(&sets[2])];
            if asked.contains(&true) {
                let file = files.get_open(descriptor as i32)?.clone();
                watched.push(Watched { file: Some(file), wanted: POLL_IN | POLL_OUT });
                places.push((descriptor, asked));
            }
        }
    }
    let mut results = [[0_u64; WORDS]; 3];
    let look = || {
        results = [[0; WORDS]; 3];
        let mut found = 0;
        for (watched, &(descriptor, asked)) in watched.iter().zip(&places) {
            let events = watched.file.as_deref().map_or(0, events_of);
            for (which, bits) in SELECT_EVENTS.into_iter().enumerate() {
                if asked[which] && events & bits != 0 {
                    results[which][descriptor / 64] |= 1 << (descriptor % 64);
                    found += 1;
                }
            }
        }
        found
    };
    let found = wait_for(&watched, deadline, look)?;
    for (set, &address) in results.iter().zip(&a[1..4]) {
        if address != 0 {
            user::write_bytes(GuestVirt(address), set[..words].as_bytes())?;
        }
    }
    Ok(found)
}
