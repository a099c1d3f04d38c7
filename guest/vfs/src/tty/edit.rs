//! Editing the line in the making, and showing it.

use alloc::vec::Vec;

use linux_raw_sys::general as linux;

use super::discipline::{LineDiscipline, is_control};

/// What is taken off the line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Character,
    Word,
    Line,
}

/// Whether a byte belongs to a word: letters (of Latin-1, as in Linux), digits,
/// and `_`.
const fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || (byte >= 0xc0 && byte != 0xd7 && byte != 0xf7)
}

impl LineDiscipline {
    /// Shows a typed byte, a control character as `^X`.
    pub(super) fn echo(&mut self, byte: u8, echo: &mut Vec<u8>) {
        if !self.termios.has_local(linux::ECHO) {
            return;
        }
        if self.termios.has_local(linux::ECHOCTL) && is_control(byte) && byte != b'\t' {
            echo.extend_from_slice(&[b'^', byte ^ 0x40]);
            self.column += 2;
        } else {
            self.output(&[byte], echo);
        }
    }

    /// Takes the last character (of one or several bytes) off the line.
    pub(super) fn erase_character(&mut self, byte: u8, echo: &mut Vec<u8>) {
        self.erase(Extent::Character, byte, echo);
    }

    /// Takes the last word off, with what follows it.
    pub(super) fn erase_word(&mut self, byte: u8, echo: &mut Vec<u8>) {
        self.erase(Extent::Word, byte, echo);
    }

    /// Takes the whole line off.
    pub(super) fn erase_line(&mut self, byte: u8, echo: &mut Vec<u8>) {
        let each = linux::ECHOK | linux::ECHOKE | linux::ECHOE;
        let has_echo = self.termios.has_local(linux::ECHO);
        if has_echo && self.termios.local & each == each {
            self.erase(Extent::Line, byte, echo);
        } else if !self.edit.is_empty() {
            self.edit.clear();
            self.echo(byte, echo);
            if has_echo && self.termios.has_local(linux::ECHOK) {
                self.output(b"\n", echo);
            }
        }
    }

    /// Takes characters off the end of the line, and wipes them from the screen.
    fn erase(&mut self, extent: Extent, key: u8, echo: &mut Vec<u8>) {
        let mut in_a_word = false;
        while !self.edit.is_empty() {
            // One character, perhaps of several bytes; never only a part.
            let Some(start) = self.edit.iter().rposition(|byte| !self.continues(*byte)) else {
                return;
            };
            let first = self.edit[start];
            if extent == Extent::Word {
                if in_word(first) {
                    in_a_word = true;
                } else if in_a_word {
                    return;
                }
            }
            self.edit.truncate(start);
            if self.termios.has_local(linux::ECHO) {
                if extent == Extent::Character && !self.termios.has_local(linux::ECHOE) {
                    self.echo(key, echo);
                } else {
                    self.wipe(first, echo);
                }
            }
            if extent == Extent::Character {
                return;
            }
        }
    }

    /// Wipes the character that stood at the end of the line.
    fn wipe(&mut self, character: u8, echo: &mut Vec<u8>) {
        let caret = self.termios.has_local(linux::ECHOCTL);
        if character == b'\t' {
            // It left blanks behind: only the cursor has to go back.
            for _ in 0..self.width_of_tab() {
                echo.push(b'\x08');
                self.column = self.column.saturating_sub(1);
            }
            return;
        }
        let width = match (is_control(character), caret) {
            (true, true) => 2,
            (true, false) => 0,
            (false, _) => 1,
        };
        for _ in 0..width {
            self.output(b"\x08 \x08", echo);
        }
    }

    /// How far a tab reached that stood at the end of the line: that depends on
    /// what stands between it and the tab before, or the start of the line.
    fn width_of_tab(&self) -> usize {
        let caret = self.termios.has_local(linux::ECHOCTL);
        let mut column = 0;
        let mut after_tab = false;
        for byte in self.edit.iter().rev() {
            if *byte == b'\t' {
                after_tab = true;
                break;
            }
            column += if is_control(*byte) {
                if caret { 2 } else { 0 }
            } else {
                usize::from(self.has_width(*byte))
            };
        }
        if !after_tab {
            column += self.line_start;
        }
        8 - column % 8
    }

    /// Shows the line once more.
    pub(super) fn reprint(&mut self, byte: u8, echo: &mut Vec<u8>) {
        self.echo(byte, echo);
        self.output(b"\n", echo);
        for index in 0..self.edit.len() {
            let byte = self.edit[index];
            self.echo(byte, echo);
        }
    }
}
