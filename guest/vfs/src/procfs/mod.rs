//! `/proc`: what programs read about processes and memory.
//!
//! The kernel implements [`ProcSource`] with plain numbers; the texts are made
//! here, to the letter as Linux makes them, without `core::fmt`. A text is made
//! when a file is read from its start and stays the same until it is read from
//! the start again, so that reading it in pieces gives one picture; only what may
//! be very long (`maps`, `smaps`) is made a page at a time.
//!
//! | file | content |
//! | --- | --- |
//! | `source`, `data` | what the kernel provides |
//! | `node`, `tree` | which files there are; the inodes |
//! | `text_file`, `memory_file` | open files: texts; `maps`, `smaps`, `pagemap` |
//! | `process`, `maps`, `system`, `settings` | the formats |

mod data;
mod maps;
mod memory_file;
mod node;
mod process;
mod settings;
mod source;
mod system;
mod text_file;
mod tree;

use alloc::sync::Arc;

use crate::inode::{Caching, FileSystem, FileSystemStatus, Inode};

pub use data::{
    Area, AreaFlags, AreaUsage, CpuInfo, CpuTimes, LIMITS, Limit, LoadAverage, MemoryInfo,
    ProcessMemory, ProcessStatus, SignalSets, SystemCounts, SystemIdentity,
};
pub use maps::{write_area, write_area_usage, write_rollup};
pub use process::{write_limits, write_stat, write_statm, write_status};
pub use settings::Setting;
pub use source::{ProcSource, page_flags};
pub use system::{
    write_counts, write_cpu_info, write_load_average, write_memory_info, write_swaps,
};

/// The file system to mount at `/proc`.
pub struct ProcFs {
    source: Arc<dyn ProcSource>,
}

impl ProcFs {
    /// A `/proc` that shows what `source` knows.
    #[must_use]
    pub fn new(source: Arc<dyn ProcSource>) -> Self {
        Self { source }
    }
}

impl FileSystem for ProcFs {
    fn name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        tree::inode(&self.source, node::Node::Root)
    }

    fn status(&self) -> FileSystemStatus {
        FileSystemStatus {
            magic: crate::abi::PROC_SUPER_MAGIC.into(),
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
