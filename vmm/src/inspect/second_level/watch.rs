//! The host's own page faults on guest memory, counted exactly (`userfaultfd`).
//!
//! While a [`FaultWatch`] lives, every access to guest memory that the host
//! cannot satisfy at once is told to a thread of it, which notes it and lets the
//! access go on:
//!
//! * *missing*: the page does not exist yet; it gets one of zeros;
//! * *minor*: the page exists, but the VMM's page tables do not map it (after
//!   `reclaim`, for example); it is mapped.
//!
//! Accesses of the guest come from KVM on behalf of the vCPU's thread, those of
//! the VMM's devices from other threads; the log says which thread it was. What
//! was there before the watch began makes no fault, so a watch that begins before
//! the guest counts each first touch once.
//!
//! Watching kernel accesses needs the right to: `/dev/userfaultfd` that may be
//! opened, root, or `vm.unprivileged_userfaultfd = 1`.

#![allow(unsafe_code, reason = "the few userfaultfd operations have no safe wrapper")]

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pagelab_abi::addr::GuestPhys;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use super::host_pages::HOST_PAGE;
use crate::inspect::value::Hex;
use crate::memory::GuestRam;

/// Why faults cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// This process may not.
    #[error(
        "this process may not watch the host's page faults: it needs /dev/userfaultfd, root, or \
         the setting vm.unprivileged_userfaultfd = 1 ({0})"
    )]
    NotAllowed(io::Error),
    /// The kernel cannot.
    #[error("this host cannot watch page faults on shared memory (userfaultfd): {0}")]
    Unsupported(io::Error),
    /// Guest memory was refused.
    #[error("the host refuses to watch guest memory: {0}")]
    Register(io::Error),
    /// No thread, or no event descriptor.
    #[error("cannot start watching: {0}")]
    Start(io::Error),
}

/// What was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostFaultKind {
    /// The page did not exist.
    Missing,
    /// It existed, but was not mapped.
    Minor,
}

/// One page fault of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostFault {
    /// Counted from 1.
    pub number: u64,
    /// When, since the watch began.
    pub time: Duration,
    /// Which guest-physical page.
    pub physical: Hex,
    /// What was missing.
    pub kind: HostFaultKind,
    /// It was a write.
    pub write: bool,
    /// The host thread that made the access; a worker of KVM's may do it for
    /// the vCPU's.
    pub thread: u32,
}

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FaultLog {
    /// Pages that did not exist.
    pub missing: u64,
    /// Pages that were not mapped.
    pub minor: u64,
    /// Whether the host tells those.
    pub minor_watched: bool,
    /// The latest faults, oldest first.
    pub faults: VecDeque<HostFault>,
    /// Earlier ones that were dropped from the list (not from the counts).
    pub dropped: u64,
    /// Faults that could not be resolved as they should: each was woken up and
    /// tried again.
    pub retried: u64,
}

/// How many faults the list keeps.
const MOST: usize = 1 << 16;

/// Watching, until it is dropped.
#[derive(Debug)]
pub struct FaultWatch {
    log: Arc<Mutex<FaultLog>>,
    stop: EventFd,
    thread: Option<JoinHandle<()>>,
}

impl FaultWatch {
    /// Begins to watch all of `ram`.
    ///
    /// # Errors
    ///
    /// If the host does not let this process, or cannot.
    pub fn start(ram: &Arc<GuestRam>) -> Result<Self, WatchError> {
        let (file, minor_watched) = open()?;
        let mode = if minor_watched { MODE_MISSING | MODE_MINOR } else { MODE_MISSING };
        for region in ram.mapping().iter() {
            let range = Range { start: region.as_ptr() as u64, length: region.len() };
            let mut request = Register { range, mode, operations: 0 };
            // SAFETY: the kernel reads and writes the request, which outlives
            // the call; the range is the VMM's mapping of guest memory, and
            // faults there are resolved by the thread below.
            let result = unsafe { ioctl_with_mut_ref(&file, REGISTER, &mut request) };
            if result < 0 {
                return Err(WatchError::Register(io::Error::last_os_error()));
            }
        }
        let stop = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        let stop = stop.map_err(WatchError::Start)?;
        let log = Arc::new(Mutex::new(FaultLog { minor_watched, ..FaultLog::default() }));
        let handler = Handler {
            file,
            ram: Arc::clone(ram),
            log: Arc::clone(&log),
            began: Instant::now(),
            stop: stop.try_clone().map_err(WatchError::Start)?,
        };
        let thread = thread::Builder::new()
            .name("host-faults".to_owned())
            .spawn(move || handler.run())
            .map_err(WatchError::Start)?;
        Ok(Self { log, stop, thread: Some(thread) })
    }

    /// What was seen so far.
    #[must_use]
    pub fn log(&self) -> FaultLog {
        lock(&self.log).clone()
    }

    /// How many pages were missing and not mapped so far: [`Self::log`] without
    /// the list.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let log = lock(&self.log);
        (log.missing, log.minor)
    }
}

impl Drop for FaultWatch {
    fn drop(&mut self) {
        if let Err(error) = self.stop.write(1) {
            log::error!("cannot stop watching host faults: {error}");
            return;
        }
        // With the descriptor gone, whoever waits goes on as without a watch.
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that watched host faults panicked");
        }
    }
}

fn lock(log: &Mutex<FaultLog>) -> MutexGuard<'_, FaultLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Handler {
    file: File,
    ram: Arc<GuestRam>,
    log: Arc<Mutex<FaultLog>>,
    began: Instant,
    stop: EventFd,
}

impl Handler {
    fn run(self) {
        loop {
            let mut waiting = [
                PollFd::new(&self.file, PollFlags::IN),
                PollFd::from_borrowed_fd(borrow(&self.stop), PollFlags::IN),
            ];
            match poll(&mut waiting, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    log::error!("cannot wait for host faults: {error}");
                    return;
                }
            }
            if !waiting[1].revents().is_empty() {
                return;
            }
            if !self.take_messages() {
                return;
            }
        }
    }

    /// Handles what is there; `false` if nothing more will come.
    fn take_messages(&self) -> bool {
        const MESSAGE: usize = 32;
        let mut buffer = [0; MESSAGE * 16];
        match (&self.file).read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                for message in buffer[..length].as_chunks::<MESSAGE>().0 {
                    self.take(message);
                }
                true
            }
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
            }
        }
    }

    fn take(&self, message: &[u8; 32]) {
        const EVENT_PAGE_FAULT: u8 = 0x12;
        const FLAG_WRITE: u64 = 1 << 0;
        const FLAG_MINOR: u64 = 1 << 2;
        if message[0] != EVENT_PAGE_FAULT {
            return;
        }
        let (words, _) = message.as_chunks::<8>();
        let word = |index: usize| u64::from_ne_bytes(words[index]);
        let (flags, address) = (word(1), word(2) & !(HOST_PAGE - 1));
        let minor = flags & FLAG_MINOR != 0;
        let time = self.began.elapsed();
        // Locked before the access goes on, so that whoever looks afterwards
        // finds it noted.
        let mut log = lock(&self.log);
        if !self.resolve(address, minor) {
            // Somebody else was faster: the access is tried again.
            log.retried += 1;
            return;
        }
        *if minor { &mut log.minor } else { &mut log.missing } += 1;
        let fault = HostFault {
            number: log.missing + log.minor,
            time,
            physical: self.guest_address(address).into(),
            kind: if minor { HostFaultKind::Minor } else { HostFaultKind::Missing },
            write: flags & FLAG_WRITE != 0,
            // The low half: the rest of the message is not used.
            thread: u32::try_from(word(3) & u64::from(u32::MAX)).unwrap_or(0),
        };
        if log.faults.len() == MOST {
            log.faults.pop_front();
            log.dropped += 1;
        }
        log.faults.push_back(fault);
    }

    /// Makes the page and wakes whoever waits; `false` if it was there already.
    fn resolve(&self, address: u64, minor: bool) -> bool {
        let range = Range { start: address, length: HOST_PAGE };
        let operation = if minor { CONTINUE } else { ZERO_PAGE };
        for _ in 0..64 {
            let mut request = Resolve { range, mode: 0, result: 0 };
            // SAFETY: the kernel reads and writes the request; the page is one
            // of guest memory, whose contents it only makes where there are
            // none.
            if unsafe { ioctl_with_mut_ref(&self.file, operation, &mut request) } >= 0 {
                return true;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The address space is changing: again.
                Some(libc::EAGAIN) => {}
                Some(libc::EEXIST) => break,
                _ => {
                    log::debug!("cannot resolve a host fault at {address:#x}: {error}");
                    break;
                }
            }
        }
        // SAFETY: the kernel reads the range and wakes who waits for it.
        let woken = unsafe { ioctl_with_ref(&self.file, WAKE, &range) };
        if woken < 0 {
            log::error!("cannot wake after a host fault: {}", io::Error::last_os_error());
        }
        false
    }

    fn guest_address(&self, address: u64) -> GuestPhys {
        let found = self.ram.mapping().iter().find_map(|region| {
            let offset = address.checked_sub(region.as_ptr() as u64)?;
            (offset < region.len()).then(|| GuestPhys(region.start_addr().0 + offset))
        });
        found.unwrap_or_default()
    }
}

/// The descriptor of an event, for `poll`.
fn borrow(event: &EventFd) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor stays open as long as the event it is borrowed
    // from.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Opens a userfaultfd that tells of missing pages of shared memory, and of
/// pages that are not mapped if the kernel can.
fn open() -> Result<(File, bool), WatchError> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for (features, minor) in
        [(MISSING_SHMEM | MINOR_SHMEM | THREAD_ID, true), (MISSING_SHMEM | THREAD_ID, false)]
    {
        let file = File::from(create().map_err(WatchError::NotAllowed)?);
        let mut request = Api { api: API_VERSION, features, operations: 0 };
        // SAFETY: the kernel reads and writes the request.
        if unsafe { ioctl_with_mut_ref(&file, API, &mut request) } >= 0 {
            return Ok((file, minor));
        }
        last = io::Error::last_os_error();
    }
    Err(WatchError::Unsupported(last))
}

/// A new userfaultfd, from the device or by the system call.
fn create() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let by_device = File::open("/dev/userfaultfd").and_then(|device| {
        let flags = libc::c_ulong::try_from(flags).unwrap_or(0);
        // SAFETY: the request takes flags and gives a new descriptor.
        owned(i64::from(unsafe { ioctl_with_val(&device, NEW, flags) }))
    });
    by_device.or_else(|_| {
        // SAFETY: the call takes flags and gives a new descriptor.
        owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
    })
}

fn owned(descriptor: i64) -> io::Result<OwnedFd> {
    let number = i32::try_from(descriptor).ok().filter(|&number| number >= 0);
    let number = number.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just made this descriptor for us; nobody else knows
    // or closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `_IO(0xaa, 0)` of `/dev/userfaultfd`.
const NEW: libc::c_ulong = 0xaa00;
/// `_IOWR(0xaa, 0x3f, struct uffdio_api)`.
const API: libc::c_ulong = 0xc018_aa3f;
/// `_IOWR(0xaa, 0x00, struct uffdio_register)`.
const REGISTER: libc::c_ulong = 0xc020_aa00;
/// `_IOR(0xaa, 0x02, struct uffdio_range)`.
const WAKE: libc::c_ulong = 0x8010_aa02;
/// `_IOWR(0xaa, 0x04, struct uffdio_zeropage)`.
const ZERO_PAGE: libc::c_ulong = 0xc020_aa04;
/// `_IOWR(0xaa, 0x07, struct uffdio_continue)`.
const CONTINUE: libc::c_ulong = 0xc020_aa07;

const API_VERSION: u64 = 0xaa;
const MISSING_SHMEM: u64 = 1 << 5;
const THREAD_ID: u64 = 1 << 8;
const MINOR_SHMEM: u64 = 1 << 10;
const MODE_MISSING: u64 = 1 << 0;
const MODE_MINOR: u64 = 1 << 2;

/// The kernel's `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    operations: u64,
}

/// The kernel's `struct uffdio_range`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
}

/// The kernel's `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    operations: u64,
}

/// The kernel's `struct uffdio_zeropage` and `struct uffdio_continue`.
#[repr(C)]
struct Resolve {
    range: Range,
    mode: u64,
    result: i64,
}

const _: () = {
    assert!(size_of::<Api>() == 24);
    assert!(size_of::<Register>() == 32);
    assert!(size_of::<Resolve>() == 32);
};

impl fmt::Display for FaultLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            let kind = match fault.kind {
                HostFaultKind::Missing => "missing",
                HostFaultKind::Minor => "not mapped",
            };
            let access = if fault.write { "write" } else { "read" };
            writeln!(
                f,
                "{:>8} {:>12.6} {:>14} {kind:<10} {access:<5} thread {}",
                fault.number,
                fault.time.as_secs_f64(),
                fault.physical,
                fault.thread
            )?;
        }
        if self.dropped > 0 {
            writeln!(f, "{} earlier ones are no longer listed", self.dropped)?;
        }
        let minor = if self.minor_watched { "" } else { " (this host does not tell)" };
        writeln!(
            f,
            "{} pages were missing, {} were there and not mapped{minor}",
            self.missing, self.minor
        )
    }
}
