//! What `mmap` of a file maps.

use pagelab_mm::{MapFlags, MapSource};
use pagelab_vfs::abi::O_NOATIME;
use pagelab_vfs::device::MemoryDevice;
use pagelab_vfs::inode::FileKind;
use pagelab_vfs::{Errno, OpenFile};

use crate::files::cache;
use crate::syscall::memory::to_errno;

/// The object behind an open file, as that allows it to be mapped.
///
/// # Errors
///
/// EINVAL for what is neither shared nor private; EOPNOTSUPP for flags that shall be
/// known and are not; EACCES if the file was not
/// opened for reading, or for a shared mapping that shall be written not for
/// writing; ENODEV if it is not a file with data, or a folder.
pub fn map_source(
    file: &OpenFile,
    protection: u32,
    flags: MapFlags,
    page: u64,
) -> Result<MapSource, Errno> {
    const WRITE: u32 = 2;
    if !flags.intersects(MapFlags::SHARED | MapFlags::PRIVATE) {
        return Err(Errno::EINVAL);
    }
    flags.validate().map_err(to_errno)?;
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
