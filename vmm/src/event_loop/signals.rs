//! Signals as events: blocked in every thread and read from a descriptor, so
//! that no code ever runs at an arbitrary moment.

#![allow(unsafe_code, reason = "no crate wraps signalfd(2) and asking for a disposition")]

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::signal::{block_signal, create_sigset, unblock_signal};

use super::{Cause, LoopError, Verdict, descriptor, terminal, watch};
use crate::devices::shared::SharedPages;

/// The signals that end a lab.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Bytes of one record that the descriptor gives.
const RECORD: usize = size_of::<libc::signalfd_siginfo>();

/// Signals that wait until somebody reads them, or until this is dropped.
pub(crate) struct BlockedSignals {
    wanted: Vec<i32>,
    /// Those that were not blocked before.
    blocked: Vec<i32>,
}

impl BlockedSignals {
    /// Blocks them. A signal that this process was started to ignore, as by
    /// nohup(1), stays ignored.
    pub(crate) fn new() -> Self {
        let mut wanted = vec![libc::SIGWINCH];
        wanted.extend(ENDING.into_iter().filter(|&number| !is_ignored(number)));
        let mut blocked = Vec::new();
        for &number in &wanted {
            // It fails where the signal was blocked before: then it stays so.
            if block_signal(number).is_ok() {
                blocked.push(number);
            }
        }
        Self { wanted, blocked }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        for &number in &self.blocked {
            if let Err(error) = unblock_signal(number) {
                log::debug!("cannot unblock signal {number}: {error:?}");
            }
        }
    }
}

/// Reads signals; unblocks them again when dropped.
pub(super) struct Signals {
    file: File,
    verdict: Verdict,
    shared: Arc<SharedPages>,
    _blocked: BlockedSignals,
}

impl Signals {
    /// Opens the descriptor. What came since the signals were blocked is read
    /// from it, too.
    pub(super) fn new(
        blocked: BlockedSignals,
        verdict: Verdict,
        shared: Arc<SharedPages>,
    ) -> Result<Self, LoopError> {
        let file = open(&blocked.wanted).map_err(descriptor("watch for signals"))?;
        Ok(Self { file, verdict, shared, _blocked: blocked })
    }
}

fn open(numbers: &[i32]) -> io::Result<File> {
    let set = create_sigset(numbers).map_err(io::Error::from)?;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: `set` is an initialised signal set that lives through the call.
    let descriptor = unsafe { libc::signalfd(-1, &raw const set, flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    Ok(File::from(owned))
}

fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action the call only writes the present one to
    // `action`, which has room for it.
    let result = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) };
    if result != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it filled `action`.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

impl MutEventSubscriber for Signals {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let mut record = [0; RECORD];
        while let Ok(RECORD) = self.file.read(&mut record) {
            // The record begins with the signal's number.
            let [a, b, c, d, ..] = record;
            match i32::from_ne_bytes([a, b, c, d]) {
                libc::SIGWINCH => terminal::publish_size(&self.shared),
                number => self.verdict.set(Cause::Signal(number)),
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch::add(ops, Events::new(&self.file, EventSet::IN), &self.verdict);
    }
}
