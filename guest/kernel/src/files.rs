//! The kernel's side of files: what `pagelab_vfs` needs of it, and what it needs
//! of files.

use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_hal::sync::Once;
use pagelab_hal::time;
use pagelab_vfs::memfs::MemFs;
use pagelab_vfs::store::vec_store::VecStore;
use pagelab_vfs::{Errno, FdTable, FsContext, Platform, Readiness, Timespec, Vfs, WaitChannel};

use crate::process::exec::Arguments;
use crate::process::program::ProgramFile;

/// Longest path, with its NUL.
pub const PATH_MAX: usize = 4096;

static VFS: Once<Vfs> = Once::new();

/// The tree of all files.
pub fn vfs() -> &'static Vfs {
    VFS.get()
}

/// Makes an empty tree.
///
/// # Panics
///
/// If there is no memory for it.
pub fn init() {
    const PERMISSIONS: u16 = 0o755;
    const PAGES: u64 = 1024;
    let platform: Arc<dyn Platform> = Arc::new(KernelPlatform);
    let store = Arc::new(VecStore::with_limit(PAGES));
    let root = MemFs::new("tmpfs", store, platform.clone(), PERMISSIONS, PAGES);
    let root = root.expect("memory for the root folder");
    VFS.set(Vfs::new(platform, Arc::new(root)));
}

/// Time and randomness for files.
struct KernelPlatform;

impl Platform for KernelPlatform {
    fn now(&self) -> Timespec {
        const SECOND: u64 = 1_000_000_000;
        let now = time::wall_clock();
        Timespec { seconds: (now / SECOND) as i64, nanoseconds: (now % SECOND) as u32 }
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        crate::random::fill(bytes);
    }

    fn wake(&self, _channel: WaitChannel, _ready: Readiness) {}
}

/// Opens a program.
///
/// # Errors
///
/// ENOENT: there are no programs but the first.
pub fn open_program(_path: &[u8], _given: &mut Arguments) -> Result<(ProgramFile, Vec<u8>), Errno> {
    Err(Errno::ENOENT)
}

/// The open files of the first program.
pub fn first_files() -> FdTable {
    FdTable::new()
}

/// No open files.
pub fn no_files() -> FdTable {
    FdTable::new()
}

/// The folders of the first process.
pub fn first_folders() -> FsContext {
    FsContext::at(vfs().root())
}
