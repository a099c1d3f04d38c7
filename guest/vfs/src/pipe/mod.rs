//! Pipes, anonymous and named.
//!
//! A [`Pipe`] holds bytes in pages that are allocated when something is
//! written and given back when it was read. Its ends are files; the last one of
//! a kind to close wakes the other side. Nothing sleeps here: an end that cannot
//! go on says `EAGAIN` (see [`platform`](crate::platform)).

mod end;

use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use spin::Mutex;

use crate::abi::{O_ACCMODE, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, PIPE_BUF};
use crate::anonymous::AnonymousInode;
use crate::buffer::{Limited, Sink, Source, moved_or_fault};
use crate::errno::{Errno, Result};
use crate::file::File;
use crate::inode::{FileKind, Inode};
use crate::open_file::OpenFile;
use crate::platform::{Platform, Readiness, WaitChannel};
use crate::store::PAGE_BYTES;
use crate::tree::Vfs;

pub use end::PipeEnd;

/// What a pipe holds unless `F_SETPIPE_SZ` says otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// What an unprivileged `F_SETPIPE_SZ` may ask for; we have no privileged one.
pub const MAX_CAPACITY: usize = 1 << 20;

const CHUNK: usize = PAGE_BYTES;

#[derive(Default)]
struct State {
    /// Filled one after the other, each up to [`CHUNK`].
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that were read.
    consumed: usize,
    length: usize,
    capacity: usize,
    /// An emptied chunk, kept so that a byte to and fro costs no allocation.
    spare: Option<Vec<u8>>,
    readers: usize,
    writers: usize,
    /// How often each side was opened, for those who wait for the other.
    reader_openings: u64,
    writer_openings: u64,
}

impl State {
    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.length)
    }

    /// `POLLOUT` as Linux gives it: room for a whole page.
    fn is_writable(&self) -> bool {
        self.room() >= PIPE_BUF
    }

    /// Moves from the pipe until the sink is full or the pipe empty.
    fn drain(&mut self, sink: &mut dyn Sink) -> usize {
        let wanted = sink.remaining().min(self.length);
        let mut done = 0;
        while done < wanted {
            let Some(chunk) = self.chunks.front() else { break };
            let piece = &chunk[self.consumed..];
            let piece = &piece[..piece.len().min(wanted - done)];
            let moved = sink.put(piece);
            let stop = moved < piece.len();
            done += moved;
            self.consumed += moved;
            self.length -= moved;
            if self.consumed == chunk.len() {
                self.consumed = 0;
                if let Some(mut empty) = self.chunks.pop_front() {
                    empty.clear();
                    self.spare = Some(empty);
                }
            }
            if stop {
                break;
            }
        }
        done
    }

    /// Moves into the pipe up to `limit` bytes; `ENOMEM` or `EFAULT` if that ends
    /// at once.
    fn fill(&mut self, source: &mut dyn Source, limit: usize) -> Result<usize> {
        let mut done = 0;
        while done < limit {
            if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
                let Some(chunk) = self.spare.take().or_else(new_chunk) else {
                    return if done > 0 { Ok(done) } else { Err(Errno::ENOMEM) };
                };
                self.chunks.push_back(chunk);
            }
            let Some(chunk) = self.chunks.back_mut() else { break };
            let piece = (CHUNK - chunk.len()).min(limit - done);
            let moved = source.append_to(chunk, piece);
            done += moved;
            self.length += moved;
            if chunk.is_empty() {
                self.spare = self.chunks.pop_back();
            }
            if moved < piece {
                break;
            }
        }
        moved_or_fault(done, limit)
    }
}

/// An empty chunk, if there is memory for one.
fn new_chunk() -> Option<Vec<u8>> {
    let mut chunk = Vec::new();
    chunk.try_reserve_exact(CHUNK).ok()?;
    Some(chunk)
}

/// The thing between the ends.
pub struct Pipe {
    platform: Arc<dyn Platform>,
    channel: WaitChannel,
    state: Mutex<State>,
}

impl Pipe {
    fn new(platform: &Arc<dyn Platform>) -> Arc<Self> {
        Arc::new(Self {
            platform: Arc::clone(platform),
            channel: WaitChannel::unique(),
            state: Mutex::new(State { capacity: DEFAULT_CAPACITY, ..State::default() }),
        })
    }

    fn wake(&self, ready: Readiness) {
        self.platform.wake(self.channel, ready);
    }

    /// How many bytes it holds (`FIONREAD`).
    #[must_use]
    pub fn length(&self) -> usize {
        self.state.lock().length
    }

    /// `F_GETPIPE_SZ`.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// `F_SETPIPE_SZ`: rounds up to a power of two of at least a page; `EBUSY`
    /// if the pipe holds more. Returns the new capacity.
    pub fn set_capacity(&self, wanted: usize) -> Result<usize> {
        if wanted > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = wanted.max(CHUNK).next_power_of_two();
        if capacity > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        if capacity < state.length {
            return Err(Errno::EBUSY);
        }
        let grew = capacity > state.capacity;
        state.capacity = capacity;
        drop(state);
        if grew {
            self.wake(Readiness::WRITE);
        }
        Ok(capacity)
    }

    fn read(&self, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() == 0 {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.length == 0 {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let was_full = !state.is_writable();
        let moved = state.drain(sink);
        drop(state);
        // A writer waits only where there was too little room.
        if moved > 0 && was_full {
            self.wake(Readiness::WRITE);
        }
        moved_or_fault(moved, 1)
    }

    fn write(&self, source: &mut dyn Source) -> Result<usize> {
        let mut state = self.state.lock();
        let wanted = source.remaining();
        if wanted == 0 {
            return Ok(0);
        }
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let room = state.room();
        if room == 0 || (wanted <= PIPE_BUF && room < wanted) {
            return Err(Errno::EAGAIN);
        }
        let moved = state.fill(source, wanted.min(room))?;
        drop(state);
        self.wake(Readiness::READ);
        Ok(moved)
    }

    /// Moves bytes of this pipe to a sink without waking anybody twice; for
    /// `splice` and the like at most `limit`.
    pub fn read_limited(&self, sink: &mut dyn Sink, limit: usize) -> Result<usize> {
        self.read(&mut Limited { inner: sink, limit })
    }

    fn readiness(&self, reads: bool, writes: bool) -> Readiness {
        let state = self.state.lock();
        let mut ready = Readiness::empty();
        if reads {
            ready.set(Readiness::READ, state.length > 0);
            ready.set(Readiness::HANG_UP, state.writers == 0 && state.writer_openings > 0);
        }
        if writes {
            ready.set(Readiness::WRITE, state.is_writable());
            ready.set(Readiness::ERROR, state.readers == 0);
        }
        ready
    }
}

/// Where the ends of a pipe that has an inode find each other: there is a pipe
/// as long as one end is open.
#[derive(Default)]
pub struct FifoSlot {
    pipe: Mutex<Weak<Pipe>>,
    /// It has no name of its own: who opens it once more (`/proc/self/fd/3`) has
    /// seen it open and waits for nobody.
    is_anonymous: bool,
}

impl FifoSlot {
    /// That of a pipe without a name.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { is_anonymous: true, ..Self::default() }
    }

    /// Opens an end, or both.
    pub(crate) fn open(&self, platform: &Arc<dyn Platform>, flags: u32) -> Result<Arc<dyn File>> {
        let mut slot = self.pipe.lock();
        let pipe = slot.upgrade().unwrap_or_else(|| {
            let pipe = Pipe::new(platform);
            *slot = Arc::downgrade(&pipe);
            pipe
        });
        drop(slot);
        let access = flags & O_ACCMODE;
        let no_readers = || pipe.state.lock().readers == 0;
        if access == O_WRONLY && flags & O_NONBLOCK != 0 && !self.is_anonymous && no_readers() {
            return Err(Errno::ENXIO);
        }
        let (reads, writes) =
            (access == O_RDONLY || access == O_RDWR, access == O_WRONLY || access == O_RDWR);
        Ok(Arc::new(PipeEnd::open(pipe, reads, writes, !self.is_anonymous)))
    }
}

impl Vfs {
    /// `pipe2`: the end to read from and the end to write to.
    pub fn pipe(&self, flags: u32) -> Result<(Arc<OpenFile>, Arc<OpenFile>)> {
        if flags & !(O_NONBLOCK | crate::abi::O_CLOEXEC | crate::abi::O_DIRECT) != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & crate::abi::O_DIRECT != 0 {
            // Packet mode.
            return Err(Errno::EINVAL);
        }
        let inode = AnonymousInode::new(&**self.platform(), FileKind::Fifo);
        let slot = inode.fifo().ok_or(Errno::EINVAL)?;
        let reader = slot.open(self.platform(), O_RDONLY)?;
        let writer = slot.open(self.platform(), O_WRONLY)?;
        let mut name = b"pipe:[".to_vec();
        crate::text::push_decimal(&mut name, inode.ino());
        name.push(b']');
        let node = self.anonymous_node(inode, &name);
        let nonblocking = flags & O_NONBLOCK;
        Ok((
            OpenFile::new(node.clone(), Some(reader), O_RDONLY | nonblocking),
            OpenFile::new(node, Some(writer), O_WRONLY | nonblocking),
        ))
    }
}
