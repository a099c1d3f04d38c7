//! Pieces of guest memory that together are one buffer, and moving bytes between
//! them and files of the host without a copy in between.
//!
//! The guest may change every byte at any time, so the pieces stay
//! `VolatileSlice`s: what the host's kernel reads from them or writes to them is
//! never seen by Rust as a reference.

#![allow(unsafe_code, reason = "preadv and pwritev on guest memory, to which no reference exists")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

/// Most pieces that the host's kernel takes in one call.
const MAX_PIECES: usize = 1024;

/// A buffer in pieces.
#[derive(Clone, Debug, Default)]
pub struct Scatter<'ram> {
    pieces: Vec<VolatileSlice<'ram>>,
    length: usize,
}

impl<'ram> Scatter<'ram> {
    /// How many bytes the pieces have together.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds a piece at the end. An empty one, and one with which the whole would
    /// no longer have a length, is left out: then false.
    pub fn push(&mut self, piece: VolatileSlice<'ram>) -> bool {
        let Some(length) = self.length.checked_add(piece.len()) else {
            return false;
        };
        if !piece.is_empty() {
            self.pieces.push(piece);
            self.length = length;
        }
        true
    }

    /// Cuts off the first `count` bytes, or all there are, and gives them.
    #[must_use]
    pub fn take_front(&mut self, count: usize) -> Self {
        let mut front = Self::default();
        let mut wanted = count.min(self.length);
        let mut rest = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces.drain(..) {
            let here = wanted.min(piece.len());
            wanted -= here;
            match piece.split_at(here) {
                Ok((before, after)) => {
                    front.push(before);
                    if !after.is_empty() {
                        rest.push(after);
                    }
                }
                // Never: `here` is at most the piece's length.
                Err(error) => log::error!("a piece of guest memory cannot be cut: {error}"),
            }
        }
        self.pieces = rest;
        self.length -= front.length;
        front
    }

    /// Copies from the start into `buffer`; says how many bytes.
    pub fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            if done == buffer.len() {
                break;
            }
            done += piece.copy_to(&mut buffer[done..]);
        }
        done
    }

    /// Copies `bytes` to the start; says how many found room.
    pub fn copy_from(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in &self.pieces {
            let here = piece.len().min(bytes.len() - done);
            if here == 0 {
                break;
            }
            piece.copy_from(&bytes[done..done + here]);
            done += here;
        }
        done
    }

    /// Fills the buffer from `file` at `offset`; says how many bytes, fewer than
    /// there is room for only where the file ends.
    ///
    /// # Errors
    ///
    /// What the host said, also where a part had been read: a short count would
    /// look like the end of the file.
    pub fn read_from(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let mut rest = self.clone();
        let mut done = 0;
        while !rest.is_empty() {
            match rest.transfer(file, offset, done, Direction::FromFile)? {
                0 => break,
                count => {
                    done += count;
                    let _ = rest.take_front(count);
                }
            }
        }
        Ok(done)
    }

    /// Writes the buffer to `file` at `offset`; says how many bytes.
    ///
    /// # Errors
    ///
    /// What the host said, if nothing was written. If a part was, that is the
    /// result, as of `write(2)`; the next call meets the error.
    pub fn write_to(&self, file: BorrowedFd<'_>, offset: u64) -> io::Result<usize> {
        let mut rest = self.clone();
        let mut done = 0;
        while !rest.is_empty() {
            match rest.transfer(file, offset, done, Direction::ToFile) {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    let _ = rest.take_front(count);
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// One call of the host's kernel.
    fn transfer(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        done: usize,
        direction: Direction,
    ) -> io::Result<usize> {
        let at = offset.checked_add(done as u64).and_then(|at| i64::try_from(at).ok());
        let at = at.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let guards: Vec<_> =
            self.pieces.iter().take(MAX_PIECES).map(VolatileSlice::ptr_guard_mut).collect();
        let vectors: Vec<libc::iovec> = guards
            .iter()
            .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
            .collect();
        let count = libc::c_int::try_from(vectors.len()).unwrap_or(libc::c_int::MAX);
        loop {
            let moved = match direction {
                // SAFETY: each vector is a piece of guest memory that the guards
                // keep mapped for the call, and that only the kernel and
                // volatile accesses ever touch.
                Direction::FromFile => unsafe {
                    libc::preadv64(file.as_raw_fd(), vectors.as_ptr(), count, at)
                },
                // SAFETY: as above; the kernel only reads them.
                Direction::ToFile => unsafe {
                    libc::pwritev64(file.as_raw_fd(), vectors.as_ptr(), count, at)
                },
            };
            if let Ok(moved) = usize::try_from(moved) {
                return Ok(moved);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    FromFile,
    ToFile,
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn scatter<'a>(pieces: &'a mut [Vec<u8>]) -> Scatter<'a> {
        let mut scatter = Scatter::default();
        for piece in pieces {
            assert!(scatter.push(VolatileSlice::from(piece.as_mut_slice())));
        }
        scatter
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn a_buffer_is_cut_anywhere() {
        for at in 0..12 {
            let mut memory = [vec![1, 2, 3], vec![], vec![4, 5], vec![6, 7, 8, 9]];
            let mut back = scatter(&mut memory);
            let front = back.take_front(at);
            let mut bytes = [0; 9];
            let count = front.copy_to(&mut bytes);
            assert_eq!((count, front.len(), back.len()), (at.min(9), at.min(9), 9 - at.min(9)));
            assert_eq!(back.copy_to(&mut bytes[count..]), back.len());
            assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        }
    }

    #[test]
    fn bytes_go_in_as_far_as_there_is_room() {
        let mut memory = [vec![0; 3], vec![0; 2]];
        assert_eq!(scatter(&mut memory).copy_from(&[1, 2, 3, 4]), 4);
        assert_eq!(memory, [vec![1, 2, 3], vec![4, 0]]);
        assert_eq!(scatter(&mut memory).copy_from(&[9; 10]), 5);
        let mut short = [0; 2];
        assert_eq!(scatter(&mut memory).copy_to(&mut short), 2);
    }

    #[test]
    fn files_are_read_to_their_end_and_written_whole() {
        let file = file(b"0123456789");
        let mut memory: Vec<Vec<u8>> = vec![vec![b'.'; 1]; 1500];
        let whole = scatter(&mut memory);
        assert_eq!(whole.read_from(file.as_fd(), 2).unwrap(), 8);
        assert_eq!(whole.read_from(file.as_fd(), 10).unwrap(), 0);
        let mut start = [0; 9];
        assert_eq!(whole.copy_to(&mut start), 9);
        assert_eq!(&start, b"23456789.");
        assert_eq!(whole.write_to(file.as_fd(), 100).unwrap(), 1500);
        assert_eq!(file.metadata().unwrap().len(), 1600);
    }

    #[test]
    fn errors_of_the_host_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let not_a_file = File::open(folder.path()).unwrap();
        let mut memory = [vec![0; 8]];
        let whole = scatter(&mut memory);
        let error = whole.read_from(not_a_file.as_fd(), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
        let error = whole.read_from(not_a_file.as_fd(), u64::MAX - 3).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = whole.write_to(full.as_fd(), 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }
}
