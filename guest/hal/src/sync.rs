//! Locks for one processor that never preempts ring 0.
//!
//! Nobody else can run while a lock is held, unless its holder goes to sleep
//! with it: that is a bug, and it is reported at once instead of as a hang.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that one piece of code at a time may use.
pub struct Lock<T: ?Sized> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `held` lets one user at a time in.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}
// SAFETY: a lock owns its value.
unsafe impl<T: ?Sized + Send> Send for Lock<T> {}

/// Access to a locked value, until it is dropped.
pub struct Guard<'a, T: ?Sized> {
    lock: &'a Lock<T>,
}

impl<T> Lock<T> {
    /// A free lock.
    pub const fn new(value: T) -> Self {
        Self { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> Lock<T> {
    /// Takes the lock.
    ///
    /// # Panics
    ///
    /// If it is held: on one processor that could only be a deadlock.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, T> {
        match self.try_lock() {
            Some(guard) => guard,
            None => panic!("a lock is taken while it is held"),
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        // A plain load and store: interrupts are off, and there is one processor.
        if self.held.load(Ordering::Acquire) {
            return None;
        }
        self.held.store(true, Ordering::Relaxed);
        Some(Guard { lock: self })
    }
}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so the lock is held by it alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists, so the lock is held by it alone.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

/// A value that is set once, early, and then only read.
pub struct Once<T> {
    value: UnsafeCell<Option<T>>,
}

// SAFETY: written by the first `set` only, before any reference exists.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// Not set yet.
    pub const fn new() -> Self {
        Self { value: UnsafeCell::new(None) }
    }

    /// Sets the value.
    ///
    /// # Panics
    ///
    /// If it is set already.
    pub fn set(&self, value: T) {
        // SAFETY: one processor; the reference ends with this expression.
        let set = unsafe { (*self.value.get()).is_some() };
        assert!(!set, "set once");
        // SAFETY: not set, so nobody has a reference.
        unsafe { *self.value.get() = Some(value) };
    }

    /// The value.
    ///
    /// # Panics
    ///
    /// Before it is set.
    #[inline]
    #[track_caller]
    pub fn get(&self) -> &T {
        // SAFETY: never written again once it is set.
        unsafe { (*self.value.get()).as_ref() }.expect("set before it is used")
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}
