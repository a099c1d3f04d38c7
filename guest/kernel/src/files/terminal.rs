//! The lab's terminal, where the host's is one: the line discipline of
//! `pagelab_vfs` between the lab's input and output.
//!
//! It is the controlling terminal of the first program's session, and what
//! `/dev/tty` and `/dev/console` are.

use alloc::sync::Arc;

use pagelab_abi::lab::STREAM_OUTPUT;
use pagelab_hal::sync::{Lock, Once};
use pagelab_hal::{console, lab};
use pagelab_vfs::device::{CONSOLE, Device, TTY};
use pagelab_vfs::file::File;
use pagelab_vfs::tty::{Terminal, TerminalHost, TerminalSignal, WindowSize};
use pagelab_vfs::{Errno, Result, Vfs};

use crate::process::{self, scheduler};
use crate::signal::stop::is_orphaned;
use crate::signal::{self, SIGTTIN, SIGTTOU, SignalInfo};

/// The terminal, if there is one.
static TERMINAL: Once<Option<Arc<Terminal>>> = Once::new();

/// The lab's terminal.
pub fn terminal() -> Option<&'static Arc<Terminal>> {
    TERMINAL.get().as_ref()
}

/// Makes it, if the host's is one, and registers the devices.
pub fn install(vfs: &Vfs) {
    let made = lab::terminal_size().map(|_| {
        let terminal = Terminal::new(Arc::new(Host), super::platform().clone());
        vfs.register_device(CONSOLE, Arc::new(terminal.clone()));
        vfs.register_device(TTY, Arc::new(OwnTerminal));
        terminal
    });
    TERMINAL.set(made);
    input_arrived();
}

/// Takes what was typed, its end, and the size of the window from the host.
/// Returns whether there is a terminal.
pub fn input_arrived() -> bool {
    /// The end is told once.
    static ENDED: Lock<bool> = Lock::new(false);
    let Some(terminal) = terminal() else { return false };
    if let Some((rows, columns)) = lab::terminal_size() {
        terminal.set_window_size(WindowSize { rows, columns, ..WindowSize::default() });
    }
    let mut bytes = [0; 256];
    while lab::input_available() > 0 {
        let count = lab::read_input(&mut bytes);
        terminal.input(&bytes[..count]);
    }
    if lab::input_ended() && !core::mem::replace(&mut *ENDED.lock(), true) {
        terminal.hang_up();
    }
    true
}

/// `/dev/tty`: the terminal, for processes of its session.
struct OwnTerminal;

impl Device for OwnTerminal {
    fn open(&self, flags: u32) -> Result<Arc<dyn File>> {
        let (session, _) = Host.caller();
        let own = terminal().filter(|terminal| terminal.session() == Some(session));
        own.ok_or(Errno::ENXIO)?.open(flags)
    }
}

/// What a terminal needs of the kernel.
struct Host;

impl TerminalHost for Host {
    fn output(&self, bytes: &[u8]) {
        // A host that takes no more output ends the lab by itself.
        console::write_bytes(STREAM_OUTPUT, bytes);
    }

    fn signal_group(&self, group: u32, signal: TerminalSignal) {
        let info = SignalInfo::kernel(signal.number() as u8);
        signal::to_group(group, Some(info));
    }

    fn caller(&self) -> (u32, u32) {
        let process = scheduler::current().process.clone();
        let family = process.family.lock();
        (family.session, family.group)
    }

    fn session_of_group(&self, group: u32) -> Option<u32> {
        process::all().iter().find_map(|process| {
            let family = process.family.lock();
            (family.group == group).then_some(family.session)
        })
    }

    fn stop_background(&self, writes: bool) -> Option<Errno> {
        let signal = if writes { SIGTTOU } else { SIGTTIN };
        let thread = scheduler::current();
        let ignored = thread.process.signals.action(signal).is_ignore();
        if ignored || thread.signals.mask().contains(signal) {
            return (!writes).then_some(Errno::EIO);
        }
        let group = thread.process.family.lock().group;
        drop(thread);
        if is_orphaned(group) {
            return Some(Errno::EIO);
        }
        signal::to_group(group, Some(SignalInfo::kernel(signal)));
        Some(Errno::EINTR)
    }
}
