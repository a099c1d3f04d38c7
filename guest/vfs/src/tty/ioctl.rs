//! What `ioctl` can ask of a terminal.

use linux_raw_sys::{general as linux, ioctl};
use zerocopy::{FromBytes, IntoBytes};

use super::terminal::Terminal;
use super::termios::{OLD_SIZE, Termios, WindowSize};
use crate::errno::{Errno, Result};
use crate::file::IoctlArgument;

/// Answers a request.
pub(super) fn answer(
    terminal: &Terminal,
    request: u32,
    argument: &mut dyn IoctlArgument,
) -> Result<i64> {
    match request {
        ioctl::TCGETS => get_settings(terminal, argument, OLD_SIZE),
        ioctl::TCGETS2 => get_settings(terminal, argument, size_of::<Termios>()),
        ioctl::TCSETS | ioctl::TCSETSW => set_settings(terminal, argument, OLD_SIZE, false),
        ioctl::TCSETSF => set_settings(terminal, argument, OLD_SIZE, true),
        ioctl::TCSETS2 | ioctl::TCSETSW2 => {
            set_settings(terminal, argument, size_of::<Termios>(), false)
        }
        ioctl::TCSETSF2 => set_settings(terminal, argument, size_of::<Termios>(), true),
        ioctl::TIOCGWINSZ => {
            let window = terminal.state.lock().window;
            argument.write(window.as_bytes()).map(|()| 0)
        }
        ioctl::TIOCSWINSZ => {
            let mut window = WindowSize::default();
            read_into(argument, &mut window)?;
            terminal.set_window_size(window);
            Ok(0)
        }
        ioctl::FIONREAD => {
            let available = terminal.state.lock().discipline.available();
            put_number(argument, u32::try_from(available).unwrap_or(u32::MAX))
        }
        // Output never waits.
        ioctl::TIOCOUTQ => put_number(argument, 0),
        ioctl::TCSBRK | ioctl::TCSBRKP => Ok(0),
        ioctl::TCFLSH => flush(terminal, argument.value()),
        ioctl::TCXONC => control_flow(terminal, argument.value()),
        _ => answer_about_session(terminal, request, argument),
    }
}

/// Sessions and process groups.
fn answer_about_session(
    terminal: &Terminal,
    request: u32,
    argument: &mut dyn IoctlArgument,
) -> Result<i64> {
    let (session, group) = terminal.host.caller();
    let own = terminal.state.lock().session == Some(session);
    match request {
        ioctl::TIOCGPGRP if own => put_number(argument, terminal.foreground()),
        ioctl::TIOCGSID if own => put_number(argument, session),
        ioctl::TIOCSPGRP => {
            terminal.check_foreground(true)?;
            if !own {
                return Err(Errno::ENOTTY);
            }
            set_foreground(terminal, session, argument)
        }
        ioctl::TIOCSCTTY => {
            let mut state = terminal.state.lock();
            match state.session {
                Some(current) if current == session => {}
                // Only a leader without a terminal gets one, and none is stolen.
                Some(_) => return Err(Errno::EPERM),
                None if session != group => return Err(Errno::EPERM),
                None => {
                    state.session = Some(session);
                    state.foreground = group;
                }
            }
            Ok(0)
        }
        ioctl::TIOCNOTTY if own => {
            terminal.release();
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

fn set_foreground(
    terminal: &Terminal,
    session: u32,
    argument: &mut dyn IoctlArgument,
) -> Result<i64> {
    let mut bytes = [0; 4];
    argument.read(&mut bytes)?;
    let group = u32::try_from(i32::from_le_bytes(bytes)).map_err(|_| Errno::EINVAL)?;
    match terminal.host.session_of_group(group) {
        None => Err(Errno::ESRCH),
        Some(other) if other != session => Err(Errno::EPERM),
        Some(_) => {
            terminal.state.lock().foreground = group;
            Ok(0)
        }
    }
}

fn put_number(argument: &mut dyn IoctlArgument, number: u32) -> Result<i64> {
    argument.write(&number.to_le_bytes()).map(|()| 0)
}

fn read_into<T: IntoBytes + FromBytes>(
    argument: &mut dyn IoctlArgument,
    value: &mut T,
) -> Result<()> {
    argument.read(value.as_mut_bytes())
}

fn get_settings(terminal: &Terminal, argument: &mut dyn IoctlArgument, size: usize) -> Result<i64> {
    let termios = *terminal.state.lock().discipline.termios();
    argument.write(&termios.as_bytes()[..size]).map(|()| 0)
}

fn set_settings(
    terminal: &Terminal,
    argument: &mut dyn IoctlArgument,
    size: usize,
    flush: bool,
) -> Result<i64> {
    terminal.check_foreground(true)?;
    let mut termios = *terminal.state.lock().discipline.termios();
    argument.read(&mut termios.as_mut_bytes()[..size])?;
    let mut state = terminal.state.lock();
    if flush {
        state.discipline.flush_input();
    }
    state.discipline.set_termios(termios);
    drop(state);
    terminal.wake_writers();
    Ok(0)
}

fn flush(terminal: &Terminal, queue: u64) -> Result<i64> {
    terminal.check_foreground(true)?;
    match u32::try_from(queue) {
        Ok(linux::TCIFLUSH | linux::TCIOFLUSH) => terminal.state.lock().discipline.flush_input(),
        Ok(linux::TCOFLUSH) => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// `tcflow`.
fn control_flow(terminal: &Terminal, action: u64) -> Result<i64> {
    terminal.check_foreground(true)?;
    let stop = match u32::try_from(action) {
        Ok(linux::TCOOFF) => true,
        Ok(linux::TCOON) => false,
        Ok(linux::TCIOFF | linux::TCION) => return Ok(0),
        _ => return Err(Errno::EINVAL),
    };
    terminal.state.lock().discipline.stopped = stop;
    if !stop {
        terminal.wake_writers();
    }
    Ok(0)
}
