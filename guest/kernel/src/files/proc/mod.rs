//! What `/proc` shows of this kernel: `pagelab_vfs` makes the texts and asks
//! here for the numbers.
//!
//! | file | numbers about |
//! | --- | --- |
//! | [`process_status`] | one process |
//! | [`areas`] | its memory, area by area and page by page |
//! | [`system`] | the machine as a whole |

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_abi::layout::USER_END;
use pagelab_mm::Overcommit;
use pagelab_mm::areas::MAX_AREAS;
use pagelab_vfs::mount::Mount;
use pagelab_vfs::procfs::{
    Area, AreaUsage, CpuInfo, CpuTimes, LIMITS, Limit, LoadAverage, MemoryInfo, ProcSource,
    ProcessStatus, Setting, SystemCounts, SystemIdentity,
};
use pagelab_vfs::{Errno, FsContext, Lookup, OpenFile, PathNode, Result};

use super::vfs;
use crate::memory::memory;
use crate::process::{self, Process, State, scheduler};
use crate::publish;

mod areas;
mod process_status;
mod system;

/// This kernel.
pub struct Kernel;

/// The process with a number.
fn find(pid: u32) -> Result<Arc<Process>> {
    process::find(pid).ok_or(Errno::ESRCH)
}

/// The same, unless it has ended.
fn find_alive(pid: u32) -> Result<Arc<Process>> {
    find(pid).and_then(|process| match process.state() {
        State::Alive => Ok(process),
        _ => Err(Errno::ESRCH),
    })
}

impl ProcSource for Kernel {
    fn current_process(&self) -> u32 {
        scheduler::current().process.pid
    }

    fn current_thread(&self) -> u32 {
        scheduler::current().tid()
    }

    fn next_process(&self, first: u32) -> Option<u32> {
        process::all().iter().map(|process| process.pid).find(|&pid| pid >= first)
    }

    fn next_thread(&self, process: u32, first: u32) -> Option<u32> {
        let process = find(process).ok()?;
        let threads = process.threads.lock();
        if threads.is_empty() {
            // Process 1, or one that waits to be waited for: its first thread shows.
            return (process.pid >= first).then_some(process.pid);
        }
        threads.iter().map(|thread| thread.tid()).filter(|&tid| tid >= first).min()
    }

    fn status(&self, process: u32, thread: u32) -> Result<ProcessStatus> {
        process_status::status(&*find(process)?, thread)
    }

    fn areas(
        &self,
        process: u32,
        from: u64,
        show: &mut dyn FnMut(&Area<'_>) -> bool,
    ) -> Result<()> {
        areas::each(&*find_alive(process)?, from, |_, _, area| show(area));
        Ok(())
    }

    fn area_usage(
        &self,
        process: u32,
        from: u64,
        show: &mut dyn FnMut(&Area<'_>, &AreaUsage) -> bool,
    ) -> Result<()> {
        areas::each(&*find_alive(process)?, from, |space, area, shown| {
            show(shown, &areas::usage(&space.stats_of(memory(), area)))
        });
        Ok(())
    }

    fn page_map(&self, process: u32, first_page: u64, entries: &mut [u64]) -> Result<usize> {
        let pages = (USER_END.0 / PAGE_SIZE).saturating_sub(first_page);
        let count = usize::try_from(pages).unwrap_or(usize::MAX).min(entries.len());
        let space = find_alive(process)?.space();
        let start = GuestVirt(first_page * PAGE_SIZE);
        space.lock().pagemap(memory(), start, &mut entries[..count]);
        Ok(count)
    }

    fn command_line(&self, process: u32, out: &mut Vec<u8>) -> Result<()> {
        let process = find(process)?;
        let range = process.image.lock().arguments;
        process_status::append_memory(&process, range, out);
        Ok(())
    }

    fn environment(&self, process: u32, out: &mut Vec<u8>) -> Result<()> {
        let process = find(process)?;
        let range = process.image.lock().environment;
        process_status::append_memory(&process, range, out);
        Ok(())
    }

    fn auxiliary_vector(&self, process: u32, out: &mut Vec<u8>) -> Result<()> {
        process_status::append_auxiliary_vector(&*find(process)?, out);
        Ok(())
    }

    fn executable(&self, process: u32) -> Result<PathNode> {
        let process = find(process)?;
        let path = process.image.lock().path.clone();
        if path.is_empty() || process.state() != State::Alive {
            return Err(Errno::ENOENT);
        }
        vfs().resolve(&super::first_folders(), None, &path, Lookup::FOLLOW)
    }

    fn context(&self, process: u32) -> Result<FsContext> {
        let folders = find_alive(process)?.folders();
        let folders = folders.lock();
        Ok(folders.clone())
    }

    fn file(&self, process: u32, descriptor: i32) -> Result<Arc<OpenFile>> {
        let files = find_alive(process)?.files();
        let files = files.lock();
        files.get(descriptor).cloned()
    }

    fn next_descriptor(&self, process: u32, first: i32) -> Option<i32> {
        let files = find_alive(process).ok()?.files();
        let files = files.lock();
        files.iter().map(|(number, _)| number).find(|&number| number >= first)
    }

    fn limits(&self, process: u32) -> Result<[Limit; LIMITS]> {
        let limits = find(process)?.limits.lock().0;
        Ok(limits.map(|(soft, hard)| Limit { soft, hard }))
    }

    fn oom_score(&self, process: u32) -> Result<u32> {
        process_status::oom_score(&*find(process)?)
    }

    fn oom_score_adjustment(&self, process: u32) -> Result<i32> {
        Ok(find(process)?.oom_score_adj.load(Ordering::Relaxed))
    }

    fn set_oom_score_adjustment(&self, process: u32, value: i32) -> Result<()> {
        find(process)?.oom_score_adj.store(value, Ordering::Relaxed);
        Ok(())
    }

    fn set_name(&self, process: u32, _thread: u32, name: &[u8]) -> Result<()> {
        const LONGEST: usize = 15;
        let name = &name[..name.len().min(LONGEST)];
        let name = alloc::string::String::from_utf8_lossy(name).into_owned();
        let process = find(process)?;
        publish::name_changed(&process, &name);
        process.image.lock().name = name;
        Ok(())
    }

    fn clear_references(&self, process: u32, which: u32) -> Result<()> {
        let what = pagelab_mm::ClearRefs::from_linux(which).ok_or(Errno::EINVAL)?;
        find_alive(process)?.space().lock().clear_refs(memory(), what);
        Ok(())
    }

    fn memory_info(&self) -> MemoryInfo {
        system::memory_info()
    }

    fn memory_counters(&self, show: &mut dyn FnMut(&str, u64)) {
        system::memory_counters(show);
    }

    fn uptime(&self) -> (u64, u64) {
        system::uptime()
    }

    fn processors(&self, show: &mut dyn FnMut(&CpuInfo<'_>, &CpuTimes)) {
        system::processors(show);
    }

    fn counts(&self) -> SystemCounts {
        system::counts()
    }

    fn load_average(&self) -> LoadAverage {
        LoadAverage::default()
    }

    fn identity(&self) -> SystemIdentity {
        SystemIdentity {
            system: "Linux",
            release: crate::syscall::identity::RELEASE,
            version: "#1",
            host: "pagelab",
            builder: "(pagelab)",
        }
    }

    fn mounts(&self) -> Vec<Arc<Mount>> {
        vfs().mounts()
    }

    fn boot_command_line(&self, _out: &mut Vec<u8>) {}

    fn setting(&self, setting: Setting) -> u64 {
        match setting {
            Setting::OvercommitMemory => memory().commit.policy() as u64,
            Setting::OvercommitRatio => 50,
            Setting::MaxMapCount => MAX_AREAS as u64,
            Setting::MmapMinAddress => pagelab_abi::layout::USER_START.0,
            Setting::PidMax => 32_768,
            Setting::ThreadsMax => 4096,
            Setting::GroupsMax => 65_536,
            Setting::FileMax => i64::MAX as u64,
            Setting::OpenMax => pagelab_vfs::fd_table::MAX_DESCRIPTORS as u64,
            Setting::PipeMaxSize => pagelab_vfs::pipe::MAX_CAPACITY as u64,
            Setting::DropCaches
            | Setting::Swappiness
            | Setting::RandomizeAddresses
            | Setting::Tainted => 0,
        }
    }

    fn set_setting(&self, setting: Setting, value: u64) -> Result<()> {
        match setting {
            Setting::OvercommitMemory => memory().commit.set_policy(match value {
                0 => Overcommit::Heuristic,
                1 => Overcommit::Always,
                _ => Overcommit::Never,
            }),
            // All data is in memory only; names that nobody uses can go.
            Setting::DropCaches if value & 2 != 0 => {
                vfs().prune();
            }
            Setting::DropCaches => {}
            // The others are what this kernel is built with.
            _ if self.setting(setting) == value => {}
            _ => return Err(Errno::EPERM),
        }
        Ok(())
    }
}
