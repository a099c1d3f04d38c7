//! Bytes: reading, writing, copying, positions.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_vfs::abi::O_APPEND;
use pagelab_vfs::inode::FileKind;
use pagelab_vfs::open_file::copy;
use pagelab_vfs::store::Advice;
use pagelab_vfs::{Errno, OpenFile, Readiness, WaitChannel, Whence};

use super::{Arguments, Outcome, file, open_file};
use crate::files::buffers::UserBuffer;
use crate::files::console::Stream;
use crate::files::wait;
use crate::process::scheduler;
use crate::process::sleep::NotYet;
use crate::signal::{self, SIGPIPE, SignalInfo};
use crate::syscall::Failure;
use crate::user;

/// Calls that move bytes.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_readv => vector(a).and_then(|mut buffer| read_into(a[0], &mut buffer)),
        linux::__NR_writev => vector(a).and_then(|mut buffer| write_from(a[0], &mut buffer)),
        linux::__NR_pread64 => UserBuffer::new(a[1], a[2])
            .map_err(Failure::from)
            .and_then(|mut buffer| read_at(a[0], a[3], &mut buffer)),
        linux::__NR_pwrite64 => UserBuffer::new(a[1], a[2])
            .map_err(Failure::from)
            .and_then(|mut buffer| write_at(a[0], a[3], &mut buffer)),
        linux::__NR_preadv => vector(a).and_then(|mut buffer| read_at(a[0], a[3], &mut buffer)),
        linux::__NR_pwritev => vector(a).and_then(|mut buffer| write_at(a[0], a[3], &mut buffer)),
        linux::__NR_preadv2 => preadv2(a),
        linux::__NR_pwritev2 => pwritev2(a),
        linux::__NR_lseek => lseek(a),
        linux::__NR_sendfile => sendfile(a),
        linux::__NR_copy_file_range => copy_file_range(a),
        linux::__NR_ftruncate => file(a[0])
            .and_then(|file| file.truncate(a[1].cast_signed()))
            .map(|()| 0)
            .map_err(Into::into),
        linux::__NR_fallocate => fallocate(a),
        linux::__NR_fsync => sync(a[0], false),
        linux::__NR_fdatasync => sync(a[0], true),
        linux::__NR_sync_file_range => sync_range(a),
        linux::__NR_sync => crate::files::vfs().sync().map(|()| 0).map_err(Into::into),
        linux::__NR_syncfs => sync_file_system(a[0]),
        linux::__NR_fadvise64 | linux::__NR_readahead => advise(call, a),
        _ => return None,
    })
}

fn vector(a: &Arguments) -> Result<UserBuffer, Failure> {
    // Linux looks at the descriptor first.
    open_file(a[0])?;
    Ok(UserBuffer::from_vector(a[1], a[2])?)
}

/// `read`.
pub(super) fn read(a: &Arguments) -> Outcome {
    let file = open_file(a[0])?;
    let mut buffer = UserBuffer::new(a[1], a[2])?;
    read_file(&file, &mut buffer)
}

fn read_into(descriptor: u64, buffer: &mut UserBuffer) -> Outcome {
    read_file(&*open_file(descriptor)?, buffer)
}

fn read_file(file: &OpenFile, buffer: &mut UserBuffer) -> Outcome {
    match file.read_timeout() {
        Some(tenths) if !file.is_nonblocking() => read_for(file, buffer, tenths),
        _ => when_ready(file, || file.read(buffer)).map(|count| count as u64),
    }
}

/// A read that takes what there is after some tenths of a second.
fn read_for(file: &OpenFile, buffer: &mut UserBuffer, tenths: u8) -> Outcome {
    const TENTH: u64 = 100_000_000;
    let deadline = time::since_start() + u64::from(tenths) * TENTH;
    let channels: Vec<_> = file.wait_channel().into_iter().collect();
    let waited = wait::until(&channels, Some(deadline), || match file.read(buffer) {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    match waited {
        Ok(Err(Errno::EINTR)) | Err(NotYet::Interrupted) => Err(Failure::Restart),
        Ok(result) => Ok(result? as u64),
        Err(NotYet::TimedOut) => Ok(file.read_now(buffer)? as u64),
    }
}

fn read_at(descriptor: u64, offset: u64, buffer: &mut UserBuffer) -> Outcome {
    let file = open_file(descriptor)?;
    Ok(file.read_at(offset.cast_signed(), buffer)? as u64)
}

fn write_at(descriptor: u64, offset: u64, buffer: &mut UserBuffer) -> Outcome {
    let file = open_file(descriptor)?;
    Ok(file.write_at(offset.cast_signed(), buffer)? as u64)
}

/// Flags of `preadv2` and `pwritev2` that change nothing here: everything is in
/// memory.
const KNOWN_FLAGS: u64 = 0x1 | 0x2 | 0x4 | 0x8;

fn preadv2(a: &Arguments) -> Outcome {
    if a[5] & !KNOWN_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut buffer = vector(a)?;
    if a[3] == u64::MAX { read_into(a[0], &mut buffer) } else { read_at(a[0], a[3], &mut buffer) }
}

fn pwritev2(a: &Arguments) -> Outcome {
    if a[5] & !KNOWN_FLAGS != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let mut buffer = vector(a)?;
    if a[3] == u64::MAX { write_from(a[0], &mut buffer) } else { write_at(a[0], a[3], &mut buffer) }
}

/// Does something with a file, again and again until it does not have to wait
/// any more.
pub(super) fn when_ready<T>(
    file: &OpenFile,
    mut operation: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Failure> {
    match operation() {
        Err(Errno::EAGAIN) if !file.is_nonblocking() => {}
        result => return result.map_err(failure),
    }
    let Some(channel) = file.wait_channel() else { return Err(Errno::EAGAIN.into()) };
    let waited = wait::until(&[channel], None, || match operation() {
        Err(Errno::EAGAIN) => None,
        result => Some(result),
    });
    match waited {
        Ok(result) => result.map_err(failure),
        Err(_) => Err(Failure::Restart),
    }
}

/// EINTR of a file: a signal was sent, the call begins anew after it.
fn failure(error: Errno) -> Failure {
    if error == Errno::EINTR { Failure::Restart } else { Failure::Error(error) }
}

/// `write`.
pub(super) fn write(a: &Arguments) -> Outcome {
    let file = open_file(a[0])?;
    let mut buffer = UserBuffer::new(a[1], a[2])?;
    write_file(&file, &mut buffer)
}

fn write_from(descriptor: u64, buffer: &mut UserBuffer) -> Outcome {
    write_file(&*open_file(descriptor)?, buffer)
}

fn write_file(file: &OpenFile, buffer: &mut UserBuffer) -> Outcome {
    if let Some(&stream) = file.behaviour::<Stream>()
        && file.is_writable()
    {
        return Ok(stream.write_from(buffer)? as u64);
    }
    let result = file.write_all(buffer, &mut |channel: WaitChannel, ready: Readiness| {
        let woken = wait::until(&[channel], None, || {
            let now = file.poll();
            now.intersects(ready | Readiness::ERROR | Readiness::HANG_UP).then_some(())
        });
        woken.map_err(|_| Errno::EINTR)
    });
    match result {
        Err(Errno::EPIPE) => {
            broken_pipe();
            Err(Errno::EPIPE.into())
        }
        result => Ok(result.map_err(failure)? as u64),
    }
}

fn broken_pipe() {
    signal::send_to_thread(&scheduler::current(), SignalInfo::sent(SIGPIPE, 0));
}

fn lseek(a: &Arguments) -> Outcome {
    let file = file(a[0])?;
    let whence = Whence::from_number(a[2] as u32).ok_or(Errno::EINVAL)?;
    Ok(file.seek(a[1].cast_signed(), whence)?)
}

/// An offset that a call reads and writes back; `None` if its address is null.
fn offset_at(address: u64) -> Result<Option<i64>, Errno> {
    if address == 0 { Ok(None) } else { user::read(GuestVirt(address)).map(Some) }
}

fn sendfile(a: &Arguments) -> Outcome {
    let (output, input) = (open_file(a[0])?, open_file(a[1])?);
    let mut offset = offset_at(a[2])?;
    let allowed = input.is_readable() && output.is_writable();
    if allowed && input.kind() == FileKind::Directory {
        return Err(Errno::EINVAL.into());
    }
    copy_between(&input, &mut offset, &output, &mut None, a[3])
        .and_then(|count| put_offset(a[2], offset).map(|()| count).map_err(Failure::from))
}

fn copy_file_range(a: &Arguments) -> Outcome {
    let (input, output) = (open_file(a[0])?, open_file(a[2])?);
    if a[5] != 0 {
        return Err(Errno::EINVAL.into());
    }
    for file in [&input, &output] {
        match file.kind() {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    if !input.is_readable() || !output.is_writable() || output.flags() & O_APPEND != 0 {
        return Err(Errno::EBADF.into());
    }
    let (mut from, mut to) = (offset_at(a[1])?, offset_at(a[3])?);
    check_overlap(&input, from, &output, to, a[4])?;
    let count = copy_between(&input, &mut from, &output, &mut to, a[4])?;
    put_offset(a[1], from)?;
    put_offset(a[3], to)?;
    Ok(count)
}

/// A copy within one file may not read what it writes.
fn check_overlap(
    input: &OpenFile,
    from: Option<i64>,
    output: &OpenFile,
    to: Option<i64>,
    count: u64,
) -> Result<(), Errno> {
    if !Arc::ptr_eq(input.inode(), output.inode()) {
        return Ok(());
    }
    let start = |file: &OpenFile, offset: Option<i64>| match offset {
        Some(offset) => u64::try_from(offset).map_err(|_| Errno::EINVAL),
        None => file.seek(0, Whence::Current),
    };
    let (from, to) = (start(input, from)?, start(output, to)?);
    let count = count.min(input.inode().size()?.saturating_sub(from));
    if to < from + count && from < to.saturating_add(count) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn put_offset(address: u64, offset: Option<i64>) -> Result<(), Errno> {
    offset.map_or(Ok(()), |offset| user::write(GuestVirt(address), &offset))
}

fn copy_between(
    input: &OpenFile,
    from: &mut Option<i64>,
    output: &OpenFile,
    to: &mut Option<i64>,
    count: u64,
) -> Outcome {
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(pagelab_vfs::abi::TRANSFER_MAX);
    let copied = when_ready(output, || copy(input, from.as_mut(), output, to.as_mut(), count));
    if copied == Err(Failure::Error(Errno::EPIPE)) {
        broken_pipe();
    }
    Ok(copied? as u64)
}

fn fallocate(a: &Arguments) -> Outcome {
    file(a[0])?.allocate(a[1] as u32, a[2].cast_signed(), a[3].cast_signed())?;
    Ok(0)
}

fn sync(descriptor: u64, data_only: bool) -> Outcome {
    file(descriptor)?.sync(data_only)?;
    Ok(0)
}

/// `sync_file_range`: what is dirty of the file goes to the host, be it in the
/// range or not.
fn sync_range(a: &Arguments) -> Outcome {
    const KNOWN: u32 = 1 | 2 | 4;
    let file = open_file(a[0])?;
    let (offset, length) = (a[1].cast_signed(), a[2].cast_signed());
    if a[3] as u32 & !KNOWN != 0 || offset < 0 || length < 0 || offset.checked_add(length).is_none()
    {
        return Err(Errno::EINVAL.into());
    }
    if !matches!(file.kind(), FileKind::Regular | FileKind::Directory | FileKind::Block) {
        return Err(Errno::ESPIPE.into());
    }
    if a[3] as u32 != 0 && file.kind() == FileKind::Regular {
        file.sync(true)?;
    }
    Ok(0)
}

fn sync_file_system(descriptor: u64) -> Outcome {
    file(descriptor)?.node().mount().file_system.sync()?;
    Ok(0)
}

fn advise(call: u32, a: &Arguments) -> Outcome {
    let file = open_file(a[0])?;
    if call == linux::__NR_readahead {
        if !file.is_readable() {
            return Err(Errno::EBADF.into());
        }
        if file.kind() != FileKind::Regular {
            return Err(Errno::EINVAL.into());
        }
    }
    if file.pipe().is_some() {
        return Err(Errno::ESPIPE.into());
    }
    let advice = match call {
        linux::__NR_fadvise64 => Advice::from_number(a[3]).ok_or(Errno::EINVAL)?,
        _ => Advice::WillNeed,
    };
    file.advise(a[1].cast_signed(), a[2].cast_signed(), advice)?;
    Ok(0)
}
