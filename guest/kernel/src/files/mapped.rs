//! What is known of files that are mapped: what they are called, and that they
//! must not go while somebody maps them.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_abi::directory::NameRecord;
use pagelab_hal::sync::Lock;
use pagelab_mm::ObjectId;
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::{Inode, PathNode};

use crate::memory::memory;
use crate::publish;

/// References to an object that nobody maps: its file's.
const OWN_REFERENCE: u32 = 1;

/// What a mapped file is called, as `/proc/PID/maps` shows it.
#[derive(Clone)]
pub struct MappedName {
    /// Device number of its file system.
    pub device: DeviceNumber,
    /// Its number there.
    pub inode: u64,
    path: Vec<u8>,
    deleted: bool,
}

impl MappedName {
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
            text.extend_from_slice(b" (deleted)");
        }
        text
    }
}

/// A file that is held.
struct Pinned {
    object: ObjectId,
    inode: Arc<dyn Inode>,
}

/// All of them, by the numbers of the objects.
pub struct MappedFiles {
    names: Lock<BTreeMap<u32, MappedName>>,
    /// A mapping holds the object only: the file with something behind it is held
    /// here, so that its pages can still be read and written.
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
            self.pinned.lock().insert(number, Pinned { object, inode: node.inode().clone() });
        }
        if self.names.lock().contains_key(&number) {
            return;
        }
        let name = MappedName {
            device: node.mount().device,
            inode: node.inode().ino(),
            path: node.display(&super::vfs().root()),
            deleted: false,
        };
        name.publish(object);
        self.names.lock().insert(number, name);
    }

    /// What a file is called.
    pub fn name(&self, object: ObjectId) -> Option<MappedName> {
        self.names.lock().get(&object.number()).cloned()
    }

    /// The file of an object, if it is held.
    pub fn pinned(&self, object: ObjectId) -> Option<Arc<dyn Inode>> {
        self.pinned.lock().get(&object.number()).map(|pinned| pinned.inode.clone())
    }

    /// Files that are held although nobody maps them any more.
    pub fn unused(&self) -> Vec<ObjectId> {
        let pinned = self.pinned.lock();
        let objects = pinned.values().map(|pinned| pinned.object);
        objects.filter(|&object| memory().objects.references(object) == OWN_REFERENCE).collect()
    }

    /// Lets go of a file.
    pub fn unpin(&self, object: ObjectId) {
        let inode = self.pinned.lock().remove(&object.number());
        drop(inode);
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
    }
}
