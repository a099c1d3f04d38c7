//! Random operations on a few processes, against the model of `model.rs`.

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT};
use pagelab_mm::{
    Access, AddressSpace, FaultError, MapFlags, MapRequest, MapSource, MmError, Populate,
    Protection, RemapFlags, RemapRequest, Use,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check;
use crate::lab::{Lab, PAGE, PRIVATE, SHARED};
use crate::model::{Content, Pages, Private, SpaceModel, Stop};

/// The pages that operations are about: around a boundary of 1 GiB, so that
/// tables of all levels come and go.
pub const WINDOW: Pages = 0x4_0000 - 24..0x4_0000 + 40;

/// How many processes there are at most.
const PROCESSES: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Advice {
    DontNeed,
    Free,
    Remove,
    DontFork(bool),
    WipeOnFork(bool),
    Populate { write: bool },
    Cold,
}

#[derive(Clone, Debug)]
enum Op {
    Map { protection: Protection, shared: bool, fixed: bool, populate: bool },
    Unmap,
    Protect(Protection),
    Advise(Advice),
    Lock(bool),
    Remap { new: u64, to: u64, fixed: bool, keep: bool },
    Load,
    Store(u8),
    CopyIn(u8),
    Fork,
    Exit,
}

#[derive(Clone, Debug)]
struct Step {
    process: usize,
    page: u64,
    length: u64,
    op: Op,
}

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![
        1 => Just(Protection::empty()),
        2 => Just(Protection::READ),
        1 => Just(Protection::WRITE),
        6 => Just(Protection::READ | Protection::WRITE),
        1 => Just(Protection::all()),
    ]
}

fn advice() -> impl Strategy<Value = Advice> {
    prop_oneof![
        3 => Just(Advice::DontNeed),
        1 => Just(Advice::Free),
        1 => Just(Advice::Remove),
        1 => any::<bool>().prop_map(Advice::DontFork),
        1 => any::<bool>().prop_map(Advice::WipeOnFork),
        2 => any::<bool>().prop_map(|write| Advice::Populate { write }),
        1 => Just(Advice::Cold),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let map = (protection(), any::<bool>(), prop::bool::weighted(0.7), prop::bool::weighted(0.2))
        .prop_map(|(protection, shared, fixed, populate)| Op::Map {
            protection,
            shared,
            fixed,
            populate,
        });
    let remap = (0..16u64, WINDOW, any::<bool>(), prop::bool::weighted(0.3))
        .prop_map(|(new, to, fixed, keep)| Op::Remap { new, to, fixed, keep });
    prop_oneof![
        6 => map,
        3 => Just(Op::Unmap),
        4 => protection().prop_map(Op::Protect),
        4 => advice().prop_map(Op::Advise),
        1 => any::<bool>().prop_map(Op::Lock),
        4 => remap,
        4 => Just(Op::Load),
        12 => any::<u8>().prop_map(Op::Store),
        2 => any::<u8>().prop_map(Op::CopyIn),
        3 => Just(Op::Fork),
        2 => Just(Op::Exit),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (0..PROCESSES, WINDOW, 0..14u64, op()).prop_map(|(process, page, length, op)| Step {
        process,
        page,
        length,
        op,
    })
}

/// A process: the real address space and the model of it.
pub struct Process {
    pub space: AddressSpace,
    pub model: SpaceModel,
}

fn new_process(lab: &Lab) -> Process {
    let mut space = lab.space();
    space.limits.may_lock = true;
    let mut layout = space.layout();
    layout.mmap_base = address(WINDOW.end);
    space.set_layout(layout);
    Process { space, model: SpaceModel::default() }
}

fn address(page: u64) -> GuestVirt {
    GuestVirt(page << PAGE_SHIFT)
}

fn stopped(stop: Stop) -> MmError {
    match stop {
        Stop::NotMapped => MmError::NotMapped,
        Stop::Invalid => MmError::Invalid,
    }
}

/// Runs one step on both sides and compares.
fn run(lab: &Lab, processes: &mut Vec<Process>, step: &Step) {
    let number = step.process % processes.len();
    let process = &mut processes[number];
    let pages = step.page..step.page + step.length;
    let (at, bytes) = (address(step.page), step.length * PAGE);
    match step.op {
        Op::Map { protection, shared, fixed, populate } => {
            run_map(lab, process, pages, protection, (shared, fixed, populate));
        }
        Op::Unmap => {
            let result = process.space.munmap(&lab.memory, at, bytes);
            assert_eq!(result, if bytes == 0 { Err(MmError::Invalid) } else { Ok(()) });
            process.model.unmap(pages);
        }
        Op::Protect(protection) => {
            let bits = u32::from(protection.bits());
            let result = process.space.mprotect(&lab.memory, at, bytes, bits);
            let before = process.model.clone();
            assert_eq!(result, process.model.protect(pages.clone(), protection).map_err(stopped));
            // Locked private pages that became writable are written at once.
            for page in pages.filter(|page| before.pages.contains_key(page)) {
                let old = &before.pages[&page];
                let new = process.model.pages[&page].protection;
                let became = new.contains(Protection::WRITE) && new != old.protection;
                if became
                    && old.locked
                    && old.is_private()
                    && !old.protection.contains(Protection::WRITE)
                {
                    populate_model(process, page..page + 1, Populate::Mapping).unwrap();
                }
            }
        }
        Op::Advise(advice) => run_advice(lab, process, pages, advice),
        Op::Lock(lock) => run_lock(lab, process, pages, lock),
        Op::Remap { new, to, fixed, keep } => {
            run_remap(lab, process, pages, (new, to, fixed, keep));
        }
        Op::Load => {
            let real = lab.load(&mut process.space, at);
            let model = process.model.pages.get_mut(&step.page).ok_or(FaultError::NoMapping);
            let model = model.and_then(|page| page.touch(Access::READ).map(|f| (page.byte(), f)));
            assert_eq!(real, model);
        }
        Op::Store(byte) => {
            let real = lab.store(&mut process.space, at, byte);
            let model = process.model.pages.get_mut(&step.page).ok_or(FaultError::NoMapping);
            let model = model.and_then(|page| {
                let fault = page.touch(Access::WRITE)?;
                page.store(byte);
                Ok(fault)
            });
            assert_eq!(real, model);
        }
        Op::CopyIn(byte) => run_copy_in(lab, process, step.page, byte),
        Op::Fork if processes.len() < PROCESSES => {
            let process = &mut processes[number];
            let space = process.space.fork(&lab.memory).unwrap();
            // Which entries of the zero page are copied is a matter of areas.
            let parent = &process.space;
            let families = |page| parent.area_at(address(page)).is_some_and(|a| a.family != 0);
            let model = process.model.fork(families);
            processes.push(Process { space, model });
        }
        Op::Exit if processes.len() > 1 => lab.end(processes.remove(number).space),
        Op::Fork | Op::Exit => {}
    }
}

fn run_map(
    lab: &Lab,
    process: &mut Process,
    pages: Pages,
    protection: Protection,
    (shared, fixed, populate): (bool, bool, bool),
) {
    let length = pages.end - pages.start;
    let mut flags = if shared { SHARED } else { PRIVATE };
    flags.set(MapFlags::FIXED, fixed);
    flags.set(MapFlags::POPULATE, populate);
    let request = MapRequest {
        address: if fixed { address(pages.start) } else { GuestVirt(0) },
        length: length * PAGE,
        protection,
        flags,
        source: MapSource::Anonymous,
    };
    let mapped = process.space.mmap(&lab.memory, &request);
    if length == 0 {
        assert_eq!(mapped, Err(MmError::Invalid));
        return;
    }
    let start = if fixed {
        pages.start
    } else {
        process.model.highest_gap(length, 16, WINDOW.end).unwrap()
    };
    let mapped = mapped.unwrap();
    assert_eq!(mapped.start, address(start));
    let pages = start..start + length;
    process.model.unmap(pages.clone());
    process.model.map(pages.clone(), protection, shared);
    assert_eq!(mapped.populate, populate);
    if populate {
        let end = address(pages.end);
        process.space.populate(&lab.memory, mapped.start, end, Populate::Mapping, false).unwrap();
        populate_model(process, pages, Populate::Mapping).unwrap();
    }
}

fn populate_model(process: &mut Process, pages: Pages, how: Populate) -> Result<(), FaultError> {
    for page in pages {
        let model = match process.model.pages.get_mut(&page) {
            Some(model) => model,
            None if how == Populate::Mapping => continue,
            None => return Err(FaultError::NoMapping),
        };
        let write = match how {
            Populate::Read => false,
            Populate::Write => true,
            _ => model.is_private() && model.protection.contains(Protection::WRITE),
        };
        let unreadable = how == Populate::Read && !model.protection.contains(Protection::READ);
        if unreadable {
            return Err(FaultError::Forbidden);
        }
        let result = model.touch(if write { Access::WRITE } else { Access::READ });
        if how != Populate::Mapping {
            result?;
        }
    }
    Ok(())
}

fn run_advice(lab: &Lab, process: &mut Process, pages: Pages, advice: Advice) {
    let number = match advice {
        Advice::DontNeed => 4,
        Advice::Free => 8,
        Advice::Remove => 9,
        Advice::DontFork(on) => 11 - u32::from(on),
        Advice::WipeOnFork(on) => 19 - u32::from(on),
        Advice::Cold => 20,
        Advice::Populate { write } => 22 + u32::from(write),
    };
    let start = address(pages.start);
    let length = (pages.end - pages.start) * PAGE;
    let real = process.space.madvise(&lab.memory, start, length, number);
    if let Advice::Populate { write } = advice {
        let how = if write { Populate::Write } else { Populate::Read };
        let expected = populate_model(process, pages, how).map_err(|error| match error {
            FaultError::NoMapping => MmError::NotMapped,
            FaultError::Forbidden => MmError::Invalid,
            _ => MmError::NoBacking,
        });
        assert_eq!(real, expected);
        return;
    }
    let mut removed = Vec::new();
    let expected = process.model.advise(pages.clone(), |page| {
        match advice {
            Advice::DontNeed if !page.locked => page.drop_content(),
            Advice::Cold => return !page.locked,
            Advice::DontFork(on) => page.dont_fork = on,
            Advice::WipeOnFork(on) if page.is_private() || !on => page.wipe_on_fork = on,
            Advice::Free if !page.locked => match &mut page.content {
                Content::Private(Private::Frame { frame, dirty, .. }) => {
                    *dirty &= std::rc::Rc::strong_count(frame) > 1;
                }
                Content::Private(_) => {}
                Content::Shared { .. } => return false,
            },
            Advice::Remove if !page.locked && !page.is_private() => {
                page.drop_content();
                if let Content::Shared { object, index, .. } = &page.content {
                    removed.push((object.clone(), *index));
                }
            }
            _ => return false,
        }
        true
    });
    assert_eq!(real, expected.map_err(stopped));
    // Whether a page is gone or only zero depends on who else maps it.
    for (object, index) in removed {
        if let Some(Some(byte)) = object.borrow_mut().get_mut(index) {
            *byte = 0;
        }
        let mut present = false;
        let here = |page: &u64| match &process.model.pages[page].content {
            Content::Shared { object: other, index: at, .. } => {
                std::rc::Rc::ptr_eq(other, &object) && *at == index
            }
            Content::Private(_) => false,
        };
        let mapped = pages.clone().filter(|p| process.model.pages.contains_key(p)).find(here);
        if let Some(page) = mapped {
            let space = &process.space;
            space.mincore(&lab.memory, address(page), PAGE, |_, there| present = there).unwrap();
        }
        if !present && let Some(page) = object.borrow_mut().get_mut(index) {
            *page = None;
        }
    }
}

fn run_lock(lab: &Lab, process: &mut Process, pages: Pages, lock: bool) {
    let start = address(pages.start);
    let length = (pages.end - pages.start) * PAGE;
    if !lock {
        let real = process.space.munlock(&lab.memory, start, length);
        assert_eq!(real, process.model.lock(pages, false).map_err(stopped));
        return;
    }
    let real = process.space.mlock(&lab.memory, start, length, false);
    let expected = process.model.lock(pages.clone(), true).map_err(stopped).and_then(|()| {
        populate_model(process, pages, Populate::Locking).map_err(|_| MmError::NotMapped)
    });
    assert_eq!(real, expected);
}

fn run_copy_in(lab: &Lab, process: &mut Process, page: u64, byte: u8) {
    // The first byte of two pages and everything between.
    let buffer = vec![byte; PAGE as usize + 1];
    let real = process.space.write_user(&lab.memory, address(page), &buffer);
    lab.memory.machine.check_tlb();
    let mut expected = Ok(());
    for at in [page, page + 1] {
        let model = process.model.pages.get_mut(&at).ok_or(FaultError::NoMapping);
        expected = model.and_then(|model| {
            model.touch(Access::WRITE)?;
            model.store(byte);
            Ok(())
        });
        if expected.is_err() {
            break;
        }
    }
    assert_eq!(real.map_err(|partial| partial.error), expected);
}

fn run_remap(
    lab: &Lab,
    process: &mut Process,
    pages: Pages,
    (new, to, fixed, keep): (u64, u64, bool, bool),
) {
    let old = pages.end - pages.start;
    let mut flags = RemapFlags::MAY_MOVE;
    flags.set(RemapFlags::FIXED, fixed);
    flags.set(RemapFlags::DONT_UNMAP, keep);
    let area = process.space.area_at(address(pages.start)).copied();
    let locked = process.model.pages.range(pages.clone()).any(|(_, page)| page.locked);
    if keep && (locked || area.is_some_and(|area| area.pages() > old)) {
        return; // What is unlocked then is a matter of areas.
    }
    let request = RemapRequest {
        address: address(pages.start),
        old_length: old * PAGE,
        new_length: new * PAGE,
        flags,
        new_address: if fixed { address(to) } else { GuestVirt(0) },
    };
    let real = process.space.mremap(&lab.memory, &request);
    lab.memory.machine.check_tlb();
    let overlaps = fixed && pages.start < to + new && to < pages.end;
    if new == 0 || overlaps || (keep && old != new) {
        assert_eq!(real, Err(MmError::Invalid));
        return;
    }
    let Some(area) = area else {
        assert_eq!(real, Err(MmError::BadAddress));
        return;
    };
    let whole = address(pages.start + old.min(new)) <= area.end;
    let moves_only = fixed && old == new;
    let in_place = !fixed && !keep;
    if old == 0 && area.is_private() {
        assert_eq!(real, Err(MmError::Invalid));
        return;
    }
    let shrinks = in_place && new <= old;
    if !(whole || moves_only || shrinks) {
        assert_eq!(real, Err(MmError::BadAddress));
        return;
    }
    let model = &mut process.model;
    let kept = old.min(new);
    let start = pages.start;
    if shrinks {
        assert_eq!(real.unwrap().start, address(start));
        model.unmap(start + new..pages.end);
        return;
    }
    let at_end = address(pages.end) == area.end && old > 0;
    if in_place && at_end && model.is_free(pages.end..start + new) {
        assert_eq!(real.unwrap().start, address(start));
        model.extend(pages.end - 1, new - old);
        populate_grown(lab, process, start + old..start + new);
        return;
    }
    if fixed && (to..to + new).contains(&start) {
        // With an old length of 0 this is no overlap: the source goes first.
        assert_eq!(real, Err(MmError::BadAddress));
        model.unmap(to..to + new);
        return;
    }
    let target = if fixed { to } else { model.highest_gap(new, 16, WINDOW.end).unwrap() };
    assert_eq!(real.unwrap().start, address(target));
    if new < old {
        model.unmap(start + new..pages.end);
    }
    if !moves_only {
        model.unmap(target..target + new);
    }
    if old == 0 {
        let mut first = model.pages[&start].clone();
        first.drop_content();
        model.pages.insert(target, first);
        model.extend(target, new - 1);
    } else {
        model.relocate(start..start + kept, target, keep);
        model.extend(target + kept - 1, new - kept);
    }
    populate_grown(lab, process, target + old..target + new);
}

/// What a kernel does after mremap grew locked memory.
fn populate_grown(lab: &Lab, process: &mut Process, grown: Pages) {
    if process.model.pages.get(&grown.start).is_some_and(|page| page.locked) {
        let (from, to) = (address(grown.start), address(grown.end));
        process.space.populate(&lab.memory, from, to, Populate::Mapping, false).unwrap();
        populate_model(process, grown, Populate::Mapping).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_behaves_as_the_model(steps in vec(step(), 1..80)) {
        let lab = Lab::new(2048);
        let mut processes = vec![new_process(&lab)];
        for step in &steps {
            run(&lab, &mut processes, step);
            lab.memory.machine.check_tlb();
            processes.iter().for_each(|process| check::process(&lab, process));
            check::owners(&lab, &mut processes);
        }
        for process in processes {
            lab.end(process.space);
        }
        lab.check_balance();
    }

    /// The same operations while frames run out again and again. Results are
    /// not compared, but nothing may be lost or broken.
    #[test]
    fn running_out_of_frames_loses_nothing(
        steps in vec((step(), 0..12u64), 1..80),
    ) {
        let lab = Lab::new(1024);
        let memory = &lab.memory;
        let mut processes = vec![new_process(&lab)];
        let mut taken = Vec::new();
        for (step, left) in &steps {
            // This many frames are left for the step.
            while memory.frames.free() > *left {
                taken.push(memory.frames.alloc(Use::Kernel).unwrap());
            }
            while memory.frames.free() < *left && let Some(frame) = taken.pop() {
                memory.frames.release(&memory.machine, frame);
            }
            run_blindly(&lab, &mut processes, step);
            memory.machine.check_tlb();
            processes.iter().for_each(|process| check::space(&lab, &process.space));
            check::owners(&lab, &mut processes);
        }
        for frame in taken {
            memory.frames.release(&memory.machine, frame);
        }
        for process in processes {
            lab.end(process.space);
        }
        lab.check_balance();
    }
}

/// Runs one step on the real side only, whatever comes of it.
fn run_blindly(lab: &Lab, processes: &mut Vec<Process>, step: &Step) {
    let number = step.process % processes.len();
    let count = processes.len();
    let space = &mut processes[number].space;
    let memory = &lab.memory;
    let (at, bytes) = (address(step.page), step.length * PAGE);
    match step.op {
        Op::Map { protection, shared, fixed, populate } => {
            let mut flags = if shared { SHARED } else { PRIVATE };
            flags.set(MapFlags::FIXED, fixed);
            let source = MapSource::Anonymous;
            let request = MapRequest { address: at, length: bytes, protection, flags, source };
            if let Ok(mapped) = space.mmap(memory, &request)
                && populate
            {
                let end = GuestVirt(mapped.start.0 + mapped.length);
                let _ = space.populate(memory, mapped.start, end, Populate::Mapping, false);
            }
        }
        Op::Unmap => drop(space.munmap(memory, at, bytes)),
        Op::Protect(protection) => {
            let _ = space.mprotect(memory, at, bytes, u32::from(protection.bits()));
        }
        Op::Advise(Advice::Populate { write }) => {
            let _ = space.madvise(memory, at, bytes, 22 + u32::from(write));
        }
        Op::Advise(Advice::Remove) => drop(space.madvise(memory, at, bytes, 9)),
        Op::Advise(_) => drop(space.madvise(memory, at, bytes, 4)),
        Op::Lock(true) => drop(space.mlock(memory, at, bytes, false)),
        Op::Lock(false) => drop(space.munlock(memory, at, bytes)),
        Op::Remap { new, to, fixed, keep } => {
            let mut flags = RemapFlags::MAY_MOVE;
            flags.set(RemapFlags::FIXED, fixed);
            flags.set(RemapFlags::DONT_UNMAP, keep);
            let _ = space.mremap(
                memory,
                &RemapRequest {
                    address: at,
                    old_length: bytes,
                    new_length: new * PAGE,
                    flags,
                    new_address: address(to),
                },
            );
        }
        Op::Load => drop(lab.load(space, at)),
        Op::Store(byte) => drop(lab.store(space, at, byte)),
        Op::CopyIn(byte) => drop(space.write_user(memory, at, &[byte; 5000])),
        Op::Fork if count < PROCESSES => {
            if let Ok(space) = space.fork(memory) {
                processes.push(Process { space, model: SpaceModel::default() });
            }
        }
        Op::Exit if count > 1 => lab.end(processes.remove(number).space),
        Op::Fork | Op::Exit => {}
    }
}
