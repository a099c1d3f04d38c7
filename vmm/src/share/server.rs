//! A session with the guest: each request is taken apart, checked, carried out
//! and answered, before the next one is looked at.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use zerocopy::IntoBytes;

use super::MAX_TRANSFER;
use super::abi::{
    FUSE_ATOMIC_O_TRUNC, FUSE_BIG_WRITES, FUSE_DO_READDIRPLUS, FUSE_MAX_PAGES, InHeader, InitIn,
    InitOut, MAJOR, MINOR, Operation, OutHeader,
};
use super::confine::{Component, Descriptors, find};
use super::fault::Fault;
use super::handles::Handles;
use super::nodes::Nodes;
use super::request::{Answer, Body, take_header};
use super::statistics::ShareStatistics;
use crate::memory::scatter::Scatter;

/// How a share is served.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Whether everything that changes something is refused.
    pub read_only: bool,
    /// Failures on purpose.
    pub faults: Vec<Fault>,
    /// Most descriptors that the guest can make the server hold.
    pub descriptors: usize,
}

/// A shared folder.
#[derive(Debug)]
pub struct Server {
    pub(super) nodes: Nodes,
    pub(super) handles: Handles,
    pub(super) descriptors: Descriptors,
    pub(super) read_only: bool,
    pub(super) statistics: Arc<ShareStatistics>,
    faults: Vec<Fault>,
}

/// Raises this process's limit of descriptors as far as it may, and says how many
/// each of `shares` shares can have, so that some are left for everything else.
#[must_use]
pub fn descriptors_per_share(shares: usize) -> usize {
    /// For pagelab itself.
    const OTHERS: u64 = 64;
    /// Enough for any work, and no burden for the host.
    const MOST: u64 = 1 << 20;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.current = limit.maximum,
            Err(errno) => log::debug!("cannot raise the limit of descriptors: {errno}"),
        }
    }
    let all = limit.current.unwrap_or(MOST).min(MOST).saturating_sub(OTHERS);
    usize::try_from(all).unwrap_or(usize::MAX) / shares.max(1)
}

impl Server {
    /// A server for the folder at `path` of the host.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or the host lacks what keeps a guest inside.
    pub fn new(path: &Path, options: ServerOptions) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        check_openat2(&root)?;
        let descriptors = Descriptors::new()
            .map_err(|errno| io::Error::other(format!("/proc/self/fd is needed: {errno}")))?;
        // Half for what was found, half for what is open.
        let each = options.descriptors / 2;
        Ok(Self {
            nodes: Nodes::new(root, each, !options.faults.is_empty())?,
            handles: Handles::new(each.max(1)),
            descriptors,
            read_only: options.read_only,
            statistics: Arc::default(),
            faults: options.faults,
        })
    }

    /// What the server does, while it does it.
    #[must_use]
    pub const fn statistics(&self) -> &Arc<ShareStatistics> {
        &self.statistics
    }

    /// Forgets the session: closes and forgets everything.
    pub fn reset(&mut self) {
        self.handles.clear();
        self.nodes.clear();
    }

    /// Carries out a request; says how many bytes of `room` the answer takes.
    pub fn handle(&mut self, mut request: Scatter<'_>, room: Scatter<'_>) -> usize {
        let (header, result) = match take_header(&mut request) {
            Ok(header) => (header, self.carry_out(&header, request, &room)),
            Err((header, errno)) => {
                self.statistics.count(None);
                (header, Err(errno))
            }
        };
        if let Err(errno) = &result {
            self.statistics.count_error();
            log::trace!("request {} about node {}: {errno}", header.opcode, header.nodeid);
        }
        answer(header.unique, result, &room)
    }

    fn carry_out(
        &mut self,
        header: &InHeader,
        mut request: Scatter<'_>,
        room: &Scatter<'_>,
    ) -> Result<Answer, Errno> {
        let operation = Operation::from_number(header.opcode);
        self.statistics.count(operation);
        let operation = operation.ok_or(Errno::NOSYS)?;
        let info = operation.info();
        let silent = matches!(operation, Operation::Forget | Operation::BatchForget);
        if !silent && room.len() < size_of::<OutHeader>() + info.answer {
            return Err(Errno::INVAL);
        }
        if info.changes && self.read_only {
            return Err(Errno::ROFS);
        }
        let mut behind_header = room.clone();
        let _ = behind_header.take_front(size_of::<OutHeader>());
        if operation == Operation::Write {
            let mut body = Body::take(&mut request, size_of::<super::abi::TransferIn>());
            self.strike(operation, header.nodeid, &mut body)?;
            return self.write(&mut body, &request);
        }
        let mut body = Body::take_all(&mut request)?;
        self.strike(operation, header.nodeid, &mut body)?;
        let node = header.nodeid;
        match operation {
            Operation::Init => init(&mut body),
            Operation::Destroy => {
                self.reset();
                Ok(Answer::done())
            }
            Operation::Lookup => self.lookup(node, &mut body),
            Operation::Forget => self.forget(node, &mut body),
            Operation::BatchForget => self.batch_forget(&mut body),
            Operation::GetAttr => self.get_attributes(node),
            Operation::SetAttr => self.set_attributes(node, &mut body),
            Operation::ReadLink => self.read_link(node),
            Operation::Statfs => self.statfs(node),
            Operation::Access => self.access(node, &mut body),
            Operation::Mknod => self.mknod(node, &mut body),
            Operation::Mkdir => self.mkdir(node, &mut body),
            Operation::Symlink => self.symlink(node, &mut body),
            Operation::Link => self.link(node, &mut body),
            Operation::Create => self.create(node, &mut body),
            Operation::Unlink => self.unlink(node, &mut body),
            Operation::Rmdir => self.rmdir(node, &mut body),
            Operation::Rename => self.rename(node, &mut body),
            Operation::Rename2 => self.rename2(node, &mut body),
            Operation::Open => self.open(node, &mut body),
            Operation::Read => self.read(&mut body, behind_header),
            Operation::Write => Err(Errno::INVAL),
            Operation::Flush => self.flush(&mut body),
            Operation::Release => self.release(&mut body),
            Operation::Fsync => self.fsync(&mut body),
            Operation::Fallocate => self.fallocate(&mut body),
            Operation::Lseek => self.lseek(&mut body),
            Operation::OpenDir => self.open_dir(node),
            Operation::ReadDir => self.read_dir(node, &mut body, behind_header.len(), false),
            Operation::ReadDirPlus => self.read_dir(node, &mut body, behind_header.len(), true),
            Operation::ReleaseDir => self.release_dir(&mut body),
            Operation::FsyncDir => self.fsync_dir(&mut body),
            Operation::SyncFs => self.sync_fs(node),
            // Requests are carried out at once: there is never one to interrupt.
            Operation::Interrupt => Ok(Answer::Silence),
        }
    }

    /// Fails where a test wants that.
    fn strike(&mut self, operation: Operation, node: u64, body: &mut Body) -> Result<(), Errno> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let of_node = self.nodes.get(node).map(super::nodes::Node::name).unwrap_or_default();
        let in_body = body.name_of(operation);
        let name = in_body.as_deref().unwrap_or(of_node);
        self.faults.iter_mut().try_for_each(|fault| fault.strike(operation, name))
    }
}

/// Puts an answer into `room`; says how long it is. Where there is no room for a
/// header, there is no answer.
fn answer(unique: u64, result: Result<Answer, Errno>, room: &Scatter<'_>) -> usize {
    const HEADER: usize = size_of::<OutHeader>();
    let (error, in_place, bytes) = match result {
        Ok(Answer::Silence) => return 0,
        Ok(Answer::Bytes(bytes)) => (0, 0, bytes),
        Ok(Answer::InPlace(count)) => (0, count, Vec::new()),
        Err(errno) => (-errno.raw_os_error(), 0, Vec::new()),
    };
    if room.len() < HEADER {
        return 0;
    }
    let mut behind_header = room.clone();
    let front = behind_header.take_front(HEADER);
    let length = HEADER + in_place + behind_header.copy_from(&bytes);
    let header = OutHeader { len: u32::try_from(length).unwrap_or(u32::MAX), error, unique };
    front.copy_from(header.as_bytes());
    length
}

fn init(body: &mut Body) -> Result<Answer, Errno> {
    let asked: InitIn = body.structure()?;
    if asked.major < MAJOR {
        return Err(Errno::PROTO);
    }
    // A newer client is told the version, and asks again.
    if asked.major > MAJOR {
        let answer = InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() };
        return Ok(Answer::structure(&answer));
    }
    let offered = FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_MAX_PAGES;
    Ok(Answer::structure(&InitOut {
        major: MAJOR,
        minor: MINOR,
        max_readahead: asked.max_readahead.min(MAX_TRANSFER),
        flags: asked.flags & offered,
        max_background: 1,
        congestion_threshold: 1,
        max_write: MAX_TRANSFER,
        time_gran: 1,
        max_pages: u16::try_from(MAX_TRANSFER / 4096).unwrap_or(u16::MAX),
        ..InitOut::default()
    }))
}

/// Whether the host knows `openat2`, without which nothing is served.
fn check_openat2(root: &OwnedFd) -> io::Result<()> {
    let nowhere = Component::new(c"pagelab: is openat2 there?")?;
    match find(std::os::fd::AsFd::as_fd(root), nowhere) {
        Err(Errno::NOSYS | Errno::PERM) => {
            Err(io::Error::other("the host's kernel does not allow openat2 (Linux 5.6 has it)"))
        }
        _ => Ok(()),
    }
}
