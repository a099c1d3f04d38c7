//! The swap space: a disk of the host's to which anonymous memory goes when frames
//! run short. Which pages, and which slot each has, is memory management's
//! matter ([`pagelab_mm::swap`]); here they are read and written.

use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::Frame;
use pagelab_abi::boot::BootInfo;
use pagelab_hal::sync::Lock;
use pagelab_hal::virtio::{self, disk::Disk};
use pagelab_mm::{FaultError, NeedsPage, Use};

use crate::memory::memory;

static DISK: Lock<Option<Disk>> = Lock::new(None);

/// Pages that were read and written.
static PAGES_IN: AtomicU64 = AtomicU64::new(0);
static PAGES_OUT: AtomicU64 = AtomicU64::new(0);

/// Looks for a disk among the devices and swaps to the first. What that takes of
/// memory stays.
pub fn connect(info: &BootInfo) {
    for index in 0..info.virtio_count {
        let disk = match Disk::open(index) {
            Ok(disk) => disk,
            Err(virtio::Error::Missing) => continue,
            Err(error) => {
                log::error!("virtio device {index}: {error}");
                continue;
            }
        };
        match memory().swap_on(disk.pages()) {
            Ok(_) => *DISK.lock() = Some(disk),
            Err(error) => log::error!("no swap on virtio device {index}: {error}"),
        }
        return;
    }
}

/// Reads the page of a slot into the swap cache.
///
/// # Errors
///
/// If there is no memory for it, or it cannot be read.
pub fn page_in(page: NeedsPage) -> Result<bool, FaultError> {
    let memory = memory();
    let (machine, frames) = (&memory.machine, memory.frames);
    let frame = frames.alloc(Use::Anonymous).ok_or(FaultError::OutOfMemory)?;
    let read = match DISK.lock().as_mut() {
        Some(disk) => disk.read(page.index, &[frame]),
        None => Err(virtio::Error::Missing.into()),
    };
    if let Err(error) = read {
        log::error!("a page is lost that was in swap: {error}");
        frames.release(machine, frame);
        return Err(FaultError::NoBacking);
    }
    PAGES_IN.fetch_add(1, Ordering::Relaxed);
    // Not to be taken again before whoever needs it has it.
    frames.note_used(frame);
    memory.objects.insert(machine, frames, page.object, page.index, frame).map_err(|_| {
        frames.release(machine, frame);
        FaultError::OutOfMemory
    })?;
    Ok(true)
}

/// Writes frames to slots that follow each other. Returns whether all are written.
pub fn write(slot: u64, frames: &[Frame]) -> bool {
    let mut disk = DISK.lock();
    let Some(disk) = disk.as_mut() else { return false };
    for (first, piece) in
        (slot..).step_by(Disk::most_frames()).zip(frames.chunks(Disk::most_frames()))
    {
        if let Err(error) = disk.write(first, piece) {
            log::error!("swap cannot be written: {error}");
            return false;
        }
    }
    PAGES_OUT.fetch_add(frames.len() as u64, Ordering::Relaxed);
    true
}

/// How many pages were read and written.
pub fn pages_in_and_out() -> (u64, u64) {
    (PAGES_IN.load(Ordering::Relaxed), PAGES_OUT.load(Ordering::Relaxed))
}
