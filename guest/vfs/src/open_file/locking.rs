//! `flock`, and the record locks of `fcntl`.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as linux;

use super::OpenFile;
use crate::abi::{LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, SEEK_CUR, SEEK_END, SEEK_SET};
use crate::errno::{Errno, Result};
use crate::lock::{LockMode, LockOwner, LockRange, LockTable, RecordLock};
use crate::platform::WaitChannel;

/// Size of `struct flock`.
pub const FLOCK_SIZE: usize = 32;

/// The fields of a `struct flock`.
struct Flock {
    kind: u32,
    whence: u32,
    start: i64,
    length: i64,
    process: i32,
}

impl Flock {
    fn from_bytes(bytes: &[u8; FLOCK_SIZE]) -> Self {
        let short = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            i64::from_le_bytes(word)
        };
        let process = i32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        Self { kind: short(0), whence: short(2), start: long(8), length: long(16), process }
    }

    fn write_to(&self, bytes: &mut [u8; FLOCK_SIZE]) {
        // Both are below 2^16: they came from there, or are constants.
        bytes[0..2].copy_from_slice(&self.kind.to_le_bytes()[..2]);
        bytes[2..4].copy_from_slice(&self.whence.to_le_bytes()[..2]);
        bytes[8..16].copy_from_slice(&self.start.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.process.to_le_bytes());
    }
}

impl OpenFile {
    /// A number that no other open file has as long as this one lives.
    fn number(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }

    fn lock_table(&self) -> Result<&LockTable> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        self.inode().locks(true).ok_or(Errno::EOPNOTSUPP)
    }

    /// Where to wait for a lock on this file that another holds.
    #[must_use]
    pub fn lock_channel(&self) -> Option<WaitChannel> {
        self.inode().locks(true).map(LockTable::wait_channel)
    }

    /// `flock`. `EAGAIN`: taken; without `LOCK_NB` the caller waits on
    /// [`lock_channel`](Self::lock_channel) and asks again.
    pub fn lock_whole(&self, operation: u32) -> Result<()> {
        let mode = match operation & !LOCK_NB {
            LOCK_SH => Some(LockMode::Shared),
            LOCK_EX => Some(LockMode::Exclusive),
            LOCK_UN => None,
            _ => return Err(Errno::EINVAL),
        };
        let table = self.lock_table()?;
        self.locked.store(true, Ordering::Relaxed);
        table.lock_whole(self.number(), mode)
    }

    /// `fcntl` with `F_GETLK`, `F_SETLK`, `F_SETLKW` or their `F_OFD_` kin:
    /// `bytes` is the program's `struct flock`, to be copied back after
    /// `F_GETLK`. `EAGAIN`: taken, as with [`lock_whole`](Self::lock_whole).
    pub fn lock_record(
        &self,
        command: u32,
        bytes: &mut [u8; FLOCK_SIZE],
        process: u32,
    ) -> Result<()> {
        let table = self.lock_table()?;
        let mut request = Flock::from_bytes(bytes);
        let by_file =
            matches!(command, linux::F_OFD_GETLK | linux::F_OFD_SETLK | linux::F_OFD_SETLKW);
        if by_file && request.process != 0 {
            return Err(Errno::EINVAL);
        }
        let owner =
            if by_file { LockOwner::OpenFile(self.number()) } else { LockOwner::Process(process) };
        let base = match request.whence {
            SEEK_SET => 0,
            SEEK_CUR => self.position.load(Ordering::Relaxed),
            SEEK_END => self.inode().size()?,
            _ => return Err(Errno::EINVAL),
        };
        let range = LockRange::new(base, request.start, request.length)?;
        let get = matches!(command, linux::F_GETLK | linux::F_OFD_GETLK);
        let mode = match request.kind {
            linux::F_RDLCK => Some(LockMode::Shared),
            linux::F_WRLCK => Some(LockMode::Exclusive),
            linux::F_UNLCK if !get => None,
            _ => return Err(Errno::EINVAL),
        };
        let Some(mode) = mode else {
            table.unlock_record(owner, range);
            return Ok(());
        };
        let wanted = RecordLock { owner, mode, range };
        if get {
            describe(&mut request, table.conflict(&wanted));
            request.write_to(bytes);
            return Ok(());
        }
        match mode {
            LockMode::Shared => self.check_readable()?,
            LockMode::Exclusive => self.check_writable()?,
        }
        self.locked.fetch_or(by_file, Ordering::Relaxed);
        table.lock_record(&wanted)
    }

    /// A process closes one of its descriptors of this file: with that it loses
    /// all its record locks on the inode, whichever descriptor took them.
    pub fn release_process_locks(&self, process: u32) {
        if let Some(table) = self.inode().locks(false) {
            let everything = LockRange { start: 0, end: u64::MAX };
            table.unlock_record(LockOwner::Process(process), everything);
        }
    }

    pub(super) fn release_locks(&self) {
        if self.locked.load(Ordering::Relaxed)
            && let Some(table) = self.inode().locks(false)
        {
            table.close(self.number());
        }
    }
}

/// The answer of `F_GETLK`.
fn describe(request: &mut Flock, conflict: Option<RecordLock>) {
    let Some(lock) = conflict else {
        request.kind = linux::F_UNLCK;
        return;
    };
    request.kind = match lock.mode {
        LockMode::Shared => linux::F_RDLCK,
        LockMode::Exclusive => linux::F_WRLCK,
    };
    request.whence = SEEK_SET;
    request.start = lock.range.start.cast_signed();
    request.length = match lock.range.end {
        u64::MAX => 0,
        end => (end - lock.range.start).cast_signed(),
    };
    request.process = match lock.owner {
        LockOwner::Process(process) => process.cast_signed(),
        LockOwner::OpenFile(_) => -1,
    };
}
