//! `timerfd`: a timer that is read.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use pagelab_hal::sync::Lock;
use pagelab_hal::time;
use pagelab_vfs::file::File;
use pagelab_vfs::{Errno, OpenFile, Readiness, Result, Sink, Source, WaitChannel};

use super::wait;
use crate::process::scheduler;
use crate::signal::timer::Setting;

/// A timer that is a file.
pub struct TimerFile {
    channel: WaitChannel,
    /// Its program counts from 1970 rather than from the start.
    wall_clock: bool,
    setting: Lock<Setting>,
}

/// When those who wait for a timer are to look: the moment and the timer, and how
/// long after that again.
static MOMENTS: Lock<BTreeMap<(u64, WaitChannel), u64>> = Lock::new(BTreeMap::new());

/// The first moment that somebody is to look at a timer.
pub fn first_moment() -> Option<u64> {
    MOMENTS.lock().keys().next().map(|&(moment, _)| moment)
}

/// Lets those look whose timers have expired by now.
pub fn expire(now: u64) {
    loop {
        let channel = {
            let mut moments = MOMENTS.lock();
            let Some(first) = moments.first_entry().filter(|first| first.key().0 <= now) else {
                return;
            };
            let ((moment, channel), interval) = first.remove_entry();
            if let Some(missed) = (now - moment).checked_div(interval) {
                moments.insert((moment + (missed + 1) * interval, channel), interval);
            }
            channel
        };
        wait::wake(channel, Readiness::READ);
    }
}

impl TimerFile {
    /// One that is not set.
    pub fn new(wall_clock: bool) -> Arc<Self> {
        let setting = Lock::new(Setting::default());
        Arc::new(Self { channel: WaitChannel::unique(), wall_clock, setting })
    }

    /// The timer that a file is.
    ///
    /// # Errors
    ///
    /// EINVAL if it is none.
    pub fn of(file: &OpenFile) -> Result<&Self> {
        file.behaviour::<Self>().ok_or(Errno::EINVAL)
    }

    /// Whether its program counts from 1970.
    pub const fn is_by_wall_clock(&self) -> bool {
        self.wall_clock
    }

    /// How it is set, as of `now`: when it expires next.
    pub fn setting(&self, now: u64) -> Setting {
        let setting = *self.setting.lock();
        let moment = match setting.moment {
            Some(moment) if moment <= now && setting.interval == 0 => None,
            Some(moment) if moment <= now => {
                Some(moment + ((now - moment) / setting.interval + 1) * setting.interval)
            }
            moment => moment,
        };
        Setting { moment, ..setting }
    }

    /// Sets it; returns how it was.
    pub fn set(&self, setting: Setting) -> Setting {
        let old = self.setting(time::since_start());
        *self.setting.lock() = setting;
        {
            let mut moments = MOMENTS.lock();
            moments.retain(|&(_, channel), _| channel != self.channel);
            if let Some(moment) = setting.moment {
                moments.insert((moment, self.channel), setting.interval);
            }
        }
        scheduler::sleepers_changed();
        old
    }

    /// How often it has expired since it was set or read.
    fn expirations(setting: &Setting, now: u64) -> u64 {
        match setting.moment {
            Some(moment) if moment <= now && setting.interval == 0 => 1,
            Some(moment) if moment <= now => (now - moment) / setting.interval + 1,
            _ => 0,
        }
    }
}

impl Drop for TimerFile {
    fn drop(&mut self) {
        MOMENTS.lock().retain(|&(_, channel), _| channel != self.channel);
    }
}

impl File for TimerFile {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() < size_of::<u64>() {
            return Err(Errno::EINVAL);
        }
        let now = time::since_start();
        let count = Self::expirations(&self.setting.lock(), now);
        if count == 0 {
            return Err(Errno::EAGAIN);
        }
        let next = self.setting(now);
        *self.setting.lock() = next;
        match sink.put(&count.to_le_bytes()) {
            0 => Err(Errno::EFAULT),
            length => Ok(length),
        }
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn poll(&self) -> Readiness {
        let expired = Self::expirations(&self.setting.lock(), time::since_start()) > 0;
        if expired { Readiness::READ } else { Readiness::empty() }
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.channel)
    }
}
