//! What `/proc` asks the kernel.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::data::{
    Area, AreaUsage, CpuInfo, CpuTimes, LIMITS, Limit, LoadAverage, MemoryInfo, ProcessStatus,
    SystemCounts, SystemIdentity,
};
use super::settings::Setting;
use crate::errno::Result;
use crate::mount::Mount;
use crate::open_file::OpenFile;
use crate::path::{FsContext, PathNode};

/// The bits of an entry of `pagemap`; the lowest 55 are the frame's number.
pub mod page_flags {
    /// Written since `clear_refs` was given a 4.
    pub const SOFT_DIRTY: u64 = 1 << 55;
    /// Mapped once.
    pub const EXCLUSIVE: u64 = 1 << 56;
    /// Of a file, or shared anonymous memory.
    pub const FILE_OR_SHARED: u64 = 1 << 61;
    /// Swapped out.
    pub const SWAPPED: u64 = 1 << 62;
    /// In a frame.
    pub const PRESENT: u64 = 1 << 63;
}

/// The kernel, as `/proc` sees it. A process that is gone is `ESRCH`.
pub trait ProcSource: Send + Sync {
    /// The calling process.
    fn current_process(&self) -> u32;

    /// The calling thread.
    fn current_thread(&self) -> u32;

    /// The process with the lowest number from `first` on.
    fn next_process(&self, first: u32) -> Option<u32>;

    /// The thread of `process` with the lowest number from `first` on.
    fn next_thread(&self, process: u32, first: u32) -> Option<u32>;

    /// Everything but the memory map.
    fn status(&self, process: u32, thread: u32) -> Result<ProcessStatus>;

    /// Shows the areas that end above address `from`, in ascending order, until
    /// `show` says no.
    fn areas(&self, process: u32, from: u64, show: &mut dyn FnMut(&Area<'_>) -> bool)
    -> Result<()>;

    /// As [`areas`](Self::areas), with a walk through the page tables.
    fn area_usage(
        &self,
        process: u32,
        from: u64,
        show: &mut dyn FnMut(&Area<'_>, &AreaUsage) -> bool,
    ) -> Result<()>;

    /// Fills in entries of `pagemap` from the page with this number on (address
    /// divided by 4096); returns how many pages there were before the end of
    /// user memory.
    fn page_map(&self, process: u32, first_page: u64, entries: &mut [u64]) -> Result<usize>;

    /// Appends the bytes of `cmdline`: arguments, each with its NUL.
    fn command_line(&self, process: u32, out: &mut Vec<u8>) -> Result<()>;

    /// Appends the bytes of `environ`.
    fn environment(&self, process: u32, out: &mut Vec<u8>) -> Result<()>;

    /// Appends the bytes of the auxiliary vector.
    fn auxiliary_vector(&self, process: u32, out: &mut Vec<u8>) -> Result<()>;

    /// The program; `ENOENT` for a zombie.
    fn executable(&self, process: u32) -> Result<PathNode>;

    /// Where the process stands.
    fn context(&self, process: u32) -> Result<FsContext>;

    /// An open file.
    fn file(&self, process: u32, descriptor: i32) -> Result<Arc<OpenFile>>;

    /// The lowest open descriptor from `first` on.
    fn next_descriptor(&self, process: u32, first: i32) -> Option<i32>;

    /// The limits, by their `RLIMIT_*` numbers.
    fn limits(&self, process: u32) -> Result<[Limit; LIMITS]>;

    /// How likely the process is to be ended when memory runs out, 0 to 2000.
    fn oom_score(&self, process: u32) -> Result<u32>;

    /// What was added to that, -1000 to 1000.
    fn oom_score_adjustment(&self, process: u32) -> Result<i32>;

    /// Changes it.
    fn set_oom_score_adjustment(&self, process: u32, value: i32) -> Result<()>;

    /// Gives the process another name (`comm`).
    fn set_name(&self, process: u32, thread: u32, name: &[u8]) -> Result<()>;

    /// `clear_refs`: 1 forgets accesses to all pages, 2 to anonymous, 3 to
    /// file pages, 4 forgets soft-dirty bits, 5 the peak of resident memory.
    fn clear_references(&self, process: u32, which: u32) -> Result<()>;

    /// Memory of the machine.
    fn memory_info(&self) -> MemoryInfo;

    /// Shows the counters of `/proc/vmstat` in order.
    fn memory_counters(&self, show: &mut dyn FnMut(&str, u64));

    /// Time since boot and time idle, in hundredths of a second.
    fn uptime(&self) -> (u64, u64);

    /// Shows each processor.
    fn processors(&self, show: &mut dyn FnMut(&CpuInfo<'_>, &CpuTimes));

    /// Counts since boot.
    fn counts(&self) -> SystemCounts;

    /// The load.
    fn load_average(&self) -> LoadAverage;

    /// What this system calls itself.
    fn identity(&self) -> SystemIdentity;

    /// All mounts.
    fn mounts(&self) -> Vec<Arc<Mount>>;

    /// Appends the command line the kernel was booted with.
    fn boot_command_line(&self, out: &mut Vec<u8>);

    /// A setting below `/proc/sys`.
    fn setting(&self, setting: Setting) -> u64;

    /// Changes a setting; the value is in its range.
    fn set_setting(&self, setting: Setting, value: u64) -> Result<()>;
}
