//! What the host may see of the kernel while it runs: the directory and the
//! tables it names (`pagelab_abi::directory`).
//!
//! The kernel's structures are read where they are; here are only the lists that
//! say where. A process's record is part of [`Process`], an address space's
//! sequence part of its `Space`.
//!
//! Locking: the lists' locks are taken last, for a few instructions.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use pagelab_abi::directory::{
    Directory, NameRecord, PlaceRecord, ProcessRecord, STATE_ALIVE, STATE_ENDED, STATE_STOPPED,
    begin_change, end_change,
};
use pagelab_hal::context::Context;
use pagelab_hal::lab;
use pagelab_hal::memory::{frames, kernel_root};
use pagelab_hal::sync::Lock;

use crate::process::space::Space;
use crate::process::thread::{RunState, Thread};
use crate::process::{self, Family, Pid, Process, State};

static DIRECTORY: Directory = Directory::empty();
static PLACES: Lock<Vec<PlaceRecord>> = Lock::new(Vec::new());
/// In the order of the objects' numbers.
static NAMES: Lock<Vec<NameRecord>> = Lock::new(Vec::new());

/// Tells the host where the directory is.
pub fn init() {
    let published = frames().published();
    DIRECTORY.kernel_root.store(kernel_root().start().0, Ordering::Relaxed);
    DIRECTORY.frames.store(published.table, Ordering::Relaxed);
    DIRECTORY.frame_count.store(published.frames, Ordering::Relaxed);
    DIRECTORY.frame_counts.store(published.counts, Ordering::Relaxed);
    lab::publish_directory(&DIRECTORY);
}

/// A process is in the table of processes.
pub fn process_added(process: &Process) {
    let record = &process.record;
    record.pid.store(process.pid, Ordering::Relaxed);
    record.state.store(STATE_ALIVE, Ordering::Relaxed);
    family_changed(process, &process.family.lock());
    record.set_name(process.image.lock().name.as_bytes());
    space_changed(process, &process.space());
    let mut places = PLACES.lock();
    begin_change(&DIRECTORY.sequence);
    process.place.store(places.len() as u64, Ordering::Relaxed);
    let address = core::ptr::from_ref(record) as u64;
    places.push(PlaceRecord { record: address, pid: process.pid.into() });
    publish_places(&places);
}

/// A process is about to leave the table of processes.
pub fn process_removed(process: &Process) {
    let place = process.place.load(Ordering::Relaxed) as usize;
    let moved = {
        let mut places = PLACES.lock();
        begin_change(&DIRECTORY.sequence);
        places.swap_remove(place);
        if let Some(room) = process::room_to_keep(places.len(), places.capacity()) {
            places.shrink_to(room);
        }
        publish_places(&places);
        places.get(place).map(|moved| moved.pid as Pid)
    };
    if let Some(moved) = moved.and_then(process::find) {
        moved.place.store(place as u64, Ordering::Relaxed);
    }
}

fn publish_places(places: &[PlaceRecord]) {
    DIRECTORY.processes.store(places.as_ptr() as u64, Ordering::Relaxed);
    DIRECTORY.process_places.store(places.len() as u64, Ordering::Relaxed);
    end_change(&DIRECTORY.sequence);
}

/// A process belongs to somebody else, or to another group or session.
pub fn family_changed(process: &Process, family: &Family) {
    let record = &process.record;
    begin_change(&record.sequence);
    record.parent.store(family.parent, Ordering::Relaxed);
    record.group.store(family.group, Ordering::Relaxed);
    record.session.store(family.session, Ordering::Relaxed);
    end_change(&record.sequence);
}

/// A process is called otherwise.
pub fn name_changed(process: &Process, name: &str) {
    begin_change(&process.record.sequence);
    process.record.set_name(name.as_bytes());
    end_change(&process.record.sequence);
}

/// A process has another address space.
pub fn space_changed(process: &Process, space: &Space) {
    let record = &process.record;
    let (address, sequence) = space.published();
    begin_change(&record.sequence);
    record.space.store(address, Ordering::Relaxed);
    record.space_sequence.store(sequence, Ordering::Relaxed);
    end_change(&record.sequence);
}

/// A process ended, was stopped, or goes on.
pub fn state_changed(process: &Process) {
    let record = &process.record;
    let state = match process.state() {
        State::Ended(status) | State::Reaped(status) => {
            record.wait_status.store(status.as_wait_status(), Ordering::Relaxed);
            STATE_ENDED
        }
        State::Alive if process.signals.is_stopped() => STATE_STOPPED,
        State::Alive => STATE_ALIVE,
    };
    record.state.store(state, Ordering::Relaxed);
}

/// A process has another first thread.
pub fn leader_changed(record: &ProcessRecord, context: &Context) {
    record.leader_stack.store(context.stack_top(), Ordering::Relaxed);
}

/// A thread came to be, or what it does has changed.
pub fn thread_changed(record: &ProcessRecord, before: Option<RunState>, after: RunState) {
    let add = |counter: &AtomicU32, more: bool| {
        let value = counter.load(Ordering::Relaxed);
        let value = if more { value.wrapping_add(1) } else { value.wrapping_sub(1) };
        counter.store(value, Ordering::Relaxed);
    };
    let was_ready = before == Some(RunState::Ready);
    let is_ready = after == RunState::Ready;
    if was_ready != is_ready {
        add(&record.ready_threads, is_ready);
    }
    if before.is_none() {
        add(&record.threads, true);
    }
    if after == RunState::Dead {
        add(&record.threads, false);
    }
}

/// Another thread runs.
pub fn now_running(thread: &Thread) {
    DIRECTORY.current_process.store(thread.process.pid, Ordering::Relaxed);
    DIRECTORY.current_thread.store(thread.tid(), Ordering::Relaxed);
}

/// A mapped object has this name; its path stays where it is until
/// [`forget_object`].
pub fn name_object(record: NameRecord) {
    let mut names = NAMES.lock();
    begin_change(&DIRECTORY.sequence);
    match names.binary_search_by_key(&record.object, |name| name.object) {
        Ok(place) => names[place] = record,
        Err(place) => names.insert(place, record),
    }
    publish_names(&names);
}

/// An object's name is about to go.
pub fn forget_object(object: u32) {
    let mut names = NAMES.lock();
    let Ok(place) = names.binary_search_by_key(&object, |name| name.object) else { return };
    begin_change(&DIRECTORY.sequence);
    names.remove(place);
    publish_names(&names);
}

/// All names are about to go: gives back the list's memory.
pub fn forget_objects() {
    let mut names = NAMES.lock();
    begin_change(&DIRECTORY.sequence);
    *names = Vec::new();
    publish_names(&names);
}

fn publish_names(names: &[NameRecord]) {
    DIRECTORY.names.store(names.as_ptr() as u64, Ordering::Relaxed);
    DIRECTORY.name_count.store(names.len() as u64, Ordering::Relaxed);
    end_change(&DIRECTORY.sequence);
}
