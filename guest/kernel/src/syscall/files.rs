//! Files.

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_abi::lab::{STREAM_ERROR, STREAM_OUTPUT, Segment as Piece};
use pagelab_hal::console;
use pagelab_mm::{Access, MapFlags, MapSource};
use pagelab_vfs::Errno;

use alloc::vec::Vec;

use super::{Arguments, Outcome};
use crate::memory::memory;
use crate::process::scheduler;
use crate::user;

/// File calls; `None` for other calls.
pub fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_write => write(a[0], GuestVirt(a[1]), a[2]),
        _ => return None,
    })
}

/// What `mmap` of a file maps.
///
/// # Errors
///
/// EBADF.
pub fn map_source(
    _file: i32,
    _protection: u32,
    _flags: MapFlags,
    _page: u64,
) -> Result<MapSource, Errno> {
    Err(Errno::EBADF)
}

/// `write` to the lab's standard output or error, straight from the program's
/// frames.
fn write(file: u64, address: GuestVirt, length: u64) -> Outcome {
    const MOST: u64 = 64 * 1024;
    let stream = match file {
        1 => STREAM_OUTPUT,
        2 => STREAM_ERROR,
        _ => return Err(Errno::EBADF.into()),
    };
    let length = length.min(MOST);
    let mut pieces = Vec::new();
    let space = scheduler::current().process.space();
    user::retry(&space, |space, done| {
        let at = GuestVirt(address.0 + done as u64);
        let left = length as usize - done;
        space.for_each_segment(memory(), at, left, Access::READ, |segment, _| {
            let start = segment.frame.start().0 + segment.offset as u64;
            pieces.push(Piece { start, length: segment.length as u64 });
            true
        })
    })?;
    if console::write_segments(stream, &pieces) { Ok(length) } else { Err(Errno::EIO.into()) }
}
