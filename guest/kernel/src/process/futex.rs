//! Futexes: sleeping until somebody says that a word of memory has changed.
//!
//! A futex is named by where its word is. One that a program calls private is
//! named by address space and address, and its page is not looked at. Otherwise
//! it is named, in shared memory, by the object and the place in it, which all
//! who map it have in common.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT};
use pagelab_abi::layout::USER_END;
use pagelab_hal::sync::Lock;
use pagelab_mm::{Access, Backing, ObjectId, Protection};
use pagelab_vfs::Errno;

use super::scheduler;
use super::sleep::{self, NotYet};
use super::space::Space;
use super::thread::Thread;
use crate::memory::memory;
use crate::syscall::Failure;
use crate::user;

/// A futex's word as a program names it.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Its address.
    pub address: u64,
    /// Only threads that share the address space use it.
    pub private: bool,
}

/// Where a futex's word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Called private: root table and address.
    Private(u32, u64),
    /// In private memory: the same.
    Own(u32, u64),
    /// In shared memory: page of an object, offset.
    Shared(ObjectId, u64, u64),
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

/// The key of a word of the current program, which brings its page in.
///
/// # Errors
///
/// EINVAL if the word is not aligned, EFAULT if the program cannot write it, or
/// without `write`, if it can neither write it nor read it from an object.
fn key_of(space: &Space, word: Word, write: bool) -> Result<Key, Errno> {
    const SIZE: u64 = size_of::<u32>() as u64;
    let Word { address, private } = word;
    if !address.is_multiple_of(SIZE) {
        return Err(Errno::EINVAL);
    }
    if address > USER_END.0 - SIZE {
        return Err(Errno::EFAULT);
    }
    let root = space.root().0;
    if private {
        return Ok(Key::Private(root, address));
    }
    let at = GuestVirt(address);
    loop {
        let mut inner = space.lock();
        let area = *inner.area_at(at).ok_or(Errno::EFAULT)?;
        let writable = area.protection.contains(Protection::WRITE);
        let key = match area.backing {
            Backing::Object(object) if !area.is_private() || !writable && !write => {
                let page = (at.page_start().0 - area.start.0) >> PAGE_SHIFT;
                Key::Shared(object, area.offset + page, at.page_offset())
            }
            _ if writable => Key::Own(root, address),
            _ => return Err(Errno::EFAULT),
        };
        let access = if writable || write { Access::WRITE } else { Access::READ };
        match inner.frame_for(memory(), at, access) {
            Ok(_) => return Ok(key),
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
pub fn wait(word: Word, expected: u32, bits: u32, deadline: Option<u64>) -> Result<u64, Failure> {
    if bits == 0 {
        return Err(Errno::EINVAL.into());
    }
    let space = scheduler::current().process.space();
    let key = key_of(&space, word, false)?;
    let value: u32 = user::read(GuestVirt(word.address))?;
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

/// Wakes one who waits for a word that a thread leaves behind.
pub fn wake_one(address: u64) {
    // A bad address is the program's own affair.
    let _ = wake_bits(Word { address, private: false }, 1, ALL_BITS);
}

/// Wakes up to `most`, but at least one, who wait for the word with one of these
/// bits; returns how many.
///
/// # Errors
///
/// EFAULT, EINVAL.
pub fn wake_bits(word: Word, most: i32, bits: u32) -> Result<u64, Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let space = scheduler::current().process.space();
    Ok(wake_key(key_of(&space, word, false)?, at_least_one(most), bits))
}

/// As many as Linux wakes, which looks at the limit after each.
fn at_least_one(most: i32) -> u32 {
    most.max(1).cast_unsigned()
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
    (word, most): (Word, i32),
    (other, requeued): (Word, i32),
    expected: Option<u32>,
) -> Result<u64, Errno> {
    let (Ok(most), Ok(requeued)) = (u32::try_from(most), u32::try_from(requeued)) else {
        return Err(Errno::EINVAL);
    };
    let space = scheduler::current().process.space();
    let (from, to) = (key_of(&space, word, false)?, key_of(&space, other, false)?);
    if let Some(expected) = expected
        && user::read::<u32>(GuestVirt(word.address))? != expected
    {
        return Err(Errno::EAGAIN);
    }
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

/// Changes the second word as `operation` says, wakes up to `most` who wait for
/// the first, and if the second had the value that `operation` names, up to
/// `others` who wait for that.
///
/// # Errors
///
/// ENOSYS if there is no such operation, EFAULT, EINVAL.
pub fn wake_and_change(
    (word, most): (Word, i32),
    (other, others): (Word, i32),
    operation: u32,
) -> Result<u64, Errno> {
    let space = scheduler::current().process.space();
    let (first, second) = (key_of(&space, word, false)?, key_of(&space, other, true)?);
    let old = change(GuestVirt(other.address), operation)?;
    let matches = compare(old, operation).ok_or(Errno::ENOSYS)?;
    let mut count = wake_key(first, at_least_one(most), ALL_BITS);
    if matches {
        count += wake_key(second, at_least_one(others), ALL_BITS);
    }
    Ok(count)
}

/// A field of twelve bits, with its sign.
const fn signed_field(operation: u32, lowest: u32) -> i32 {
    (operation << (20 - lowest)).cast_signed() >> 20
}

/// Does what the upper bits of an operation say; returns what was there.
fn change(at: GuestVirt, operation: u32) -> Result<u32, Errno> {
    const SHIFTED: u32 = 8;
    let kind = operation >> 28;
    let field = signed_field(operation, 12);
    let argument = if kind & SHIFTED == 0 { field.cast_unsigned() } else { 1 << (field & 31) };
    // Nobody else runs between the two: the page is there from the first on.
    let old: u32 = user::read(at)?;
    let new = match kind & !SHIFTED {
        0 => argument,
        1 => old.wrapping_add(argument),
        2 => old | argument,
        3 => old & !argument,
        4 => old ^ argument,
        _ => return Err(Errno::ENOSYS),
    };
    user::write(at, &new)?;
    Ok(old)
}

/// What the lower bits of an operation say of the old value; `None` if nothing.
const fn compare(old: u32, operation: u32) -> Option<bool> {
    let (old, argument) = (old.cast_signed(), signed_field(operation, 0));
    Some(match operation >> 24 & 0xf {
        0 => old == argument,
        1 => old != argument,
        2 => old < argument,
        3 => old <= argument,
        4 => old > argument,
        5 => old >= argument,
        _ => return None,
    })
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
        if value & OWNER_MASK == thread.tid() {
            let dead = value & WAITERS_BIT | OWNER_DIED;
            if user::write(GuestVirt(word), &dead).is_ok() && value & WAITERS_BIT != 0 {
                wake_one(word);
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
