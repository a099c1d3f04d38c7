//! Errors of writing to what is behind a file, which happens long after `write`
//! or a store to a mapping: told once to everybody who had the file open then, at
//! the next `fsync`, `msync` or `close`. What nobody was told of yet is told to
//! who opens the file next. This is Linux's rule (`errseq_t`).

use core::sync::atomic::{AtomicU32, Ordering};

use spin::Mutex;

use crate::errno::{Errno, Result};

#[derive(Default)]
struct State {
    /// How many there were.
    count: u32,
    last: Option<Errno>,
    /// Somebody was told of the last.
    told: bool,
}

/// Errors of writing one file.
#[derive(Default)]
pub struct WriteErrors {
    state: Mutex<State>,
}

/// How many errors of a file an open file knows of.
#[derive(Debug, Default)]
pub struct ErrorsSeen(AtomicU32);

impl WriteErrors {
    /// There was one.
    pub fn note(&self, error: Errno) {
        let mut state = self.state.lock();
        state.count = state.count.wrapping_add(1);
        state.last = Some(error);
        state.told = false;
    }

    /// What somebody knows who opens the file now.
    #[must_use]
    pub fn now(&self) -> ErrorsSeen {
        let state = self.state.lock();
        let unknown = u32::from(state.last.is_some() && !state.told);
        ErrorsSeen(AtomicU32::new(state.count.wrapping_sub(unknown)))
    }

    /// Tells of the last error if it is new to somebody.
    ///
    /// # Errors
    ///
    /// That error.
    pub fn tell(&self, seen: &ErrorsSeen) -> Result<()> {
        let mut state = self.state.lock();
        if seen.0.swap(state.count, Ordering::Relaxed) == state.count {
            return Ok(());
        }
        state.told = true;
        state.last.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_told_once() {
        let errors = WriteErrors::default();
        let (first, second) = (errors.now(), errors.now());
        assert_eq!(errors.tell(&first), Ok(()));
        errors.note(Errno::ENOSPC);
        assert_eq!(errors.tell(&first), Err(Errno::ENOSPC));
        assert_eq!(errors.tell(&first), Ok(()));
        assert_eq!(errors.tell(&second), Err(Errno::ENOSPC));
        assert_eq!(errors.tell(&second), Ok(()));
    }

    #[test]
    fn what_nobody_knows_is_told_to_who_comes_next() {
        let errors = WriteErrors::default();
        errors.note(Errno::EIO);
        let (late, later) = (errors.now(), errors.now());
        assert_eq!(errors.tell(&late), Err(Errno::EIO));
        assert_eq!(errors.tell(&later), Err(Errno::EIO));
        assert_eq!(errors.tell(&errors.now()), Ok(()));
    }

    #[test]
    fn a_file_without_pages_had_no_errors() {
        // An open file looks before there is anything that could fail.
        let early = ErrorsSeen::default();
        let errors = WriteErrors::default();
        assert_eq!(errors.tell(&early), Ok(()));
        errors.note(Errno::EIO);
        assert_eq!(errors.tell(&early), Err(Errno::EIO));
    }
}
