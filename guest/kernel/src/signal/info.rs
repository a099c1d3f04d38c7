//! Why a signal was sent: `siginfo_t`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::process::wait::Change;
use crate::process::{ExitStatus, Pid, scheduler};

use super::set::SignalSet;
use super::timer::TimerId;
use super::{SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};

/// Values of `si_code`.
pub mod code {
    /// By `kill`.
    pub const USER: i32 = 0;
    /// By the kernel.
    pub const KERNEL: i32 = 0x80;
    /// By a timer of `timer_create`.
    pub const TIMER: i32 = -2;
    /// By `tkill` or `tgkill`.
    pub const THREAD: i32 = -6;
    /// SIGCHLD: the child exited.
    pub const CHILD_EXITED: i32 = 1;
    /// SIGCHLD: a signal ended the child.
    pub const CHILD_KILLED: i32 = 2;
    /// SIGCHLD: the child stopped.
    pub const CHILD_STOPPED: i32 = 5;
    /// SIGCHLD: the child goes on.
    pub const CHILD_CONTINUED: i32 = 6;
}

/// The part of `siginfo_t` that means something; the rest of its 128 bytes is
/// zero.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SignalInfo {
    number: i32,
    error: i32,
    /// `si_code`.
    pub code: i32,
    padding: i32,
    /// What depends on the signal and its code: an address, a sender, a child.
    fields: [u64; 4],
}

/// Size of `siginfo_t`.
pub const USER_SIZE: usize = 128;
const _: () = assert!(size_of::<SignalInfo>() == 48);

impl SignalInfo {
    fn new(number: u8, code: i32, fields: [u64; 4]) -> Self {
        Self { number: number.into(), error: 0, code, padding: 0, fields }
    }

    /// A fault at an address.
    pub fn fault(number: u8, code: i32, address: u64) -> Self {
        Self::new(number, code, [address, 0, 0, 0])
    }

    /// From the kernel, for reasons of its own.
    pub fn kernel(number: u8) -> Self {
        Self::new(number, code::KERNEL, [0; 4])
    }

    /// From the current process by a call, which `code` names.
    pub fn sent(number: u8, code: i32) -> Self {
        let sender = scheduler::current().process.pid;
        Self::new(number, code, [sender.into(), 0, 0, 0])
    }

    /// From a timer of `timer_create`, with what the program gave for it.
    pub fn from_timer(number: u8, timer: TimerId, value: u64) -> Self {
        Self::new(number, code::TIMER, [u64::from(timer.cast_unsigned()), value, 0, 0])
    }

    /// The timer it is from, if it is from one.
    pub fn timer(&self) -> Option<TimerId> {
        (self.code == code::TIMER).then_some(self.fields[0] as TimerId)
    }

    /// Says how often its timer has expired beyond once.
    pub fn with_overrun(mut self, overrun: u32) -> Self {
        self.fields[0] = self.fields[0] & u64::from(u32::MAX) | u64::from(overrun) << 32;
        self
    }

    /// A signal of which nothing is known but that it came.
    pub fn unknown(number: u8) -> Self {
        Self::new(number, code::USER, [0; 4])
    }

    /// What a parent learns of its child.
    pub fn child(number: u8, child: Pid, change: Change) -> Self {
        let (code, status) = child_change(change);
        Self::new(number, code, [child.into(), status.into(), 0, 0])
    }

    /// Which signal.
    pub fn signal(&self) -> u8 {
        u8::try_from(self.number).unwrap_or_default()
    }

    /// The same as another signal.
    pub fn as_signal(mut self, number: u8) -> Self {
        self.number = number.into();
        self
    }

    /// As a program sees it.
    pub fn to_user(self) -> [u8; USER_SIZE] {
        let mut bytes = [0; USER_SIZE];
        bytes[..size_of::<Self>()].copy_from_slice(self.as_bytes());
        bytes
    }
}

/// Size of `struct signalfd_siginfo`.
pub const SIGNAL_FILE_RECORD: usize = 128;

/// The part of `struct signalfd_siginfo` that means something.
#[derive(Clone, Copy, Default, IntoBytes, Immutable)]
#[repr(C)]
struct SignalFileRecord {
    number: i32,
    error: i32,
    code: i32,
    pid: u32,
    uid: u32,
    descriptor: i32,
    timer: u32,
    band: u32,
    overrun: u32,
    trap: u32,
    status: u32,
    value: u32,
    pointer: u64,
    user_time: u64,
    system_time: u64,
    address: u64,
}

impl SignalInfo {
    /// As a program reads it from a `signalfd`.
    pub fn to_signal_file(self) -> [u8; SIGNAL_FILE_RECORD] {
        const FAULTS: SignalSet = SignalSet::of(&[SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP]);
        let half = |index: usize| [self.fields[index] as u32, (self.fields[index] >> 32) as u32];
        let common = SignalFileRecord {
            number: self.number,
            error: self.error,
            code: self.code,
            ..SignalFileRecord::default()
        };
        let ([first, second], pointer) = (half(0), self.fields[1]);
        let (value, sender) =
            (pointer as u32, SignalFileRecord { pid: first, uid: second, ..common });
        let record = match self.code {
            code::TIMER => {
                SignalFileRecord { timer: first, overrun: second, value, pointer, ..common }
            }
            code::KERNEL => common,
            code::USER | code::THREAD => sender,
            given if given < 0 => SignalFileRecord { value, pointer, ..sender },
            _ if self.signal() == SIGCHLD => SignalFileRecord { status: value, ..sender },
            _ if FAULTS.contains(self.signal()) => {
                SignalFileRecord { address: self.fields[0], ..common }
            }
            _ => common,
        };
        let mut bytes = [0; SIGNAL_FILE_RECORD];
        bytes[..size_of::<SignalFileRecord>()].copy_from_slice(record.as_bytes());
        bytes
    }
}

/// `si_code` and `si_status` of a child, as SIGCHLD and `waitid` report it.
pub fn child_change(change: Change) -> (i32, u8) {
    match change {
        Change::Ended(ExitStatus::Exited(status)) => (code::CHILD_EXITED, status),
        Change::Ended(ExitStatus::Killed(signal)) => (code::CHILD_KILLED, signal),
        Change::Stopped(signal) => (code::CHILD_STOPPED, signal),
        Change::Continued => (code::CHILD_CONTINUED, SIGCONT),
    }
}
