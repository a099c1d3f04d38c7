//! The guest for a remote debugger: GDB's protocol.
//!
//! A thread of its own serves one debugger at a time, on a Unix socket or a
//! loopback port ([`crate::debug::listener`]; the protocol knows no token, so a
//! loopback port is open to every user of the machine). Processes are threads,
//! by their numbers: the one that runs has the processor's registers, the others
//! have their memory and the registers of their programs, as the kernel saved them. A debugger that connects stops the guest;
//! when it leaves, its breakpoints go and the guest goes on.
//!
//! * [`target`]: what the debugger may do
//! * [`registers`]: the processor's registers in the debugger's order

pub mod registers;
pub mod target;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{GdbStub, MultiThreadStopReason};
use gdbstub::target::Target;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use vmm_sys_util::eventfd::EventFd;

use super::address::DebugAddress;
use super::listener::{Listener, Stream};
use super::{PortError, server};
use crate::vstate::control::{Activity, ControlError, Resume};
use target::Guest;

/// How often the guest and the connection are looked at while the guest runs.
const TICK: Duration = Duration::from_millis(2);

/// Any of the two kinds of connection.
type Wire = Box<dyn ConnectionExt<Error = io::Error>>;

/// A debugger's port that listens but answers nobody yet.
pub struct PreparedGdb {
    listener: Listener,
    guest: Guest,
    stop: EventFd,
}

/// The connection that there is, for whoever has to end it.
type Current = Arc<Mutex<Option<Stream>>>;

impl PreparedGdb {
    /// Listens at `address`.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    pub(crate) fn new(
        address: &DebugAddress,
        guest: Guest,
        announce: fn(std::fmt::Arguments<'_>),
    ) -> Result<Self, PortError> {
        let listener = Listener::new(address)?;
        match address {
            DebugAddress::Loopback(_) => announce(format_args!(
                "for gdb: target remote {} (open to every user of this machine)",
                listener.address()
            )),
            DebugAddress::Unix(_) => log::info!("for gdb: target remote {}", listener.address()),
        }
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self { listener, guest, stop })
    }

    /// Starts the thread, once signals are blocked.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(self) -> io::Result<GdbPort> {
        let stop = self.stop.try_clone()?;
        let current = Current::default();
        let seen = Arc::clone(&current);
        let thread =
            thread::Builder::new().name("gdb".to_owned()).spawn(move || self.run(&seen))?;
        Ok(GdbPort { stop, current, thread: Some(thread) })
    }

    fn run(mut self, current: &Current) {
        while let Some(stream) = self.next_client() {
            if let Err(error) = self.serve(stream, current) {
                log::info!("a debugger: {error}");
            }
            *current.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.guest.leave();
        }
    }

    /// Waits for a debugger; none comes any more once the lab ends.
    fn next_client(&self) -> Option<Stream> {
        loop {
            let stop = server::borrow(&self.stop);
            let mut ready = [
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
                PollFd::new(&self.listener, PollFlags::IN),
            ];
            match poll(&mut ready, None::<&Timespec>) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            if !ready[0].revents().is_empty() {
                return None;
            }
            match self.listener.accept() {
                Ok(stream) => return Some(stream),
                Err(error) => log::debug!("no debugger: {error}"),
            }
        }
    }

    fn serve(&mut self, stream: Stream, current: &Current) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone()?);
        // The lab may have ended just before that.
        if self.guest.control().activity() == Activity::Ended || !self.guest.stop_for_debugger() {
            return Ok(());
        }
        let wire: Wire = match stream {
            Stream::Unix(stream) => Box::new(stream),
            Stream::Tcp(stream) => Box::new(stream),
        };
        match GdbStub::new(wire).run_blocking::<Loop>(&mut self.guest) {
            Ok(reason) => log::info!("the debugger has left: {reason:?}"),
            Err(error) => log::info!("the debugger's connection has ended: {error}"),
        }
        Ok(())
    }
}

/// A debugger's port. Closed when it is dropped.
#[derive(Debug)]
pub struct GdbPort {
    stop: EventFd,
    current: Current,
    thread: Option<JoinHandle<()>>,
}

impl Drop for GdbPort {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            log::error!("cannot close the debugger's port: {error}");
            return;
        }
        if let Some(stream) = &*self.current.lock().unwrap_or_else(PoisonError::into_inner)
            && let Err(error) = rustix::net::shutdown(stream, Shutdown::Both)
        {
            log::debug!("the debugger's connection: {error}");
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the debugger's thread panicked");
        }
    }
}

/// What happens while the guest runs.
enum Loop {}

impl BlockingEventLoop for Loop {
    type Target = Guest;
    type Connection = Wire;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        guest: &mut Guest,
        wire: &mut Wire,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<ControlError, io::Error>> {
        loop {
            if let Some(reason) = guest.stop_reason() {
                return Ok(Event::TargetStopped(reason));
            }
            if wire.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                let byte = wire.read().map_err(WaitForStopReasonError::Connection)?;
                return Ok(Event::IncomingData(byte));
            }
            thread::sleep(TICK);
        }
    }

    fn on_interrupt(
        guest: &mut Guest,
    ) -> Result<Option<Self::StopReason>, <Guest as Target>::Error> {
        if !guest.stop_for_debugger() {
            return Ok(Some(MultiThreadStopReason::Exited(0)));
        }
        let tid = guest.current();
        Ok(Some(MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGINT }))
    }
}

/// How a resumed guest goes on.
pub(crate) const fn how_to_step(in_program: bool) -> Resume {
    // A step of a program goes over what the kernel does in between: an
    // interrupt, a page fault, a system call.
    const LONGEST: u64 = 5_000_000;
    Resume::Step { count: if in_program { LONGEST } else { 1 }, until_user: in_program }
}
