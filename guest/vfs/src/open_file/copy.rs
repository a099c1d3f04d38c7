//! Bytes from one open file to another: `sendfile`, `copy_file_range`.

use core::sync::atomic::Ordering;

use super::OpenFile;
use crate::abi::O_APPEND;
use crate::buffer::{SliceSink, SliceSource};
use crate::errno::{Errno, Result};
use crate::file::Seeking;

/// Bytes moved at once.
const CHUNK: usize = 2048;

/// Copies up to `count` bytes from `input` to `output`, each at its position
/// or at the given offset, which moves on instead. The input has to have
/// positions. Stops early where the output would block; `EAGAIN` only if nothing
/// was copied.
pub fn copy(
    input: &OpenFile,
    input_offset: Option<&mut i64>,
    output: &OpenFile,
    output_offset: Option<&mut i64>,
    count: usize,
) -> Result<usize> {
    input.check_readable()?;
    output.check_writable()?;
    if input.seeking() != Seeking::Positioned {
        // What a stream gave cannot be put back if the output takes less.
        return Err(if input_offset.is_some() { Errno::ESPIPE } else { Errno::EINVAL });
    }
    if output.flags() & O_APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let mut from = start(input, input_offset.as_deref())?;
    let mut to = start(output, output_offset.as_deref())?;
    let mut done = 0;
    let result = copy_chunks(input, &mut from, output, &mut to, count, &mut done);
    finish(input, input_offset, from);
    finish(output, output_offset, to);
    if done > 0 { Ok(done) } else { result.map(|()| 0) }
}

fn start(file: &OpenFile, offset: Option<&i64>) -> Result<u64> {
    match offset {
        Some(offset) => u64::try_from(*offset).map_err(|_| Errno::EINVAL),
        None => Ok(file.position.load(Ordering::Relaxed)),
    }
}

fn finish(file: &OpenFile, offset: Option<&mut i64>, end: u64) {
    match offset {
        Some(offset) => *offset = end.cast_signed(),
        None => file.position.store(end, Ordering::Relaxed),
    }
}

fn copy_chunks(
    input: &OpenFile,
    from: &mut u64,
    output: &OpenFile,
    to: &mut u64,
    count: usize,
    done: &mut usize,
) -> Result<()> {
    let mut chunk = [0; CHUNK];
    while *done < count {
        let wanted = CHUNK.min(count - *done);
        let mut sink = SliceSink::new(&mut chunk[..wanted]);
        let got = input.read_from(*from, &mut sink)?;
        if got == 0 {
            break;
        }
        let mut source = SliceSource::new(&chunk[..got]);
        let (_, put) = output.write_to(*to, &mut source)?;
        *from += put as u64;
        *to += put as u64;
        *done += put;
        if put < got {
            break;
        }
    }
    Ok(())
}
