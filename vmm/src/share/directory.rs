//! Reading folders.
//!
//! An entry's offset is the host's own for the entry behind it, so the guest can
//! go on from any entry, and the server keeps nothing but the open folder.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::abi::{Dirent, EntryOut, OpenOut, ReleaseIn, TransferIn};
use super::confine::{Component, open_folder};
use super::handles::HandleKind;
use super::request::{Answer, Body};
use super::server::Server;

/// Most bytes of entries in an answer, and how many are read from the host at
/// once.
const MAX_ENTRIES: usize = 32 << 10;

impl Server {
    pub(super) fn open_dir(&mut self, node: u64) -> Result<Answer, Errno> {
        self.handles.has_room()?;
        let folder = open_folder(self.nodes.folder(node)?)?;
        let fh = self.handles.add(HandleKind::Folder, folder)?;
        Ok(Answer::structure(&OpenOut { fh, open_flags: 0, padding: 0 }))
    }

    pub(super) fn read_dir(
        &mut self,
        node: u64,
        body: &mut Body,
        room: usize,
        plus: bool,
    ) -> Result<Answer, Errno> {
        let TransferIn { fh, offset, size, .. } = body.structure()?;
        let folder = self.handles.get(HandleKind::Folder, fh)?.try_clone_to_owned();
        let folder =
            folder.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::MFILE))?;
        let limit = usize::try_from(size).unwrap_or(usize::MAX).min(room).min(MAX_ENTRIES);
        if i64::try_from(offset).is_err() {
            return Err(Errno::INVAL);
        }
        rustix::fs::seek(&folder, SeekFrom::Start(offset))?;
        let mut answer = Vec::new();
        let folder = std::os::fd::AsFd::as_fd(&folder);
        self.collect(node, folder, limit, plus, &mut answer)?;
        Ok(Answer::Bytes(answer))
    }

    /// Fills `answer` with entries, up to `limit` bytes.
    fn collect(
        &mut self,
        node: u64,
        folder: BorrowedFd<'_>,
        limit: usize,
        plus: bool,
        answer: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let head = if plus { size_of::<EntryOut>() } else { 0 };
        let mut buffer = [MaybeUninit::uninit(); MAX_ENTRIES];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let length = (head + size_of::<Dirent>() + name.len()).next_multiple_of(8);
            if answer.len() + length > limit {
                // Not even one: the guest would take that for the end.
                return if answer.is_empty() { Err(Errno::INVAL) } else { Ok(()) };
            }
            let end = answer.len() + length;
            if plus {
                answer.extend(self.entry_of(node, &entry).as_bytes());
            }
            answer.extend(dirent(&entry).as_bytes());
            answer.extend(name);
            answer.resize(end, 0);
        }
        Ok(())
    }

    /// What an entry leads to. One that cannot be found (it may be gone, or there
    /// is no descriptor left) is only named: node 0.
    fn entry_of(&mut self, folder: u64, entry: &RawDirEntry<'_>) -> EntryOut {
        Component::new(entry.file_name())
            .and_then(|name| self.enter(folder, name))
            .unwrap_or_default()
    }

    pub(super) fn release_dir(&mut self, body: &mut Body) -> Result<Answer, Errno> {
        let ReleaseIn { fh, .. } = body.structure()?;
        self.handles.close(HandleKind::Folder, fh)?;
        Ok(Answer::done())
    }

    pub(super) fn fsync_dir(&self, body: &mut Body) -> Result<Answer, Errno> {
        self.sync_handle(HandleKind::Folder, body)
    }

    /// Makes everything on the folder's file system last.
    pub(super) fn sync_fs(&self, node: u64) -> Result<Answer, Errno> {
        let folder = open_folder(self.nodes.folder(node)?)?;
        rustix::fs::syncfs(folder)?;
        Ok(Answer::done())
    }
}

fn dirent(entry: &RawDirEntry<'_>) -> Dirent {
    Dirent {
        ino: entry.ino(),
        off: entry.next_entry_cookie(),
        namelen: u32::try_from(entry.file_name().to_bytes().len()).unwrap_or(0),
        kind: entry.file_type().as_raw_mode() >> 12,
    }
}
