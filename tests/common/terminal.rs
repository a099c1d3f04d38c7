//! Pseudo-terminals: what a user at a terminal does, without one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use super::{Lab, Running};

/// A pseudo-terminal.
pub struct Terminal {
    host: OwnedFd,
    guest: File,
}

impl Terminal {
    pub fn new() -> Self {
        let host = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&host).expect("granted");
        unlockpt(&host).expect("unlocked");
        let name = ptsname(&host, Vec::new()).expect("a name").into_string().expect("text");
        let guest = File::options().read(true).write(true).open(name).expect("the other end");
        Self { host, guest }
    }

    pub fn mode(&self) -> Termios {
        tcgetattr(&self.guest).expect("a mode")
    }

    pub fn edits_lines(&self) -> bool {
        self.mode().local_modes.contains(LocalModes::ICANON)
    }

    /// Gives `command` this as its controlling terminal.
    fn attach(&self, command: &mut Command) {
        let end = || Stdio::from(self.guest.try_clone().expect("a descriptor"));
        command.stdin(end()).stdout(end());
        // SAFETY: between fork and exec only two system calls are made.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
    }

    /// Starts `lab` with this as its controlling terminal.
    pub fn start(&self, mut lab: Lab) -> Running {
        self.attach(&mut lab.command);
        lab.start()
    }

    /// Starts a program of the host in the same way, with what it says of errors.
    pub fn start_here(&self, mut command: Command) -> Child {
        self.attach(&mut command);
        command.stderr(Stdio::from(self.guest.try_clone().expect("a descriptor")));
        command.spawn().expect("it starts")
    }

    pub fn wait_for_keys_mode(&self) {
        let began = Instant::now();
        while self.edits_lines() {
            assert!(began.elapsed() < Duration::from_secs(30), "the mode never changed");
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn type_in(&self, bytes: &[u8]) {
        self.host_end().write_all(bytes).expect("typed");
    }

    pub fn read(&self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.host_end().read_exact(&mut bytes).expect("output");
        bytes
    }

    /// Reads all that comes from now on in the background.
    pub fn screen(&self) -> Screen {
        let (sender, pieces) = mpsc::channel();
        let mut host = self.host_end();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = host.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Screen { pieces, seen: Vec::new() }
    }

    fn host_end(&self) -> File {
        File::from(self.host.try_clone().expect("a descriptor"))
    }
}

/// What a terminal shows.
pub struct Screen {
    pieces: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Screen {
    /// Waits until `text` has been shown so often; returns all that was shown.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, times: usize) -> String {
        let limit = Instant::now() + Duration::from_secs(50);
        loop {
            let shown = String::from_utf8_lossy(&self.seen).into_owned();
            if shown.matches(text).count() >= times {
                return shown;
            }
            let left = limit.saturating_duration_since(Instant::now());
            let Ok(piece) = self.pieces.recv_timeout(left) else {
                panic!("‘{text}’ was not shown {times} times:\n{shown}");
            };
            self.seen.extend(piece);
        }
    }
}
