//! A file system under test, and the same thing on the host.

#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagelab_vfs::memfs::MemFs;
use pagelab_vfs::store::vec_store::VecStore;
use pagelab_vfs::{FsContext, Platform, Readiness, Timespec, Vfs, WaitChannel};

/// A kernel whose clock ticks at every look.
#[derive(Default)]
pub(crate) struct TestPlatform {
    ticks: AtomicU64,
    /// How often somebody was woken.
    pub(crate) wakes: AtomicU64,
}

impl Platform for TestPlatform {
    fn now(&self) -> Timespec {
        let seconds = self.ticks.fetch_add(1, Ordering::Relaxed).cast_signed();
        Timespec { seconds, nanoseconds: 0 }
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::try_from(index * 37 % 251).unwrap_or(0);
        }
    }

    fn wake(&self, _channel: WaitChannel, _ready: Readiness) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

/// A tree with a tmpfs at its root.
pub(crate) struct Lab {
    pub(crate) platform: Arc<TestPlatform>,
    pub(crate) store: Arc<VecStore>,
    pub(crate) root_fs: Arc<MemFs<VecStore>>,
    pub(crate) vfs: Vfs,
    pub(crate) context: FsContext,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let platform = Arc::new(TestPlatform::default());
        let store = Arc::new(VecStore::default());
        let root_fs = Arc::new(
            MemFs::new("tmpfs", Arc::clone(&store), platform.clone(), 0o755, 1 << 20).unwrap(),
        );
        let vfs = Vfs::new(platform.clone(), root_fs.clone());
        let context = FsContext::at(vfs.root());
        Self { platform, store, root_fs, vfs, context }
    }
}
