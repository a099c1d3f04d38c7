//! The line discipline: what typed bytes become, and what the screen gets.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::termios::Termios;
use crate::buffer::Sink;
use crate::errno::{Errno, Result};

/// Most bytes of input that wait to be read, and of a line in the making.
pub(super) const INPUT_LIMIT: usize = 4096;

/// A signal that a typed character asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalSignal {
    /// `SIGINT`.
    Interrupt,
    /// `SIGQUIT`.
    Quit,
    /// `SIGTSTP`.
    Stop,
    /// `SIGWINCH`: the window has another size.
    WindowChanged,
}

impl TerminalSignal {
    /// Linux's number for it.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::Stop => 20,
            Self::WindowChanged => 28,
        }
    }
}

/// The state between the keyboard, the programs and the screen.
#[derive(Debug, Default)]
pub struct LineDiscipline {
    pub(super) termios: Termios,
    /// The line in the making (canonical mode).
    pub(super) edit: Vec<u8>,
    /// What can be read.
    ready: VecDeque<u8>,
    /// Lengths of the lines in `ready`; one of length 0 is an end of file.
    lines: VecDeque<usize>,
    /// The next byte is taken as it is.
    literal: bool,
    /// Output is held back (`^S`).
    pub(super) stopped: bool,
    /// Where the cursor is, and where it was when the line began.
    pub(super) column: usize,
    pub(super) line_start: usize,
}

impl LineDiscipline {
    /// The settings.
    #[must_use]
    pub const fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Whether output is held back by a typed `^S`.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Changes the settings. What was typed stays: as a line, or as raw bytes.
    pub fn set_termios(&mut self, termios: Termios) {
        let was_canonical = self.termios.is_canonical();
        self.termios = termios;
        if !termios.has_input(linux::IXON) {
            self.stopped = false;
        }
        if was_canonical && !termios.is_canonical() {
            self.ready.extend(self.edit.drain(..));
            self.lines.clear();
        } else if !was_canonical && termios.is_canonical() && !self.ready.is_empty() {
            self.lines.push_back(self.ready.len());
        }
    }

    /// Forgets what was typed and not read.
    pub fn flush_input(&mut self) {
        self.edit.clear();
        self.ready.clear();
        self.lines.clear();
    }

    /// A byte was typed. Appends what to show to `echo`.
    pub fn input(&mut self, byte: u8, echo: &mut Vec<u8>) -> Option<TerminalSignal> {
        let termios = self.termios;
        let byte = if termios.has_input(linux::ISTRIP) { byte & 0x7f } else { byte };
        if core::mem::take(&mut self.literal) {
            if termios.is_canonical() {
                self.accept(byte, echo);
            } else {
                self.raw(byte, false, echo);
            }
            return None;
        }
        if termios.has_input(linux::IXON) {
            if termios.is(linux::VSTOP, byte) {
                self.stopped = true;
                return None;
            }
            let restarts = termios.has_input(linux::IXANY) && self.stopped;
            if termios.is(linux::VSTART, byte) || restarts {
                self.stopped = false;
                if !restarts {
                    return None;
                }
            }
        }
        if let Some(signal) = self.signal_of(byte) {
            if !termios.has_local(linux::NOFLSH) {
                self.flush_input();
            }
            self.echo(byte, echo);
            return Some(signal);
        }
        let mapped = byte == b'\r';
        let byte = match byte {
            b'\r' if termios.has_input(linux::IGNCR) => return None,
            b'\r' if termios.has_input(linux::ICRNL) => b'\n',
            b'\n' if termios.has_input(linux::INLCR) => b'\r',
            other => other,
        };
        if termios.is_canonical() {
            self.canonical(byte, echo);
        } else {
            self.raw(byte, mapped, echo);
        }
        None
    }

    fn signal_of(&self, byte: u8) -> Option<TerminalSignal> {
        let termios = &self.termios;
        if !termios.has_local(linux::ISIG) {
            None
        } else if termios.is(linux::VINTR, byte) {
            Some(TerminalSignal::Interrupt)
        } else if termios.is(linux::VQUIT, byte) {
            Some(TerminalSignal::Quit)
        } else if termios.is(linux::VSUSP, byte) {
            Some(TerminalSignal::Stop)
        } else {
            None
        }
    }

    /// A byte in canonical mode: editing, the end of a line, or text.
    fn canonical(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let termios = self.termios;
        let extended = termios.has_local(linux::IEXTEN);
        if termios.is(linux::VERASE, byte) {
            self.erase_character(byte, echo);
        } else if termios.is(linux::VKILL, byte) {
            self.erase_line(byte, echo);
        } else if extended && termios.is(linux::VWERASE, byte) {
            self.erase_word(byte, echo);
        } else if extended && termios.is(linux::VLNEXT, byte) {
            self.literal = true;
            if termios.has_local(linux::ECHO) && termios.has_local(linux::ECHOCTL) {
                echo.extend_from_slice(b"^\x08");
            }
        } else if extended && termios.has_local(linux::ECHO) && termios.is(linux::VREPRINT, byte) {
            self.reprint(byte, echo);
        } else if termios.is(linux::VEOF, byte) {
            self.finish_line();
        } else if byte == b'\n' {
            self.edit.push(byte);
            if termios.has_local(linux::ECHO) || termios.has_local(linux::ECHONL) {
                self.output(b"\n", echo);
            }
            self.finish_line();
        } else if termios.is(linux::VEOL, byte) || (extended && termios.is(linux::VEOL2, byte)) {
            self.edit.push(byte);
            self.echo(byte, echo);
            self.finish_line();
        } else {
            self.accept(byte, echo);
        }
    }

    /// A byte in raw mode: can be read at once.
    fn raw(&mut self, byte: u8, mapped: bool, echo: &mut Vec<u8>) {
        if !self.has_room(INPUT_LIMIT, echo) {
            return;
        }
        self.ready.push_back(byte);
        // The return key shows as a new line, a typed `^J` as what it is.
        if !(mapped && byte == b'\n') {
            self.echo(byte, echo);
        } else if self.termios.has_local(linux::ECHO) {
            self.output(b"\n", echo);
        }
    }

    fn has_room(&self, limit: usize, echo: &mut Vec<u8>) -> bool {
        let room = self.ready.len() + self.edit.len() < limit;
        if !room && self.termios.has_input(linux::IMAXBEL) {
            echo.push(b'\x07');
        }
        room
    }

    /// Text: into the line.
    fn accept(&mut self, byte: u8, echo: &mut Vec<u8>) {
        // The last place is for the character that ends the line.
        if !self.has_room(INPUT_LIMIT - 1, echo) {
            return;
        }
        if self.edit.is_empty() && self.termios.has_local(linux::ECHO) {
            self.line_start = self.column;
        }
        self.edit.push(byte);
        self.echo(byte, echo);
    }

    fn finish_line(&mut self) {
        self.lines.push_back(self.edit.len());
        self.ready.extend(self.edit.drain(..));
    }

    /// How many bytes a read finds (`FIONREAD`).
    #[must_use]
    pub fn available(&self) -> usize {
        self.ready.len()
    }

    /// Whether a read finds a line, or in raw mode enough bytes.
    #[must_use]
    pub fn can_read(&self) -> bool {
        if self.termios.is_canonical() {
            return !self.lines.is_empty();
        }
        // With a time limit the first byte is enough to wake up.
        let minimum = usize::from(self.termios.characters[linux::VMIN as usize]);
        let timed = self.termios.characters[linux::VTIME as usize] != 0;
        self.ready.len() >= if timed { 1 } else { minimum.max(1) }
    }

    /// For raw mode with `VTIME`: how long a read waits for (more) bytes, in
    /// tenths of a second.
    #[must_use]
    pub fn read_timeout(&self) -> Option<u8> {
        let time = self.termios.characters[linux::VTIME as usize];
        let minimum = self.termios.characters[linux::VMIN as usize];
        let applies =
            !self.termios.is_canonical() && time > 0 && (minimum == 0 || !self.ready.is_empty());
        applies.then_some(time)
    }

    /// Reads a line or a part of it; in raw mode what `VMIN` asks for.
    /// `EAGAIN`: not yet.
    pub fn read(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        if self.termios.is_canonical() {
            return self.read_line(sink);
        }
        let minimum = usize::from(self.termios.characters[linux::VMIN as usize]);
        let timed = self.termios.characters[linux::VTIME as usize] != 0;
        let needed = if minimum == 0 { usize::from(timed) } else { minimum };
        if self.ready.len() < needed.min(sink.remaining()) {
            return Err(Errno::EAGAIN);
        }
        self.read_available(sink)
    }

    /// Raw mode: reads what there is, perhaps nothing.
    pub fn read_available(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        if self.termios.is_canonical() {
            return self.read_line(sink);
        }
        let length = self.ready.len();
        self.take(length, sink)
    }

    fn read_line(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        let length = *self.lines.front().ok_or(Errno::EAGAIN)?;
        let moved = self.take(length, sink)?;
        if moved == length {
            self.lines.pop_front();
        } else if let Some(line) = self.lines.front_mut() {
            *line -= moved;
        }
        Ok(moved)
    }

    /// Moves up to `length` ready bytes.
    fn take(&mut self, length: usize, sink: &mut dyn Sink) -> Result<usize> {
        let wanted = length.min(sink.remaining());
        let (first, second) = self.ready.as_slices();
        let first = &first[..first.len().min(wanted)];
        let second = &second[..wanted - first.len()];
        let mut moved = sink.put(first);
        if moved == first.len() {
            moved += sink.put(second);
        }
        self.ready.drain(..moved);
        if moved == 0 && wanted > 0 { Err(Errno::EFAULT) } else { Ok(moved) }
    }

    /// Appends to `screen` what `bytes`, written by a program, show.
    pub fn output(&mut self, bytes: &[u8], screen: &mut Vec<u8>) {
        let termios = self.termios;
        let start = screen.len();
        if termios.has_output(linux::OPOST) && termios.has_output(linux::ONLCR) {
            let mut rest = bytes;
            while let Some(end) = find(rest, b'\n') {
                screen.extend_from_slice(&rest[..end]);
                screen.extend_from_slice(b"\r\n");
                rest = &rest[end + 1..];
            }
            screen.extend_from_slice(rest);
        } else {
            screen.extend_from_slice(bytes);
        }
        if termios.has_output(linux::OPOST) {
            self.advance(&screen[start..]);
        }
    }

    /// Follows the cursor; only what stands after the last return counts.
    fn advance(&mut self, shown: &[u8]) {
        let tail = match shown.iter().rposition(|byte| *byte == b'\r') {
            Some(index) => {
                self.column = 0;
                self.line_start = 0;
                &shown[index + 1..]
            }
            None => shown,
        };
        for byte in tail {
            match byte {
                b'\t' => self.column = (self.column / 8 + 1) * 8,
                b'\n' => self.line_start = self.column,
                0x08 => self.column = self.column.saturating_sub(1),
                _ => self.column += usize::from(self.has_width(*byte)),
            }
        }
    }

    /// Whether a byte that is shown takes a place on the screen: control
    /// characters and the later bytes of a character do not.
    pub(super) const fn has_width(&self, byte: u8) -> bool {
        !is_control(byte) && !self.continues(byte)
    }

    /// Whether a byte continues a character of several bytes.
    pub(super) const fn continues(&self, byte: u8) -> bool {
        self.termios.has_input(linux::IUTF8) && byte & 0xc0 == 0x80
    }
}

/// Whether a byte is a control character.
pub(super) const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// Position of the first `wanted` in `bytes`: eight at a time, because each
/// instruction counts where the kernel is emulated.
fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let pattern = ONES * u64::from(wanted);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // A byte of `difference` is zero where the byte is the wanted one; the
        // lowest bit set then belongs to the first such byte.
        let difference = u64::from_le_bytes(*word) ^ pattern;
        let zeros = difference.wrapping_sub(ONES) & !difference & (ONES << 7);
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let done = words.len() * 8;
    rest.iter().position(|byte| *byte == wanted).map(|index| done + index)
}
