//! An inode of a tmpfs.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use spin::{Mutex, Once};

use super::directory::{Directory, ENTRY_SIZE};
use super::{Shared, device_of};
use crate::buffer::{Sink, Source};
use crate::errno::{Errno, Result};
use crate::executing::TextUse;
use crate::inode::{Changes, DeviceNumber, DirectoryEntry, FileKind, Inode, Metadata, NewNode};
use crate::lock::LockTable;
use crate::pipe::FifoSlot;
use crate::platform::Timespec;
use crate::store::{ObjectId, PAGE_SIZE, PageStore};

#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) permissions: u16,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) accessed: Timespec,
    pub(super) modified: Timespec,
    pub(super) changed: Timespec,
    pub(super) born: Timespec,
    /// Made without a name, and may still get one.
    pub(super) linkable: bool,
}

pub(super) enum Body<S: PageStore> {
    Regular(ObjectId),
    Directory(Mutex<Directory<S>>),
    Symlink(Box<[u8]>),
    Fifo(FifoSlot),
    Other,
}

/// An inode of a tmpfs.
pub struct MemInode<S: PageStore> {
    shared: Arc<Shared<S>>,
    ino: u64,
    kind: FileKind,
    device: DeviceNumber,
    pub(super) attributes: Mutex<Attributes>,
    pub(super) body: Body<S>,
    text_use: TextUse,
    /// Made when somebody first locks.
    locks: Once<Box<LockTable>>,
}

impl<S: PageStore> MemInode<S> {
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        node: NewNode<'_>,
        permissions: u16,
        gid: u32,
    ) -> Result<Arc<Self>> {
        let (kind, body) = match node {
            NewNode::Regular => (FileKind::Regular, Body::Regular(shared.store.create()?)),
            NewNode::Directory => {
                (FileKind::Directory, Body::Directory(Mutex::new(Directory::default())))
            }
            NewNode::Symlink(text) => (FileKind::Symlink, Body::Symlink(text.into())),
            NewNode::Fifo => (FileKind::Fifo, Body::Fifo(FifoSlot::default())),
            NewNode::Socket => (FileKind::Socket, Body::Other),
            NewNode::Character(_) => (FileKind::Character, Body::Other),
            NewNode::Block(_) => (FileKind::Block, Body::Other),
        };
        let now = shared.platform.now();
        shared.inodes.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Self {
            shared: Arc::clone(shared),
            ino: shared.next_ino.fetch_add(1, Ordering::Relaxed),
            kind,
            device: device_of(&node),
            attributes: Mutex::new(Attributes {
                permissions,
                links: if kind == FileKind::Directory { 2 } else { 1 },
                uid: 0,
                gid,
                accessed: now,
                modified: now,
                changed: now,
                born: now,
                linkable: false,
            }),
            body,
            text_use: TextUse::default(),
            locks: Once::new(),
        }))
    }

    pub(super) fn shared(&self) -> &Arc<Shared<S>> {
        &self.shared
    }

    pub(super) fn now(&self) -> Timespec {
        self.shared.platform.now()
    }

    fn data(&self) -> Result<ObjectId> {
        match self.body {
            Body::Regular(object) => Ok(object),
            Body::Directory(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The data or the entries changed.
    pub(super) fn touch(&self) {
        let now = self.now();
        let mut attributes = self.attributes.lock();
        attributes.modified = now;
        attributes.changed = now;
    }

    /// Names come or go; `change` adjusts their number.
    pub(super) fn change_links(&self, change: impl FnOnce(&mut u32)) {
        let now = self.now();
        let mut attributes = self.attributes.lock();
        change(&mut attributes.links);
        attributes.changed = now;
    }

    /// The time of last reading moves only if it lies before the last change,
    /// as with Linux's `relatime` (whose once a day does not come in a lab).
    fn accessed(&self) {
        let mut attributes = self.attributes.lock();
        if attributes.accessed <= attributes.modified || attributes.accessed <= attributes.changed {
            attributes.accessed = self.now();
        }
    }

    fn size_and_blocks(&self) -> (u64, u64) {
        match &self.body {
            Body::Regular(object) => {
                let store = &self.shared.store;
                let pages = store.resident_pages(*object);
                (store.size(*object), pages * (PAGE_SIZE / 512))
            }
            Body::Directory(directory) => (directory.lock().size(), 0),
            Body::Symlink(text) => (text.len() as u64, 0),
            Body::Fifo(_) | Body::Other => (0, 0),
        }
    }
}

impl<S: PageStore> Drop for MemInode<S> {
    fn drop(&mut self) {
        match &mut self.body {
            Body::Regular(object) => self.shared.store.destroy(*object),
            Body::Directory(directory) => directory.get_mut().take_apart(),
            _ => {}
        }
        self.shared.inodes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: PageStore> Inode for MemInode<S> {
    fn metadata(&self) -> Result<Metadata> {
        let (size, blocks) = self.size_and_blocks();
        let attributes = *self.attributes.lock();
        Ok(Metadata {
            ino: self.ino,
            kind: self.kind,
            permissions: attributes.permissions,
            links: attributes.links,
            uid: attributes.uid,
            gid: attributes.gid,
            device: self.device,
            size,
            blocks,
            block_size: 4096,
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
            born: attributes.born,
        })
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn note_access(&self) {
        self.accessed();
    }

    fn note_write(&self) {
        self.touch();
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn change(&self, changes: &Changes) -> Result<()> {
        let now = self.now();
        let mut attributes = self.attributes.lock();
        attributes.permissions = changes.permissions.unwrap_or(attributes.permissions);
        attributes.uid = changes.uid.unwrap_or(attributes.uid);
        attributes.gid = changes.gid.unwrap_or(attributes.gid);
        attributes.accessed = changes.accessed.unwrap_or(attributes.accessed);
        attributes.modified = changes.modified.unwrap_or(attributes.modified);
        attributes.changed = now;
        Ok(())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.directory()?.lock().get(name).ok_or(Errno::ENOENT)?)
    }

    fn create(&self, name: &[u8], node: NewNode<'_>, permissions: u16) -> Result<Arc<dyn Inode>> {
        Ok(self.create_entry(name, node, permissions)?)
    }

    fn create_unnamed(&self, permissions: u16, linkable: bool) -> Result<Arc<dyn Inode>> {
        self.directory()?;
        let inode = Self::new(&self.shared, NewNode::Regular, permissions, 0)?;
        {
            let mut attributes = inode.attributes.lock();
            attributes.links = 0;
            attributes.linkable = linkable;
        }
        Ok(inode)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        self.link_entry(name, target)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        self.unlink_entry(name)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        self.remove_directory(name)
    }

    fn rename(
        &self,
        from: &[u8],
        directory: &Arc<dyn Inode>,
        to: &[u8],
        exchange: bool,
    ) -> Result<()> {
        self.rename_entry(from, directory, to, exchange)
    }

    fn list(&self, position: u64, emit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) -> Result<()> {
        self.directory()?.lock().list(position, emit);
        self.accessed();
        Ok(())
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        match &self.body {
            Body::Symlink(text) => Ok(text.to_vec()),
            _ => Err(Errno::EINVAL),
        }
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
        Ok(self.size_and_blocks().0)
    }

    fn read_at(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let object = self.data()?;
        let moved = self.shared.store.read_at(object, offset, sink)?;
        self.accessed();
        Ok(moved)
    }

    fn write_at(&self, offset: u64, source: &mut dyn Source) -> Result<usize> {
        let object = self.data()?;
        let moved = self.shared.store.write_at(object, offset, source)?;
        self.touch();
        Ok(moved)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let object = self.data()?;
        self.shared.store.set_size(object, size)?;
        self.touch();
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64, keep_size: bool) -> Result<()> {
        let object = self.data()?;
        let store = &self.shared.store;
        let (before, end) = (store.size(object), offset + length);
        let grows = !keep_size && end > before;
        // First, as pages belong to a file only up to its end.
        if grows {
            store.set_size(object, end)?;
        }
        if let Err(error) = store.allocate(object, offset, length) {
            if grows {
                store.set_size(object, before)?;
            }
            return Err(error);
        }
        self.touch();
        Ok(())
    }

    fn punch_hole(&self, offset: u64, length: u64) -> Result<()> {
        let object = self.data()?;
        self.shared.store.punch_hole(object, offset, length)?;
        self.touch();
        Ok(())
    }

    fn text_use(&self) -> Option<&TextUse> {
        (self.kind == FileKind::Regular).then_some(&self.text_use)
    }

    fn locks(&self, make: bool) -> Option<&LockTable> {
        if make {
            let platform = || Arc::clone(&self.shared.platform);
            Some(self.locks.call_once(|| Box::new(LockTable::new(platform()))))
        } else {
            self.locks.get().map(|locks| &**locks)
        }
    }

    fn seek(&self, offset: u64, hole: bool) -> Result<u64> {
        let object = self.data()?;
        let store = &self.shared.store;
        let size = store.size(object);
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let page = offset / PAGE_SIZE;
        if hole {
            let found = store.next_hole(object, page);
            return Ok((found * PAGE_SIZE).clamp(offset, size));
        }
        match store.next_resident(object, page) {
            Some(found) if found * PAGE_SIZE < size => Ok((found * PAGE_SIZE).max(offset)),
            _ => Err(Errno::ENXIO),
        }
    }
}

/// Size of an empty directory: `.` and `..`.
pub(super) const EMPTY_DIRECTORY: u64 = 2 * ENTRY_SIZE;
