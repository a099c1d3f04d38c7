//! The terminal as a device and a file.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::discipline::{LineDiscipline, TerminalSignal};
use super::ioctl;
use super::termios::WindowSize;
use crate::buffer::{Sink, Source};
use crate::device::Device;
use crate::errno::{Errno, Result};
use crate::file::{File, IoctlArgument};
use crate::platform::{Platform, Readiness, WaitChannel};

/// Bytes taken from a program at once; each step is one call of
/// [`TerminalHost::output`].
const STEP: usize = 2048;

/// What a terminal needs from the kernel.
pub trait TerminalHost: Send + Sync {
    /// Shows bytes.
    fn output(&self, bytes: &[u8]);

    /// Signals every process of a group.
    fn signal_group(&self, group: u32, signal: TerminalSignal);

    /// Session and process group of the process that calls.
    fn caller(&self) -> (u32, u32);

    /// The session of a process group, if there is such a group.
    fn session_of_group(&self, group: u32) -> Option<u32>;

    /// The caller, in the background, reads (or, if `writes`, writes or
    /// changes settings): signals its group with `SIGTTIN` (`SIGTTOU`) and
    /// returns what the call fails with (`EIO` for an orphaned group; `EINTR`
    /// once the signal is on its way), or `None` if it may go on because the
    /// group ignores or blocks `SIGTTOU`.
    fn stop_background(&self, writes: bool) -> Option<Errno>;
}

pub(super) struct State {
    pub(super) discipline: LineDiscipline,
    pub(super) window: WindowSize,
    /// The session whose controlling terminal this is.
    pub(super) session: Option<u32>,
    /// Its group in the foreground.
    pub(super) foreground: u32,
    /// The other side is gone: the end of all input.
    hung_up: bool,
}

/// A terminal.
pub struct Terminal {
    pub(super) host: Arc<dyn TerminalHost>,
    platform: Arc<dyn Platform>,
    channel: WaitChannel,
    pub(super) state: Mutex<State>,
}

impl Terminal {
    /// A terminal with default settings.
    #[must_use]
    pub fn new(host: Arc<dyn TerminalHost>, platform: Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            host,
            platform,
            channel: WaitChannel::unique(),
            state: Mutex::new(State {
                discipline: LineDiscipline::default(),
                window: WindowSize::default(),
                session: None,
                foreground: 0,
                hung_up: false,
            }),
        })
    }

    /// Bytes were typed: echoes, signals the foreground, wakes readers.
    pub fn input(&self, bytes: &[u8]) {
        let mut echo = Vec::new();
        let mut state = self.state.lock();
        let mut was_stopped = state.discipline.is_stopped();
        for byte in bytes {
            let signal = state.discipline.input(*byte, &mut echo);
            if let Some(signal) = signal
                && state.foreground != 0
            {
                let group = state.foreground;
                drop(state);
                self.host.signal_group(group, signal);
                state = self.state.lock();
            }
        }
        was_stopped &= !state.discipline.is_stopped();
        let can_read = state.discipline.can_read();
        drop(state);
        if !echo.is_empty() {
            self.host.output(&echo);
        }
        let mut ready = Readiness::empty();
        ready.set(Readiness::READ, can_read);
        ready.set(Readiness::WRITE, was_stopped);
        if !ready.is_empty() {
            self.platform.wake(self.channel, ready);
        }
    }

    /// There will be no more input: readers get the end of the file once they
    /// have read what there is.
    pub fn hang_up(&self) {
        self.state.lock().hung_up = true;
        self.platform.wake(self.channel, Readiness::READ | Readiness::HANG_UP);
    }

    /// The window has this size now; tells the foreground if it had another.
    pub fn set_window_size(&self, window: WindowSize) {
        let mut state = self.state.lock();
        if state.window == window {
            return;
        }
        state.window = window;
        let group = state.foreground;
        drop(state);
        if group != 0 {
            self.host.signal_group(group, TerminalSignal::WindowChanged);
        }
    }

    /// Makes it the controlling terminal of `session`, with `group` in the
    /// foreground (as the kernel does for the first process).
    pub fn set_controlling(&self, session: u32, group: u32) {
        let mut state = self.state.lock();
        state.session = Some(session);
        state.foreground = group;
    }

    /// The session whose controlling terminal it is.
    #[must_use]
    pub fn session(&self) -> Option<u32> {
        self.state.lock().session
    }

    /// The session has ended, or gives the terminal up.
    pub fn release(&self) {
        let mut state = self.state.lock();
        state.session = None;
        state.foreground = 0;
    }

    /// The process group in the foreground.
    #[must_use]
    pub fn foreground(&self) -> u32 {
        self.state.lock().foreground
    }

    pub(super) fn wake_writers(&self) {
        self.platform.wake(self.channel, Readiness::WRITE);
    }

    /// Fails if the caller belongs to this terminal's session, but not to its
    /// foreground, and has to stop for it.
    pub(super) fn check_foreground(&self, writes: bool) -> Result<()> {
        let (session, group) = self.host.caller();
        let state = self.state.lock();
        let background =
            state.session == Some(session) && state.foreground != 0 && state.foreground != group;
        drop(state);
        match background.then(|| self.host.stop_background(writes)) {
            Some(Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn read_with(&self, read: impl FnOnce(&mut LineDiscipline) -> Result<usize>) -> Result<usize> {
        self.check_foreground(false)?;
        let mut state = self.state.lock();
        match read(&mut state.discipline) {
            Err(Errno::EAGAIN) if state.hung_up => Ok(0),
            result => result,
        }
    }
}

impl File for Terminal {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        self.read_with(|discipline| discipline.read(sink))
    }

    fn read_timeout(&self) -> Option<u8> {
        self.state.lock().discipline.read_timeout()
    }

    fn read_now(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        self.read_with(|discipline| discipline.read_available(sink))
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        let wanted = source.remaining();
        let tostop = linux_raw_sys::general::TOSTOP;
        if self.state.lock().discipline.termios().has_local(tostop) {
            self.check_foreground(true)?;
        }
        let mut done = 0;
        let mut bytes = Vec::with_capacity(wanted.min(STEP));
        let mut screen = Vec::with_capacity(wanted.min(STEP) + 64);
        while done < wanted {
            bytes.clear();
            screen.clear();
            let mut state = self.state.lock();
            if state.discipline.is_stopped() {
                return if done > 0 { Ok(done) } else { Err(Errno::EAGAIN) };
            }
            let length = STEP.min(wanted - done);
            let moved = source.append_to(&mut bytes, length);
            state.discipline.output(&bytes, &mut screen);
            drop(state);
            self.host.output(&screen);
            done += moved;
            if moved < length {
                break;
            }
        }
        crate::buffer::moved_or_fault(done, wanted)
    }

    fn poll(&self) -> Readiness {
        let state = self.state.lock();
        let mut ready = Readiness::empty();
        ready.set(Readiness::READ, state.hung_up || state.discipline.can_read());
        ready.set(Readiness::WRITE, !state.discipline.is_stopped());
        ready.set(Readiness::HANG_UP, state.hung_up);
        ready
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.channel)
    }

    fn ioctl(&self, request: u32, argument: &mut dyn IoctlArgument) -> Result<i64> {
        ioctl::answer(self, request, argument)
    }
}

impl Device for Arc<Terminal> {
    /// The same terminal, however often it is opened.
    fn open(&self, _flags: u32) -> Result<Arc<dyn File>> {
        Ok(Self::clone(self))
    }
}
