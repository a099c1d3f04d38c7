//! `epoll`: a set of files that is waited for.
//!
//! An instance looks at its files when it is asked. So that it need not be asked
//! in vain, [`wait`] tells it when one of them changes: it watches their channels
//! and passes what it hears on to those who wait for the instance itself, which
//! may be another instance.
//!
//! Instances that wait exclusively are woken one at a time, those that wait for
//! different events apart: whoever is woken can use what it is woken for.
//!
//! Edge-triggered files are reported once for each time that their channel was
//! woken for what they are watched for: [`wait::generation`] counts that.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use pagelab_hal::sync::Lock;
use pagelab_vfs::file::File;
use pagelab_vfs::{Errno, OpenFile, Readiness, Result, Sink, Source, WaitChannel};

use super::wait::{self, Watcher};

/// `EPOLLERR` and `EPOLLHUP`, which are always waited for.
const ALWAYS: u32 = 0x018;
/// `EPOLLET`: only changes are reported.
const EDGE_TRIGGERED: u32 = 1 << 31;
/// `EPOLLONESHOT`: reported once, until it is changed.
const ONE_SHOT: u32 = 1 << 30;
/// `EPOLLEXCLUSIVE`: of all instances that wait for the same, one is woken.
const EXCLUSIVE: u32 = 1 << 28;
/// What may go with that: `EPOLLIN`, `EPOLLOUT`, `EPOLLERR`, `EPOLLHUP`,
/// `EPOLLWAKEUP`, `EPOLLET`.
const WITH_EXCLUSIVE: u32 = 0x001 | 0x004 | ALWAYS | 1 << 29 | EDGE_TRIGGERED | EXCLUSIVE;
/// Bits that say how to wait rather than for what.
const HOW: u32 = 0xf << 28;
/// Instances may watch each other so deep.
const DEEPEST: u32 = 4;

/// What a program says of a file: what for, and what it wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `EPOLL*`.
    pub events: u32,
    /// Anything.
    pub data: u64,
}

struct Interest {
    descriptor: i32,
    /// Gone with the last descriptor of the file.
    file: Weak<OpenFile>,
    channel: WaitChannel,
    event: Event,
    /// How often its channel had been woken for it when it was reported.
    reported: Option<u64>,
}

/// An instance.
pub struct Epoll {
    channel: WaitChannel,
    interests: Lock<Vec<Interest>>,
}

impl Epoll {
    /// One without files.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { channel: WaitChannel::unique(), interests: Lock::new(Vec::new()) })
    }

    /// The instance that a file is.
    ///
    /// # Errors
    ///
    /// EINVAL if it is none.
    pub fn of(file: &OpenFile) -> Result<&Self> {
        file.behaviour::<Self>().ok_or(Errno::EINVAL)
    }

    /// Adds a file.
    ///
    /// # Errors
    ///
    /// EEXIST, EPERM if the file is always ready, ELOOP, EINVAL for what does not
    /// go with waiting exclusively.
    pub fn add(&self, descriptor: i32, file: &Arc<OpenFile>, event: Event) -> Result<()> {
        let channel = file.wait_channel().ok_or(Errno::EPERM)?;
        let exclusive = event.events & EXCLUSIVE != 0;
        if exclusive && (event.events & !WITH_EXCLUSIVE != 0 || Self::of(file).is_ok()) {
            return Err(Errno::EINVAL);
        }
        if let Ok(inner) = Self::of(file)
            && (inner.channel == self.channel || inner.watches(self.channel, DEEPEST))
        {
            return Err(Errno::ELOOP);
        }
        if self.change(descriptor, file, |_| ()).is_ok() {
            return Err(Errno::EEXIST);
        }
        let file = Arc::downgrade(file);
        let interest = Interest { descriptor, file, channel, event, reported: None };
        wait::watch(channel, self.watcher(&interest));
        self.interests.lock().push(interest);
        wait::wake(self.channel, Readiness::READ);
        Ok(())
    }

    /// How a file's channel is watched.
    fn watcher(&self, interest: &Interest) -> Watcher {
        let events = interest.event.events;
        let one_for = (events & EXCLUSIVE != 0).then(|| readiness(events));
        Watcher { channel: self.channel, one_for }
    }

    /// Changes what a file is waited for.
    ///
    /// # Errors
    ///
    /// ENOENT, EINVAL if it is or was to be waited for exclusively.
    pub fn modify(&self, descriptor: i32, file: &Arc<OpenFile>, event: Event) -> Result<()> {
        if event.events & EXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        self.change(descriptor, file, |interest| {
            if interest.event.events & EXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            interest.event = event;
            interest.reported = None;
            Ok(())
        })??;
        wait::wake(self.channel, Readiness::READ);
        Ok(())
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// ENOENT.
    pub fn remove(&self, descriptor: i32, file: &Arc<OpenFile>) -> Result<()> {
        let (channel, watcher) = self.change(descriptor, file, |interest| {
            interest.file = Weak::new();
            (interest.channel, self.watcher(interest))
        })?;
        self.interests
            .lock()
            .retain(|interest| interest.channel != channel || interest.file.strong_count() > 0);
        wait::unwatch(channel, watcher);
        Ok(())
    }

    fn change<T>(
        &self,
        descriptor: i32,
        file: &Arc<OpenFile>,
        change: impl FnOnce(&mut Interest) -> T,
    ) -> Result<T> {
        let mut interests = self.interests.lock();
        let same = |interest: &&mut Interest| {
            interest.descriptor == descriptor && interest.file.as_ptr() == Arc::as_ptr(file)
        };
        interests.iter_mut().find(same).map(change).ok_or(Errno::ENOENT)
    }

    /// Whether a channel is that of one of its files, or below one of them.
    fn watches(&self, channel: WaitChannel, depth: u32) -> bool {
        if depth == 0 {
            return true;
        }
        let files: Vec<_> =
            self.interests.lock().iter().filter_map(|interest| interest.file.upgrade()).collect();
        files.iter().any(|file| {
            Self::of(file).is_ok_and(|it| it.channel == channel || it.watches(channel, depth - 1))
        })
    }

    /// Up to `most` files that are ready, and what for. They are reported, and
    /// move to the end, so that others have their turn.
    pub fn take_ready(&self, most: usize) -> Vec<Event> {
        let mut found = Vec::new();
        // A file's readiness may be asked of another instance, and its last
        // reference may go: no lock is held.
        let mut interests = core::mem::take(&mut *self.interests.lock());
        let mut reported = Vec::new();
        interests.retain_mut(|interest| {
            let Some(file) = interest.file.upgrade() else {
                wait::unwatch(interest.channel, self.watcher(interest));
                return false;
            };
            let wanted = interest.event.events;
            if found.len() == most || wanted & !HOW == 0 {
                return true;
            }
            let generation = wait::generation(interest.channel, readiness(wanted));
            let edge = wanted & EDGE_TRIGGERED != 0;
            let events = events_of(&file) & (wanted | ALWAYS);
            if events == 0 || edge && interest.reported == Some(generation) {
                return true;
            }
            found.push(Event { events, data: interest.event.data });
            interest.reported = Some(generation);
            if wanted & ONE_SHOT != 0 {
                interest.event.events &= HOW;
            }
            reported.push(interest.descriptor);
            true
        });
        let (mut later, mut first): (Vec<_>, Vec<_>) =
            interests.into_iter().partition(|interest| reported.contains(&interest.descriptor));
        first.append(&mut later);
        *self.interests.lock() = first;
        found
    }

    /// Whether any file is ready.
    fn has_ready(&self) -> bool {
        let interests: Vec<_> = {
            let interests = self.interests.lock();
            let look =
                |it: &Interest| Some((it.file.upgrade()?, it.event, it.reported, it.channel));
            interests.iter().filter_map(look).collect()
        };
        interests.iter().any(|(file, event, reported, channel)| {
            let wanted = event.events;
            let news = wanted & EDGE_TRIGGERED == 0
                || *reported != Some(wait::generation(*channel, readiness(wanted)));
            wanted & !HOW != 0 && events_of(file) & (wanted | ALWAYS) != 0 && news
        })
    }
}

/// `EPOLLRDNORM`: the same as `EPOLLIN`.
const READ_NORMAL: u32 = 0x040;
/// `EPOLLWRNORM`: the same as `EPOLLOUT`.
const WRITE_NORMAL: u32 = 0x100;

/// What has to come so that there are such events.
fn readiness(events: u32) -> Readiness {
    let mut ready = Readiness::from_bits_truncate((events | ALWAYS) as u16);
    ready.set(Readiness::READ, events & (0x001 | READ_NORMAL) != 0);
    ready.set(Readiness::WRITE, events & (0x004 | WRITE_NORMAL) != 0);
    ready
}

/// What a file is ready for, as `epoll` has it.
fn events_of(file: &OpenFile) -> u32 {
    let ready = file.poll();
    let mut events = u32::from(ready.bits());
    if ready.contains(Readiness::READ) {
        events |= READ_NORMAL;
    }
    if ready.contains(Readiness::WRITE) {
        events |= WRITE_NORMAL;
    }
    events
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for interest in self.interests.lock().iter() {
            wait::unwatch(interest.channel, self.watcher(interest));
        }
    }
}

impl File for Epoll {
    fn read(&self, _offset: u64, _sink: &mut dyn Sink) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn poll(&self) -> Readiness {
        if self.has_ready() { Readiness::READ } else { Readiness::empty() }
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.channel)
    }
}
