//! Locks on files: `flock`, and `fcntl`'s records.
//!
//! Both are advice: they bind only those who ask. A [`LockTable`] belongs to an
//! inode. An owner is a number: for `flock` that of the open file, for records
//! that of the process (or, with `F_OFD_*`, of the open file too). Nobody waits
//! here: what is taken is `EAGAIN`, and whoever waits sleeps on the table's
//! channel and asks again.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use spin::Mutex;

use crate::errno::{Errno, Result};
use crate::platform::{Platform, Readiness, WaitChannel};

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A process, by its number: its locks go when it closes any descriptor of
    /// the file.
    Process(u32),
    /// An open file, by its number.
    OpenFile(u64),
}

/// What a lock allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Others may share it.
    Shared,
    /// Nobody else may hold one.
    Exclusive,
}

/// A locked range: `start..end`, where `u64::MAX` is the end of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
}

impl LockRange {
    /// The range that `l_start` and `l_len` mean, counted from `base`.
    pub fn new(base: u64, start: i64, length: i64) -> Result<Self> {
        let start = base.checked_add_signed(start).ok_or(Errno::EINVAL)?;
        let limit = i64::MAX.unsigned_abs();
        if start > limit {
            return Err(Errno::EOVERFLOW);
        }
        let end = match length {
            0 => return Ok(Self { start, end: u64::MAX }),
            length => start.checked_add_signed(length).ok_or(Errno::EINVAL)?,
        };
        if end > limit + 1 {
            return Err(Errno::EOVERFLOW);
        }
        Ok(Self { start: start.min(end), end: start.max(end) })
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// A lock on a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLock {
    /// Who holds it.
    pub owner: LockOwner,
    /// What it allows.
    pub mode: LockMode,
    /// Where.
    pub range: LockRange,
}

#[derive(Default)]
struct Held {
    whole: Vec<(u64, LockMode)>,
    records: Vec<RecordLock>,
}

/// The locks on an inode.
pub struct LockTable {
    platform: Arc<dyn Platform>,
    held: Mutex<Held>,
    /// Made when somebody first waits.
    channel: AtomicU64,
}

impl LockTable {
    /// No locks.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>) -> Self {
        Self { platform, held: Mutex::default(), channel: AtomicU64::new(0) }
    }

    /// Where to wait for a lock that is taken.
    #[must_use]
    pub fn wait_channel(&self) -> WaitChannel {
        let known = self.channel.load(Ordering::Relaxed);
        if known != 0 {
            return WaitChannel(known);
        }
        let fresh = WaitChannel::unique();
        let swapped =
            self.channel.compare_exchange(0, fresh.0, Ordering::Relaxed, Ordering::Relaxed);
        WaitChannel(swapped.err().unwrap_or(fresh.0))
    }

    fn wake(&self) {
        let channel = self.channel.load(Ordering::Relaxed);
        if channel != 0 {
            self.platform.wake(WaitChannel(channel), Readiness::all());
        }
    }

    /// `flock`: takes, changes (not at once: the old lock goes first) or, with
    /// `None`, gives back the lock of an open file.
    pub fn lock_whole(&self, open_file: u64, mode: Option<LockMode>) -> Result<()> {
        let mut held = self.held.lock();
        if let Some(mode) = mode
            && held.whole.contains(&(open_file, mode))
        {
            return Ok(());
        }
        let before = held.whole.len();
        held.whole.retain(|(owner, _)| *owner != open_file);
        let released = held.whole.len() < before;
        let conflict = match mode {
            None => false,
            Some(LockMode::Exclusive) => !held.whole.is_empty(),
            Some(LockMode::Shared) => {
                held.whole.iter().any(|(_, other)| *other == LockMode::Exclusive)
            }
        };
        if let Some(mode) = mode
            && !conflict
        {
            held.whole.push((open_file, mode));
        }
        drop(held);
        if released {
            self.wake();
        }
        if conflict { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// `F_GETLK`: the first lock in the file that stands in the way of `wanted`.
    #[must_use]
    pub fn conflict(&self, wanted: &RecordLock) -> Option<RecordLock> {
        conflict_in(&self.held.lock().records, wanted)
    }

    /// `F_SETLK` for a lock that is wanted.
    pub fn lock_record(&self, wanted: &RecordLock) -> Result<()> {
        let mut held = self.held.lock();
        if conflict_in(&held.records, wanted).is_some() {
            return Err(Errno::EAGAIN);
        }
        cut_out(&mut held.records, wanted.owner, wanted.range);
        merge_in(&mut held.records, *wanted);
        drop(held);
        // An exclusive lock may have become a shared one.
        self.wake();
        Ok(())
    }

    /// `F_SETLK` with `F_UNLCK`; and for the whole range what closing does.
    pub fn unlock_record(&self, owner: LockOwner, range: LockRange) {
        cut_out(&mut self.held.lock().records, owner, range);
        self.wake();
    }

    /// An open file is closed for good.
    pub(crate) fn close(&self, open_file: u64) {
        let mut held = self.held.lock();
        let before = held.whole.len() + held.records.len();
        held.whole.retain(|(owner, _)| *owner != open_file);
        held.records.retain(|lock| lock.owner != LockOwner::OpenFile(open_file));
        let released = held.whole.len() + held.records.len() < before;
        drop(held);
        if released {
            self.wake();
        }
    }

    /// All records, for `/proc/locks` and tests.
    #[must_use]
    pub fn records(&self) -> Vec<RecordLock> {
        self.held.lock().records.clone()
    }
}

fn conflict_in(records: &[RecordLock], wanted: &RecordLock) -> Option<RecordLock> {
    let exclusive = |lock: &RecordLock| lock.mode == LockMode::Exclusive;
    records
        .iter()
        .filter(|lock| lock.owner != wanted.owner && lock.range.overlaps(wanted.range))
        .filter(|lock| exclusive(lock) || exclusive(wanted))
        .min_by_key(|lock| lock.range.start)
        .copied()
}

/// Takes a range out of an owner's locks, which may split one.
fn cut_out(records: &mut Vec<RecordLock>, owner: LockOwner, range: LockRange) {
    let mut rests = Vec::new();
    records.retain(|lock| {
        if lock.owner != owner || !lock.range.overlaps(range) {
            return true;
        }
        for (start, end) in [(lock.range.start, range.start), (range.end, lock.range.end)] {
            if start < end {
                rests.push(RecordLock { range: LockRange { start, end }, ..*lock });
            }
        }
        false
    });
    records.extend(rests);
}

/// Adds a lock, and joins it with those of the same owner and mode beside it.
fn merge_in(records: &mut Vec<RecordLock>, mut lock: RecordLock) {
    records.retain(|other| {
        let beside = other.range.end == lock.range.start || other.range.start == lock.range.end;
        let joins = beside && other.owner == lock.owner && other.mode == lock.mode;
        if joins {
            lock.range.start = lock.range.start.min(other.range.start);
            lock.range.end = lock.range.end.max(other.range.end);
        }
        !joins
    });
    records.push(lock);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Timespec;
    use core::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Sleepers(AtomicU32);

    impl Platform for Sleepers {
        fn now(&self) -> Timespec {
            Timespec::default()
        }

        fn fill_random(&self, _bytes: &mut [u8]) {}

        fn wake(&self, _channel: WaitChannel, _ready: Readiness) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn record(process: u32, mode: LockMode, start: u64, end: u64) -> RecordLock {
        RecordLock { owner: LockOwner::Process(process), mode, range: LockRange { start, end } }
    }

    #[test]
    fn whole_locks_share_or_exclude() {
        use LockMode::{Exclusive, Shared};
        let kernel = Arc::new(Sleepers::default());
        let table = LockTable::new(kernel.clone());
        let channel = table.wait_channel();
        assert_eq!(channel, table.wait_channel());
        assert_eq!(table.lock_whole(1, Some(Shared)), Ok(()));
        assert_eq!(table.lock_whole(2, Some(Shared)), Ok(()));
        assert_eq!(table.lock_whole(3, Some(Exclusive)), Err(Errno::EAGAIN));
        assert_eq!(kernel.0.load(Ordering::Relaxed), 0);
        assert_eq!(table.lock_whole(1, Some(Exclusive)), Err(Errno::EAGAIN));
        assert_eq!(kernel.0.load(Ordering::Relaxed), 1, "it gave up its shared lock");
        assert_eq!(table.lock_whole(2, None), Ok(()));
        assert_eq!(table.lock_whole(3, Some(Exclusive)), Ok(()));
        assert_eq!(table.lock_whole(1, Some(Shared)), Err(Errno::EAGAIN));
        table.close(3);
        assert_eq!(table.lock_whole(1, Some(Shared)), Ok(()));
    }

    /// Byte by byte, what the table should hold.
    fn check(table: &LockTable, expected: &[Option<(u32, LockMode)>; 64]) {
        for (byte, expected) in (0_u64..).zip(expected) {
            let at = LockRange { start: byte, end: byte + 1 };
            let found: Vec<_> =
                table.records().into_iter().filter(|lock| lock.range.overlaps(at)).collect();
            match expected {
                None => assert!(found.is_empty(), "{byte}: {found:?}"),
                Some((process, mode)) => {
                    assert_eq!(found.len(), 1, "{byte}");
                    let owner = LockOwner::Process(*process);
                    assert_eq!((found[0].owner, found[0].mode), (owner, *mode));
                }
            }
        }
    }

    #[test]
    fn records_split_and_join() {
        let kernel = Arc::new(Sleepers::default());
        let table = LockTable::new(kernel.clone());
        let mut expected = [None; 64];
        let mut seed = 1_u64;
        for _ in 0..3000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = (seed >> 33 & 63, seed >> 40 & 63);
            let (start, end) = (a.min(b), a.max(b) + 1);
            let process = (seed >> 50 & 1) as u32;
            let mode = if seed >> 51 & 1 == 0 { LockMode::Shared } else { LockMode::Exclusive };
            let lock = record(process, mode, start, end);
            let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
            if seed >> 52 & 1 == 0 {
                table.unlock_record(lock.owner, lock.range);
                for byte in &mut expected[range] {
                    *byte = byte.filter(|(owner, _)| *owner != process);
                }
                continue;
            }
            // Shared locks of two owners would need two entries a byte: keep
            // the model simple by letting any overlap count.
            let taken =
                expected[range.clone()].iter().flatten().any(|(owner, _)| *owner != process);
            if taken {
                continue;
            }
            assert_eq!(table.lock_record(&lock), Ok(()));
            expected[range].fill(Some((process, mode)));
            check(&table, &expected);
            let mut records = table.records();
            records.sort_by_key(|lock| lock.range.start);
            for pair in records.windows(2) {
                let same = pair[0].owner == pair[1].owner && pair[0].mode == pair[1].mode;
                assert!(!same || pair[0].range.end < pair[1].range.start, "not joined");
            }
        }
    }

    #[test]
    fn what_stands_in_the_way_is_told() {
        let kernel = Arc::new(Sleepers::default());
        let table = LockTable::new(kernel.clone());
        let held = record(1, LockMode::Shared, 10, 20);
        table.lock_record(&held).unwrap();
        assert_eq!(table.conflict(&record(2, LockMode::Shared, 0, 100)), None);
        assert_eq!(table.conflict(&record(2, LockMode::Exclusive, 19, 100)), Some(held));
        assert_eq!(table.conflict(&record(2, LockMode::Exclusive, 20, 100)), None);
        let before = record(1, LockMode::Exclusive, 2, 4);
        table.lock_record(&before).unwrap();
        assert_eq!(table.conflict(&record(2, LockMode::Exclusive, 0, 100)), Some(before));
        let refused = table.lock_record(&record(2, LockMode::Exclusive, 0, 11));
        assert_eq!(refused, Err(Errno::EAGAIN));
    }

    #[test]
    fn ranges_count_from_a_base_in_both_directions() {
        let range = |base, start, length| LockRange::new(base, start, length);
        assert_eq!(range(10, 5, 3), Ok(LockRange { start: 15, end: 18 }));
        assert_eq!(range(10, 0, -4), Ok(LockRange { start: 6, end: 10 }));
        assert_eq!(range(10, 0, 0), Ok(LockRange { start: 10, end: u64::MAX }));
        assert_eq!(range(10, -11, 1), Err(Errno::EINVAL));
        assert_eq!(range(10, 0, -11), Err(Errno::EINVAL));
        assert_eq!(range(0, i64::MAX, 2), Err(Errno::EOVERFLOW));
    }
}
