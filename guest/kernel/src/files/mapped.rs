//! What is known of files that are mapped: what they are called, and that they
//! must not go while somebody maps them.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_abi::directory::NameRecord;
use pagelab_hal::sync::Lock;
use pagelab_mm::ObjectId;
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::{Inode, PathNode, WeakPathNode};

use crate::memory::memory;
use crate::publish;

/// References to an object that nobody maps: its file's.
const OWN_REFERENCE: u32 = 1;

/// Behind the path of a file without a name.
const DELETED: &[u8] = b" (deleted)";

/// What a mapped file is called, as `/proc/PID/maps` shows it.
#[derive(Clone)]
pub struct MappedName {
    /// Device number of its file system.
    pub device: DeviceNumber,
    /// Its number there.
    pub inode: u64,
    path: Vec<u8>,
    deleted: bool,
    /// Where it was when it was mapped first: this knows of new names.
    node: WeakPathNode,
}

impl MappedName {
    fn of(node: &PathNode) -> Self {
        let (path, deleted) = path_of(node);
        let (device, inode) = (node.mount().device, node.inode().ino());
        Self { device, inode, path, deleted, node: node.downgrade() }
    }

    /// What it is called now, if that is another name.
    fn renewed(&self) -> Option<Self> {
        let node = self.node.upgrade()?;
        let (path, deleted) = path_of(&node);
        let changed = deleted != self.deleted || path != self.path;
        changed.then(|| Self { path, deleted, ..self.clone() })
    }

    /// Tells the host.
    fn publish(&self, object: ObjectId) {
        publish::name_object(NameRecord {
            object: object.number(),
            device: self.device.major() << 8 | self.device.minor(),
            inode: self.inode,
            path: self.path.as_ptr() as u64,
            length: self.path.len() as u32,
            deleted: self.deleted.into(),
        });
    }

    /// The text in `maps`.
    pub fn shown(&self) -> Vec<u8> {
        let mut text = self.path.clone();
        if self.deleted {
            text.extend_from_slice(DELETED);
        }
        text
    }
}

/// The path of a node, and whether it is one no more.
fn path_of(node: &PathNode) -> (Vec<u8>, bool) {
    let mut path = node.display(&super::vfs().root());
    let deleted = node.dentry().is_deleted();
    if deleted {
        path.truncate(path.len() - DELETED.len());
    }
    (path, deleted)
}

/// A file that is held.
struct Pinned {
    object: ObjectId,
    node: PathNode,
}

/// All of them, by the numbers of the objects.
pub struct MappedFiles {
    names: Lock<BTreeMap<u32, MappedName>>,
    /// A mapping holds the object only: its file is held here, so that pages can
    /// still be read, written and made holes when it has no name any more.
    pinned: Lock<BTreeMap<u32, Pinned>>,
}

impl MappedFiles {
    /// None.
    pub const fn new() -> Self {
        Self { names: Lock::new(BTreeMap::new()), pinned: Lock::new(BTreeMap::new()) }
    }

    /// A file is about to be mapped: notes what it is called now, and holds it if
    /// wanted.
    pub fn note(&self, object: ObjectId, node: &PathNode, pin: bool) {
        let number = object.number();
        if pin && !self.pinned.lock().contains_key(&number) {
            self.pinned.lock().insert(number, Pinned { object, node: node.clone() });
        }
        let is_mapped = memory().objects.references(object) != OWN_REFERENCE;
        if is_mapped && self.names.lock().contains_key(&number) {
            return;
        }
        let name = MappedName::of(node);
        name.publish(object);
        self.names.lock().insert(number, name);
    }

    /// What a file is called.
    pub fn name(&self, object: ObjectId) -> Option<MappedName> {
        let mut names = self.names.lock();
        let name = names.get_mut(&object.number())?;
        if let Some(renewed) = name.renewed() {
            // The host reads the old one until it is told of this.
            renewed.publish(object);
            *name = renewed;
        }
        Some(name.clone())
    }

    /// The file of an object, if it is held.
    pub fn pinned(&self, object: ObjectId) -> Option<Arc<dyn Inode>> {
        self.pinned.lock().get(&object.number()).map(|pinned| pinned.node.inode().clone())
    }

    /// Files that are held although nobody maps them any more.
    pub fn unused(&self) -> Vec<ObjectId> {
        let pinned = self.pinned.lock();
        if pinned.is_empty() {
            return Vec::new();
        }
        let objects = pinned.values().map(|pinned| pinned.object);
        objects.filter(|&object| memory().objects.references(object) == OWN_REFERENCE).collect()
    }

    /// Lets go of a file.
    pub fn unpin(&self, object: ObjectId) {
        let pinned = self.pinned.lock().remove(&object.number());
        drop(pinned);
    }

    /// The file of an object is gone; others may still map it.
    pub fn destroyed(&self, object: ObjectId) {
        let mut names = self.names.lock();
        if memory().objects.references(object) == OWN_REFERENCE {
            publish::forget_object(object.number());
            names.remove(&object.number());
        } else if let Some(name) = names.get_mut(&object.number()) {
            name.deleted = true;
            name.publish(object);
        }
    }

    /// The number belongs to another object now.
    pub fn forget(&self, object: ObjectId) {
        publish::forget_object(object.number());
        self.names.lock().remove(&object.number());
    }

    /// Forgets all names.
    pub fn clear(&self) {
        publish::forget_objects();
        self.names.lock().clear();
        drop(core::mem::take(&mut *self.pinned.lock()));
    }
}
