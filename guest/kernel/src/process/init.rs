//! Process 1: it starts the first program, waits for its end, and balances the
//! books: what was free before must be free afterwards.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pagelab_abi::addr::GuestPhys;
use pagelab_abi::boot::{BootInfo, MODULE_ARGUMENTS, MODULE_ENVIRONMENT, MODULE_PROGRAM, Module};
use pagelab_abi::lab::FrameCounters;
use pagelab_hal::lab::Milestone;
use pagelab_hal::memory::{frames, module_bytes};
use pagelab_hal::sync::Once;
use pagelab_hal::trap::TrapFrame;
use pagelab_hal::{cpu, heap, lab, power};
use pagelab_mm::Limits;

use super::exec::{self, Arguments};
use super::program::{self, ProgramFile};
use super::space::Space;
use super::thread::{Thread, UserState};
use super::{ExitStatus, Pid, Process, scheduler};

const INIT: Pid = 1;
const FIRST: Pid = 2;

/// Status of a lab whose program could not be started, as shells have it.
const CANNOT_RUN: u32 = 126;
/// Status of a lab that had nothing to run.
const NOTHING_TO_RUN: u32 = 0;
/// Status of a kernel that lost memory.
const LEAKED: u32 = 72;

static BOOT_INFO: Once<&'static BootInfo> = Once::new();
static PROCESS: Once<Arc<Process>> = Once::new();

/// Process 1.
pub fn process() -> &'static Arc<Process> {
    PROCESS.get()
}

/// Makes process 1 and runs it.
///
/// # Panics
///
/// If there is not even memory for that.
pub fn start(info: &'static BootInfo) -> ! {
    BOOT_INFO.set(info);
    let space = Space::new(Limits::default()).expect("memory for an empty address space");
    let process = Process::new(INIT, String::from("init"), space);
    PROCESS.set(process.clone());
    let thread = Thread::new_kernel(INIT, process, main).expect("memory for the first stack");
    scheduler::add(thread);
    scheduler::start()
}

fn main() -> ! {
    scheduler::after_switch();
    lab::reach(Milestone::KernelReady, cpu::timestamp());
    let info = BOOT_INFO.get();
    let Some(module) = find(info, MODULE_PROGRAM) else {
        log::info!("no program was given");
        power::power_off(NOTHING_TO_RUN)
    };
    let before = Books::now();
    let status = match program::open_module(module) {
        Ok(file) => {
            let status = run(info, &file);
            program::close(&file);
            status
        }
        Err(_) => {
            log::error!("no memory for the program");
            CANNOT_RUN
        }
    };
    let after = Books::now();
    let free_expected = before.free_expected(&after);
    lab::publish_frames(FrameCounters { free_expected, ..after.counters });
    if after.counters.free != free_expected {
        log::error!("frames are lost: {before:?} before, {after:?} after");
        power::power_off(LEAKED)
    }
    power::power_off(status)
}

/// Runs the program to its end; returns the lab's status.
fn run(info: &BootInfo, file: &ProgramFile) -> u32 {
    let process = match spawn(info, file) {
        Ok(process) => process,
        Err(why) => {
            log::error!("the program cannot run: {why:?}");
            return CANNOT_RUN;
        }
    };
    let ended = process.end.wait(None, || *process.ended.lock());
    ended.unwrap_or(ExitStatus::Killed(0)).as_shell()
}

fn spawn(info: &BootInfo, file: &ProgramFile) -> Result<Arc<Process>, exec::ExecError> {
    let strings = |kind| {
        let module = find(info, kind)?;
        Some(module_bytes(GuestPhys(module.start), module.length))
    };
    let mut arguments = split(strings(MODULE_ARGUMENTS).unwrap_or(b"program\0"));
    let environment = split(strings(MODULE_ENVIRONMENT).unwrap_or(b""));
    if arguments.is_empty() {
        arguments.push(b"program");
    }
    let name = arguments[0];
    let mut random = [0; 16];
    random.copy_from_slice(&info.entropy[..16]);
    let given =
        Arguments { arguments: &arguments, environment: &environment, file_name: name, random };
    let space = Space::new(Limits::default()).map_err(pagelab_mm::MmError::from)?;
    let frame = exec::load(&mut space.lock(), file, &given)?;
    start_process(name, space, frame)
        .ok_or(exec::ExecError::Memory(pagelab_mm::MmError::OutOfMemory))
}

fn start_process(name: &[u8], space: Arc<Space>, frame: TrapFrame) -> Option<Arc<Process>> {
    let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or(name);
    let process = Process::new(FIRST, String::from_utf8_lossy(base).into_owned(), space);
    let thread = Thread::new(FIRST, process.clone(), UserState::new(), frame)?;
    process.threads.lock().push(thread.clone());
    scheduler::add(thread);
    Some(process)
}

fn find(info: &BootInfo, kind: u32) -> Option<&Module> {
    info.modules().iter().find(|module| module.kind == kind)
}

/// The strings of a list in which each is ended by a NUL.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    if bytes.is_empty() { Vec::new() } else { bytes.split(|&byte| byte == 0).collect() }
}

/// What is in use.
#[derive(Clone, Copy, Debug)]
struct Books {
    counters: FrameCounters,
    /// Frames that the heap has for small pieces: it keeps them.
    heap: u64,
}

impl Books {
    fn now() -> Self {
        Self { counters: frames().counters(), heap: heap::small_frames() }
    }

    /// How many frames must be free `after`, if none is lost: those that are free
    /// now, less what the heap took meanwhile, plus what the program's file was
    /// in, which nobody needs any more.
    const fn free_expected(&self, after: &Self) -> u64 {
        let adopted = after.counters.total - self.counters.total;
        self.counters.free + adopted - (after.heap - self.heap)
    }
}
