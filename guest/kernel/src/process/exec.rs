//! A program is mapped and its stack is made.
//!
//! Nothing of the file is copied: its segments become private mappings of its
//! object, and pages come in when they are touched. What the program finds on
//! its stack is drawn in [`StackImage`].

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_abi::event::{EVENT_EXEC, Event};
use pagelab_hal::sync::Lock;
use pagelab_hal::trap::TrapFrame;
use pagelab_hal::{cpu, lab, memory as hardware};
use pagelab_mm::user::Partial;
use pagelab_mm::{AddressSpace, FaultError, MapFlags, MapRequest, MapSource, MmError, Protection};
use pagelab_vfs::Errno;

use super::program::ProgramFile;
use super::space::Space;
use super::thread::Thread;
use super::{Process, exit, futex, reclaim, scheduler};
use crate::elf::{self, NotAProgram, Program, Segment};
use crate::memory::memory;
use crate::publish;
use crate::syscall::memory::to_errno;
use crate::{files, random, signal, user};

/// Pages of the stack that are mapped from the start, as on Linux; more on
/// faults.
const STACK_PAGES: u64 = 33;
/// Where position-independent programs go, as on Linux without randomisation:
/// two thirds up.
const MOVED_BASE: u64 = 0x5555_5555_4000;

/// Why a program cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecError {
    /// The file is not a program.
    NotAProgram(NotAProgram),
    /// It does not fit into memory or its address space.
    Memory(MmError),
    /// Arguments and environment take more than a quarter of the stack.
    TooManyArguments,
}

impl From<NotAProgram> for ExecError {
    fn from(error: NotAProgram) -> Self {
        Self::NotAProgram(error)
    }
}

impl core::fmt::Display for ExecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotAProgram(NotAProgram(why)) => f.write_str(why),
            Self::Memory(error) => error.fmt(f),
            Self::TooManyArguments => f.write_str("too many arguments"),
        }
    }
}

impl From<ExecError> for Errno {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::NotAProgram(_) => Self::ENOEXEC,
            ExecError::Memory(error) => to_errno(error),
            ExecError::TooManyArguments => Self::E2BIG,
        }
    }
}

impl From<MmError> for ExecError {
    fn from(error: MmError) -> Self {
        Self::Memory(error)
    }
}

/// Arguments, environment and the name that the program was started by.
pub struct Arguments {
    /// `argv`, without the NULs.
    pub arguments: Vec<Vec<u8>>,
    /// `envp`, without the NULs.
    pub environment: Vec<Vec<u8>>,
    /// `AT_EXECFN`.
    pub file_name: Vec<u8>,
}

/// A program that is ready to start.
pub struct Loaded {
    /// Its registers.
    pub frame: TrapFrame,
    /// Where its arguments are.
    pub arguments: (u64, u64),
    /// Where its environment is.
    pub environment: (u64, u64),
    /// Where its auxiliary vector is.
    pub auxiliary: (u64, u64),
}

/// `execve`: the current process runs another program.
///
/// # Errors
///
/// As Linux; the process goes on with its old program then.
pub fn execve(
    frame: &mut TrapFrame,
    path: GuestVirt,
    arguments: GuestVirt,
    environment: GuestVirt,
) -> Result<(), Errno> {
    let path = user::read_string(path, files::PATH_MAX, Errno::ENAMETOOLONG)?;
    let mut given = Arguments {
        arguments: read_strings(arguments)?,
        environment: read_strings(environment)?,
        file_name: path.clone(),
    };
    if given.arguments.is_empty() {
        given.arguments.push(Vec::new());
    }
    let thread = scheduler::current();
    let process = &thread.process;
    let context = process.folders().lock().clone();
    let (mut file, path) = files::open_program(&context, &path, &mut given)?;
    drop(context);
    let space = Space::new(process.limits.lock().of_memory()).map_err(|_| Errno::ENOMEM)?;
    let loaded = load(&mut space.lock(), &file, &given);
    space.set_executing(file.executing.take());
    drop(file);
    let loaded = loaded?;
    end_other_threads(&thread);
    thread.become_leader();
    exit::clear_tid(&thread);
    futex::release_robust(&thread);
    thread.rseq.clear();
    let old = process.replace_space(space);
    hardware::activate(process.space().root());
    drop(old);
    process.signals.reset_for_exec();
    signal::timer::delete_all(process, false);
    thread.signals.reset_for_exec();
    unshare_files(process);
    let closed = process.files().lock().close_for_exec();
    drop(closed);
    process.family.lock().has_executed = true;
    thread.user.lock().reset();
    set_image(&thread, &path, &loaded);
    process.released.wake_all();
    *frame = loaded.frame;
    Ok(())
}

/// Gives the process a table of open files of its own, if it shares one.
fn unshare_files(process: &Process) {
    let mut files = process.files.lock();
    if Arc::strong_count(&files) > 1 {
        let copy = files.lock().clone();
        *files = Arc::new(Lock::new(copy));
    }
}

/// Notes what `/proc` shows, and tells the host.
pub fn set_image(thread: &Thread, path: &[u8], loaded: &Loaded) {
    const COMM: usize = 15;
    let process = &thread.process;
    let base = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    {
        let mut image = process.image.lock();
        image.name = String::from_utf8_lossy(&base[..base.len().min(COMM)]).into_owned();
        image.path = path.to_vec();
        image.arguments = loaded.arguments;
        image.environment = loaded.environment;
        image.auxiliary = loaded.auxiliary;
        publish::name_changed(process, &image.name);
    }
    if lab::wants_events() {
        lab::emit(Event {
            tsc: cpu::timestamp(),
            pid: process.pid,
            class: EVENT_EXEC,
            address: loaded.frame.rip,
            ..Event::default()
        });
    }
}

/// A program has one thread when it starts.
fn end_other_threads(thread: &Arc<Thread>) {
    let process = &thread.process;
    for other in process.threads.lock().iter().filter(|other| !Arc::ptr_eq(other, thread)) {
        other.ending.store(true, Ordering::Relaxed);
        other.call_attention();
        scheduler::wake(other);
    }
    // If the process is to end meanwhile, it does so before the program starts.
    let _ = process.released.wait_killable(|| (process.threads.lock().len() == 1).then_some(()));
}

/// A list of strings that ends with a null pointer.
fn read_strings(list: GuestVirt) -> Result<Vec<Vec<u8>>, Errno> {
    const LONGEST: usize = 128 * 1024;
    const ALL: usize = 2 << 20;
    let mut strings = Vec::new();
    let mut total = 0;
    if list.0 == 0 {
        return Ok(strings);
    }
    loop {
        let place = GuestVirt(list.0.wrapping_add(8 * strings.len() as u64));
        let pointer: u64 = user::read(place)?;
        if pointer == 0 {
            return Ok(strings);
        }
        let text = user::read_string(GuestVirt(pointer), LONGEST, Errno::E2BIG)?;
        total += text.len() + 9;
        if total > ALL {
            return Err(Errno::E2BIG);
        }
        strings.push(text);
    }
}

/// Maps a program into an empty address space and makes its stack; returns the
/// registers to start with.
///
/// # Errors
///
/// See [`ExecError`]; the address space may be left with part of the program.
pub fn load(
    space: &mut AddressSpace,
    file: &ProgramFile,
    arguments: &Arguments,
) -> Result<Loaded, ExecError> {
    let program = Program::parse(&file.head)?;
    const PROGRAM_BITS: u32 = 28;
    let moved = || MOVED_BASE + random::shift_in_pages(PROGRAM_BITS) * PAGE_SIZE;
    let shift = if program.position_independent { moved() } else { 0 };
    map_segments(space, file, &program, shift)?;
    let end = program.end();
    let data = program.segments.iter().filter(|segment| segment.flags & elf::WRITE != 0);
    let data_size = data.map(|segment| segment.memory_size).sum();
    space.set_heap(GuestVirt((end + shift).next_multiple_of(PAGE_SIZE)), data_size);
    space.map_stack(memory(), STACK_PAGES)?;
    let mut base = 0;
    let mut start = program.entry + shift;
    if let Some(file) = &file.interpreter {
        let interpreter = Program::parse(&file.head)?;
        base = place_for(space, &interpreter)?;
        map_segments(space, file, &interpreter, base)?;
        start = interpreter.entry + base;
    }
    let place = Place { shift, base };
    let stack = StackImage::build(&program, place, arguments, space.layout().stack_top);
    if stack.bytes.len() as u64 > space.limits.stack / 4 {
        return Err(ExecError::TooManyArguments);
    }
    write(space, stack.start, &stack.bytes)?;
    Ok(Loaded {
        frame: TrapFrame::for_program(start, stack.start.0),
        arguments: stack.arguments,
        environment: stack.environment,
        auxiliary: stack.auxiliary,
    })
}

fn map_segments(
    space: &mut AddressSpace,
    file: &ProgramFile,
    program: &Program,
    shift: u64,
) -> Result<(), ExecError> {
    program.segments.iter().try_for_each(|segment| map_segment(space, file, segment, shift))
}

/// How far an interpreter is moved: to where a mapping of its size would go.
fn place_for(space: &mut AddressSpace, program: &Program) -> Result<u64, MmError> {
    let start = program.start();
    let request = MapRequest {
        address: GuestVirt(0),
        length: program.end() - start,
        protection: Protection::empty(),
        flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
        source: MapSource::Anonymous,
    };
    let place = space.mmap(memory(), &request)?.start;
    space.munmap(memory(), place, request.length)?;
    Ok(place.0.wrapping_sub(start))
}

/// Maps one segment: the file's pages, then zeros.
fn map_segment(
    space: &mut AddressSpace,
    file: &ProgramFile,
    segment: &Segment,
    shift: u64,
) -> Result<(), ExecError> {
    let mut protection = Protection::empty();
    protection.set(Protection::READ, segment.flags & elf::READ != 0);
    protection.set(Protection::WRITE, segment.flags & elf::WRITE != 0);
    protection.set(Protection::EXECUTE, segment.flags & elf::EXECUTE != 0);
    let address = segment.address + shift;
    let page = address & !(PAGE_SIZE - 1);
    let file_end = address + segment.file_size;
    let memory_end = address + segment.memory_size;
    let mut zeros_from = page;
    if segment.file_size > 0 {
        let source = MapSource::Object {
            object: file.object,
            offset: segment.offset / PAGE_SIZE,
            may_write: false,
            notify_write: false,
        };
        map(space, page, file_end - page, protection, source)?;
        zeros_from = file_end.next_multiple_of(PAGE_SIZE);
        let tail = (zeros_from - file_end) as usize;
        if tail > 0 && memory_end > file_end && protection.contains(Protection::WRITE) {
            // What follows in the file is not this segment's. Up to the page's
            // end, as on Linux: a loader allocates from what is behind its data.
            write(space, GuestVirt(file_end), &[0; PAGE_SIZE as usize][..tail])?;
        }
    }
    if memory_end > zeros_from {
        map(space, zeros_from, memory_end - zeros_from, protection, MapSource::Anonymous)?;
    }
    Ok(())
}

fn map(
    space: &mut AddressSpace,
    address: u64,
    length: u64,
    protection: Protection,
    source: MapSource,
) -> Result<(), MmError> {
    let mut flags = MapFlags::PRIVATE | MapFlags::FIXED_NO_REPLACE;
    flags.set(MapFlags::ANONYMOUS, matches!(source, MapSource::Anonymous));
    let request = MapRequest { address: GuestVirt(address), length, protection, flags, source };
    space.mmap(memory(), &request).map(drop)
}

/// Writes to the new program's memory, bringing in its pages.
fn write(space: &mut AddressSpace, address: GuestVirt, bytes: &[u8]) -> Result<(), MmError> {
    let mut from = 0;
    loop {
        match space.write_user(memory(), GuestVirt(address.0 + from as u64), &bytes[from..]) {
            Ok(()) => return Ok(()),
            Err(Partial { done, error: FaultError::NeedsPage(page) }) => {
                from += done;
                match files::page_in(page) {
                    Err(FaultError::OutOfMemory) if reclaim::free_some() => {}
                    result => drop(result?),
                }
            }
            Err(Partial { done, error: FaultError::OutOfMemory }) if reclaim::free_some() => {
                from += done;
            }
            Err(Partial { error, .. }) => return Err(error.into()),
        }
    }
}

/// What a program finds on its stack.
///
/// ```text
/// stack top  8 zero bytes
///            file name, environment strings, argument strings
///            "x86_64", 16 random bytes
///            (padding to 16 bytes)
///            auxiliary vector, ended by AT_NULL
///            environment pointers, 0
///            argument pointers, 0
///  rsp ────► argument count
/// ```
struct StackImage {
    start: GuestVirt,
    bytes: Vec<u8>,
    arguments: (u64, u64),
    environment: (u64, u64),
    auxiliary: (u64, u64),
}

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;

/// How far a program was moved, and its interpreter (0: it has none).
#[derive(Clone, Copy)]
struct Place {
    shift: u64,
    base: u64,
}

impl StackImage {
    fn build(program: &Program, place: Place, given: &Arguments, top: GuestVirt) -> Self {
        let Place { shift, base } = place;
        // Strings from the top down, collected in reverse.
        let mut strings = Strings { top: top.0, below: 8, pieces: Vec::new() };
        let file_name = strings.push(&given.file_name);
        let environment_end = strings.lowest();
        let environment: Vec<u64> =
            given.environment.iter().rev().map(|text| strings.push(text)).collect();
        let arguments_end = strings.lowest();
        let arguments: Vec<u64> =
            given.arguments.iter().rev().map(|text| strings.push(text)).collect();
        let arguments_start = strings.lowest();
        let platform = strings.push(b"x86_64");
        let mut bytes = [0; 16];
        random::fill(&mut bytes);
        let random_bytes = strings.add(bytes.to_vec());

        let auxiliary = [
            (AT_PHDR, program.headers_address().map_or(0, |address| address + shift)),
            (AT_PHENT, size_of::<Segment>() as u64),
            (AT_PHNUM, u64::from(program.headers.1)),
            (AT_PAGESZ, PAGE_SIZE),
            (AT_BASE, base),
            (AT_FLAGS, 0),
            (AT_ENTRY, program.entry + shift),
            (AT_UID, 0),
            (AT_EUID, 0),
            (AT_GID, 0),
            (AT_EGID, 0),
            (AT_SECURE, 0),
            (AT_CLKTCK, 100),
            (AT_HWCAP, u64::from(pagelab_hal::cpu::cpuid(1, 0).edx)),
            (AT_RANDOM, random_bytes),
            (AT_PLATFORM, platform),
            (AT_EXECFN, file_name),
            (AT_NULL, 0),
        ];
        let words = 1 + arguments.len() + 1 + environment.len() + 1 + 2 * auxiliary.len();
        let start = (top.0 - strings.below - 8 * words as u64) & !15;
        let auxiliary_size = 16 * auxiliary.len() as u64;
        let auxiliary_start = start + 8 * words as u64 - auxiliary_size;
        let mut bytes = Vec::with_capacity((top.0 - start) as usize);
        let mut word = |value: u64| bytes.extend_from_slice(&value.to_le_bytes());
        word(arguments.len() as u64);
        arguments.iter().rev().for_each(|&pointer| word(pointer));
        word(0);
        environment.iter().rev().for_each(|&pointer| word(pointer));
        word(0);
        for (key, value) in auxiliary {
            word(key);
            word(value);
        }
        bytes.resize((top.0 - strings.below - start) as usize, 0);
        for piece in strings.pieces.iter().rev() {
            bytes.extend_from_slice(piece);
        }
        bytes.resize((top.0 - start) as usize, 0);
        Self {
            start: GuestVirt(start),
            bytes,
            arguments: (arguments_start, arguments_end),
            environment: (arguments_end, environment_end),
            auxiliary: (auxiliary_start, auxiliary_start + auxiliary_size),
        }
    }
}

/// Strings that are laid out from the top of the stack downwards.
struct Strings {
    top: u64,
    below: u64,
    pieces: Vec<Vec<u8>>,
}

impl Strings {
    /// A string and its NUL; returns its address.
    fn push(&mut self, text: &[u8]) -> u64 {
        let mut piece = Vec::with_capacity(text.len() + 1);
        piece.extend_from_slice(text);
        piece.push(0);
        self.add(piece)
    }

    /// Address of the last string.
    const fn lowest(&self) -> u64 {
        self.top - self.below
    }

    fn add(&mut self, piece: Vec<u8>) -> u64 {
        self.below += piece.len() as u64;
        self.pieces.push(piece);
        self.top - self.below
    }
}
