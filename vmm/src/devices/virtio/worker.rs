//! The thread that serves the queues of all virtio devices.
//!
//! It has an event loop of its own (see the module above for why). Stopping it
//! never takes longer than a moment for whoever asks: a request that is on its
//! way, on a disk that does not answer, is left behind with its thread.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::block_signal;

use super::Backend;
use super::link::{Command, Link};
use super::queue::{Placement, QueueError, ServedQueue};
use crate::memory::GuestRam;

/// The half of a device that serves requests.
pub struct Served {
    ram: Arc<GuestRam>,
    link: Arc<Link>,
    backend: Box<dyn Backend>,
    queue_sizes: &'static [u16],
    queues: Vec<Option<ServedQueue>>,
}

impl Served {
    /// A device after a reset.
    #[must_use]
    pub fn new(ram: Arc<GuestRam>, link: Arc<Link>, backend: Box<dyn Backend>) -> Self {
        let queue_sizes = backend.profile().queue_sizes;
        Self { ram, link, backend, queue_sizes, queues: Vec::new() }
    }

    /// Does what the driver asked for through the registers.
    pub(super) fn obey(&mut self) {
        match self.link.take_command() {
            None => {}
            Some(Command::Reset) => {
                self.queues.clear();
                self.backend.reset();
                self.link.reset_done();
            }
            Some(Command::Start(placements)) => match self.place(&placements) {
                Ok(queues) => {
                    self.queues = queues;
                    self.serve();
                }
                Err(error) => self.give_up(&error),
            },
        }
    }

    fn place(&self, wanted: &[Option<Placement>]) -> Result<Vec<Option<ServedQueue>>, QueueError> {
        let queue = |(placement, &max): (&Option<Placement>, &u16)| {
            placement.as_ref().map(|at| ServedQueue::new(&self.ram, max, at)).transpose()
        };
        wanted.iter().zip(self.queue_sizes).map(queue).collect()
    }

    fn give_up(&mut self, error: &QueueError) {
        log::warn!("a virtio device stops until the guest resets it: {error}");
        self.queues.clear();
        self.link.needs_reset();
    }

    /// Serves what is in the queues, but no more than fits into each at a time,
    /// so that a driver that never stops does not keep commands from being seen.
    pub(super) fn serve(&mut self) {
        let mut queues = std::mem::take(&mut self.queues);
        let result = self.serve_all(&mut queues);
        self.queues = queues;
        if let Err(error) = result {
            self.give_up(&error);
        }
    }

    fn serve_all(&mut self, queues: &mut [Option<ServedQueue>]) -> Result<(), QueueError> {
        for (index, queue) in queues.iter_mut().enumerate() {
            let Some(queue) = queue else { continue };
            let mut budget = queue.size();
            let mut served = false;
            let result = loop {
                if budget == 0 {
                    self.link.notified();
                    break Ok(());
                }
                budget -= 1;
                let (head, chain) = match queue.take(&self.ram) {
                    Ok(Some(taken)) => taken.split(),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                let written = self.backend.serve(index, chain);
                if let Err(error) = queue.give_back(&self.ram, head, written) {
                    break Err(error);
                }
                served = true;
            };
            if served && queue.wants_interrupt(&self.ram) {
                self.link.buffers_used();
            }
            result?;
        }
        Ok(())
    }
}

impl MutEventSubscriber for Served {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let link = Arc::clone(&self.link);
        let event = [link.command_given(), link.notify()]
            .into_iter()
            .find(|event| events.fd() == std::os::fd::AsRawFd::as_raw_fd(*event));
        let Some(event) = event else { return };
        if let Err(error) = event.read() {
            // Nothing to read: the wake-up was for what has been seen already.
            log::trace!("an event of a virtio device: {error}");
        }
        // A command first: it may be what a notification was for.
        self.obey();
        if self.link.status() & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.serve();
        }
        let _ = ops;
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for event in [self.link.command_given(), self.link.notify()] {
            if let Err(error) = ops.add(Events::new(event, EventSet::IN)) {
                log::error!("a virtio device cannot be watched: {error}");
            }
        }
    }
}

/// Ends the worker's loop.
struct Stop {
    event: EventFd,
}

impl MutEventSubscriber for Stop {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {}

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.event, EventSet::IN)) {
            log::error!("the end of the virtio devices cannot be watched: {error}");
        }
    }
}

/// The worker's thread.
#[derive(Debug)]
pub struct Worker {
    stop: EventFd,
    ended: Receiver<()>,
}

impl Worker {
    /// Starts serving `devices`.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(devices: Vec<Served>) -> io::Result<Self> {
        /// Paths and requests lie on the heap.
        const STACK: usize = 256 << 10;
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let asked = stop.try_clone()?;
        let (announce, ended) = mpsc::channel();
        thread::Builder::new().name("virtio".to_owned()).stack_size(STACK).spawn(move || {
            if let Err(error) = run(devices, asked) {
                log::error!("virtio devices are no longer served: {error}");
            }
            // Whoever waits may be gone.
            let _ = announce.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Makes the thread end after the request it is at. One that takes too long
    /// is left behind: the host's kernel ends it with the process.
    pub fn stop(self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        if let Err(error) = self.stop.write(1) {
            log::debug!("cannot stop the virtio devices: {error}");
        }
        if self.ended.recv_timeout(PATIENCE).is_err() {
            log::warn!("a request to a virtio device is still on its way; it is left behind");
        }
    }
}

fn run(devices: Vec<Served>, stop: EventFd) -> Result<(), event_manager::Error> {
    // A limit on the size of files is an error for the guest, not the end.
    if let Err(error) = block_signal(libc::SIGXFSZ) {
        log::debug!("cannot block a signal: {error}");
    }
    let asked = stop.try_clone().map_err(|_| event_manager::Error::InvalidId)?;
    let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new()?;
    manager.add_subscriber(Box::new(Stop { event: stop }));
    for device in devices {
        manager.add_subscriber(Box::new(device));
    }
    loop {
        match manager.run() {
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
            result => {
                result?;
            }
        }
        // Read only here: nothing else waits for it.
        if asked.read().is_ok() {
            return Ok(());
        }
    }
}
