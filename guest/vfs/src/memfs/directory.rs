//! Directories of a tmpfs: entries by name, and by a number that never changes
//! so that a listing goes on where it stopped whatever happens meanwhile.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::any::Any;

use spin::Mutex;

use super::node::{Body, EMPTY_DIRECTORY, MemInode};
use crate::errno::{Errno, Result};
use crate::inode::{DirectoryEntry, FileKind, Inode, NewNode};
use crate::name_map::{self, NameMap};
use crate::store::PageStore;

/// What Linux's tmpfs counts for an entry.
pub(super) const ENTRY_SIZE: u64 = 20;

struct Entry<S: PageStore> {
    inode: Arc<MemInode<S>>,
    cookie: u64,
}

/// The entries of a directory.
pub(super) struct Directory<S: PageStore> {
    by_name: NameMap<Arc<[u8]>, Entry<S>>,
    by_cookie: BTreeMap<u64, Arc<[u8]>>,
    last_cookie: u64,
    /// Its own name was removed: nothing can be made here any more.
    removed: bool,
}

impl<S: PageStore> Default for Directory<S> {
    fn default() -> Self {
        Self {
            by_name: NameMap::default(),
            by_cookie: BTreeMap::new(),
            last_cookie: 0,
            removed: false,
        }
    }
}

impl<S: PageStore> Directory<S> {
    pub(super) fn size(&self) -> u64 {
        EMPTY_DIRECTORY + self.by_name.len() as u64 * ENTRY_SIZE
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<MemInode<S>>> {
        self.by_name.get(name).map(|entry| Arc::clone(&entry.inode))
    }

    fn insert(&mut self, name: &[u8], inode: Arc<MemInode<S>>) {
        self.last_cookie += 1;
        name_map::make_room(&mut self.by_name);
        let cookie = self.last_cookie;
        let name: Arc<[u8]> = name.into();
        self.by_cookie.insert(cookie, Arc::clone(&name));
        if let Some(old) = self.by_name.insert(name, Entry { inode, cookie }) {
            self.by_cookie.remove(&old.cookie);
        }
    }

    /// Puts another inode behind a name, which keeps its place in listings.
    fn replace(&mut self, name: &[u8], inode: Arc<MemInode<S>>) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.inode = inode;
        }
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<MemInode<S>>> {
        let entry = self.by_name.remove(name)?;
        self.by_cookie.remove(&entry.cookie);
        if self.by_name.is_empty() {
            // The table would stay as large as it ever was.
            self.by_name = NameMap::default();
        }
        Some(entry.inode)
    }

    /// Lets go of everything below one by one: a tree that goes with its file
    /// system must not take a stack frame for each level.
    pub(super) fn take_apart(&mut self) {
        let mut inodes = alloc::vec::Vec::new();
        self.move_out(&mut inodes);
        while let Some(inode) = inodes.pop() {
            if let Some(mut last) = Arc::into_inner(inode)
                && let Body::Directory(directory) = &mut last.body
            {
                directory.get_mut().move_out(&mut inodes);
            }
        }
    }

    fn move_out(&mut self, into: &mut alloc::vec::Vec<Arc<MemInode<S>>>) {
        self.by_cookie.clear();
        into.extend(core::mem::take(&mut self.by_name).into_values().map(|entry| entry.inode));
    }

    pub(super) fn list(&self, after: u64, emit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool) {
        for (cookie, name) in self.by_cookie.range(after + 1..) {
            let Some(entry) = self.by_name.get(name) else { continue };
            let inode = &entry.inode;
            let record =
                DirectoryEntry { name, ino: inode.ino(), kind: inode.kind(), next: *cookie };
            if !emit(record) {
                return;
            }
        }
    }
}

impl<S: PageStore> MemInode<S> {
    pub(super) fn directory(&self) -> Result<&Mutex<Directory<S>>> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn is_directory(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    pub(super) fn create_entry(
        &self,
        name: &[u8],
        node: NewNode<'_>,
        mut permissions: u16,
    ) -> Result<Arc<Self>> {
        const SET_GID: u16 = 0o2000;
        let mut directory = self.directory()?.lock();
        if directory.removed {
            return Err(Errno::ENOENT);
        }
        if directory.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let is_directory = matches!(node, NewNode::Directory);
        let own = *self.attributes.lock();
        let inherits = own.permissions & SET_GID != 0;
        if inherits && is_directory {
            permissions |= SET_GID;
        }
        let inode =
            Self::new(self.shared(), node, permissions, if inherits { own.gid } else { 0 })?;
        directory.insert(name, Arc::clone(&inode));
        drop(directory);
        if is_directory {
            self.change_links(|links| *links += 1);
        }
        self.touch();
        Ok(inode)
    }

    pub(super) fn link_entry(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target: Arc<dyn Any + Send + Sync> = Arc::<dyn Inode>::clone(target);
        let target = target.downcast::<Self>().map_err(|_| Errno::EXDEV)?;
        let mut directory = self.directory()?.lock();
        if directory.removed {
            return Err(Errno::ENOENT);
        }
        if directory.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let now = self.now();
        {
            let mut attributes = target.attributes.lock();
            if attributes.links == 0 && !attributes.linkable {
                return Err(Errno::ENOENT);
            }
            attributes.links = attributes.links.checked_add(1).ok_or(Errno::EMLINK)?;
            attributes.changed = now;
        }
        directory.insert(name, target);
        drop(directory);
        self.touch();
        Ok(())
    }

    pub(super) fn unlink_entry(&self, name: &[u8]) -> Result<()> {
        let mut directory = self.directory()?.lock();
        let entry = directory.by_name.get(name).ok_or(Errno::ENOENT)?;
        if entry.inode.is_directory() {
            return Err(Errno::EISDIR);
        }
        let inode = directory.remove(name);
        drop(directory);
        if let Some(inode) = inode {
            inode.lose_name();
        }
        self.touch();
        Ok(())
    }

    pub(super) fn remove_directory(&self, name: &[u8]) -> Result<()> {
        let mut directory = self.directory()?.lock();
        let inode = directory.get(name).ok_or(Errno::ENOENT)?;
        inode.remove_if_empty()?;
        directory.remove(name);
        drop(directory);
        inode.change_links(|links| *links = 0);
        self.change_links(|links| *links = links.saturating_sub(1));
        self.touch();
        Ok(())
    }

    /// Marks this directory as removed, unless it has entries.
    fn remove_if_empty(&self) -> Result<()> {
        let mut directory = self.directory()?.lock();
        if !directory.by_name.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        directory.removed = true;
        Ok(())
    }

    /// One of its names is gone; a directory has only one.
    fn lose_name(&self) {
        let is_directory = self.is_directory();
        self.change_links(|links| *links = if is_directory { 0 } else { links.saturating_sub(1) });
    }

    pub(super) fn rename_entry(
        &self,
        from: &[u8],
        directory: &Arc<dyn Inode>,
        to: &[u8],
        exchange: bool,
    ) -> Result<()> {
        let other: &dyn Any = &**directory;
        let other = other.downcast_ref::<Self>().ok_or(Errno::EXDEV)?;
        let (mut source_directory, mut target_directory);
        let mut sides = if core::ptr::eq(self, other) {
            source_directory = self.directory()?.lock();
            Sides { source: &mut source_directory, target: None }
        } else {
            let first_is_self = core::ptr::from_ref(self) < core::ptr::from_ref(other);
            if first_is_self {
                source_directory = self.directory()?.lock();
                target_directory = other.directory()?.lock();
            } else {
                target_directory = other.directory()?.lock();
                source_directory = self.directory()?.lock();
            }
            Sides { source: &mut source_directory, target: Some(&mut target_directory) }
        };
        let moved = if exchange { sides.exchange(from, to)? } else { sides.rename(from, to)? };
        self.settle(other, &moved, exchange);
        Ok(())
    }

    /// Adjusts link counts and times after a renaming.
    fn settle(&self, other: &Self, moved: &Moved<S>, exchange: bool) {
        let came = moved.inode.is_directory();
        let went = moved.replaced.as_ref().is_some_and(|inode| inode.is_directory());
        // `..` of a directory counts as a name of the one it is in.
        let (own, others) = match (came, went, exchange) {
            (true, true, true) | (false, false, _) => (0, 0),
            (true, false, _) => (-1, 1),
            (false, true, true) => (1, -1),
            (_, true, false) => (-1, 0),
        };
        let adjust =
            |change: i32| move |links: &mut u32| *links = links.saturating_add_signed(change);
        self.change_links(adjust(own));
        other.change_links(adjust(others));
        self.touch();
        other.touch();
        moved.inode.change_links(|_| ());
        match &moved.replaced {
            Some(replaced) if exchange => replaced.change_links(|_| ()),
            Some(replaced) => replaced.lose_name(),
            None => {}
        }
    }
}

/// What a renaming did.
struct Moved<S: PageStore> {
    inode: Arc<MemInode<S>>,
    /// What had the new name before.
    replaced: Option<Arc<MemInode<S>>>,
}

/// The locked directories of a renaming; one if both are the same.
struct Sides<'a, S: PageStore> {
    source: &'a mut Directory<S>,
    target: Option<&'a mut Directory<S>>,
}

impl<S: PageStore> Sides<'_, S> {
    fn target(&mut self) -> &mut Directory<S> {
        match &mut self.target {
            Some(target) => target,
            None => self.source,
        }
    }

    fn exchange(&mut self, from: &[u8], to: &[u8]) -> Result<Moved<S>> {
        let inode = self.source.get(from).ok_or(Errno::ENOENT)?;
        let replaced = self.target().get(to).ok_or(Errno::ENOENT)?;
        self.source.replace(from, Arc::clone(&replaced));
        self.target().replace(to, Arc::clone(&inode));
        Ok(Moved { inode, replaced: Some(replaced) })
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<Moved<S>> {
        let inode = self.source.get(from).ok_or(Errno::ENOENT)?;
        let replaced = self.target().get(to);
        if let Some(replaced) = &replaced
            && replaced.is_directory()
        {
            replaced.remove_if_empty()?;
        }
        if self.target().removed {
            return Err(Errno::ENOENT);
        }
        self.source.remove(from);
        if replaced.is_some() {
            self.target().replace(to, Arc::clone(&inode));
        } else {
            self.target().insert(to, Arc::clone(&inode));
        }
        Ok(Moved { inode, replaced })
    }
}
