//! An inode of a share.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use pagelab_vfs::executing::TextUse;
use pagelab_vfs::file::File;
use pagelab_vfs::inode::{Changes, DirectoryEntry, FileKind, Inode, Metadata, NewNode};
use pagelab_vfs::lock::LockTable;
use pagelab_vfs::pipe::FifoSlot;
use pagelab_vfs::store::{Advice, PageBacking};
use pagelab_vfs::write_errors::WriteErrors;
use pagelab_vfs::{Errno, ObjectId, PageStore, Result, Sink, Source};
use spin::{Mutex, Once};

use super::Shared;
use super::directory::Directory;
use crate::error::{self, Error};
use crate::node::Node;
use crate::protocol::{Attributes, EntryOut, SetAttrIn, set};

/// Attributes of at most this age in nanoseconds are as good as new when a file
/// is opened: the walk to it has just brought them.
const AS_NEW: u64 = 10_000_000;

const O_ACCMODE: u32 = 3;
const O_TRUNC: u32 = 0o1000;
const RENAME_EXCHANGE: u32 = 2;
const FALLOC_FL_KEEP_SIZE: u32 = 1;
const FALLOC_FL_PUNCH_HOLE: u32 = 2;

/// The pages of a regular file.
struct Data {
    object: ObjectId,
    /// The version of the host's file that they are of.
    version: (u64, u64, u32),
}

enum Body<S: PageStore> {
    /// The pages, once somebody wants them.
    Regular(Mutex<Option<Data>>),
    Directory(Box<Directory<S>>),
    /// Its text, once it was read: another text would be another link.
    Symlink(Once<Vec<u8>>),
    Fifo(FifoSlot),
    Other,
}

/// An inode of a share.
pub struct ShareInode<S: PageStore> {
    shared: Arc<Shared<S>>,
    node: Arc<Node>,
    ino: u64,
    body: Body<S>,
    text_use: TextUse,
    /// Made when somebody first locks.
    locks: Once<Box<LockTable>>,
}

impl<S: PageStore> ShareInode<S> {
    pub(super) fn new(shared: &Arc<Shared<S>>, node: Node) -> Arc<Self> {
        let body = match node.kind() {
            FileKind::Regular => Body::Regular(Mutex::new(None)),
            FileKind::Directory => Body::Directory(Box::default()),
            FileKind::Symlink => Body::Symlink(Once::new()),
            FileKind::Fifo => Body::Fifo(FifoSlot::default()),
            _ => Body::Other,
        };
        Arc::new(Self {
            shared: Arc::clone(shared),
            ino: node.ino(),
            node: Arc::new(node),
            body,
            text_use: TextUse::default(),
            locks: Once::new(),
        })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    fn directory(&self) -> Result<&Directory<S>> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Names in this directory are about to change.
    fn changing_names(&self) -> Result<()> {
        self.directory()?.drop_prefetched();
        self.node.doubt();
        Ok(())
    }

    /// An inode of the same share.
    fn of(inode: &Arc<dyn Inode>) -> Result<&Self> {
        let inode: &dyn Any = &**inode;
        inode.downcast_ref().ok_or(Errno::EXDEV)
    }

    fn adopt(&self, entry: error::Result<EntryOut>) -> Result<Arc<Self>> {
        Ok(self.shared.adopt(&entry?)?)
    }

    /// The object with the pages, made when it is first wanted.
    fn data(&self) -> Result<ObjectId> {
        let pages = match &self.body {
            Body::Regular(pages) => pages,
            Body::Directory(_) => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        };
        let mut pages = pages.lock();
        if let Some(data) = &*pages {
            return Ok(data.object);
        }
        let attributes = self.node.attributes(self.shared.now(), None)?;
        let backing: Arc<dyn PageBacking> = Arc::<Node>::clone(&self.node);
        let object = self.shared.store.create_backed(backing, attributes.size)?;
        *pages = Some(Data { object, version: Node::version(&attributes) });
        Ok(object)
    }

    /// The object, if it was wanted already.
    fn known_object(&self) -> Option<ObjectId> {
        match &self.body {
            Body::Regular(pages) => pages.lock().as_ref().map(|data| data.object),
            _ => None,
        }
    }

    /// Asks for the attributes anew unless they are as good as new; pages of an
    /// older version of the file go, unless they were changed here.
    fn revalidate(&self) -> Result<()> {
        let attributes = self.node.attributes(self.shared.now(), Some(AS_NEW))?;
        self.take_version(&attributes)
    }

    /// Who asks for the size, or reads up to the end or past it, learns of what
    /// others did since the attributes are believed no more, as with Linux's client.
    /// What was written from here is looked at when the file is opened next.
    fn notice_others(&self) -> Result<()> {
        let Some(object) = self.known_object() else { return Ok(()) };
        let attributes = self.node.attributes(self.shared.now(), None)?;
        if self.node.is_changed_by_us() && attributes.size <= self.shared.store.size(object) {
            return Ok(());
        }
        self.take_version(&attributes)
    }

    /// The host's file is of this version.
    fn take_version(&self, attributes: &Attributes) -> Result<()> {
        let Body::Regular(pages) = &self.body else { return Ok(()) };
        let outdated = {
            let mut pages = pages.lock();
            match &mut *pages {
                Some(data) if data.version != Node::version(attributes) => {
                    data.version = Node::version(attributes);
                    // What only we wrote is in the pages already.
                    let same_size = self.shared.store.size(data.object) == attributes.size;
                    let ours = self.node.take_changed_by_us() && same_size;
                    (!ours).then_some(data.object)
                }
                _ => None,
            }
        };
        match outdated {
            Some(object) => self.shared.store.refresh(object, attributes.size),
            None => Ok(()),
        }
    }

    fn link_text(&self) -> error::Result<Vec<u8>> {
        let length = self.node.attributes(self.shared.now(), None)?.size;
        self.shared.connection.read_link(self.node.id(), length)
    }

    /// The data changed from here: what the server tells of it later is no news.
    fn touched(&self) {
        self.node.changed_at(self.shared.platform.now());
    }

    /// Writes changed pages to the host.
    pub(super) fn sync_data(&self) -> Result<()> {
        match self.known_object() {
            Some(object) => self.shared.store.sync(object, false),
            None => Ok(()),
        }
    }

    fn set(&self, changes: SetAttrIn) -> Result<()> {
        Ok(self.node.change(changes, self.shared.now())?)
    }
}

impl<S: PageStore> Drop for ShareInode<S> {
    fn drop(&mut self) {
        if let Body::Regular(pages) = &mut self.body
            && let Some(data) = pages.get_mut()
        {
            self.shared.store.destroy(data.object);
        }
        self.shared.dismiss(self.node.id(), self);
    }
}

impl<S: PageStore> Inode for ShareInode<S> {
    fn metadata(&self) -> Result<Metadata> {
        self.notice_others()?;
        let mut metadata = self.node.metadata(self.shared.now())?;
        if let Some(object) = self.known_object() {
            // Here it may have grown already.
            metadata.size = self.shared.store.size(object);
        }
        Ok(metadata)
    }

    fn kind(&self) -> FileKind {
        self.node.kind()
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn is_believed(&self) -> bool {
        let one_name = self.kind() == FileKind::Directory || self.node.links() == 1;
        one_name && self.shared.now() < self.node.believed_until()
    }

    fn change(&self, changes: &Changes) -> Result<()> {
        let mut request = SetAttrIn::default();
        if let Some(permissions) = changes.permissions {
            request.valid |= set::MODE;
            request.mode = self.kind().mode_bits() | u32::from(permissions);
        }
        if let Some(uid) = changes.uid {
            request.valid |= set::UID;
            request.uid = uid;
        }
        if let Some(gid) = changes.gid {
            request.valid |= set::GID;
            request.gid = gid;
        }
        if let Some(time) = changes.accessed {
            request.valid |= set::ACCESSED;
            request.accessed = time.seconds.cast_unsigned();
            request.accessed_nanoseconds = time.nanoseconds;
        }
        if let Some(time) = changes.modified {
            // Pages that are written later would set it once more.
            self.sync_data()?;
            request.valid |= set::MODIFIED;
            request.modified = time.seconds.cast_unsigned();
            request.modified_nanoseconds = time.nanoseconds;
        }
        self.set(request)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if let Some(inode) = self.directory()?.take_prefetched(name) {
            return Ok(inode);
        }
        Ok(self.adopt(self.shared.connection.lookup(self.node.id(), name))?)
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, permissions: u16) -> Result<Arc<dyn Inode>> {
        self.changing_names()?;
        let (connection, directory) = (&self.shared.connection, self.node.id());
        let permissions = u32::from(permissions);
        let special = |kind: FileKind, device: u64| {
            let device = u32::try_from(device).map_err(|_| Error::Server(Errno::EINVAL))?;
            connection.make_node(directory, name, kind.mode_bits() | permissions, device)
        };
        let entry = match node {
            NewNode::Regular => {
                let mode = FileKind::Regular.mode_bits() | permissions;
                let (entry, handle) = connection.create(directory, name, mode)?;
                let inode = self.adopt(Ok(entry))?;
                inode.node.give_handle(handle);
                return Ok(inode);
            }
            NewNode::Directory => connection.make_directory(directory, name, permissions),
            NewNode::Symlink(text) => connection.make_symlink(directory, name, text),
            NewNode::Fifo => special(FileKind::Fifo, 0),
            NewNode::Socket => special(FileKind::Socket, 0),
            NewNode::Character(device) => special(FileKind::Character, device.0),
            NewNode::Block(device) => special(FileKind::Block, device.0),
        };
        Ok(self.adopt(entry)?)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = Self::of(target)?;
        self.changing_names()?;
        self.adopt(self.shared.connection.link(target.node.id(), self.node.id(), name)).map(drop)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.changing_names()?;
        Ok(self.shared.connection.unlink(self.node.id(), name)?)
    }

    fn name_is_gone(&self) {
        // How many are left, the server knows.
        self.node.doubt();
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.changing_names()?;
        Ok(self.shared.connection.remove_directory(self.node.id(), name)?)
    }

    fn rename(
        &self,
        from: &[u8],
        directory: &Arc<dyn Inode>,
        to: &[u8],
        exchange: bool,
    ) -> Result<()> {
        let target = Self::of(directory)?;
        self.changing_names()?;
        target.changing_names()?;
        let flags = if exchange { RENAME_EXCHANGE } else { 0 };
        let (source, target) = (self.node.id(), target.node.id());
        Ok(self.shared.connection.rename(source, from, target, to, flags)?)
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<()> {
        Ok(self.directory()?.list(&self.shared, &self.node, position, emit)?)
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        let Body::Symlink(text) = &self.body else { return Err(Errno::EINVAL) };
        let text = text.try_call_once(|| self.link_text())?;
        Ok(text.clone())
    }

    fn open(&self, flags: u32) -> Result<Option<Arc<dyn File>>> {
        if self.kind() == FileKind::Regular {
            // As on the host, opening is where permission is asked for.
            self.node.open(flags & O_ACCMODE != 0 || flags & O_TRUNC != 0)?;
            self.revalidate()?;
        }
        Ok(None)
    }

    fn fifo(&self) -> Option<&FifoSlot> {
        match &self.body {
            Body::Fifo(slot) => Some(slot),
            _ => None,
        }
    }

    fn object(&self) -> Option<ObjectId> {
        self.data().ok()
    }

    fn size(&self) -> Result<u64> {
        self.notice_others()?;
        match self.known_object() {
            Some(object) => Ok(self.shared.store.size(object)),
            None => Ok(self.metadata()?.size),
        }
    }

    fn read_at(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let object = self.data()?;
        if offset.saturating_add(sink.remaining() as u64) > self.shared.store.size(object) {
            self.notice_others()?;
        }
        self.shared.store.read_at(object, offset, sink)
    }

    fn write_at(&self, offset: u64, source: &mut dyn Source) -> Result<usize> {
        let moved = self.shared.store.write_at(self.data()?, offset, source)?;
        self.touched();
        Ok(moved)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.shared.store.set_size(self.data()?, size)?;
        self.touched();
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let object = self.data()?;
        let end = offset.saturating_add(length);
        let mode = if keep_size { FALLOC_FL_KEEP_SIZE } else { 0 };
        let handle = self.node.open(true)?;
        self.shared.connection.allocate(self.node.id(), handle, offset, length, mode)?;
        self.node.doubt();
        if !keep_size && end > self.shared.store.size(object) {
            self.shared.store.set_size(object, end)?;
        }
        self.touched();
        Ok(())
    }

    fn seek(&self, offset: u64, hole: bool) -> Result<u64> {
        const SEEK_DATA: u32 = 3;
        const SEEK_HOLE: u32 = 4;
        let size = self.size()?;
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        // The host knows of what was written.
        self.sync_data()?;
        let handle = self.node.open(false)?;
        let whence = if hole { SEEK_HOLE } else { SEEK_DATA };
        Ok(self.shared.connection.seek(self.node.id(), handle, offset, whence)?.min(size))
    }

    fn text_use(&self) -> Option<&TextUse> {
        (self.kind() == FileKind::Regular).then_some(&self.text_use)
    }

    fn locks(&self, make: bool) -> Option<&LockTable> {
        if make {
            let platform = || Arc::clone(&self.shared.platform);
            Some(self.locks.call_once(|| Box::new(LockTable::new(platform()))))
        } else {
            self.locks.get().map(|locks| &**locks)
        }
    }

    fn punch_hole(&self, offset: u64, length: u64) -> Result<()> {
        let object = self.data()?;
        // What lies around it may be changed here.
        self.shared.store.flush(object)?;
        let handle = self.node.open(true)?;
        let mode = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;
        self.shared.connection.allocate(self.node.id(), handle, offset, length, mode)?;
        self.shared.store.punch_hole(object, offset, length)?;
        self.node.doubt();
        self.touched();
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.known_object().map_or(Ok(()), |object| self.shared.store.flush(object))
    }

    fn write_errors(&self) -> Option<Arc<WriteErrors>> {
        self.shared.store.write_errors(self.known_object()?)
    }

    fn advise(&self, offset: u64, length: u64, advice: Advice) {
        if let Ok(object) = self.data() {
            self.shared.store.advise(object, offset, length, advice);
        }
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        if self.kind() == FileKind::Directory {
            let handle = self.node.open_directory()?;
            return Ok(self.shared.connection.sync_directory(self.node.id(), handle)?);
        }
        match self.known_object() {
            Some(object) => self.shared.store.sync(object, data_only),
            None => Ok(PageBacking::sync(&*self.node, data_only)?),
        }
    }
}
