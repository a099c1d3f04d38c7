//! Process 1: it starts the first program, waits for its end, and balances the
//! books: what was free before must be free afterwards.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use pagelab_abi::addr::GuestPhys;
use pagelab_abi::boot::{
    BootInfo, MODULE_ARGUMENTS, MODULE_ENVIRONMENT, MODULE_PROGRAM, MODULE_PROGRAM_PATH, Module,
};
use pagelab_abi::lab::FrameCounters;
use pagelab_hal::context;
use pagelab_hal::lab::Milestone;
use pagelab_hal::memory::{frames, module_bytes, own_tables};
use pagelab_hal::sync::{Lock, Once};
use pagelab_hal::trap::TrapFrame;
use pagelab_hal::{cpu, heap, lab, power, provoke};
use pagelab_mm::{MmError, ObjectId, OutOfMemory};
use pagelab_vfs::Errno;

use super::exec::{self, Arguments, ExecError};
use super::limits::ResourceLimits;
use super::program::{self, ProgramFile};
use super::space::Space;
use super::thread::Thread;
use super::{
    ExitStatus, Family, Image, Inherited, Pid, Process, State, all, exit, new_pid, scheduler,
};
use crate::files::{self, shares::Connected};
use crate::memory::{self, memory};
use crate::signal::{ProcessSignals, SIGKILL};
use crate::swap;

const INIT: Pid = 1;

/// Status of a lab whose program could not be started, as shells have it.
const CANNOT_RUN: u32 = 126;
/// Status of a lab that had nothing to run.
const NOTHING_TO_RUN: u32 = 0;
/// Status of a kernel that lost memory.
const LEAKED: u32 = 72;

static BOOT_INFO: Once<&'static BootInfo> = Once::new();
static INIT_PROCESS: Once<Arc<Process>> = Once::new();

/// Process 1.
pub fn process() -> &'static Arc<Process> {
    INIT_PROCESS.get()
}

/// Makes process 1 and runs it.
///
/// # Panics
///
/// If there is not even memory for that.
pub fn start(info: &'static BootInfo) -> ! {
    BOOT_INFO.set(info);
    let limits = ResourceLimits::default();
    let space = Space::new(limits.of_memory()).expect("memory for an empty address space");
    let inherited = Inherited {
        family: Family {
            parent: 0,
            children: Vec::new(),
            group: INIT,
            session: INIT,
            exit_signal: 0,
            has_executed: true,
        },
        image: Image { name: String::from("init"), ..Image::default() },
        files: Arc::new(Lock::new(files::no_files())),
        folders: Arc::new(Lock::new(files::first_folders())),
        signals: ProcessSignals::default(),
        limits,
        space,
        oom_score_adj: -1000,
    };
    let process = Process::new(new_pid(), inherited);
    INIT_PROCESS.set(process.clone());
    let thread = Thread::new_kernel(INIT, process, main).expect("memory for the first stack");
    scheduler::add(thread);
    scheduler::start()
}

fn main() -> ! {
    scheduler::after_switch();
    lab::reach(Milestone::KernelReady, cpu::timestamp());
    let info = BOOT_INFO.get();
    for word in words_of_the_kernel(info) {
        if let Some(how) = word.strip_prefix("provoke=") {
            provoke::provoke(how);
        }
        if let Some(Ok(pages)) = word.strip_prefix("fault_around=").map(str::parse) {
            memory::set_fault_around(pages);
        }
        if let Some(Ok(pages)) = word.strip_prefix("readahead=").map(str::parse) {
            files::backed::set_readahead(pages);
        }
    }
    if find(info, MODULE_PROGRAM).or(find(info, MODULE_PROGRAM_PATH)).is_none() {
        log::info!("no program was given");
        power::power_off(NOTHING_TO_RUN)
    }
    let shares = files::shares::connect(info).unwrap_or_else(|why| {
        log::error!("{why}");
        power::power_off(CANNOT_RUN)
    });
    swap::connect(info);
    let before = Books::now();
    let ended = match find(info, MODULE_PROGRAM) {
        None => run(info, shares, None),
        Some(module) => match program::open_module(module) {
            Ok(object) => {
                let ended = run(info, shares, Some((module, object)));
                program::close(object);
                ended
            }
            Err(OutOfMemory) => Err(CannotRun::NotInMemory),
        },
    };
    let status = ended.unwrap_or_else(|why| {
        log::error!("the program cannot run: {why}");
        CANNOT_RUN
    });
    let after = Books::now();
    let free_expected = before.free_expected(&after);
    lab::publish_frames(FrameCounters { free_expected, ..after.counters });
    if after.counters.free != free_expected {
        log::error!("frames are lost: {before:?} before, {after:?} after");
        power::power_off(LEAKED)
    }
    let slots = memory().swap_use();
    if slots.free != slots.total {
        log::error!("slots of swap are lost: {slots:?}");
        power::power_off(LEAKED)
    }
    power::power_off(status)
}

/// Why there is nothing that runs.
enum CannotRun {
    /// The module with the program, or the tree of files around it.
    NotInMemory,
    Files(&'static str),
    File(Errno),
    Exec(ExecError),
}

impl<E: Into<ExecError>> From<E> for CannotRun {
    fn from(error: E) -> Self {
        Self::Exec(error.into())
    }
}

impl fmt::Display for CannotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInMemory => f.write_str("it is not in memory, or there is none left for it"),
            Self::Files(why) => f.write_str(why),
            Self::File(errno) => errno.fmt(f),
            Self::Exec(error) => error.fmt(f),
        }
    }
}

/// Makes the tree of files, runs the program to its end, and takes the tree down
/// again; returns the lab's status.
fn run(
    info: &BootInfo,
    shares: Vec<Connected>,
    module: Option<(&Module, ObjectId)>,
) -> Result<u32, CannotRun> {
    let started = files::shares::plant_tree(shares).map_err(CannotRun::Files).and_then(|()| {
        *INIT_PROCESS.get().folders().lock() = files::first_folders();
        spawn(info, module)
    });
    let status = started.map(|process| {
        let ended = process.released.wait_killable(|| match process.state() {
            State::Alive => None,
            State::Ended(status) | State::Reaped(status) => Some(status),
        });
        ended.map_or(CANNOT_RUN, ExitStatus::as_shell)
    });
    let status = match core::mem::replace(&mut *FIRST_PROGRAM.lock(), First::Nothing) {
        First::Failed(why) => Err(why.into()),
        First::Nothing | First::ToExecute(..) => status,
    };
    end_everybody();
    files::tree::fell();
    status
}

/// The first program: its file, and its path.
fn first_program(
    info: &BootInfo,
    module: Option<(&Module, ObjectId)>,
    given: &mut Arguments,
) -> Result<(ProgramFile, Vec<u8>), CannotRun> {
    let name = &given.arguments[0];
    let path = match module {
        None => {
            let path = strings(info, MODULE_PROGRAM_PATH).into_iter().next();
            path.ok_or(CannotRun::NotInMemory)?
        }
        Some((module, object)) => {
            let path = files::tree::plant_program(object, module.length, name);
            path.map_err(CannotRun::File)?
        }
    };
    if module.is_none() {
        given.file_name.clone_from(&path);
    }
    files::open_program(&files::first_folders(), &path, given).map_err(CannotRun::File)
}

/// What separates the kernel's words of the command line from the program's, for
/// whoever boots the kernel without a module for arguments. As on Linux.
const END_OF_OPTIONS: &str = "--";

fn words_of_the_kernel(info: &BootInfo) -> impl Iterator<Item = &str> {
    info.command_line().split_ascii_whitespace().take_while(|&word| word != END_OF_OPTIONS)
}

fn words_of_the_program(info: &BootInfo) -> impl Iterator<Item = &str> {
    let words = info.command_line().split_ascii_whitespace();
    words.skip_while(|&word| word != END_OF_OPTIONS).skip(1)
}

/// The strings of a module.
fn strings(info: &BootInfo, kind: u32) -> Vec<Vec<u8>> {
    let module = find(info, kind);
    split(module.map_or(b"", |module| module_bytes(GuestPhys(module.start), module.length)))
}

fn spawn(info: &BootInfo, module: Option<(&Module, ObjectId)>) -> Result<Arc<Process>, CannotRun> {
    let mut arguments = strings(info, MODULE_ARGUMENTS);
    if arguments.is_empty() {
        arguments.push(b"program".to_vec());
        arguments.extend(words_of_the_program(info).map(|word| word.as_bytes().to_vec()));
    }
    let file_name = arguments[0].clone();
    let environment = strings(info, MODULE_ENVIRONMENT);
    let mut given = Arguments { arguments, environment, file_name };
    let (file, path) = first_program(info, module, &mut given)?;
    let limits = ResourceLimits::default();
    let space = Space::new(limits.of_memory()).map_err(MmError::from)?;
    let pid = new_pid();
    let process = Process::new(pid, first_process(pid, space, limits));
    process.family.lock().exit_signal = 0;
    let thread = Thread::new_kernel(pid, process.clone(), execute_first_program)
        .ok_or(MmError::OutOfMemory)?;
    *FIRST_PROGRAM.lock() = First::ToExecute(file, given, path);
    process.threads.lock().push(thread.clone());
    INIT_PROCESS.get().family.lock().children.push(process.clone());
    scheduler::add(thread);
    Ok(process)
}

/// What process 1 and the first program's process tell each other.
enum First {
    Nothing,
    ToExecute(ProgramFile, Arguments, Vec<u8>),
    Failed(ExecError),
}

static FIRST_PROGRAM: Lock<First> = Lock::new(First::Nothing);

/// The first program's process executes it, so that the faults which that takes
/// are its own.
fn execute_first_program() -> ! {
    scheduler::after_switch();
    match load_first_program() {
        Ok(frame) => {
            lab::reach(Milestone::FirstUser, cpu::timestamp());
            context::enter_program(&frame)
        }
        Err(error) => {
            *FIRST_PROGRAM.lock() = First::Failed(error);
            exit::exit_process(ExitStatus::Exited(CANNOT_RUN as u8))
        }
    }
}

fn load_first_program() -> Result<TrapFrame, ExecError> {
    let first = core::mem::replace(&mut *FIRST_PROGRAM.lock(), First::Nothing);
    let First::ToExecute(mut file, given, path) = first else {
        return Err(MmError::OutOfMemory.into());
    };
    let thread = scheduler::current();
    let loaded = exec::load(&mut thread.process.space().lock(), &file, &given)?;
    thread.process.space().set_executing(file.executing.take());
    exec::set_image(&thread, &path, &loaded);
    Ok(loaded.frame)
}

/// What the first program's process starts with: a session of its own.
fn first_process(pid: Pid, space: Arc<Space>, limits: ResourceLimits) -> Inherited {
    Inherited {
        family: Family {
            parent: INIT,
            children: Vec::new(),
            group: pid,
            session: pid,
            exit_signal: 0,
            has_executed: true,
        },
        image: Image::default(),
        files: Arc::new(Lock::new(files::first_files(pid))),
        folders: Arc::new(Lock::new(files::first_folders())),
        signals: ProcessSignals::default(),
        limits,
        space,
        oom_score_adj: 0,
    }
}

/// Ends what the first program left behind.
fn end_everybody() {
    let init = INIT_PROCESS.get();
    loop {
        let others: Vec<_> = all().into_iter().filter(|process| process.pid != INIT).collect();
        if others.is_empty() {
            return;
        }
        for process in &others {
            exit::kill(process, ExitStatus::Killed(SIGKILL));
        }
        let count = others.len();
        drop(others);
        let fewer = || (all().len() - 1 < count).then_some(());
        if init.child_changed.wait_killable(fewer).is_err() {
            return;
        }
    }
}

fn find(info: &BootInfo, kind: u32) -> Option<&Module> {
    info.modules().iter().find(|module| module.kind == kind)
}

/// The strings of a list in which each is ended by a NUL.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut strings: Vec<_> = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    // What is behind the last NUL.
    strings.pop();
    strings
}

/// What is in use.
#[derive(Clone, Copy, Debug)]
struct Books {
    counters: FrameCounters,
    /// Frames that the heap has for small pieces: it keeps them.
    heap: u64,
    /// Frames that the kernel's own page tables have: it keeps them, too.
    tables: u64,
}

impl Books {
    fn now() -> Self {
        Self { counters: frames().counters(), heap: heap::small_frames(), tables: own_tables() }
    }

    /// How many frames must be free `after`, if none is lost: those that are free
    /// now, less what the heap and the kernel's tables took meanwhile, plus what the program's file was
    /// in, which nobody needs any more.
    const fn free_expected(&self, after: &Self) -> u64 {
        let adopted = after.counters.total - self.counters.total;
        self.counters.free + adopted - (after.heap - self.heap) - (after.tables - self.tables)
    }
}
