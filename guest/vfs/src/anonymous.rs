//! The home of what has no place in the tree: anonymous pipes, event counters.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::errno::{Errno, Result};
use crate::inode::{
    Caching, Changes, DeviceNumber, FileKind, FileSystem, FileSystemStatus, Inode, Metadata,
};
use crate::pipe::FifoSlot;
use crate::platform::{Platform, Timespec};
use spin::Mutex;

/// `PIPEFS_MAGIC`.
const PIPEFS_MAGIC: u64 = 0x5049_5045;

/// Number of the next inode; the root has 1.
static NEXT_INO: AtomicU64 = AtomicU64::new(2);

/// The file system of anonymous nodes; nobody walks in it.
#[derive(Debug)]
pub(crate) struct AnonymousFs;

impl FileSystem for AnonymousFs {
    fn name(&self) -> &'static str {
        "pipefs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(AnonymousRoot)
    }

    fn status(&self) -> FileSystemStatus {
        FileSystemStatus {
            magic: PIPEFS_MAGIC,
            block_size: 4096,
            blocks: 0,
            blocks_free: 0,
            files: 0,
            files_free: 0,
        }
    }

    fn caching(&self) -> Caching {
        Caching::Never
    }
}

struct AnonymousRoot;

impl Inode for AnonymousRoot {
    fn metadata(&self) -> Result<Metadata> {
        Err(Errno::ENOENT)
    }

    fn kind(&self) -> FileKind {
        FileKind::Directory
    }

    fn ino(&self) -> u64 {
        1
    }
}

/// The inode of an anonymous pipe or another thing without data of its own.
pub(crate) struct AnonymousInode {
    ino: u64,
    kind: FileKind,
    born: Timespec,
    permissions: Mutex<u16>,
    fifo: FifoSlot,
}

impl AnonymousInode {
    pub(crate) fn new(platform: &dyn Platform, kind: FileKind) -> Arc<Self> {
        Arc::new(Self {
            ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
            kind,
            born: platform.now(),
            permissions: Mutex::new(0o600),
            fifo: FifoSlot::anonymous(),
        })
    }
}

impl Inode for AnonymousInode {
    fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata {
            ino: self.ino,
            kind: self.kind,
            permissions: *self.permissions.lock(),
            links: 1,
            uid: 0,
            gid: 0,
            device: DeviceNumber::default(),
            size: 0,
            blocks: 0,
            block_size: 4096,
            accessed: self.born,
            modified: self.born,
            changed: self.born,
            born: self.born,
        })
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn ino(&self) -> u64 {
        self.ino
    }

    fn change(&self, changes: &Changes) -> Result<()> {
        if let Some(permissions) = changes.permissions {
            *self.permissions.lock() = permissions;
        }
        Ok(())
    }

    fn fifo(&self) -> Option<&FifoSlot> {
        (self.kind == FileKind::Fifo).then_some(&self.fifo)
    }
}
