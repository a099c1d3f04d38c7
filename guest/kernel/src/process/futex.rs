//! Futexes: sleeping until somebody says that a word of memory has changed.
//!
//! A futex is named by where its word is: for private memory by address space
//! and address, for shared memory by the frame, which all who map it have in
//! common.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pagelab_abi::addr::GuestVirt;
use pagelab_hal::sync::Lock;
use pagelab_mm::{Access, AreaFlags};
use pagelab_vfs::Errno;

use super::scheduler;
use super::sleep::{self, NotYet};
use super::space::Space;
use super::thread::Thread;
use crate::memory::memory;
use crate::syscall::Failure;
use crate::user;

/// Where a futex's word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// In private memory: root table and address.
    Private(u32, u64),
    /// In shared memory: frame and offset.
    Shared(u32, u64),
}

/// Somebody who waits.
struct Waiter {
    thread: Arc<Thread>,
    bits: u32,
    /// Woken, rather than interrupted or out of time.
    woken: Arc<Lock<bool>>,
}

static WAITERS: Lock<BTreeMap<Key, Vec<Waiter>>> = Lock::new(BTreeMap::new());

/// Matches every bit set.
pub const ALL_BITS: u32 = u32::MAX;

/// The key of the word at an address of the current program.
fn key_of(space: &Space, address: u64) -> Result<Key, Errno> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let at = GuestVirt(address);
    loop {
        let mut inner = space.lock();
        let shared = inner.area_at(at).is_some_and(|area| area.flags.contains(AreaFlags::SHARED));
        if !shared {
            return Ok(Key::Private(space.root().0, address));
        }
        match inner.frame_for(memory(), at, Access::READ) {
            Ok(frame) => return Ok(Key::Shared(frame.0, at.page_offset())),
            Err(error) => {
                drop(inner);
                user::mend(error)?;
            }
        }
    }
}

/// Sleeps while the word has the expected value.
///
/// # Errors
///
/// EAGAIN if it has another one, ETIMEDOUT, EINTR, EFAULT.
pub fn wait(address: u64, expected: u32, bits: u32, deadline: Option<u64>) -> Result<u64, Failure> {
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let space = scheduler::current().process.space();
    let key = key_of(&space, address)?;
    let value: u32 = user::read(GuestVirt(address))?;
    if value != expected {
        return Err(Errno::EAGAIN.into());
    }
    drop(space);
    let woken = Arc::new(Lock::new(false));
    let waiter = Waiter { thread: scheduler::current(), bits, woken: woken.clone() };
    WAITERS.lock().entry(key).or_default().push(waiter);
    let result = sleep::wait_alone(deadline, || woken.lock().then_some(()));
    forget(&woken);
    match result {
        Ok(()) => Ok(0),
        Err(NotYet::TimedOut) => Err(Errno::ETIMEDOUT.into()),
        Err(NotYet::Interrupted) if deadline.is_some() => Err(Errno::EINTR.into()),
        Err(NotYet::Interrupted) => Err(Failure::Restart),
    }
}

/// Takes a waiter out wherever it waits now (it may have been requeued).
fn forget(woken: &Arc<Lock<bool>>) {
    let mut waiters = WAITERS.lock();
    waiters.retain(|_, waiting| {
        waiting.retain(|waiter| !Arc::ptr_eq(&waiter.woken, woken));
        !waiting.is_empty()
    });
}

/// Wakes up to `most` who wait for the word; returns how many.
pub fn wake(address: u64, most: u32) -> u64 {
    wake_bits(address, most, ALL_BITS).unwrap_or(0)
}

/// Wakes up to `most` who wait for the word with one of these bits.
///
/// # Errors
///
/// EFAULT, EINVAL.
pub fn wake_bits(address: u64, most: u32, bits: u32) -> Result<u64, Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let space = scheduler::current().process.space();
    Ok(wake_key(key_of(&space, address)?, most, bits))
}

fn wake_key(key: Key, most: u32, bits: u32) -> u64 {
    let mut chosen = Vec::new();
    {
        let mut waiters = WAITERS.lock();
        let Some(waiting) = waiters.get_mut(&key) else { return 0 };
        let mut index = 0;
        while index < waiting.len() && (chosen.len() as u64) < u64::from(most) {
            if waiting[index].bits & bits != 0 {
                chosen.push(waiting.remove(index));
            } else {
                index += 1;
            }
        }
        if waiting.is_empty() {
            waiters.remove(&key);
        }
    }
    for waiter in &chosen {
        *waiter.woken.lock() = true;
        scheduler::wake(&waiter.thread);
    }
    chosen.len() as u64
}

/// Wakes up to `most` and has up to `requeued` others wait for another word.
/// With `expected`, only if the first word has that value.
///
/// # Errors
///
/// EAGAIN, EFAULT, EINVAL.
pub fn requeue(
    address: u64,
    most: u32,
    other: u64,
    requeued: u32,
    expected: Option<u32>,
) -> Result<u64, Errno> {
    // As Linux counts, with a sign.
    if most.max(requeued) > i32::MAX.unsigned_abs() {
        return Err(Errno::EINVAL);
    }
    if let Some(expected) = expected
        && user::read::<u32>(GuestVirt(address))? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let space = scheduler::current().process.space();
    let (from, to) = (key_of(&space, address)?, key_of(&space, other)?);
    let mut count = wake_key(from, most, ALL_BITS);
    let mut waiters = WAITERS.lock();
    let mut moved = waiters.remove(&from).unwrap_or_default();
    let stay = moved.split_off(moved.len().min(requeued as usize));
    if !stay.is_empty() {
        waiters.insert(from, stay);
    }
    if !moved.is_empty() {
        count += moved.len() as u64;
        waiters.entry(to).or_default().append(&mut moved);
    }
    Ok(count)
}

/// A thread ends: the futexes on its robust list get the mark of a dead owner.
pub fn release_robust(thread: &Thread) {
    const OWNER_DIED: u32 = 0x4000_0000;
    const WAITERS_BIT: u32 = 0x8000_0000;
    const OWNER_MASK: u32 = 0x3fff_ffff;
    const MOST: usize = 2048;
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head == 0 {
        return;
    }
    // The head: first entry, offset from an entry to its word, pending entry.
    let Ok([first, offset, pending]) = user::read::<[u64; 3]>(GuestVirt(head)) else { return };
    let mut entry = first;
    let handle = |entry: u64| {
        let word = entry.wrapping_add(offset);
        let Ok(value) = user::read::<u32>(GuestVirt(word)) else { return };
        if value & OWNER_MASK == thread.tid {
            let dead = value & WAITERS_BIT | OWNER_DIED;
            if user::write(GuestVirt(word), &dead).is_ok() {
                wake(word, 1);
            }
        }
    };
    for _ in 0..MOST {
        if entry == head || entry == 0 {
            break;
        }
        let Ok(next) = user::read::<u64>(GuestVirt(entry & !1)) else { break };
        if entry != pending {
            handle(entry & !1);
        }
        entry = next;
    }
    if pending != 0 {
        handle(pending & !1);
    }
}
