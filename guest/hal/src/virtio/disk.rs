//! A virtio block device, as far as swap needs it: pages are read and written.

use pagelab_abi::addr::{Frame, PAGE_SIZE};

use super::{Device, Error, KIND_BLOCK, Readable, Writable};

/// The unit of a disk's addresses.
const SECTOR: u64 = 512;
/// To read.
const TYPE_IN: u32 = 0;
/// To write.
const TYPE_OUT: u32 = 1;
/// What the device says of a request that it did.
const STATUS_OK: u8 = 0;
/// What is there before the device says something.
const NO_STATUS: u8 = 0xff;
/// Pieces that are no frames: the head of a request, its status.
const FOR_HEADERS: usize = 4;

/// Why a disk did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The device cannot be used.
    Device(Error),
    /// The device says that this request failed.
    Failed(u8),
}

impl core::fmt::Display for DiskError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Device(error) => error.fmt(f),
            Self::Failed(status) => write!(f, "the disk failed with status {status}"),
        }
    }
}

impl From<Error> for DiskError {
    fn from(error: Error) -> Self {
        Self::Device(error)
    }
}

/// A disk.
pub struct Disk {
    device: Device,
    pages: u64,
}

impl Disk {
    /// Sets up virtio device `index`.
    ///
    /// # Errors
    ///
    /// `Missing` if it is no disk; or if it does not agree.
    pub fn open(index: u32) -> Result<Self, Error> {
        const ONLY_QUEUE: u32 = 0;
        let device = Device::open(index, KIND_BLOCK, ONLY_QUEUE)?;
        let sectors = u64::from(device.configuration(4)) << 32 | u64::from(device.configuration(0));
        Ok(Self { device, pages: sectors / (PAGE_SIZE / SECTOR) })
    }

    /// How many whole pages it has.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Most frames of a request.
    #[must_use]
    pub const fn most_frames() -> usize {
        Device::most_pieces() - FOR_HEADERS
    }

    /// Reads pages into frames, which are the caller's to give.
    ///
    /// # Errors
    ///
    /// See [`DiskError`].
    pub fn read(&mut self, page: u64, frames: &[Frame]) -> Result<(), DiskError> {
        let head = head(TYPE_IN, page);
        let mut status = [NO_STATUS];
        let room = Writable::Frames(frames, bytes(frames));
        let readable = [Readable::Bytes(&head)];
        self.device.request(&readable, &mut [room, Writable::Bytes(&mut status)])?;
        done(status)
    }

    /// Writes frames to pages.
    ///
    /// # Errors
    ///
    /// See [`DiskError`].
    pub fn write(&mut self, page: u64, frames: &[Frame]) -> Result<(), DiskError> {
        let head = head(TYPE_OUT, page);
        let mut status = [NO_STATUS];
        let readable = [Readable::Bytes(&head), Readable::Frames(frames, bytes(frames))];
        self.device.request(&readable, &mut [Writable::Bytes(&mut status)])?;
        done(status)
    }
}

/// What every request begins with: type, nothing, sector.
fn head(kind: u32, page: u64) -> [u8; 16] {
    let mut head = [0; 16];
    head[..4].copy_from_slice(&kind.to_le_bytes());
    head[8..].copy_from_slice(&(page * (PAGE_SIZE / SECTOR)).to_le_bytes());
    head
}

const fn bytes(frames: &[Frame]) -> usize {
    frames.len() * PAGE_SIZE as usize
}

fn done([status]: [u8; 1]) -> Result<(), DiskError> {
    if status == STATUS_OK { Ok(()) } else { Err(DiskError::Failed(status)) }
}
