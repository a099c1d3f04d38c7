//! Standard input into the guest's input ring.
//!
//! Input is only read while the ring has room, so a program that feeds the lab
//! waits as it would for any slow reader. While the ring is full, standard input
//! is not watched; the guest's doorbell (`OP_INPUT_TAKEN`) starts that again. A
//! guest that takes bytes at the very moment in which the ring is found full may
//! not know that it was, so a timer looks again as well.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use pagelab_abi::lab::INPUT_BYTES;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::{InputMode, LoopError, Verdict, descriptor, watch};
use crate::devices::shared::SharedPages;
use crate::devices::shared::input::InputWriter;

/// How soon a full ring is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What is done about standard input at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: the guest has no room, or no ring yet.
    Paused,
    /// The loop tells when there is something to read.
    Watched,
    /// A file: there is always something to read.
    Direct,
    /// There will be no more.
    Ended,
}

/// Moves standard input to the guest.
pub(super) struct InputPump {
    mode: InputMode,
    source: File,
    shared: Arc<SharedPages>,
    writer: InputWriter,
    state: State,
    wanted: EventFd,
    interrupt: EventFd,
    again: TimerFd,
    verdict: Verdict,
}

/// What one read came to.
enum Moved {
    Some,
    NoRoom,
    NothingYet,
    End,
}

impl InputPump {
    pub(super) fn new(
        mode: InputMode,
        shared: Arc<SharedPages>,
        wanted: EventFd,
        interrupt: EventFd,
        verdict: Verdict,
    ) -> Result<Self, LoopError> {
        let source = io::stdin().as_fd().try_clone_to_owned();
        let source = File::from(source.map_err(descriptor("duplicate standard input"))?);
        let again = TimerFd::new().map_err(|error| descriptor("make a timer")(error.into()))?;
        let writer = InputWriter::default();
        let state = State::Paused;
        Ok(Self { mode, source, shared, writer, state, wanted, interrupt, again, verdict })
    }

    /// The guest may have room: go on where there is something to do.
    fn resume(&mut self, ops: &mut EventOps<'_>) {
        if !self.shared.is_registered() || self.state == State::Ended {
            return;
        }
        if self.mode == InputMode::None {
            self.end(ops);
            return;
        }
        if self.writer.room(&self.shared) == 0 {
            self.pause(ops);
            return;
        }
        if self.state == State::Paused {
            // A regular file cannot be watched, and need not be.
            let watched = ops.add(Events::new(&self.source, EventSet::IN));
            self.state = if watched.is_ok() { State::Watched } else { State::Direct };
        }
        if self.state == State::Direct {
            self.read_directly(ops);
        }
    }

    /// Reads a file until the ring is full or the file over.
    fn read_directly(&mut self, ops: &mut EventOps<'_>) {
        loop {
            match self.move_some() {
                Moved::Some => {}
                Moved::NoRoom | Moved::NothingYet => return self.pause(ops),
                Moved::End => return self.end(ops),
            }
        }
    }

    /// Moves what one read gives.
    fn move_some(&mut self) -> Moved {
        let room = self.writer.room(&self.shared);
        if room == 0 {
            return Moved::NoRoom;
        }
        let mut buffer = [0; INPUT_BYTES];
        let place = &mut buffer[..room.min(INPUT_BYTES)];
        match self.source.read(place) {
            Ok(0) => Moved::End,
            Ok(count) => {
                self.writer.write(&self.shared, &place[..count]);
                self.raise();
                Moved::Some
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Moved::NothingYet,
                _ => {
                    log::debug!("standard input ends: {error}");
                    Moved::End
                }
            },
        }
    }

    fn pause(&mut self, ops: &mut EventOps<'_>) {
        self.unwatch(ops);
        self.state = State::Paused;
        if let Err(error) = self.again.reset(LOOK_AGAIN, None) {
            log::warn!("cannot set a timer: {error}");
        }
    }

    fn end(&mut self, ops: &mut EventOps<'_>) {
        self.unwatch(ops);
        self.state = State::Ended;
        self.writer.end(&self.shared);
        self.raise();
    }

    fn unwatch(&self, ops: &mut EventOps<'_>) {
        if self.state == State::Watched
            && let Err(error) = ops.remove(Events::empty(&self.source))
        {
            log::debug!("cannot stop watching standard input: {error}");
        }
    }

    fn raise(&self) {
        if let Err(error) = self.interrupt.write(1) {
            log::debug!("cannot raise the lab's interrupt: {error}");
        }
    }
}

impl MutEventSubscriber for InputPump {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        use std::os::fd::AsRawFd;
        let ready = events.fd();
        if ready == self.source.as_raw_fd() {
            match self.move_some() {
                Moved::Some | Moved::NothingYet => {}
                Moved::NoRoom => self.pause(ops),
                Moved::End => self.end(ops),
            }
            return;
        }
        if ready == self.again.as_raw_fd() {
            if let Err(error) = self.again.wait() {
                log::debug!("input timer: {error}");
            }
        } else if let Err(error) = self.wanted.read() {
            log::debug!("input doorbell: {error}");
        }
        self.resume(ops);
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch::add(ops, Events::new(&self.wanted, EventSet::IN), &self.verdict);
        watch::add(ops, Events::new(&self.again, EventSet::IN), &self.verdict);
    }
}
