//! The line discipline alone, and the terminal with a kernel that takes notes.

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use linux_raw_sys::{general as linux, ioctl};
use zerocopy::IntoBytes;

use super::*;
use crate::buffer::{SliceSink, SliceSource};
use crate::errno::{Errno, Result};
use crate::file::{File, IoctlArgument};
use crate::platform::{Platform, Readiness, Timespec, WaitChannel};

fn typed(discipline: &mut LineDiscipline, bytes: &[u8]) -> Vec<u8> {
    let mut echo = Vec::new();
    for byte in bytes {
        discipline.input(*byte, &mut echo);
    }
    echo
}

fn read(discipline: &mut LineDiscipline, size: usize) -> Result<Vec<u8>> {
    let mut bytes = alloc::vec![0; size];
    let count = discipline.read(&mut SliceSink::new(&mut bytes))?;
    bytes.truncate(count);
    Ok(bytes)
}

fn raw(minimum: u8, time: u8) -> LineDiscipline {
    let mut termios = Termios::default();
    termios.local &= !(linux::ICANON | linux::ECHO | linux::ISIG);
    termios.characters[linux::VMIN as usize] = minimum;
    termios.characters[linux::VTIME as usize] = time;
    let mut discipline = LineDiscipline::default();
    discipline.set_termios(termios);
    discipline
}

#[test]
fn a_line_is_readable_once_it_is_finished() {
    let mut discipline = LineDiscipline::default();
    assert_eq!(typed(&mut discipline, b"ab"), b"ab");
    assert_eq!(read(&mut discipline, 10), Err(Errno::EAGAIN));
    assert_eq!(typed(&mut discipline, b"c\rde"), b"c\r\nde");
    assert_eq!(discipline.available(), 4);
    assert_eq!(read(&mut discipline, 2).unwrap(), b"ab");
    assert_eq!(read(&mut discipline, 10).unwrap(), b"c\n");
    assert_eq!(read(&mut discipline, 10), Err(Errno::EAGAIN));
}

#[test]
fn an_end_of_file_character_ends_a_line_or_the_file() {
    let mut discipline = LineDiscipline::default();
    assert_eq!(typed(&mut discipline, b"ab\x04\x04"), b"ab");
    assert_eq!(read(&mut discipline, 10).unwrap(), b"ab");
    assert_eq!(read(&mut discipline, 10).unwrap(), b"");
    assert_eq!(read(&mut discipline, 10), Err(Errno::EAGAIN));
}

#[test]
fn a_long_line_leaves_room_for_its_end() {
    let mut discipline = LineDiscipline::default();
    typed(&mut discipline, &[b'x'; 5000]);
    typed(&mut discipline, b"\n");
    let line = read(&mut discipline, 10_000).unwrap();
    assert_eq!(line.len(), 4096);
    assert!(line.ends_with(b"x\n"));
}

#[test]
fn raw_reads_wait_for_the_minimum() {
    let mut discipline = raw(3, 0);
    typed(&mut discipline, b"ab");
    assert!(!discipline.can_read());
    assert_eq!(read(&mut discipline, 10), Err(Errno::EAGAIN));
    assert_eq!(read(&mut discipline, 2).unwrap(), b"ab", "no more than there is room for");
    typed(&mut discipline, b"cde");
    assert_eq!(read(&mut discipline, 10).unwrap(), b"cde");

    let mut discipline = raw(0, 0);
    assert_eq!(read(&mut discipline, 10).unwrap(), b"");

    let mut discipline = raw(0, 5);
    assert_eq!(read(&mut discipline, 10), Err(Errno::EAGAIN));
    assert_eq!(discipline.read_timeout(), Some(5));

    let mut discipline = raw(2, 5);
    assert_eq!(discipline.read_timeout(), None, "only between bytes");
    typed(&mut discipline, b"a");
    assert_eq!(discipline.read_timeout(), Some(5));
    let mut bytes = [0; 4];
    assert_eq!(discipline.read_available(&mut SliceSink::new(&mut bytes)), Ok(1));
}

#[test]
fn what_was_typed_survives_a_change_of_mode() {
    let mut discipline = LineDiscipline::default();
    typed(&mut discipline, b"ab\ncd");
    let canonical = *discipline.termios();
    discipline.set_termios(*raw(1, 0).termios());
    assert_eq!(read(&mut discipline, 10).unwrap(), b"ab\ncd");
    typed(&mut discipline, b"ef");
    discipline.set_termios(canonical);
    assert_eq!(read(&mut discipline, 10).unwrap(), b"ef");
}

#[test]
fn output_breaks_lines_wherever_they_lie() {
    let mut discipline = LineDiscipline::default();
    for length in 0..40 {
        for at in 0..length {
            let mut text = alloc::vec![b'\x0b'; length];
            text[at] = b'\n';
            text[length / 2] = b'\n';
            let mut screen = Vec::new();
            discipline.output(&text, &mut screen);
            let mut expected = Vec::new();
            for byte in &text {
                expected.extend(if *byte == b'\n' {
                    &b"\r\n"[..]
                } else {
                    core::slice::from_ref(byte)
                });
            }
            assert_eq!(screen, expected);
        }
    }
}

/// Takes notes.
#[derive(Default)]
struct Notes {
    screen: Mutex<Vec<u8>>,
    signals: Mutex<Vec<(u32, TerminalSignal)>>,
    caller: Mutex<(u32, u32)>,
    woken: Mutex<Vec<Readiness>>,
}

impl TerminalHost for Notes {
    fn output(&self, bytes: &[u8]) {
        self.screen.lock().unwrap().extend_from_slice(bytes);
    }

    fn signal_group(&self, group: u32, signal: TerminalSignal) {
        self.signals.lock().unwrap().push((group, signal));
    }

    fn caller(&self) -> (u32, u32) {
        *self.caller.lock().unwrap()
    }

    fn session_of_group(&self, group: u32) -> Option<u32> {
        match group {
            10..20 => Some(10),
            20..30 => Some(20),
            _ => None,
        }
    }

    fn stop_background(&self, _writes: bool) -> Option<Errno> {
        Some(Errno::EINTR)
    }
}

impl Platform for Notes {
    fn now(&self) -> Timespec {
        Timespec::default()
    }

    fn fill_random(&self, _bytes: &mut [u8]) {}

    fn wake(&self, _channel: WaitChannel, ready: Readiness) {
        self.woken.lock().unwrap().push(ready);
    }
}

struct Argument(Vec<u8>, u64);

impl IoctlArgument for Argument {
    fn value(&self) -> u64 {
        self.1
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(self.0.get(..bytes.len()).ok_or(Errno::EFAULT)?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

fn number(value: u32) -> Argument {
    Argument(value.to_le_bytes().to_vec(), 0)
}

fn terminal() -> (Arc<Notes>, Arc<Terminal>) {
    let notes = Arc::new(Notes::default());
    *notes.caller.lock().unwrap() = (10, 10);
    (notes.clone(), Terminal::new(notes.clone(), notes))
}

#[test]
fn control_c_signals_the_foreground_and_drops_the_line() {
    let (notes, terminal) = terminal();
    terminal.set_controlling(10, 11);
    terminal.input(b"rm -rf\x03");
    assert_eq!(*notes.signals.lock().unwrap(), [(11, TerminalSignal::Interrupt)]);
    assert_eq!(*notes.screen.lock().unwrap(), b"rm -rf^C");
    terminal.input(b"\n");
    assert!(notes.woken.lock().unwrap().contains(&Readiness::READ));
    *notes.caller.lock().unwrap() = (10, 11);
    let mut bytes = [0; 10];
    assert_eq!(terminal.read(0, &mut SliceSink::new(&mut bytes)), Ok(1));
}

#[test]
fn the_background_cannot_read() {
    let (_notes, terminal) = terminal();
    terminal.set_controlling(10, 11);
    terminal.input(b"x\n");
    let mut bytes = [0; 10];
    assert_eq!(terminal.read(0, &mut SliceSink::new(&mut bytes)), Err(Errno::EINTR));
    assert_eq!(terminal.write(0, &mut SliceSource::new(b"shown")), Ok(5), "without TOSTOP");
}

#[test]
fn output_waits_while_it_is_stopped() {
    let (notes, terminal) = terminal();
    terminal.input(b"\x13");
    assert_eq!(terminal.write(0, &mut SliceSource::new(b"text")), Err(Errno::EAGAIN));
    assert!(!terminal.poll().contains(Readiness::WRITE));
    terminal.input(b"\x11");
    assert_eq!(*notes.woken.lock().unwrap(), [Readiness::WRITE]);
    assert_eq!(terminal.write(0, &mut SliceSource::new(b"te\nxt")), Ok(5));
    assert_eq!(*notes.screen.lock().unwrap(), b"te\r\nxt");
}

#[test]
fn groups_and_sessions_answer_as_linux_does() {
    let (notes, terminal) = terminal();
    assert_eq!(terminal.ioctl(ioctl::TIOCGPGRP, &mut number(0)), Err(Errno::ENOTTY));
    assert_eq!(terminal.ioctl(ioctl::TIOCSCTTY, &mut number(0)), Ok(0));
    let mut argument = number(0);
    assert_eq!(terminal.ioctl(ioctl::TIOCGPGRP, &mut argument), Ok(0));
    assert_eq!(argument.0, 10_u32.to_le_bytes());
    assert_eq!(terminal.ioctl(ioctl::TIOCSPGRP, &mut number(25)), Err(Errno::EPERM));
    assert_eq!(terminal.ioctl(ioctl::TIOCSPGRP, &mut number(99)), Err(Errno::ESRCH));
    assert_eq!(terminal.ioctl(ioctl::TIOCSPGRP, &mut number(u32::MAX)), Err(Errno::EINVAL));
    assert_eq!(terminal.ioctl(ioctl::TIOCSPGRP, &mut number(12)), Ok(0));
    assert_eq!(terminal.foreground(), 12);
    *notes.caller.lock().unwrap() = (20, 20);
    assert_eq!(terminal.ioctl(ioctl::TIOCSCTTY, &mut number(0)), Err(Errno::EPERM));
}

#[test]
fn settings_and_window_go_through_ioctl() {
    let (notes, terminal) = terminal();
    terminal.set_controlling(10, 10);
    let mut argument = Argument(Vec::new(), 0);
    assert_eq!(terminal.ioctl(ioctl::TCGETS, &mut argument), Ok(0));
    assert_eq!(argument.0.len(), 36);
    assert_eq!(argument.0, Termios::default().as_bytes()[..36]);
    terminal.input(b"gone");
    let mut settings = Termios::default();
    settings.local &= !linux::ECHO;
    let mut argument = Argument(settings.as_bytes().to_vec(), 0);
    assert_eq!(terminal.ioctl(ioctl::TCSETSF, &mut argument), Ok(0));
    notes.screen.lock().unwrap().clear();
    terminal.input(b"secret\n");
    assert_eq!(*notes.screen.lock().unwrap(), b"");
    let mut argument = number(0);
    assert_eq!(terminal.ioctl(ioctl::FIONREAD, &mut argument), Ok(0));
    assert_eq!(argument.0, 7_u32.to_le_bytes());

    let window = WindowSize { rows: 24, columns: 80, ..WindowSize::default() };
    terminal.ioctl(ioctl::TIOCSWINSZ, &mut Argument(window.as_bytes().to_vec(), 0)).unwrap();
    assert_eq!(*notes.signals.lock().unwrap(), [(10, TerminalSignal::WindowChanged)]);
    let mut short = Argument(alloc::vec![0; 3], 0);
    assert_eq!(terminal.ioctl(ioctl::TIOCSWINSZ, &mut short), Err(Errno::EFAULT));
    assert_eq!(terminal.ioctl(0x1234, &mut number(0)), Err(Errno::ENOTTY));
}

#[test]
fn after_a_hang_up_reads_end() {
    let (_notes, terminal) = terminal();
    terminal.input(b"last\n");
    terminal.hang_up();
    let mut bytes = [0; 10];
    assert_eq!(terminal.read(0, &mut SliceSink::new(&mut bytes)), Ok(5));
    assert_eq!(terminal.read(0, &mut SliceSink::new(&mut bytes)), Ok(0));
}
