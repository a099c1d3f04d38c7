//! The lab's streams: where standard input comes from, and where standard output
//! and error go.
//!
//! Each is a character device, so that `/dev/stdin` and its like can be opened
//! anew. Input is in a ring that the host fills; when it interrupts, readers
//! look again. Output goes to the host straight from the program's frames
//! ([`Stream::write_from`]): nothing is copied.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_abi::addr::GuestVirt;
use pagelab_abi::lab::{MAX_SEGMENTS, STREAM_ERROR, STREAM_OUTPUT, Segment as Piece};
use pagelab_hal::sync::Once;
use pagelab_hal::{console, lab};
use pagelab_mm::Access;
use pagelab_vfs::abi::{O_ACCMODE, O_RDONLY, O_RDWR, O_WRONLY};
use pagelab_vfs::buffer::moved_or_fault;
use pagelab_vfs::device::Device;
use pagelab_vfs::file::{File, IoctlArgument};
use pagelab_vfs::inode::{DeviceNumber, NewNode};
use pagelab_vfs::{
    Errno, FdTable, Lookup, OpenFile, OpenHow, Readiness, Result, Sink, Source, Vfs, WaitChannel,
};

use super::buffers::UserBuffer;
use super::{terminal, wait};
use crate::memory::memory;
use crate::process::Pid;
use crate::process::space::Space;
use crate::user;

/// A driver number that Linux leaves to local use.
const MAJOR: u32 = 240;

/// Most bytes of one request to the host.
const REQUEST: usize = 64 * 1024;

/// One of the lab's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Input,
    /// Standard output, or error.
    Output(u32),
}

const STREAMS: [(Stream, &[u8], u32); 3] = [
    (Stream::Input, b"lab-input", O_RDONLY),
    (Stream::Output(STREAM_OUTPUT), b"lab-output", O_WRONLY),
    (Stream::Output(STREAM_ERROR), b"lab-error", O_WRONLY),
];

/// Who waits for input.
static INPUT: Once<WaitChannel> = Once::new();

/// Adds the streams to `/dev`.
///
/// # Errors
///
/// Without memory.
pub fn install(vfs: &Vfs) -> Result<()> {
    INPUT.set(WaitChannel::unique());
    let devices = vfs.resolve(&super::first_folders(), None, b"/dev", Lookup::FOLLOW)?;
    for (minor, (stream, name, _)) in (0..).zip(STREAMS) {
        let number = DeviceNumber::new(MAJOR, minor);
        devices.inode().create(name, NewNode::Character(number), 0o600)?;
        vfs.register_device(number, Arc::new(stream));
    }
    terminal::install(vfs);
    Ok(())
}

/// The host interrupts: there is input, or its end, or another window.
pub fn input_arrived() {
    if !terminal::input_arrived() {
        wait::wake(*INPUT.get(), Readiness::READ);
    }
}

/// Descriptors 0, 1 and 2 for a program that begins a session: the terminal,
/// which becomes the session's, or the streams. One that cannot be opened, for
/// want of memory, is missing.
pub fn standard_files(session: Pid) -> FdTable {
    let mut table = FdTable::new();
    if let Some(terminal) = terminal::terminal() {
        terminal.set_controlling(session, session);
        if let Ok(file) = open(b"/dev/console", O_RDWR) {
            for _ in STREAMS {
                let _ = table.insert(file.clone(), false, 0, usize::MAX);
            }
        }
        return table;
    }
    for (_, name, flags) in STREAMS {
        let mut path = b"/dev/".to_vec();
        path.extend_from_slice(name);
        if let Ok(file) = open(&path, flags) {
            let _ = table.insert(file, false, 0, usize::MAX);
        }
    }
    table
}

fn open(path: &[u8], flags: u32) -> Result<Arc<OpenFile>> {
    super::vfs().open(&super::first_folders(), None, path, OpenHow { flags, mode: 0 })
}

impl Device for Stream {
    fn open(&self, flags: u32) -> Result<Arc<dyn File>> {
        let access = flags & O_ACCMODE;
        let allowed = match self {
            Self::Input => access == O_RDONLY,
            Self::Output(_) => access == O_WRONLY,
        };
        if allowed || access == O_RDWR { Ok(Arc::new(*self)) } else { Err(Errno::EACCES) }
    }
}

impl File for Stream {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let Self::Input = self else { return Err(Errno::EBADF) };
        let wanted = sink.remaining();
        if wanted == 0 {
            return Ok(0);
        }
        let mut bytes = [0; 512];
        let mut done = 0;
        while done < wanted && lab::input_available() > 0 {
            let piece = bytes.len().min(wanted - done);
            let count = lab::read_input(&mut bytes[..piece]);
            let moved = sink.put(&bytes[..count]);
            done += moved;
            if moved < count {
                return moved_or_fault(done, wanted);
            }
        }
        if done == 0 && !lab::input_ended() && lab::is_present() {
            return Err(Errno::EAGAIN);
        }
        Ok(done)
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        let Self::Output(stream) = *self else { return Err(Errno::EBADF) };
        let wanted = source.remaining();
        let mut bytes = Vec::new();
        let mut done = 0;
        while done < wanted {
            bytes.clear();
            let piece = REQUEST.min(wanted - done);
            let moved = source.append_to(&mut bytes, piece);
            if moved > 0 && !console::write_bytes(stream, &bytes) {
                return Err(Errno::EIO);
            }
            done += moved;
            if moved < piece {
                break;
            }
        }
        moved_or_fault(done, wanted)
    }

    fn poll(&self) -> Readiness {
        match self {
            Self::Input if lab::input_available() > 0 => Readiness::READ,
            Self::Input if lab::input_ended() => Readiness::READ | Readiness::HANG_UP,
            Self::Input => Readiness::empty(),
            Self::Output(_) => Readiness::WRITE,
        }
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        (*self == Self::Input).then(|| *INPUT.get())
    }

    fn ioctl(&self, request: u32, argument: &mut dyn IoctlArgument) -> Result<i64> {
        match (self, request) {
            (Self::Input, linux_raw_sys::ioctl::FIONREAD) => {
                let available = lab::input_available() as u32;
                argument.write(&available.to_le_bytes()).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

impl Stream {
    /// Writes a program's buffer from where it is.
    ///
    /// # Errors
    ///
    /// EBADF for the input, EFAULT if nothing of the buffer can be read, EIO if
    /// the host does not take it.
    pub fn write_from(self, buffer: &mut UserBuffer) -> Result<usize> {
        let Self::Output(stream) = self else { return Err(Errno::EBADF) };
        let wanted = Source::remaining(buffer);
        let mut pieces = Vec::with_capacity(4);
        let (mut done, mut pending) = (0, 0);
        while done < wanted {
            let room = (REQUEST - pending).min(wanted - done);
            let got = buffer.take_in_place(room, |space, at, length| {
                let got = pieces_of(space, at, length, &mut pieces);
                (got, (got, got == length))
            });
            done += got.0;
            pending += got.0;
            let full = pending == REQUEST || pieces.len() >= MAX_SEGMENTS;
            if full || !got.1 || done == wanted {
                if !console::write_segments(stream, &pieces) {
                    return Err(Errno::EIO);
                }
                pieces.clear();
                pending = 0;
            }
            if !got.1 {
                break;
            }
        }
        moved_or_fault(done, wanted)
    }
}

/// Appends the pieces of physical memory that a range of a program's memory is
/// in; returns how much of it there is.
fn pieces_of(space: &Space, at: GuestVirt, length: usize, pieces: &mut Vec<Piece>) -> usize {
    let mut done = 0;
    while done < length {
        let from = GuestVirt(at.0 + done as u64);
        let read = space.lock().for_each_segment(
            memory(),
            from,
            length - done,
            Access::READ,
            |segment, _| {
                let start = segment.frame.start().0 + segment.offset as u64;
                pieces.push(Piece { start, length: segment.length as u64 });
                true
            },
        );
        match read {
            Ok(()) => return length,
            Err(partial) => {
                done += partial.done;
                if user::mend(partial.error).is_err() {
                    break;
                }
            }
        }
    }
    done
}
