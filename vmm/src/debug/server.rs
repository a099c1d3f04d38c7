//! The port's thread: accepts clients and gives each its turn.
//!
//! Everything a client asks is answered here, in small pieces, so that the guest
//! and the lab's event loop have nothing to do with it. A client that is slow or
//! hostile costs its own buffers and its turn, no more.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use vmm_sys_util::eventfd::EventFd;

use super::connection::{Connection, Turn, turn_away};
use super::lab::Lab;
use super::listener::Listener;
use super::protocol::CommandError;
use crate::machine::observer::Recording;

/// Most clients at once.
pub const MOST_CLIENTS: usize = 256;
/// How long somebody may take to say the token.
const IDENTIFY_WITHIN: Duration = Duration::from_secs(10);
/// How often things are looked at that announce themselves to nobody: the event
/// ring, a pause that takes long.
const TICK: Duration = Duration::from_millis(20);
/// How many clients are accepted before others have their turn.
const ACCEPT: usize = 64;

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const ANNOUNCEMENTS: u64 = 2;
const FIRST_CLIENT: u64 = 16;

/// See the module's documentation.
pub struct Server {
    epoll: OwnedFd,
    listener: Listener,
    stop: EventFd,
    lab: Lab,
    clients: BTreeMap<u64, Connection>,
    next: u64,
    /// Whether no client is accepted until the next tick: no descriptor is left.
    exhausted: bool,
}

impl Server {
    /// A server that ends when `stop` is written.
    ///
    /// # Errors
    ///
    /// If the host has no descriptor left.
    pub fn new(listener: Listener, stop: EventFd, lab: Lab) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let add = |fd: std::os::fd::BorrowedFd<'_>, number| {
            epoll::add(&epoll, fd, EventData::new_u64(number), EventFlags::IN)
        };
        add(listener.as_fd(), LISTENER)?;
        add(borrow(&stop), STOP)?;
        add(borrow(lab.control.announcements()), ANNOUNCEMENTS)?;
        let clients = BTreeMap::new();
        Ok(Self { epoll, listener, stop, lab, clients, next: FIRST_CLIENT, exhausted: false })
    }

    /// Serves until it is stopped.
    pub fn run(mut self) {
        let mut turn = Turn::default();
        loop {
            match self.wait(turn) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    log::error!("the debug port cannot wait for clients: {error}");
                    break;
                }
            }
            turn = self.serve();
        }
        // Those who wait for the guest learn that it has ended.
        self.serve();
    }

    /// Waits until there is something to do; `false` if it is the end.
    fn wait(&mut self, turn: Turn) -> io::Result<bool> {
        let timeout = self.timeout(turn);
        let mut events = Vec::with_capacity(64);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if std::mem::take(&mut self.exhausted) {
            self.watch_listener(EventFlags::IN);
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => self.accept(),
                STOP => {
                    // Whether it can be read or not: it was written.
                    let _ = self.stop.read();
                    return Ok(false);
                }
                ANNOUNCEMENTS => {
                    let _ = self.lab.control.announcements().read();
                }
                number => self.client_ready(number, event.flags),
            }
        }
        Ok(true)
    }

    fn timeout(&self, turn: Turn) -> Option<Timespec> {
        let after =
            |duration: Duration| Timespec { tv_sec: 0, tv_nsec: duration.subsec_nanos().into() };
        if turn.busy {
            return Some(after(Duration::ZERO));
        }
        let recording = self.lab.events.recording() != Recording::Off;
        let unknown = self.clients.values().any(Connection::is_unknown);
        (recording || turn.waiting || unknown || self.exhausted).then(|| after(TICK))
    }

    fn client_ready(&mut self, number: u64, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if flags.contains(EventFlags::IN) {
            client.read();
        }
        if flags.contains(EventFlags::OUT) {
            client.write();
        }
        // Both directions are closed: nobody reads an answer.
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            client.break_off();
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPT {
            match self.listener.accept() {
                Ok(stream) => {
                    if self.clients.len() >= MOST_CLIENTS && !self.drop_a_silent_one() {
                        if let Err(error) = turn_away(stream) {
                            log::debug!("a client too many: {error}");
                        }
                        continue;
                    }
                    self.add(Connection::new(stream, self.listener.token().is_some()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    log::debug!("no client can be accepted now: {error}");
                    self.drop_a_silent_one();
                    self.exhausted = true;
                    self.watch_listener(EventFlags::empty());
                    return;
                }
            }
        }
    }

    fn watch_listener(&self, flags: EventFlags) {
        let data = EventData::new_u64(LISTENER);
        if let Err(error) = epoll::modify(&self.epoll, &self.listener, data, flags) {
            log::warn!("the debug port's listener: {error}");
        }
    }

    fn add(&mut self, mut client: Connection) {
        let number = self.next;
        self.next += 1;
        client.interest = EventFlags::IN;
        let data = EventData::new_u64(number);
        match epoll::add(&self.epoll, client.stream(), data, client.interest) {
            Ok(()) => {
                self.clients.insert(number, client);
                self.lab.clients = (self.clients.len(), self.lab.clients.1 + 1);
            }
            Err(error) => log::debug!("a client cannot be watched: {error}"),
        }
    }

    /// Makes room: the oldest of those who never asked anything has to go.
    fn drop_a_silent_one(&mut self) -> bool {
        let silent = self.clients.iter().find(|(_, client)| !client.asked);
        let Some(number) = silent.map(|(&number, _)| number) else { return false };
        self.remove(number);
        true
    }

    fn remove(&mut self, number: u64) {
        if let Some(mut client) = self.clients.remove(&number) {
            client.end_watch(&mut self.lab);
            if let Err(error) = epoll::delete(&self.epoll, client.stream()) {
                log::debug!("a client that is gone: {error}");
            }
            self.lab.clients.0 = self.clients.len();
        }
    }

    /// Gives every client its turn.
    fn serve(&mut self) -> Turn {
        if self.lab.events.recording() != Recording::Off {
            self.lab.events.drain_running();
        }
        // What was waited for in a fault may have been met meanwhile.
        self.lab.update_recording();
        let mut all = Turn::default();
        let mut over = Vec::new();
        let now = Instant::now();
        for (&number, client) in &mut self.clients {
            let turn = client.take_turn(&mut self.lab, self.listener.token());
            client.write();
            all.busy |= turn.busy;
            all.waiting |= turn.waiting;
            if client.is_unknown() && now.duration_since(client.since) > IDENTIFY_WITHIN {
                client.refuse(&CommandError::failed("the token was not said in time"));
                client.write();
            }
            let wanted = client.wanted();
            if client.is_over() {
                over.push(number);
            } else if wanted != client.interest {
                client.interest = wanted;
                let data = EventData::new_u64(number);
                if let Err(error) = epoll::modify(&self.epoll, client.stream(), data, wanted) {
                    log::debug!("a client cannot be watched: {error}");
                    over.push(number);
                }
            }
        }
        for number in over {
            self.remove(number);
        }
        all
    }
}

/// The descriptor of an event.
#[allow(unsafe_code, reason = "vmm-sys-util's EventFd only gives its number")]
pub(super) fn borrow(event: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    use std::os::fd::AsRawFd;
    // SAFETY: open as long as `event` lives, and so as the result does.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
