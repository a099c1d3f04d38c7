//! `fork`, `vfork`, `clone`, `clone3`: new processes and new threads.
//!
//! What a process copies and what it shares is one flag each. Its memory is
//! `pagelab_mm`'s affair (`fork.rs` there): copied by sharing every frame until
//! somebody writes, or shared for good with `CLONE_VM`.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use bitflags::bitflags;
use pagelab_abi::addr::GuestVirt;
use pagelab_abi::event::{EVENT_FORK, Event};
use pagelab_hal::sync::Lock;
use pagelab_hal::trap::TrapFrame;
use pagelab_hal::{cpu, lab};
use pagelab_mm::{AddressSpace, MmError};
use pagelab_vfs::Errno;

use super::limits::resource;
use super::space::Space;
use super::thread::Thread;
use super::{Family, Inherited, Process, all, new_pid, reclaim, scheduler};
use crate::memory::memory;
use crate::syscall::files::give_process_file;
use crate::user;

bitflags! {
    /// Linux's `CLONE_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CloneFlags: u64 {
        /// Share the address space.
        const VM = 0x100;
        /// Share folders and umask.
        const FS = 0x200;
        /// Share open files.
        const FILES = 0x400;
        /// Share signal actions.
        const SIGHAND = 0x800;
        /// The parent gets the child as a file.
        const PIDFD = 0x1000;
        /// The parent sleeps until the child gives the address space back.
        const VFORK = 0x4000;
        /// The child's parent is the caller's.
        const PARENT = 0x8000;
        /// A thread of the same process.
        const THREAD = 0x1_0000;
        /// Share System V semaphores' undo lists: there are none.
        const SYSVSEM = 0x4_0000;
        /// Set the base of FS.
        const SETTLS = 0x8_0000;
        /// Store the child's number in the parent's memory.
        const PARENT_SETTID = 0x10_0000;
        /// Store 0 in the child's memory at its end, and wake a futex.
        const CHILD_CLEARTID = 0x20_0000;
        /// No tracing of the child: there is none.
        const DETACHED = 0x40_0000;
        /// The same.
        const UNTRACED = 0x80_0000;
        /// Store the child's number in the child's memory.
        const CHILD_SETTID = 0x100_0000;
        /// Signals of the child have default actions.
        const CLEAR_SIGHAND = 0x1_0000_0000;
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct CloneRequest {
    /// What is shared.
    pub flags: CloneFlags,
    /// The child's stack pointer; 0 for the caller's.
    pub stack: u64,
    /// Where the parent stores the child's number.
    pub parent_tid: GuestVirt,
    /// Where the number of the descriptor is stored that is the child.
    pub process_file: GuestVirt,
    /// Where the child's number is stored and cleared.
    pub child_tid: GuestVirt,
    /// The child's base of FS.
    pub tls: u64,
    /// The signal at the child's end.
    pub exit_signal: u8,
}

impl CloneRequest {
    /// `fork`.
    pub const FORK: Self = Self {
        flags: CloneFlags::empty(),
        stack: 0,
        parent_tid: GuestVirt(0),
        process_file: GuestVirt(0),
        child_tid: GuestVirt(0),
        tls: 0,
        exit_signal: crate::signal::SIGCHLD,
    };

    /// `vfork`.
    pub const VFORK: Self = Self { flags: CloneFlags::VM.union(CloneFlags::VFORK), ..Self::FORK };
}

/// Makes a process or thread that goes on from `frame` with 0 in RAX; returns
/// its number.
///
/// # Errors
///
/// EINVAL for flags that do not go together, EAGAIN over the limit of processes,
/// ENOMEM without memory, and those of a new descriptor.
pub fn clone(frame: &TrapFrame, request: &CloneRequest) -> Result<u64, Errno> {
    let flags = request.flags;
    let needs = |flag, needed| !flags.contains(flag) || flags.contains(needed);
    if !needs(CloneFlags::THREAD, CloneFlags::SIGHAND)
        || !needs(CloneFlags::SIGHAND, CloneFlags::VM)
        || flags.contains(CloneFlags::SIGHAND | CloneFlags::CLEAR_SIGHAND)
        || flags.contains(CloneFlags::PIDFD)
            && flags.intersects(CloneFlags::THREAD | CloneFlags::DETACHED)
    {
        return Err(Errno::EINVAL);
    }
    let parent = scheduler::current();
    let mut child_frame = *frame;
    child_frame.rax = 0;
    if request.stack != 0 {
        child_frame.rsp = request.stack;
    }
    // The child leaves ring 0 by restoring all registers.
    child_frame.sanitize();
    let mut user_state = parent.user.lock().copy_current().ok_or(Errno::ENOMEM)?;
    if flags.contains(CloneFlags::SETTLS) {
        user_state.fs_base = request.tls;
    }
    let tid = new_pid();
    let process = if flags.contains(CloneFlags::THREAD) {
        parent.process.clone()
    } else {
        new_process(&parent, tid, request)?
    };
    // The child of `vfork` uses its parent's stacks while the parent sleeps.
    let beside = flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK);
    let signals = parent.signals.for_child(beside);
    let thread = Thread::new(tid, process.clone(), user_state, signals, child_frame);
    let Some(thread) = thread else {
        if !flags.contains(CloneFlags::THREAD) {
            super::forget(tid);
        }
        return Err(Errno::ENOMEM);
    };
    if flags.contains(CloneFlags::PIDFD)
        && let Err(error) = give_process_file(&process, request.process_file)
    {
        super::forget(tid);
        return Err(error);
    }
    if !flags.contains(CloneFlags::VM) {
        thread.rseq.copy_from(&parent.rseq);
    }
    store_numbers(&thread, request);
    process.threads.lock().push(thread.clone());
    if !flags.contains(CloneFlags::THREAD) {
        adopt(&parent, &process, request);
    }
    scheduler::add(thread);
    drop(parent);
    if flags.contains(CloneFlags::VFORK) {
        wait_for_release(&process);
    }
    Ok(u64::from(tid))
}

/// A copy of an address space, for which room is made if it needs any.
fn copy_space(space: &Space) -> Result<AddressSpace, Errno> {
    loop {
        let copy = space.lock().fork(memory());
        match copy {
            Ok(copy) => return Ok(copy),
            Err(MmError::OutOfMemory) if reclaim::free_some() => {}
            Err(_) => return Err(Errno::ENOMEM),
        }
    }
}

fn new_process(
    parent: &Arc<Thread>,
    pid: super::Pid,
    request: &CloneRequest,
) -> Result<Arc<Process>, Errno> {
    let flags = request.flags;
    let process = &parent.process;
    let limits = *process.limits.lock();
    if memory().frames.is_short() && !reclaim::free_some() {
        return Err(Errno::ENOMEM);
    }
    if all().len() as u64 >= limits.0[resource::PROCESSES].0 {
        return Err(Errno::EAGAIN);
    }
    let space = if flags.contains(CloneFlags::VM) {
        process.space()
    } else {
        let space = Space::with(copy_space(&process.space())?);
        space.set_executing(process.space().executing());
        space
    };
    let files = if flags.contains(CloneFlags::FILES) {
        process.files()
    } else {
        let copy = process.files().lock().clone();
        Arc::new(Lock::new(copy))
    };
    let folders = if flags.contains(CloneFlags::FS) {
        process.folders()
    } else {
        let copy = process.folders().lock().clone();
        Arc::new(Lock::new(copy))
    };
    let family = {
        let own = process.family.lock();
        let parent = if flags.contains(CloneFlags::PARENT) { own.parent } else { process.pid };
        Family {
            parent,
            children: alloc::vec::Vec::new(),
            group: own.group,
            session: own.session,
            exit_signal: request.exit_signal,
            has_executed: false,
        }
    };
    let signals = process
        .signals
        .for_child(flags.contains(CloneFlags::SIGHAND), flags.contains(CloneFlags::CLEAR_SIGHAND));
    let image = process.image.lock().clone();
    let oom_score_adj = process.oom_score_adj.load(Ordering::Relaxed);
    let inherited =
        Inherited { family, image, files, folders, signals, limits, space, oom_score_adj };
    Ok(Process::new(pid, inherited))
}

/// Makes a new process a child of its parent.
fn adopt(parent: &Arc<Thread>, process: &Arc<Process>, request: &CloneRequest) {
    let number = process.parent();
    let of_caller = number == parent.process.pid;
    let adopter = if of_caller { Some(parent.process.clone()) } else { super::find(number) };
    if let Some(adopter) = adopter {
        adopter.family.lock().children.push(process.clone());
    }
    if lab::wants_events() {
        lab::emit(Event {
            tsc: cpu::timestamp(),
            pid: process.pid,
            class: EVENT_FORK,
            detail: number,
            address: request.flags.bits(),
            ..Event::default()
        });
    }
}

fn store_numbers(thread: &Thread, request: &CloneRequest) {
    let flags = request.flags;
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // As on Linux, a bad address is not an error.
        let _ = user::write(request.parent_tid, &thread.tid());
    }
    if flags.contains(CloneFlags::CHILD_SETTID) {
        let space = thread.process.space();
        let _ = user::write_bytes_of(&space, request.child_tid, &thread.tid().to_le_bytes());
    }
    if flags.contains(CloneFlags::CHILD_CLEARTID) {
        thread.clear_tid.store(request.child_tid.0, Ordering::Relaxed);
    }
}

/// `vfork`: sleeps until the child runs another program or has ended. Only the
/// end of this process cuts that short.
fn wait_for_release(child: &Arc<Process>) {
    let lent = scheduler::current().process.space();
    // If this process is to end, it does so without waiting.
    let _ = child.released.wait_killable(|| (!Arc::ptr_eq(&child.space(), &lent)).then_some(()));
}
