//! Making files, folders and links.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::abi::{CreateIn, EntryOut, LinkIn, MkdirIn, MknodIn, OpenOut};
use super::attributes::{SET_ID_BITS, attributes};
use super::confine::{self, Component};
use super::handles::HandleKind;
use super::request::{Answer, Body};
use super::server::Server;

/// The permissions that the guest wants, without what it must not set.
fn permissions(mode: u32, umask: u32) -> Mode {
    Mode::from_raw_mode(mode & !umask & 0o7777 & !SET_ID_BITS)
}

impl Server {
    pub(super) fn mknod(&mut self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let MknodIn { mode, umask, .. } = body.structure()?;
        let kind = match FileType::from_raw_mode(mode) {
            // A mode without a kind is a regular file, as for mknod(2).
            FileType::RegularFile => FileType::RegularFile,
            FileType::Unknown if mode & 0o170_000 == 0 => FileType::RegularFile,
            FileType::Fifo => FileType::Fifo,
            _ => return Err(Errno::PERM),
        };
        let name = body.last_name()?;
        let wanted = permissions(mode, umask);
        self.nodes.has_room()?;
        rustix::fs::mknodat(self.nodes.folder(folder)?, name.as_c_str(), kind, wanted, 0)?;
        self.made(folder, name, Some(wanted))
    }

    pub(super) fn mkdir(&mut self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let MkdirIn { mode, umask } = body.structure()?;
        let name = body.last_name()?;
        let wanted = permissions(mode, umask);
        self.nodes.has_room()?;
        rustix::fs::mkdirat(self.nodes.folder(folder)?, name.as_c_str(), wanted)?;
        self.made(folder, name, Some(wanted))
    }

    pub(super) fn symlink(&mut self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let (name, target) = (body.string()?, body.string()?);
        let (name, target) = (body.component(name)?, body.text(target)?);
        self.nodes.has_room()?;
        rustix::fs::symlinkat(target, self.nodes.folder(folder)?, name.as_c_str())?;
        self.made(folder, name, None)
    }

    pub(super) fn link(&mut self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let LinkIn { oldnodeid } = body.structure()?;
        let name = body.last_name()?;
        let node = self.nodes.get(oldnodeid)?;
        self.descriptors.link(node.descriptor(), self.nodes.folder(folder)?, name)?;
        self.made(folder, name, None)
    }

    /// Answers with what was just made.
    fn made(
        &mut self,
        folder: u64,
        name: Component<'_>,
        wanted: Option<Mode>,
    ) -> Result<Answer, Errno> {
        let mut entry = self.enter(folder, name)?;
        if let Some(wanted) = wanted {
            self.undo_umask(&mut entry, wanted)?;
        }
        Ok(Answer::structure(&entry))
    }

    /// The guest has its own umask; what pagelab's took away on top is given
    /// back.
    fn undo_umask(&self, entry: &mut EntryOut, wanted: Mode) -> Result<(), Errno> {
        let wanted = wanted.as_raw_mode();
        if entry.attr.mode & wanted == wanted {
            return Ok(());
        }
        let node = self.nodes.get(entry.nodeid)?;
        let mode = Mode::from_raw_mode(entry.attr.mode & 0o7777 | wanted);
        self.descriptors.set_mode(node.descriptor(), mode)?;
        entry.attr = attributes(&node.stat()?);
        Ok(())
    }

    pub(super) fn create(&mut self, folder: u64, body: &mut Body) -> Result<Answer, Errno> {
        let CreateIn { flags, mode, umask, .. } = body.structure()?;
        let name = body.last_name()?;
        let wanted = permissions(mode, umask);
        self.nodes.has_room()?;
        self.handles.has_room()?;
        let flags = OFlags::from_bits_retain(flags);
        // For reading too, since the guest's page cache reads what surrounds a
        // part that is written.
        let others = flags & (OFlags::SYNC | OFlags::DSYNC);
        let folder_fd = self.nodes.folder(folder)?;
        let made = confine::create(folder_fd, name, others | OFlags::RDWR, wanted);
        let (entry, file) = match made {
            Ok(file) => {
                let mut entry = self.enter(folder, name)?;
                // The name may lead elsewhere by now: what is open counts.
                let node = self.nodes.get(entry.nodeid)?;
                let same = rustix::fs::fstat(&file)?.st_ino == node.stat()?.st_ino;
                if !same {
                    self.nodes.forget(entry.nodeid, 1);
                    return Err(Errno::STALE);
                }
                self.undo_umask(&mut entry, wanted)?;
                (entry, file)
            }
            // Never opened by name, since it may be anything.
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                let mut entry = self.enter(folder, name)?;
                match self.open_node(entry.nodeid, flags) {
                    Ok(file) => {
                        entry.attr = attributes(&rustix::fs::fstat(file.as_fd())?);
                        (entry, file)
                    }
                    Err(errno) => {
                        self.nodes.forget(entry.nodeid, 1);
                        return Err(errno);
                    }
                }
            }
            Err(errno) => return Err(errno),
        };
        let fh = self.handles.add(HandleKind::File, file)?;
        let mut bytes = entry.as_bytes().to_vec();
        bytes.extend(OpenOut { fh, open_flags: 0, padding: 0 }.as_bytes());
        Ok(Answer::Bytes(bytes))
    }
}
