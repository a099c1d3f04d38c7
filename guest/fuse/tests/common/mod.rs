//! What the tests share: memory with frames, a page store over it, and a server
//! for a directory of this machine.
#![allow(dead_code, unreachable_pub, reason = "not every test uses all of it")]

pub mod server;
pub mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use pagelab_abi::addr::Frame;
use pagelab_fuse::{Connection, Readable, ShareFs, Transport, TransportError, Writable};
use pagelab_vfs::memfs::MemFs;
use pagelab_vfs::{
    FileSystem, FsContext, Lookup, OpenFile, OpenHow, Platform, Readiness, Result, Timespec, Vfs,
    WaitChannel,
};

use server::Server;
use store::Store;

pub const PAGE: usize = 4096;

/// Frames by number.
#[derive(Default)]
pub struct Memory {
    frames: Mutex<BTreeMap<u32, Vec<u8>>>,
}

impl Memory {
    pub fn alloc(&self) -> Frame {
        let mut frames = self.frames.lock().unwrap();
        let number = frames.last_key_value().map_or(1, |(last, _)| last + 1);
        // Junk, which nobody may get to see.
        frames.insert(number, vec![0xa5; PAGE]);
        Frame(number)
    }

    pub fn free(&self, frame: Frame) {
        self.frames.lock().unwrap().remove(&frame.0).expect("a frame is freed once");
    }

    pub fn used(&self) -> usize {
        self.frames.lock().unwrap().len()
    }

    pub fn read(&self, frame: Frame, range: std::ops::Range<usize>) -> Vec<u8> {
        self.frames.lock().unwrap()[&frame.0][range].to_vec()
    }

    pub fn write(&self, frame: Frame, at: usize, bytes: &[u8]) {
        let mut frames = self.frames.lock().unwrap();
        frames.get_mut(&frame.0).unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Answers requests: bytes in, bytes out.
pub trait Answer: Send {
    fn answer(&mut self, request: &[u8]) -> Vec<u8>;
}

/// Carries requests to something in this process.
pub struct Carrier<A> {
    pub memory: Arc<Memory>,
    pub server: Arc<Mutex<A>>,
    pub requests: Arc<AtomicUsize>,
}

impl<A: Answer> Transport for Carrier<A> {
    fn exchange(
        &self,
        request: &[Readable<'_>],
        reply: &mut [Writable<'_>],
    ) -> std::result::Result<usize, TransportError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        for piece in request {
            match *piece {
                Readable::Bytes(piece) => bytes.extend_from_slice(piece),
                Readable::Frames(frames, length) => {
                    for (number, frame) in frames.iter().enumerate() {
                        let count = PAGE.min(length.saturating_sub(number * PAGE));
                        bytes.extend(self.memory.read(*frame, 0..count));
                    }
                }
            }
        }
        let answer = self.server.lock().unwrap().answer(&bytes);
        let mut rest = &answer[..];
        for piece in reply {
            match piece {
                Writable::Bytes(room) => {
                    let (now, later) = rest.split_at(rest.len().min(room.len()));
                    room[..now.len()].copy_from_slice(now);
                    rest = later;
                }
                Writable::Frames(frames, length) => {
                    let (mut now, later) = rest.split_at(rest.len().min(*length));
                    rest = later;
                    for frame in *frames {
                        let (part, more) = now.split_at(now.len().min(PAGE));
                        self.memory.write(*frame, 0, part);
                        now = more;
                    }
                }
            }
        }
        Ok(answer.len())
    }

    fn most_frames(&self) -> usize {
        16
    }
}

/// A clock that can be moved.
#[derive(Default)]
pub struct Clock {
    pub ahead: AtomicU64,
}

impl Platform for Clock {
    fn now(&self) -> Timespec {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ahead = self.ahead.load(Ordering::Relaxed);
        let seconds = i64::try_from(now.as_secs() + ahead).unwrap();
        Timespec { seconds, nanoseconds: now.subsec_nanos() }
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(4);
    }

    fn wake(&self, _channel: WaitChannel, _ready: Readiness) {}
}

/// A tree with a directory of this machine at `/s`.
pub struct Lab {
    pub directory: tempfile::TempDir,
    pub memory: Arc<Memory>,
    pub clock: Arc<Clock>,
    pub server: Arc<Mutex<Server>>,
    pub requests: Arc<AtomicUsize>,
    pub share: Arc<ShareFs<Store>>,
    pub vfs: Vfs,
    pub context: FsContext,
}

impl Lab {
    pub fn new(change: impl FnOnce(&mut Server)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let memory = Arc::new(Memory::default());
        let store = Arc::new(Store::new(&memory));
        let clock = Arc::new(Clock::default());
        let mut server = Server::new(directory.path());
        change(&mut server);
        let server = Arc::new(Mutex::new(server));
        let requests = Arc::new(AtomicUsize::new(0));
        let carrier =
            Carrier { memory: memory.clone(), server: server.clone(), requests: requests.clone() };
        let connection = Connection::open(Box::new(carrier)).unwrap();
        let share = Arc::new(ShareFs::new(connection, store.clone(), clock.clone()).unwrap());
        let root = MemFs::new("tmpfs", store, clock.clone(), 0o755, 1000).unwrap();
        let vfs = Vfs::new(clock.clone(), Arc::new(root));
        let context = FsContext::at(vfs.root());
        vfs.make_directory(&context, None, b"/s", 0o755).unwrap();
        let at = vfs.resolve(&context, None, b"/s", Lookup::FOLLOW).unwrap();
        vfs.mount(at, "share0", share.clone(), false).unwrap();
        Self { directory, memory, clock, server, requests, share, vfs, context }
    }

    pub fn host(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub fn open(&self, path: &str, flags: u32) -> Result<Arc<OpenFile>> {
        self.vfs.open(&self.context, None, path.as_bytes(), OpenHow { flags, mode: 0o644 })
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.open(path, 0)?;
        let mut all = Vec::new();
        loop {
            let mut part = vec![0; 10_000];
            let count = file.read(&mut pagelab_vfs::buffer::SliceSink::new(&mut part))?;
            if count == 0 {
                return Ok(all);
            }
            all.extend_from_slice(&part[..count]);
        }
    }

    pub fn write(&self, path: &str, flags: u32, bytes: &[u8]) -> Result<()> {
        let file = self.open(path, flags)?;
        file.write(&mut pagelab_vfs::buffer::SliceSource::new(bytes))?;
        file.sync(false)
    }

    /// Names in a directory, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let node = self.vfs.resolve(&self.context, None, path.as_bytes(), Lookup::FOLLOW)?;
        let mut names = Vec::new();
        let mut position = 0;
        loop {
            let before = names.len();
            node.inode().list(position, &mut |entry| {
                names.push(String::from_utf8(entry.name.to_vec()).unwrap());
                position = entry.next;
                names.len() < before + 7
            })?;
            if names.len() == before {
                break;
            }
        }
        names.sort();
        Ok(names)
    }

    /// Lets everything go that nobody uses.
    pub fn forget_all(&self) {
        self.vfs.prune();
        self.share.sync().unwrap();
    }
}
