//! A client for tests: it makes requests and reads answers.

use std::path::Path;

use rustix::io::Errno;
use tempfile::TempDir;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

use crate::memory::scatter::Scatter;
use crate::share::abi::{
    AttrOut, CreateIn, Dirent, EntryOut, FsyncIn, InHeader, OpenIn, OpenOut, Operation, OutHeader,
    ROOT, ReleaseIn, TransferIn, WriteOut,
};
use crate::share::server::{Server, ServerOptions};

/// A server for a folder of its own, and a client.
pub(super) struct Client {
    pub(super) folder: TempDir,
    pub(super) server: Server,
}

/// An answer's body, or its error.
pub(super) type Answer = Result<Vec<u8>, Errno>;

/// An entry of a folder: its name, its offset and, of READDIRPLUS, its node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) offset: u64,
    pub(super) kind: u32,
    pub(super) node: u64,
}

impl Client {
    pub(super) fn new() -> Self {
        Self::with(ServerOptions { descriptors: 1000, ..ServerOptions::default() })
    }

    pub(super) fn with(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(folder.path(), options).unwrap();
        Self { folder, server }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Puts `request` before the server in two pieces, and takes what it answers
    /// in `room` bytes.
    pub(super) fn raw(&mut self, request: &[u8], room: usize) -> Vec<u8> {
        let mut first = request[..request.len().min(13)].to_vec();
        let mut second = request[first.len()..].to_vec();
        let mut start = vec![0xaa; room.min(20)];
        let mut rest = vec![0xaa; room - start.len()];
        let mut readable = Scatter::default();
        let mut writable = Scatter::default();
        assert!(readable.push(VolatileSlice::from(first.as_mut_slice())));
        assert!(readable.push(VolatileSlice::from(second.as_mut_slice())));
        assert!(writable.push(VolatileSlice::from(start.as_mut_slice())));
        assert!(writable.push(VolatileSlice::from(rest.as_mut_slice())));
        let length = self.server.handle(readable, writable);
        start.extend(rest);
        assert!(length <= start.len());
        start.truncate(length);
        start
    }

    /// A request as bytes.
    pub(super) fn encode(operation: Operation, node: u64, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(size_of::<InHeader>() + body.len()).unwrap();
        let header = InHeader {
            len,
            opcode: operation.info().number,
            unique: 77,
            nodeid: node,
            ..InHeader::default()
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    /// A request with much room for its answer.
    pub(super) fn call(&mut self, operation: Operation, node: u64, body: &[u8]) -> Answer {
        let answer = self.raw(&Self::encode(operation, node, body), 1 << 20);
        let (header, rest) = OutHeader::read_from_prefix(&answer).unwrap();
        assert_eq!((header.unique, header.len as usize), (77, answer.len()));
        match header.error {
            0 => Ok(rest.to_vec()),
            error => {
                assert!(error < 0 && rest.is_empty());
                Err(Errno::from_raw_os_error(-error))
            }
        }
    }

    /// A request without an answer.
    pub(super) fn tell(&mut self, operation: Operation, node: u64, body: &[u8]) {
        assert_eq!(self.raw(&Self::encode(operation, node, body), 0), b"");
    }

    /// A request whose answer is a structure.
    pub(super) fn ask<T: FromBytes>(
        &mut self,
        operation: Operation,
        node: u64,
        body: &[u8],
    ) -> Result<T, Errno> {
        Ok(T::read_from_bytes(&self.call(operation, node, body)?).unwrap())
    }

    pub(super) fn find(&mut self, folder: u64, name: &str) -> Result<u64, Errno> {
        Ok(self.ask::<EntryOut>(Operation::Lookup, folder, &ended(name))?.nodeid)
    }

    pub(super) fn attributes(&mut self, node: u64) -> Result<crate::share::abi::Attr, Errno> {
        Ok(self.ask::<AttrOut>(Operation::GetAttr, node, &[0; 16])?.attr)
    }

    pub(super) fn open(&mut self, node: u64, flags: i32) -> Result<u64, Errno> {
        let body = OpenIn { flags: flags.cast_unsigned(), open_flags: 0 };
        Ok(self.ask::<OpenOut>(Operation::Open, node, body.as_bytes())?.fh)
    }

    pub(super) fn create(
        &mut self,
        folder: u64,
        name: &str,
        flags: i32,
    ) -> Result<(u64, u64), Errno> {
        let flags = flags.cast_unsigned();
        let head = CreateIn { flags, mode: 0o100_666, umask: 0o022, open_flags: 0 };
        let mut body = head.as_bytes().to_vec();
        body.extend(ended(name));
        let answer = self.call(Operation::Create, folder, &body)?;
        let (entry, rest) = EntryOut::read_from_prefix(&answer).unwrap();
        Ok((entry.nodeid, OpenOut::read_from_bytes(rest).unwrap().fh))
    }

    pub(super) fn read(&mut self, fh: u64, offset: u64, size: u32) -> Answer {
        let body = TransferIn { fh, offset, size, ..TransferIn::default() };
        self.call(Operation::Read, ROOT, body.as_bytes())
    }

    pub(super) fn write(&mut self, fh: u64, offset: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let size = u32::try_from(bytes.len()).unwrap();
        let mut body = TransferIn { fh, offset, size, ..TransferIn::default() }.as_bytes().to_vec();
        body.extend(bytes);
        Ok(self.ask::<WriteOut>(Operation::Write, ROOT, &body)?.size)
    }

    pub(super) fn release(&mut self, fh: u64) -> Answer {
        let body = ReleaseIn { fh, ..ReleaseIn::default() };
        self.call(Operation::Release, ROOT, body.as_bytes())
    }

    pub(super) fn fsync(&mut self, fh: u64, flags: u32) -> Answer {
        let body = FsyncIn { fh, fsync_flags: flags, padding: 0 };
        self.call(Operation::Fsync, ROOT, body.as_bytes())
    }

    /// All entries of a folder, `size` bytes of answer at a time.
    pub(super) fn list(&mut self, node: u64, size: u32, plus: bool) -> Result<Vec<Entry>, Errno> {
        let fh = self.ask::<OpenOut>(Operation::OpenDir, node, &[0; 8])?.fh;
        let operation = if plus { Operation::ReadDirPlus } else { Operation::ReadDir };
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let offset = entries.last().map_or(0, |entry| entry.offset);
            let body = TransferIn { fh, offset, size, ..TransferIn::default() };
            let answer = self.call(operation, node, body.as_bytes())?;
            assert!(answer.len() <= size as usize);
            if answer.is_empty() {
                break;
            }
            entries.extend(parse(&answer, plus));
        }
        self.call(
            Operation::ReleaseDir,
            node,
            ReleaseIn { fh, ..ReleaseIn::default() }.as_bytes(),
        )?;
        Ok(entries)
    }
}

fn parse(mut bytes: &[u8], plus: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let mut node = 0;
        let mut rest = bytes;
        if plus {
            let (entry, behind) = EntryOut::read_from_prefix(rest).unwrap();
            node = entry.nodeid;
            rest = behind;
        }
        let (dirent, rest) = Dirent::read_from_prefix(rest).unwrap();
        let name = String::from_utf8(rest[..dirent.namelen as usize].to_vec()).unwrap();
        let length = bytes.len() - rest.len() + dirent.namelen as usize;
        bytes = &bytes[length.next_multiple_of(8)..];
        entries.push(Entry { name, offset: dirent.off, kind: dirent.kind, node });
    }
    entries
}

/// A string as the protocol has it.
pub(super) fn ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A structure and strings, as a body.
pub(super) fn body(head: &(impl IntoBytes + zerocopy::Immutable), texts: &[&str]) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    for text in texts {
        bytes.extend(ended(text));
    }
    bytes
}
