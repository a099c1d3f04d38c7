//! The operations, one method for each.

use core::sync::atomic::Ordering;

use alloc::vec::Vec;

use pagelab_abi::addr::Frame;
use pagelab_vfs::Errno;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::protocol::{
    Attributes, AttributesOut, CreateIn, CreateOut, EntryOut, FAllocateIn, FSYNC_DATA_ONLY,
    FSyncIn, GetAttrIn, LSeekIn, LSeekOut, LinkIn, MkDirIn, MkNodIn, OpenIn, OpenOut, Operation,
    ROOT_NODE, ReadIn, ReleaseIn, Rename2In, SetAttrIn, StatFsOut, WriteIn, WriteOut,
};
use crate::transport::{Readable, Writable};

/// The longest text of a symbolic link.
const LINK_MAX: usize = 4096;

const O_RDWR: u32 = 2;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;

/// The handle of servers that need none.
const NO_HANDLE: u64 = 0;

impl Connection {
    /// The entry `name` of a directory.
    ///
    /// # Errors
    ///
    /// The server's; ENOENT also where it answers with no node.
    pub fn lookup(&self, directory: u64, name: &[u8]) -> Result<EntryOut> {
        let entry: EntryOut = self.request(Operation::Lookup, directory, &(), &[name])?;
        if entry.node == 0 {
            return Err(Error::Server(Errno::ENOENT));
        }
        check_entry(entry)
    }

    /// Attributes of a node.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn get_attributes(&self, node: u64) -> Result<AttributesOut> {
        self.request(Operation::GetAttr, node, &GetAttrIn::default(), &[])
    }

    /// Changes attributes of a node.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn set_attributes(&self, node: u64, changes: &SetAttrIn) -> Result<Attributes> {
        let reply: AttributesOut = self.request(Operation::SetAttr, node, changes, &[])?;
        Ok(reply.attributes)
    }

    /// The text of a symbolic link, which is `expected` bytes long if that is not
    /// 0 and it was not changed.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn read_link(&self, node: u64, expected: u64) -> Result<Vec<u8>> {
        let room = usize::try_from(expected).unwrap_or(LINK_MAX);
        let mut text = alloc::vec![0; if (1..LINK_MAX).contains(&room) { room } else { LINK_MAX }];
        let room = Writable::Bytes(&mut text);
        let length = self.request_data(Operation::ReadLink, node, &(), room)?;
        text.truncate(length);
        if text.is_empty() || text.contains(&0) {
            return Err(Error::Protocol("a link to nowhere"));
        }
        Ok(text)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn make_symlink(&self, directory: u64, name: &[u8], text: &[u8]) -> Result<EntryOut> {
        check_entry(self.request(Operation::Symlink, directory, &(), &[name, text])?)
    }

    /// Makes a node that is no directory and no link.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn make_node(
        &self,
        directory: u64,
        name: &[u8],
        mode: u32,
        device: u32,
    ) -> Result<EntryOut> {
        let argument = MkNodIn { mode, device, ..MkNodIn::default() };
        check_entry(self.request(Operation::MkNod, directory, &argument, &[name])?)
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn make_directory(&self, directory: u64, name: &[u8], mode: u32) -> Result<EntryOut> {
        let argument = MkDirIn { mode, umask: 0 };
        check_entry(self.request(Operation::MkDir, directory, &argument, &[name])?)
    }

    /// Removes an entry that is no directory.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.request(Operation::Unlink, directory, &(), &[name])
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.request(Operation::RmDir, directory, &(), &[name])
    }

    /// Moves an entry; `flags` as `renameat2` has them.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn rename(
        &self,
        directory: u64,
        name: &[u8],
        new_directory: u64,
        new_name: &[u8],
        flags: u32,
    ) -> Result<()> {
        let argument = Rename2In { new_directory, flags, padding: 0 };
        self.request(Operation::Rename2, directory, &argument, &[name, new_name])
    }

    /// Gives a node one more name.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn link(&self, node: u64, directory: u64, name: &[u8]) -> Result<EntryOut> {
        let argument = LinkIn { old_node: node };
        check_entry(self.request(Operation::Link, directory, &argument, &[name])?)
    }

    /// Opens a file for reading or also for writing; returns its handle.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn open_file(&self, node: u64, flags: u32) -> Result<u64> {
        if self.no_open.load(Ordering::Relaxed) {
            return Ok(NO_HANDLE);
        }
        let argument = OpenIn { flags, open_flags: 0 };
        match self.request::<_, OpenOut>(Operation::Open, node, &argument, &[]) {
            Err(Error::Server(Errno::ENOSYS)) => {
                self.no_open.store(true, Ordering::Relaxed);
                Ok(NO_HANDLE)
            }
            reply => Ok(reply?.handle),
        }
    }

    /// Makes a regular file, and opens it for reading and writing.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn create(&self, directory: u64, name: &[u8], mode: u32) -> Result<(EntryOut, u64)> {
        let argument = CreateIn { flags: O_RDWR | O_CREAT | O_EXCL, mode, ..CreateIn::default() };
        let made: CreateOut = self.request(Operation::Create, directory, &argument, &[name])?;
        Ok((check_entry(made.entry)?, made.open.handle))
    }

    /// Closes a file's handle.
    pub fn release(&self, node: u64, handle: u64, flags: u32) {
        if !self.no_open.load(Ordering::Relaxed) {
            let argument = ReleaseIn { handle, flags, ..ReleaseIn::default() };
            // The handle is gone for us in any case.
            let _ = self.request::<_, ()>(Operation::Release, node, &argument, &[]);
        }
    }

    /// Reads from a file into frames; fewer bytes than `length` are the end of
    /// the file.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn read(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        frames: &[Frame],
        length: usize,
    ) -> Result<usize> {
        let size = checked_size(length)?;
        let argument = ReadIn { handle, offset, size, ..ReadIn::default() };
        let room = Writable::Frames(frames, length);
        self.request_data(Operation::Read, node, &argument, room)
    }

    /// Writes to a file from frames; returns how many bytes were written.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn write(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        frames: &[Frame],
        length: usize,
    ) -> Result<usize> {
        let size = checked_size(length)?;
        let argument = WriteIn { handle, offset, size, ..WriteIn::default() };
        let data = Readable::Frames(frames, length);
        let reply: WriteOut = self.request_with_data(Operation::Write, node, &argument, data)?;
        let written = reply.size as usize;
        if written > length {
            Err(Error::Protocol("more was written than sent"))
        } else {
            Ok(written)
        }
    }

    /// How much there is.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn statistics(&self) -> Result<StatFsOut> {
        self.request(Operation::StatFs, ROOT_NODE, &(), &[])
    }

    /// Brings a file's data to where it survives.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn sync_file(&self, node: u64, handle: u64, data_only: bool) -> Result<()> {
        let flags = if data_only { FSYNC_DATA_ONLY } else { 0 };
        self.request(Operation::FSync, node, &FSyncIn { handle, flags, padding: 0 }, &[])
    }

    /// The same for a directory's entries.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn sync_directory(&self, node: u64, handle: u64) -> Result<()> {
        self.request(Operation::FSyncDir, node, &FSyncIn { handle, ..FSyncIn::default() }, &[])
    }

    /// `fallocate`.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn allocate(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    ) -> Result<()> {
        let argument = FAllocateIn { handle, offset, length, mode, padding: 0 };
        self.request(Operation::FAllocate, node, &argument, &[])
    }

    /// `lseek` for data or a hole.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn seek(&self, node: u64, handle: u64, offset: u64, whence: u32) -> Result<u64> {
        let argument = LSeekIn { handle, offset, whence, padding: 0 };
        let reply: LSeekOut = self.request(Operation::LSeek, node, &argument, &[])?;
        if reply.offset < offset {
            return Err(Error::Protocol("a seek that went back"));
        }
        Ok(reply.offset)
    }

    /// Opens a directory for listing; returns its handle.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn open_directory(&self, node: u64) -> Result<u64> {
        if self.no_open_directory.load(Ordering::Relaxed) {
            return Ok(NO_HANDLE);
        }
        match self.request::<_, OpenOut>(Operation::OpenDir, node, &OpenIn::default(), &[]) {
            Err(Error::Server(Errno::ENOSYS)) => {
                self.no_open_directory.store(true, Ordering::Relaxed);
                Ok(NO_HANDLE)
            }
            reply => Ok(reply?.handle),
        }
    }

    /// Closes a directory's handle.
    pub fn release_directory(&self, node: u64, handle: u64) {
        if !self.no_open_directory.load(Ordering::Relaxed) {
            let argument = ReleaseIn { handle, ..ReleaseIn::default() };
            // The handle is gone for us in any case.
            let _ = self.request::<_, ()>(Operation::ReleaseDir, node, &argument, &[]);
        }
    }

    /// Part of a listing, from the entry whose `next` is `offset` on, as
    /// [`entries`](crate::entries) reads it; empty at the end.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn list(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        with_attributes: bool,
        room: &mut [u8],
    ) -> Result<usize> {
        let size = checked_size(room.len())?;
        let operation = if with_attributes { Operation::ReadDirPlus } else { Operation::ReadDir };
        let argument = ReadIn { handle, offset, size, ..ReadIn::default() };
        self.request_data(operation, node, &argument, Writable::Bytes(room))
    }
}

fn checked_size(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| Error::Server(Errno::EINVAL))
}

/// A node that a server may give to a name.
fn check_entry(entry: EntryOut) -> Result<EntryOut> {
    if entry.node <= ROOT_NODE {
        return Err(Error::Protocol("an entry that is the root, or nothing"));
    }
    Ok(entry)
}
