//! Terminals: a line discipline as pure logic, and the file around it.
//!
//! [`LineDiscipline`] turns typed bytes into lines, echo and signals, and what
//! programs write into what the screen gets. [`Terminal`] is the device: it
//! locks a discipline, knows the foreground process group, answers `ioctl`, and
//! talks to the kernel through [`TerminalHost`].

mod discipline;
mod edit;
mod ioctl;
mod terminal;
mod termios;

#[cfg(test)]
mod tests;

pub use discipline::{LineDiscipline, TerminalSignal};
pub use terminal::{Terminal, TerminalHost};
pub use termios::{Termios, WindowSize};
