//! The debug port: what a running guest's memory looks like, and stopping it.
//!
//! A thread of its own ([`server`]) serves clients that connect to a Unix socket
//! or, with a token, to a loopback port ([`listener`], [`address`]). A line from
//! a client is a JSON-RPC 2.0 call or a plain command ([`protocol`]). One table
//! ([`commands`]) says which commands there are, what they take ([`arguments`])
//! and who answers them ([`answers`]); answers are written piece by piece
//! ([`job`], [`answer`]; long ones by a thread of their own, [`report`]) within the bounds of each client's buffers
//! ([`connection`]).
//!
//! Most answers come from guest memory and counters while the guest runs, and say
//! so; what needs the processor asks for a pause first ([`crate::vstate::control`]).
//! Events go into one store ([`history`]) from which every client that watches
//! reads at its own pace; a fault of some kind can stop the guest at exactly that
//! fault ([`fault_stops`]). [`gdb`] is the same guest for a remote debugger.
//!
//! | a client may… | and the port… |
//! | --- | --- |
//! | send anything | answers with an error, or ends the connection |
//! | send without a line's end | keeps 16 KiB, then ends the connection |
//! | not read its answers | keeps 32 KiB and a row, computes no more for it |
//! | read events too slowly | tells it how many are gone; the guest never waits for a client |
//! | connect thousands of times | keeps 256, drops those first that never asked anything |
//! | come from another user or machine | is refused by the file's mode, or has no token |

pub mod address;
pub mod answer;
pub mod answers;
pub mod arguments;
pub mod breakpoints;
pub mod client;
pub mod commands;
pub mod connection;
pub mod event_text;
pub mod fault_stops;
pub mod filter;
pub mod gdb;
pub mod history;
pub mod http;
pub mod job;
pub mod lab;
pub mod listener;
pub mod metrics;
pub mod prompt;
pub mod protocol;
pub mod report;
pub mod server;
pub mod target;

use std::fmt;
use std::io;
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::EventFd;

pub use address::DebugAddress;
use lab::Lab;
use listener::{ListenError, Listener};

/// Why there is no debug port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Nothing can listen there.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No descriptor or no thread.
    #[error("cannot open the debug port: {0}")]
    Host(#[from] io::Error),
}

/// What of the debug port is wanted.
#[derive(Clone, Debug, Default)]
pub struct DebugConfig {
    /// Where the port is.
    pub address: Option<DebugAddress>,
    /// Where a debugger finds the guest.
    pub gdb: Option<DebugAddress>,
    /// Whether the guest waits for `resume` before its first instruction.
    pub paused: bool,
}

/// A debug port that listens but answers nobody yet.
pub struct Prepared {
    stop: EventFd,
    server: server::Server,
}

impl Prepared {
    /// Listens at `address`; `announce` is told where that is.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    pub(crate) fn new(
        address: &DebugAddress,
        lab: Lab,
        announce: fn(fmt::Arguments<'_>),
    ) -> Result<Self, PortError> {
        let listener = Listener::new(address)?;
        match listener.token() {
            Some(token) => {
                announce(format_args!("debug port at {}, token {token}", listener.address()));
            }
            None => log::info!("debug port at {}", listener.address()),
        }
        let stop = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let server = server::Server::new(listener, stop.try_clone()?, lab)?;
        Ok(Self { stop, server })
    }

    /// Starts the port's thread. To be called once signals are blocked, so that
    /// the thread gets none.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(self) -> io::Result<Port> {
        let Self { stop, server } = self;
        let thread = thread::Builder::new().name("debug".to_owned()).spawn(move || server.run())?;
        Ok(Port { stop, thread: Some(thread) })
    }
}

/// An open debug port. It is closed, and its socket's file removed, when this is
/// dropped.
#[derive(Debug)]
pub struct Port {
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            log::error!("cannot close the debug port: {error}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the debug port's thread panicked");
        }
    }
}
