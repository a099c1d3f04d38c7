//! `signalfd`: blocked signals that are read. Whoever reads takes what is pending
//! for its own process and thread, whoever made the file.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_hal::sync::Lock;
use pagelab_vfs::file::File;
use pagelab_vfs::{Errno, OpenFile, Readiness, Result, Sink, Source, WaitChannel};

use super::wait;
use crate::signal::actions::UNBLOCKABLE;
use crate::signal::{self, SIGNAL_FILE_RECORD, SignalSet};

/// Signals that are read.
pub struct SignalFile {
    channel: WaitChannel,
}

/// All such files, and which signals are read from them.
static FILES: Lock<Vec<(WaitChannel, SignalSet)>> = Lock::new(Vec::new());

/// A signal has come to be pending: those who wait for it look.
pub fn signal_arrived(signal: u8) {
    let channels: Vec<_> = {
        let files = FILES.lock();
        files.iter().filter(|(_, set)| set.contains(signal)).map(|&(channel, _)| channel).collect()
    };
    for channel in channels {
        wait::wake(channel, Readiness::READ);
    }
}

impl SignalFile {
    /// One from which these signals are read.
    ///
    /// # Errors
    ///
    /// ENOMEM.
    pub fn new(signals: SignalSet) -> Result<Arc<Self>> {
        let mut files = FILES.lock();
        files.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let channel = WaitChannel::unique();
        files.push((channel, signals.without(UNBLOCKABLE)));
        Ok(Arc::new(Self { channel }))
    }

    /// Has others read from a file from now on.
    ///
    /// # Errors
    ///
    /// EINVAL if the file is none of these.
    pub fn change(file: &OpenFile, signals: SignalSet) -> Result<()> {
        let own = file.behaviour::<Self>().ok_or(Errno::EINVAL)?.channel;
        if let Some(entry) = FILES.lock().iter_mut().find(|entry| entry.0 == own) {
            entry.1 = signals.without(UNBLOCKABLE);
        }
        wait::wake(own, Readiness::READ);
        Ok(())
    }

    fn signals(&self) -> SignalSet {
        let files = FILES.lock();
        files.iter().find(|entry| entry.0 == self.channel).map_or(SignalSet::default(), |it| it.1)
    }
}

impl Drop for SignalFile {
    fn drop(&mut self) {
        let mut files = FILES.lock();
        files.retain(|&(channel, _)| channel != self.channel);
        if files.is_empty() {
            *files = Vec::new();
        }
    }
}

impl File for SignalFile {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() < SIGNAL_FILE_RECORD {
            return Err(Errno::EINVAL);
        }
        let signals = self.signals();
        let mut length = 0;
        while sink.remaining() >= SIGNAL_FILE_RECORD {
            let Some(info) = signal::take_pending(signals) else { break };
            match sink.put(&info.to_signal_file()) {
                SIGNAL_FILE_RECORD => length += SIGNAL_FILE_RECORD,
                _ if length > 0 => break,
                _ => return Err(Errno::EFAULT),
            }
        }
        if length == 0 { Err(Errno::EAGAIN) } else { Ok(length) }
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn poll(&self) -> Readiness {
        if signal::is_pending(self.signals()) { Readiness::READ } else { Readiness::empty() }
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.channel)
    }
}
