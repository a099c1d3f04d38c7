//! What `mmap` of a file maps.

use pagelab_mm::{MapFlags, MapSource};
use pagelab_vfs::Errno;
use pagelab_vfs::abi::O_NOATIME;
use pagelab_vfs::device::MemoryDevice;
use pagelab_vfs::inode::FileKind;

use super::open_file;
use crate::files::cache;

/// The object behind a descriptor, as an open file allows it to be mapped.
///
/// # Errors
///
/// EBADF; EINVAL for nothing, or what is neither shared nor private; EACCES if
/// the file was not opened for reading, or for a shared mapping that shall be
/// written not for writing; ENODEV if it is not a file with data, or a folder.
pub fn map_source(
    descriptor: i32,
    length: u64,
    protection: u32,
    flags: MapFlags,
    page: u64,
) -> Result<MapSource, Errno> {
    const WRITE: u32 = 2;
    let file = open_file(descriptor as u32 as u64)?;
    // Wrong in itself, whatever the file allows: Linux says so first.
    if length == 0 || !flags.intersects(MapFlags::SHARED | MapFlags::PRIVATE) {
        return Err(Errno::EINVAL);
    }
    let shared = flags.contains(MapFlags::SHARED);
    if !file.is_readable() || (shared && protection & WRITE != 0 && !file.is_writable()) {
        return Err(Errno::EACCES);
    }
    if file.behaviour::<MemoryDevice>().is_some_and(|device| device.is_zero()) {
        return Ok(MapSource::Zeros { may_write: file.is_writable() });
    }
    if file.kind() != FileKind::Regular {
        return Err(Errno::ENODEV);
    }
    let object = file.inode().object().and_then(|id| cache().object(id)).ok_or(Errno::ENODEV)?;
    cache().note_mapping(object, file.node());
    if file.flags() & O_NOATIME == 0 {
        file.inode().note_access();
    }
    Ok(MapSource::Object {
        object,
        offset: page,
        may_write: file.is_writable(),
        notify_write: cache().backed(object).is_some(),
    })
}
