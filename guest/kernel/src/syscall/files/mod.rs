//! Files.
//!
//! | file | calls about |
//! | --- | --- |
//! | [`read_write`] | bytes: `read`, `write` and their variants, `sendfile`, `lseek` |
//! | [`descriptors`] | `open`, `close`, `dup`, `fcntl`, `pipe` |
//! | [`names`] | folders, links, renaming, the current folder |
//! | [`attributes`] | `stat` and what it shows |
//! | [`locks`] | `flock`, and records of `fcntl` |
//! | [`poll`] | waiting for several files |
//! | [`events`] | files that say when something happened: `epoll`, `timerfd`, `eventfd`, `signalfd`, `pidfd` |
//! | [`ioctl`] | devices |
//! | [`mapping`] | what `mmap` of a file maps |
//! | [`mount`] | file systems in memory that programs mount |

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_vfs::{Errno, FsContext, OpenFile, PathNode};

use super::{Arguments, Outcome, int};
use crate::files::{PATH_MAX, shares};
use crate::process::scheduler;
use crate::user;

mod attributes;
mod descriptors;
mod events;
mod ioctl;
pub mod locks;
mod mapping;
mod mount;
mod names;
mod poll;
mod read_write;

pub use events::give_process_file;
pub use mapping::map_source;

/// File calls; `None` for other calls.
pub fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    match call {
        linux::__NR_read => Some(read_write::read(a)),
        linux::__NR_write => Some(read_write::write(a)),
        _ => read_write::dispatch(call, a)
            .or_else(|| descriptors::dispatch(call, a))
            .or_else(|| attributes::dispatch(call, a))
            .or_else(|| names::dispatch(call, a))
            .or_else(|| poll::dispatch(call, a))
            .or_else(|| events::dispatch(call, a))
            .or_else(|| mount::dispatch(call, a))
            .or_else(|| ioctl::dispatch(call, a)),
    }
}

/// The open file behind a descriptor.
///
/// # Errors
///
/// EBADF.
pub fn file(descriptor: u64) -> Result<Arc<OpenFile>, Errno> {
    let files = scheduler::current().process.files();
    let files = files.lock();
    files.get(int(descriptor)).cloned()
}

/// The same, unless it only names a place (`O_PATH`).
pub fn open_file(descriptor: u64) -> Result<Arc<OpenFile>, Errno> {
    let files = scheduler::current().process.files();
    let files = files.lock();
    files.get_open(int(descriptor)).cloned()
}

/// A path that a program passed.
fn path(address: u64) -> Result<Vec<u8>, Errno> {
    user::read_string(GuestVirt(address), PATH_MAX, Errno::ENAMETOOLONG)
}

/// Where the process stands.
fn context() -> FsContext {
    let folders = scheduler::current().process.folders();
    let folders = folders.lock();
    folders.clone()
}

/// A path together with what it starts from.
struct Place {
    context: FsContext,
    start: Option<PathNode>,
    path: Vec<u8>,
}

impl Place {
    /// A path from the folder behind a descriptor.
    fn at(folder: u64, path_address: u64) -> Result<Self, Errno> {
        shares::forget_unused();
        let path = path(path_address)?;
        let files = scheduler::current().process.files();
        let start = files.lock().start(int(folder), &path)?;
        Ok(Self { context: context(), start, path })
    }

    fn start(&self) -> Option<&PathNode> {
        self.start.as_ref()
    }
}
