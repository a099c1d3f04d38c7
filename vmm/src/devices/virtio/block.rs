//! A disk on a file of the host: where the guest's anonymous pages go when its
//! memory runs short.
//!
//! The file has no name, so it is gone with the process however that ends, and
//! it is sparse: what was never written takes no room and reads as zeros.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR,
    VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Backend, Chain, Profile};
use crate::memory::scatter::Scatter;

/// The unit of a disk's addresses.
const SECTOR: u64 = 512;
/// Most descriptors of a request.
const QUEUE_SIZE: u16 = 256;
/// What the disk says when it is asked for its name.
const NAME: &[u8; VIRTIO_BLK_ID_BYTES as usize] = b"pagelab-swap\0\0\0\0\0\0\0\0";

/// Start of every request.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

/// Why there is no swap space.
#[derive(Debug, thiserror::Error)]
#[error("cannot create swap space of {size} bytes in {}: {source}", folder.display())]
pub struct SwapError {
    /// How much was wanted.
    pub size: u64,
    /// Where.
    pub folder: PathBuf,
    /// What the host said.
    pub source: io::Error,
}

/// What a disk did.
#[derive(Debug, Default)]
pub struct BlockStatistics {
    /// Requests to read.
    pub reads: AtomicU64,
    /// Requests to write.
    pub writes: AtomicU64,
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Bytes written.
    pub bytes_written: AtomicU64,
    /// Requests that failed.
    pub errors: AtomicU64,
}

/// The disk.
#[derive(Debug)]
pub struct Block {
    file: File,
    size: u64,
    statistics: Arc<BlockStatistics>,
}

impl Block {
    /// A disk of `size` bytes, rounded up to sectors, on a file without a name in
    /// `folder`.
    ///
    /// # Errors
    ///
    /// If there can be no such file.
    pub fn create(size: u64, folder: &Path) -> Result<Self, SwapError> {
        let failed = |source| SwapError { size, folder: folder.to_owned(), source };
        let file = unnamed_file(folder).map_err(failed)?;
        let whole = size.div_ceil(SECTOR).saturating_mul(SECTOR);
        file.set_len(whole).map_err(failed)?;
        Ok(Self { file, size: whole, statistics: Arc::default() })
    }

    /// What it does, while it does it.
    #[must_use]
    pub const fn statistics(&self) -> &Arc<BlockStatistics> {
        &self.statistics
    }

    /// Carries out a request; says its status and how many bytes were written
    /// before it.
    fn carry_out(&self, header: Header, data: &Scatter<'_>, room: &Scatter<'_>) -> (u32, usize) {
        let result = match header.kind {
            VIRTIO_BLK_T_IN => self.read(header.sector, room),
            VIRTIO_BLK_T_OUT => self.write(header.sector, data).map(|()| 0),
            VIRTIO_BLK_T_FLUSH => self.file.sync_data().map(|()| 0),
            VIRTIO_BLK_T_GET_ID => Ok(room.copy_from(NAME)),
            _ => return (VIRTIO_BLK_S_UNSUPP, 0),
        };
        match result {
            Ok(written) => (VIRTIO_BLK_S_OK, written),
            Err(error) => {
                log::warn!("swap space: {error}");
                self.statistics.errors.fetch_add(1, Ordering::Relaxed);
                (VIRTIO_BLK_S_IOERR, 0)
            }
        }
    }

    /// Where `count` bytes from `sector` on lie in the file.
    fn range(&self, sector: u64, count: usize) -> io::Result<u64> {
        let count = count as u64;
        let offset = sector.checked_mul(SECTOR);
        let inside = |offset: u64| offset.checked_add(count).is_some_and(|end| end <= self.size);
        match offset {
            Some(offset) if count.is_multiple_of(SECTOR) && inside(offset) => Ok(offset),
            _ => Err(io::Error::other(format!(
                "{count} bytes from sector {sector} are not whole sectors of the disk"
            ))),
        }
    }

    fn read(&self, sector: u64, room: &Scatter<'_>) -> io::Result<usize> {
        let offset = self.range(sector, room.len())?;
        let count = room.read_from(self.file.as_fd(), offset)?;
        if count != room.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.statistics.reads.fetch_add(1, Ordering::Relaxed);
        self.statistics.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn write(&self, sector: u64, data: &Scatter<'_>) -> io::Result<()> {
        let offset = self.range(sector, data.len())?;
        let count = data.write_to(self.file.as_fd(), offset)?;
        if count != data.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.statistics.writes.fetch_add(1, Ordering::Relaxed);
        self.statistics.bytes_written.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Backend for Block {
    fn profile(&self) -> Profile {
        // Capacity, size_max (not offered), seg_max: a header and a status take
        // one descriptor each.
        let mut config = (self.size / SECTOR).to_le_bytes().to_vec();
        config.extend(0u32.to_le_bytes());
        config.extend((u32::from(QUEUE_SIZE) - 2).to_le_bytes());
        Profile {
            kind: VIRTIO_ID_BLOCK,
            features: 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_FLUSH,
            config,
            queue_sizes: &[QUEUE_SIZE],
        }
    }

    fn serve(&mut self, _queue: usize, mut chain: Chain<'_>) -> u32 {
        let Some(before_status) = chain.writable.len().checked_sub(1) else {
            log::debug!("a request to the disk has no room for its status");
            return 0;
        };
        let room = chain.writable.take_front(before_status);
        let status = chain.writable;
        let mut bytes = [0; size_of::<Header>()];
        let complete = chain.readable.take_front(bytes.len()).copy_to(&mut bytes) == bytes.len();
        let (code, written) = match Header::read_from_bytes(&bytes) {
            Ok(header) if complete => self.carry_out(header, &chain.readable, &room),
            _ => (VIRTIO_BLK_S_IOERR, 0),
        };
        status.copy_from(&[u8::try_from(code).unwrap_or(u8::MAX)]);
        // The status lies behind all of the room.
        let used = if written == room.len() { written + 1 } else { written };
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    fn reset(&mut self) {
        // The disk keeps what is on it; the driver has no other state here.
    }
}

/// A file without a name, for reading and writing.
fn unnamed_file(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(descriptor) => Ok(descriptor.into()),
        // Not every file system knows such files.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => removed_file(folder),
        Err(errno) => Err(errno.into()),
    }
}

/// A file whose name is taken away as soon as it is there.
fn removed_file(folder: &Path) -> io::Result<File> {
    const ATTEMPTS: u32 = 100;
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..ATTEMPTS {
        let name = OsString::from(format!("pagelab-swap-{}-{attempt}", std::process::id()));
        let path = folder.join(name);
        match File::options().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
