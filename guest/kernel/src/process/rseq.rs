//! Restartable sequences: instructions of a program that begin anew, elsewhere,
//! if something comes between them.
//!
//! A thread registers a record; while it runs such a sequence, the record points to
//! its description. If the thread is interrupted inside it, by another thread's
//! turn or by a signal, it goes on at the address for that case. The record also
//! says which processor it runs on, which is always the only one.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::layout::USER_END;
use pagelab_hal::sync::Lock;
use pagelab_hal::trap::TrapFrame;
use pagelab_vfs::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::scheduler;
use super::thread::Thread;
use crate::signal::{SIGSEGV, SignalInfo, Trap, force};
use crate::user;

/// `struct rseq`, as far as every program has it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    cpu_at_start: u32,
    cpu: u32,
    /// Address of a [`Sequence`]; 0 outside of one.
    sequence: u64,
    flags: u32,
    node: u32,
    memory_map: u32,
    reserved: u32,
}

/// `struct rseq_cs`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Sequence {
    version: u32,
    flags: u32,
    start: u64,
    length: u64,
    abort: u64,
}

const SIZE: u32 = size_of::<Record>() as u32;
const ALIGNMENT: u64 = 32;
const NO_CPU: u32 = u32::MAX;
const UNREGISTER: u32 = 1;

/// What a thread has registered.
#[derive(Default)]
pub struct Registration {
    /// Where the record is; 0 for none. Apart from the rest, so that a look at it
    /// takes no lock.
    address: AtomicU64,
    details: Lock<Details>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Details {
    length: u32,
    /// Stands before every address where sequences go on, so that nobody can have
    /// a thread go elsewhere.
    signature: u32,
}

impl Registration {
    /// For the child of a fork, which has a copy of the record.
    pub fn copy_from(&self, other: &Self) {
        *self.details.lock() = *other.details.lock();
        self.address.store(other.address.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Nothing is registered any more.
    pub fn clear(&self) {
        self.address.store(0, Ordering::Relaxed);
    }
}

/// `rseq`.
///
/// # Errors
///
/// As on Linux.
pub fn register(address: u64, length: u32, flags: u32, signature: u32) -> Result<(), Errno> {
    let thread = scheduler::current();
    let registration = &thread.rseq;
    let registered = registration.address.load(Ordering::Relaxed);
    let mut details = *registration.details.lock();
    let is_same = registered == address && details.length == length;
    match flags {
        UNREGISTER if registered == 0 || !is_same => return Err(Errno::EINVAL),
        UNREGISTER if details.signature != signature => return Err(Errno::EPERM),
        UNREGISTER => {
            user::write(GuestVirt(address), &Record::new(NO_CPU))?;
            registration.clear();
            return Ok(());
        }
        0 => {}
        _ => return Err(Errno::EINVAL),
    }
    if registered != 0 {
        return Err(match () {
            () if !is_same => Errno::EINVAL,
            () if details.signature != signature => Errno::EPERM,
            () => Errno::EBUSY,
        });
    }
    if length < SIZE || !address.is_multiple_of(ALIGNMENT) || address == 0 {
        return Err(Errno::EINVAL);
    }
    if address.checked_add(length.into()).is_none_or(|end| end > USER_END.0) {
        return Err(Errno::EFAULT);
    }
    user::write(GuestVirt(address), &Record::new(0))?;
    (details.length, details.signature) = (length, signature);
    *registration.details.lock() = details;
    registration.address.store(address, Ordering::Relaxed);
    Ok(())
}

impl Record {
    const fn new(cpu: u32) -> Self {
        let cpu_at_start = 0;
        let (sequence, flags, node, memory_map, reserved) = (0, 0, 0, 0, 0);
        Self { cpu_at_start, cpu, sequence, flags, node, memory_map, reserved }
    }
}

/// Something came between two instructions of the running thread: if they belong
/// to a sequence, it goes on where that says. One that makes no sense is answered
/// by SIGSEGV.
#[inline]
pub fn interrupted(frame: &mut TrapFrame) {
    let record = scheduler::ask_current(|thread| thread.rseq.address.load(Ordering::Relaxed));
    if record == 0 {
        return;
    }
    let thread = scheduler::current();
    if leave_sequence(&thread, record, frame).is_err() {
        thread.rseq.clear();
        force(SignalInfo::kernel(SIGSEGV), Trap::default());
    }
}

fn leave_sequence(thread: &Thread, record: u64, frame: &mut TrapFrame) -> Result<(), Errno> {
    let pointer = GuestVirt(record + offset_of!(Record, sequence) as u64);
    let at: u64 = user::read(pointer)?;
    if at == 0 {
        return Ok(());
    }
    let sequence: Sequence = user::read(GuestVirt(at))?;
    let end = sequence.start.checked_add(sequence.length).ok_or(Errno::EINVAL)?;
    let inside = sequence.start..end;
    if end > USER_END.0
        || sequence.version != 0
        || sequence.abort >= USER_END.0
        || inside.contains(&sequence.abort)
    {
        return Err(Errno::EINVAL);
    }
    let before = sequence.abort.checked_sub(size_of::<u32>() as u64).ok_or(Errno::EINVAL)?;
    let signature: u32 = user::read(GuestVirt(before))?;
    if signature != thread.rseq.details.lock().signature {
        return Err(Errno::EINVAL);
    }
    if inside.contains(&frame.rip) {
        frame.rip = sequence.abort;
    }
    user::write(pointer, &0_u64)
}
