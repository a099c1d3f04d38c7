//! The kernel's side of files: what `pagelab_vfs` needs of it, and what it needs
//! of files.
//!
//! | file | content |
//! | --- | --- |
//! | [`store`] | the page cache: the bytes of files are frames that programs can map |
//! | [`backed`] | files with something behind them: their pages come from the host |
//! | [`write_back`] | and go back there |
//! | [`pages`] | single pages of files |
//! | [`mapped`] | what is known of mapped files |
//! | [`mod@page_in`] | a page of a file, a program or swap comes into memory |
//! | [`buffers`] | a program's memory as a buffer |
//! | [`wait`] | sleeping until a file is ready |
//! | [`console`] | standard input, output, error: the lab's streams |
//! | [`terminal`] | the same where the host's are a terminal |
//! | [`tree`] | what there is at the start, and the end of it all |
//! | [`proc`] | what `/proc` shows |
//! | [`shares`] | folders of the host |
//! | [`program`] | a file is looked up to be executed |

use alloc::sync::Arc;

use pagelab_hal::sync::Once;
use pagelab_hal::time;
use pagelab_vfs::memfs::MemFs;
use pagelab_vfs::{FdTable, FsContext, Platform, Readiness, Timespec, Vfs, WaitChannel};

use self::store::Cache;
use crate::memory::memory;
use crate::process::Pid;

pub mod backed;
pub mod buffers;
pub mod console;
pub mod epoll;
mod mapped;
mod page_in;
mod pages;
pub mod proc;
pub mod process_file;
pub mod program;
pub mod shares;
pub mod signal_file;
pub mod store;
pub mod terminal;
pub mod timer_file;
pub mod tree;
pub mod wait;
pub mod write_back;

pub use page_in::{page_in, page_in_for, pattern_at};
pub use program::open_program;

/// Longest path, with its NUL.
pub const PATH_MAX: usize = pagelab_vfs::abi::PATH_MAX;

/// Everything about files that there is one of.
struct Files {
    vfs: Vfs,
    cache: Arc<Cache>,
    platform: Arc<dyn Platform>,
}

static FILES: Once<Files> = Once::new();

/// The tree of all files.
pub fn vfs() -> &'static Vfs {
    &FILES.get().vfs
}

/// Where the data of files is.
pub fn cache() -> &'static Arc<Cache> {
    &FILES.get().cache
}

/// Time, randomness and waking, as files know them.
pub fn platform() -> &'static Arc<dyn Platform> {
    &FILES.get().platform
}

/// Makes an empty tree.
///
/// # Panics
///
/// If there is no memory for it.
pub fn init() {
    let platform: Arc<dyn Platform> = Arc::new(KernelPlatform);
    let cache = Arc::new(Cache::new());
    let root = file_system("tmpfs", &cache, &platform, 0o755).expect("memory for the root folder");
    let vfs = Vfs::new(platform.clone(), Arc::new(root));
    FILES.set(Files { vfs, cache, platform });
}

/// An empty file system in memory, which takes up to half of it.
fn file_system(
    name: &'static str,
    cache: &Arc<Cache>,
    platform: &Arc<dyn Platform>,
    permissions: u16,
) -> pagelab_vfs::Result<MemFs<Cache>> {
    MemFs::new(name, cache.clone(), platform.clone(), permissions, limit_pages())
}

/// The same for a program that mounts one.
///
/// # Errors
///
/// Without memory.
pub fn new_tmpfs() -> pagelab_vfs::Result<MemFs<Cache>> {
    const LIKE_TMP: u16 = 0o1777;
    file_system("tmpfs", cache(), platform(), LIKE_TMP)
}

/// How many pages files may take.
fn limit_pages() -> u64 {
    memory().frames.counters().total / 2
}

/// What files need of the kernel.
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

    fn wake(&self, channel: WaitChannel, ready: Readiness) {
        wait::wake(channel, ready);
    }
}

/// The open files of the first program, which begins a session: standard input,
/// output and error.
pub fn first_files(session: Pid) -> FdTable {
    console::standard_files(session)
}

/// No open files.
pub fn no_files() -> FdTable {
    FdTable::new()
}

/// The folders of a process that starts at the root.
pub fn first_folders() -> FsContext {
    FsContext::at(vfs().root())
}
