//! Where the bytes of regular files lie: page-cache objects.
//!
//! The memory manager owns the frames, so that `read`, `write` and a mapping
//! see the same ones; this crate knows an object only by its number. The size
//! of a file is the size of its object (the manager needs it for SIGBUS), kept
//! in one place.

use alloc::sync::Arc;

use pagelab_abi::addr::Frame;

use crate::buffer::{Sink, Source};
use crate::errno::{Errno, Result};
use crate::write_errors::WriteErrors;

pub mod vec_store;

/// Bytes in a page, as a length.
pub const PAGE_BYTES: usize = 4096;

/// Bytes in a page, as an offset.
pub const PAGE_SIZE: u64 = PAGE_BYTES as u64;

/// The largest size of a file, as on Linux (`MAX_LFS_FILESIZE`).
pub const MAX_FILE_SIZE: u64 = i64::MAX as u64;

/// Names a page-cache object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u64);

/// How a part of a file will be used: `posix_fadvise`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nobody knows.
    Normal,
    /// Here and there.
    Random,
    /// From front to back.
    Sequential,
    /// Soon: read it now.
    WillNeed,
    /// Not soon.
    DontNeed,
    /// Once.
    NoReuse,
}

impl Advice {
    /// From Linux's number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Normal,
            1 => Self::Random,
            2 => Self::Sequential,
            3 => Self::WillNeed,
            4 => Self::DontNeed,
            5 => Self::NoReuse,
            _ => return None,
        })
    }
}

/// Where the pages of an object come from and where they survive: a file of the
/// host.
///
/// Frames are consecutive pages of the file. What a short read leaves of them is
/// cleared by the caller.
pub trait PageBacking: Send + Sync {
    /// Reads pages from page `index` on; fewer bytes than fit are the end.
    fn read_pages(&self, index: u64, frames: &[Frame]) -> Result<usize>;

    /// Writes the first `bytes` bytes of pages from page `index` on.
    fn write_pages(&self, index: u64, frames: &[Frame], bytes: usize) -> Result<()>;

    /// Cuts or extends the file.
    fn set_size(&self, size: u64) -> Result<()>;

    /// Brings what was written to where it survives the host as well.
    fn sync(&self, data_only: bool) -> Result<()>;

    /// Size in bytes now.
    fn size(&self) -> Result<u64>;
}

/// The memory manager's page cache, as files see it.
///
/// The methods that move bytes are called without a lock of this crate held, so
/// an implementation may fault in user memory that maps the same object.
pub trait PageStore: Send + Sync + 'static {
    /// A new object of size 0.
    fn create(&self) -> Result<ObjectId>;

    /// A new object whose pages come from `backing`, of its size.
    fn create_backed(&self, backing: Arc<dyn PageBacking>, size: u64) -> Result<ObjectId> {
        let _ = (backing, size);
        Err(Errno::EOPNOTSUPP)
    }

    /// Others changed what is behind an object: pages that were not changed here
    /// are read again when they are wanted, and unless some were, the object has
    /// this size.
    fn refresh(&self, object: ObjectId, size: u64) -> Result<()> {
        let _ = (object, size);
        Ok(())
    }

    /// Writes changed pages to what is behind an object.
    fn flush(&self, object: ObjectId) -> Result<()> {
        let _ = object;
        Ok(())
    }

    /// Errors of writing to what is behind an object.
    fn write_errors(&self, object: ObjectId) -> Option<Arc<WriteErrors>> {
        let _ = object;
        None
    }

    /// Somebody says how he will use a range of bytes of an object (length 0: to
    /// its end).
    fn advise(&self, object: ObjectId, offset: u64, length: u64, advice: Advice) {
        let _ = (object, offset, length, advice);
    }

    /// Writes changed pages to what is behind an object, and has it keep them.
    fn sync(&self, object: ObjectId, data_only: bool) -> Result<()> {
        let _ = (object, data_only);
        Ok(())
    }

    /// The file is gone. Mappings keep the object until they go as well.
    fn destroy(&self, object: ObjectId);

    /// Size in bytes.
    fn size(&self, object: ObjectId) -> u64;

    /// Changes the size. What lies beyond is discarded (also from mappings) and
    /// the rest of the last page cleared, so that a later growth reads zeros.
    fn set_size(&self, object: ObjectId, size: u64) -> Result<()>;

    /// Copies from `offset` until the sink is full or the object ends; holes
    /// read as zeros and get no frame. `EFAULT` only if nothing was copied.
    fn read_at(&self, object: ObjectId, offset: u64, sink: &mut dyn Sink) -> Result<usize>;

    /// Copies to `offset` until the source is empty, growing the object by
    /// what was really copied. `ENOSPC`/`ENOMEM` without memory, `EFAULT` if
    /// the source faults, either only if nothing was copied.
    fn write_at(&self, object: ObjectId, offset: u64, source: &mut dyn Source) -> Result<usize>;

    /// Gives every page that the range touches a (zeroed) frame. Does not
    /// change the size.
    fn allocate(&self, object: ObjectId, offset: u64, length: u64) -> Result<()>;

    /// Makes the range a hole: whole pages freed, parts of pages cleared.
    fn punch_hole(&self, object: ObjectId, offset: u64, length: u64) -> Result<()>;

    /// How many pages have a frame.
    fn resident_pages(&self, object: ObjectId) -> u64;

    /// How many pages all objects together have.
    fn total_pages(&self) -> u64;

    /// Index of the first page from `page` on that has a frame.
    fn next_resident(&self, object: ObjectId, page: u64) -> Option<u64>;

    /// Index of the first page from `page` on that has none.
    fn next_hole(&self, object: ObjectId, page: u64) -> u64;
}
