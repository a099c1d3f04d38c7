//! The terminal: its mode while a guest uses it, and its size.

use std::io::{self, IsTerminal};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use super::InputMode;
use crate::devices::shared::SharedPages;

/// The terminal's mode while the guest has it. Put back when this is dropped,
/// which a panic does too; signals end the lab in the ordinary way.
pub(super) struct Mode {
    before: Option<Termios>,
}

impl Mode {
    /// Sets the mode that `input` needs, if standard input is a terminal.
    ///
    /// Ctrl-C stays the signal that ends the lab. Ctrl-Z does nothing, since a
    /// stopped lab would leave the terminal as it is now.
    pub(super) fn set(input: InputMode) -> Self {
        let unchanged = Self { before: None };
        let stdin = io::stdin();
        if input != InputMode::Keys || !stdin.is_terminal() {
            return unchanged;
        }
        let before = match termios::tcgetattr(&stdin) {
            Ok(before) => before,
            Err(error) => {
                log::warn!("cannot read the terminal's mode: {error}");
                return unchanged;
            }
        };
        let mut keys = before.clone();
        keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        keys.special_codes[SpecialCodeIndex::VSUSP] = 0;
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        match termios::tcsetattr(&stdin, OptionalActions::Now, &keys) {
            Ok(()) => Self { before: Some(before) },
            Err(error) => {
                log::warn!("cannot set the terminal's mode: {error}");
                unchanged
            }
        }
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = termios::tcsetattr(io::stdin(), OptionalActions::Now, before)
        {
            log::warn!("cannot put the terminal's mode back: {error}");
        }
    }
}

/// Tells the guest how large the terminal is, if there is one.
pub(super) fn publish_size(shared: &SharedPages) {
    const ROWS: u16 = 24;
    const COLUMNS: u16 = 80;
    // A terminal that does not know its size has none: 0 and 0.
    let or = |given, usual| if given == 0 { usual } else { given };
    if let Ok(size) = termios::tcgetwinsize(io::stdout()) {
        shared.set_terminal_size(or(size.ws_row, ROWS), or(size.ws_col, COLUMNS));
    }
}
