//! Random operations of a few processes with too little memory, swap, and a disk
//! that fails now and then, against a model that knows nothing of all that.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use pagelab_abi::addr::{GuestVirt, PAGE_SHIFT};
use pagelab_mm::{
    Access, FaultError, MapFlags, MapRequest, MapSource, ObjectId, Page, RemapFlags, RemapRequest,
    Use,
};
use pagelab_paging::EntryFlags;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check;
use crate::disk::{World, all_mappings};
use crate::lab::{Lab, PAGE, PRIVATE, RW, SHARED};

const FIRST: u64 = 0x4_0000 - 8;
const WINDOW: u64 = 20;
const FILE_PAGES: u64 = 12;
const PROCESSES: usize = 3;

/// What a page holds: as many values as it may have.
#[derive(Clone, Debug)]
enum Held {
    /// Its own.
    Own(u8),
    /// Its own, or zero: given up.
    GivenUp(u8),
    /// A page of the file, until it is written if the mapping is private.
    File { index: u64, private: bool },
    /// Shared memory.
    Shared(Rc<RefCell<Vec<u8>>>, usize),
}

type Model = BTreeMap<u64, Held>;

#[derive(Clone, Debug)]
enum Op {
    Map,
    MapShared,
    MapFile { private: bool, from: u64 },
    Unmap,
    Store(u8),
    Load,
    Fork,
    Exit,
    Move { to: u64 },
    DontNeed,
    GiveUp,
    Lock(bool),
    Reclaim,
    Protect,
    Clean,
    FailAfter(usize),
}

#[derive(Clone, Debug)]
struct Step {
    process: usize,
    page: u64,
    length: u64,
    op: Op,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Map),
        3 => Just(Op::MapShared),
        3 => (any::<bool>(), 0..FILE_PAGES).prop_map(|(private, from)| Op::MapFile { private, from }),
        1 => Just(Op::Unmap),
        16 => any::<u8>().prop_map(Op::Store),
        6 => Just(Op::Load),
        4 => Just(Op::Fork),
        1 => Just(Op::Exit),
        3 => (0..WINDOW).prop_map(|to| Op::Move { to }),
        1 => Just(Op::DontNeed),
        1 => Just(Op::GiveUp),
        1 => any::<bool>().prop_map(Op::Lock),
        8 => Just(Op::Reclaim),
        3 => Just(Op::Protect),
        4 => Just(Op::Clean),
        1 => (0..3usize).prop_map(Op::FailAfter),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (0..PROCESSES, 0..WINDOW, 1..8u64, op()).prop_map(|(process, page, length, op)| Step {
        process,
        page,
        length,
        op,
    })
}

fn address(page: u64) -> GuestVirt {
    GuestVirt((FIRST + page) << PAGE_SHIFT)
}

/// An access, with memory made for it; `None` if there is none to be had.
fn touch(world: &World<'_>, process: usize, page: u64, write: bool) -> Option<u8> {
    let access = if write { Access::WRITE } else { Access::READ };
    for _ in 0..20 {
        match world.touch(process, address(page), access) {
            Ok((frame, _)) => return Some(world.lab.memory.machine.word(frame, 0) as u8),
            Err(FaultError::OutOfMemory) => drop(world.reclaim(4)),
            Err(error) => panic!("{error:?} at page {page}"),
        }
    }
    None
}

fn file_byte(world: &World<'_>, index: u64) -> u8 {
    let memory = &world.lab.memory;
    match memory.objects.lookup(&memory.machine, world.file, index).0 {
        Page::Present(frame) => memory.machine.word(frame, 0) as u8,
        _ => world.disk.borrow()[index as usize],
    }
}

fn run(world: &World<'_>, models: &mut Vec<Model>, file: &mut [u8], step: &Step) {
    let count = models.len();
    let process = step.process % count;
    let memory = &world.lab.memory;
    let end = (step.page + step.length).min(WINDOW);
    let pages = step.page..end;
    let (at, bytes) = (address(step.page), (end - step.page) * PAGE);
    let model = &mut models[process];
    match step.op {
        Op::Map => {
            let space = &mut world.spaces.borrow_mut()[process];
            let flags = PRIVATE | MapFlags::FIXED;
            if world.lab.map_at(space, at.0, end - step.page, RW, flags).is_ok() {
                pages.for_each(|page| drop(model.insert(page, Held::Own(0))));
            }
        }
        Op::MapShared => {
            let space = &mut world.spaces.borrow_mut()[process];
            let flags = SHARED | MapFlags::FIXED;
            if world.lab.map_at(space, at.0, end - step.page, RW, flags).is_ok() {
                let object = Rc::new(RefCell::new(vec![0; WINDOW as usize]));
                for (index, page) in pages.enumerate() {
                    model.insert(page, Held::Shared(object.clone(), index));
                }
            }
        }
        Op::MapFile { private, from } => {
            let length = (end - step.page).min(FILE_PAGES - from);
            let source = MapSource::Object {
                object: world.file,
                offset: from,
                may_write: true,
                notify_write: true,
            };
            let kind = if private { MapFlags::PRIVATE } else { MapFlags::SHARED };
            let request = MapRequest {
                address: at,
                length: length * PAGE,
                protection: RW,
                flags: kind | MapFlags::FIXED,
                source,
            };
            world.spaces.borrow_mut()[process].mmap(memory, &request).unwrap();
            for n in 0..length {
                model.insert(step.page + n, Held::File { index: from + n, private });
            }
        }
        Op::Unmap => {
            world.spaces.borrow_mut()[process].munmap(memory, at, bytes).unwrap();
            model.retain(|page, _| !pages.contains(page));
        }
        Op::Store(byte) => {
            if !model.contains_key(&step.page) || touch(world, process, step.page, true).is_none() {
                return;
            }
            let (frame, faults) = world.touch(process, at, Access::WRITE).unwrap();
            assert!(faults.is_empty());
            pagelab_mm::Machine::write_bytes(&memory.machine, frame, 0, &[byte]);
            match model.get_mut(&step.page) {
                Some(Held::File { index, private: false }) => file[*index as usize] = byte,
                Some(Held::Shared(object, index)) => object.borrow_mut()[*index] = byte,
                Some(held) => *held = Held::Own(byte),
                None => {}
            }
        }
        Op::Load => {
            if let Some(held) = model.get(&step.page)
                && let Some(byte) = touch(world, process, step.page, false)
            {
                check_byte(held, byte, file);
            }
        }
        Op::Fork if count < PROCESSES => {
            let child = world.spaces.borrow_mut()[process].fork(memory);
            if let Ok(child) = child {
                world.spaces.borrow_mut().push(child);
                models.push(models[process].clone());
            }
        }
        Op::Exit if count > 1 => {
            models.remove(process);
            let space = world.spaces.borrow_mut().remove(process);
            world.lab.end(space);
        }
        Op::Move { to } => run_move(world, model, process, (step.page, end, to)),
        Op::DontNeed => {
            let space = &mut world.spaces.borrow_mut()[process];
            if (step.page..end).any(|page| locked(space, page) || !model.contains_key(&page)) {
                return;
            }
            space.madvise(memory, at, bytes, 4).unwrap();
            for page in pages {
                match &model[&page] {
                    Held::Own(_) | Held::GivenUp(_) => {
                        let area = space.area_at(address(page)).unwrap();
                        let held = match area.object() {
                            Some(_) => {
                                Held::File { index: area.index_of(address(page)), private: true }
                            }
                            None => Held::Own(0),
                        };
                        model.insert(page, held);
                    }
                    Held::File { .. } | Held::Shared(..) => {}
                }
            }
        }
        Op::GiveUp => {
            let space = &mut world.spaces.borrow_mut()[process];
            let anonymous = |page| {
                space.area_at(address(page)).is_some_and(|area| area.is_anonymous())
                    && !locked(space, page)
            };
            if !(step.page..end).all(anonymous) {
                return;
            }
            space.madvise(memory, at, bytes, 8).unwrap();
            for page in pages {
                if let Some(Held::Own(byte)) = model.get(&page).cloned() {
                    model.insert(page, Held::GivenUp(byte));
                }
            }
        }
        Op::Lock(true) => {
            for page in pages.filter(|page| model.contains_key(page)) {
                if touch(world, process, page, false).is_some() {
                    let space = &mut world.spaces.borrow_mut()[process];
                    let _ = space.mlock(memory, address(page), PAGE, true);
                }
            }
        }
        Op::Lock(false) => drop(world.spaces.borrow_mut()[process].munlock(memory, at, bytes)),
        Op::Reclaim => drop(world.reclaim(step.length)),
        Op::Protect => {
            // Taken away and given back: what may be written then must not change.
            let space = &mut world.spaces.borrow_mut()[process];
            for rights in [1, 3] {
                let _ = space.mprotect(memory, at, bytes, rights);
            }
        }
        Op::Clean => {
            if let Some(Held::File { index, .. }) = model.get(&step.page) {
                world.write_page(*index);
            }
        }
        Op::FailAfter(writes) => world.fail_after.set(writes),
        Op::Fork | Op::Exit => {}
    }
}

fn locked(space: &pagelab_mm::AddressSpace, page: u64) -> bool {
    let area = space.area_at(address(page));
    area.is_some_and(|area| area.flags.contains(pagelab_mm::AreaFlags::LOCKED))
}

fn run_move(
    world: &World<'_>,
    model: &mut Model,
    process: usize,
    (from, end, to): (u64, u64, u64),
) {
    let length = end - from;
    let all = (from..end).all(|page| model.contains_key(&page));
    if to + length > WINDOW || !all || (to < end && from < to + length) {
        return;
    }
    let request = RemapRequest {
        address: address(from),
        old_length: length * PAGE,
        new_length: length * PAGE,
        flags: RemapFlags::MAY_MOVE | RemapFlags::FIXED,
        new_address: address(to),
    };
    let result = world.spaces.borrow_mut()[process].mremap(&world.lab.memory, &request);
    if result.is_err() {
        // Frames for tables ran out: some areas may have moved, others not. What is
        // where is not predictable, so it all goes.
        let space = &mut world.spaces.borrow_mut()[process];
        let whole = WINDOW * PAGE;
        space.munmap(&world.lab.memory, address(0), whole).unwrap();
        model.clear();
        return;
    }
    model.retain(|page, _| !(to..to + length).contains(page));
    for n in 0..length {
        if let Some(held) = model.remove(&(from + n)) {
            model.insert(to + n, held);
        }
    }
}

fn check_byte(held: &Held, byte: u8, file: &[u8]) {
    match held {
        Held::Own(own) => assert_eq!(byte, *own),
        Held::GivenUp(own) => assert!(byte == *own || byte == 0),
        Held::File { index, .. } => assert_eq!(byte, file[*index as usize]),
        Held::Shared(object, index) => assert_eq!(byte, object.borrow()[*index]),
    }
}

/// What a page holds, wherever that is, without touching it; shared memory that is
/// not mapped is not looked at.
fn peek(world: &World<'_>, process: usize, page: u64) -> Option<u8> {
    let memory = &world.lab.memory;
    let spaces = world.spaces.borrow();
    let space = &spaces[process];
    let tree = check::tree(world.lab, space.root());
    let entry = tree.entries.iter().find(|(at, _)| *at == address(page)).map(|found| found.1);
    let byte = match entry {
        Some(entry) if entry.is_present() => memory.machine.word(entry.frame(), 0) as u8,
        Some(entry) => {
            let slot = entry.swap_slot().unwrap();
            match memory.objects.lookup(&memory.machine, world.swap.unwrap(), slot).0 {
                Page::Present(frame) => memory.machine.word(frame, 0) as u8,
                _ => world.slots.borrow()[&slot][0],
            }
        }
        None => {
            let area = space.area_at(address(page)).unwrap();
            match area.object() {
                None => 0,
                Some(object) if object == world.file => {
                    file_byte(world, area.index_of(address(page)))
                }
                Some(_) => return None,
            }
        }
    };
    Some(byte)
}

/// All objects but the swap cache.
fn objects(world: &World<'_>) -> BTreeSet<ObjectId> {
    let spaces = world.spaces.borrow();
    let mapped = spaces.iter().flat_map(|space| space.areas().filter_map(|area| area.object()));
    mapped.chain([world.file]).collect()
}

fn check_all(world: &World<'_>, models: &[Model], file: &[u8]) {
    let lab = world.lab;
    lab.memory.machine.check_tlb();
    for (process, model) in models.iter().enumerate() {
        check::space(lab, &world.spaces.borrow()[process]);
        let pages: u64 = world.spaces.borrow()[process].areas().map(|area| area.pages()).sum();
        assert_eq!(pages, model.len() as u64);
        for (&page, held) in model {
            if let Some(byte) = peek(world, process, page) {
                check_byte(held, byte, file);
            }
        }
    }
    let roots: Vec<_> = world.spaces.borrow().iter().map(|space| space.root()).collect();
    check::mappers_of(lab, world, &roots);
    check_counts(world, &roots);
    for index in 0..FILE_PAGES {
        assert_eq!(file_byte(world, index), file[index as usize], "page {index} of the file");
    }
}

/// Frames and slots have as many owners as there are entries and objects that
/// hold them, and clean pages of the file are what the disk has.
fn check_counts(world: &World<'_>, roots: &[pagelab_abi::addr::Frame]) {
    let memory = &world.lab.memory;
    let mut counts: BTreeMap<_, u32> = BTreeMap::new();
    for (frame, mappings) in all_mappings(world.lab, roots.iter().copied()) {
        counts.insert(frame, mappings.len() as u32);
    }
    for object in objects(world).into_iter().chain(world.swap) {
        memory.objects.for_each_page(&memory.machine, object, 0..u64::MAX, |index, frame| {
            *counts.entry(frame).or_default() += 1;
            let held = memory.frames.hold();
            if object == world.file && !held.is_dirty(frame) {
                assert_eq!(
                    memory.machine.word(frame, 0) as u8,
                    world.disk.borrow()[index as usize]
                );
            }
            true
        });
    }
    let of_use = |usage| counts.keys().filter(|&&f| memory.frames.use_of(f) == usage).count();
    let now = memory.frames.counters();
    assert_eq!(now.anonymous, of_use(Use::Anonymous) as u64);
    assert_eq!(now.cache, of_use(Use::Cache) as u64);
    for (frame, count) in counts {
        assert_eq!(memory.frames.count(frame), count, "{frame:?}");
    }
    let mut slots: BTreeMap<_, u32> = BTreeMap::new();
    for &root in roots {
        for (_, entry) in check::tree(world.lab, root).entries {
            if let Some(slot) = entry.swap_slot() {
                *slots.entry(slot).or_default() += 1;
                assert!((entry.flags() - EntryFlags::SOFT_DIRTY).is_empty());
            }
        }
    }
    let usage = memory.swap_use();
    let shared: u64 = objects(world).iter().map(|&object| memory.objects.swapped(object)).sum();
    assert_eq!(usage.total - usage.free, slots.len() as u64 + shared);
    for (slot, count) in slots {
        assert_eq!(memory.swap.count(slot), count, "slot {slot}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contents_survive_when_memory_runs_short(
        steps in vec(step(), 1..160),
        frames in 32..64u32,
        slots in 4..40u64,
    ) {
        let lab = Lab::new(frames);
        let world = World::with_swap(&lab, FILE_PAGES, slots);
        let mut file: Vec<u8> = world.disk.borrow().clone();
        let first = world.spawn();
        world.spaces.borrow_mut()[first].limits.may_lock = true;
        let mut models = vec![Model::new()];
        for step in &steps {
            run(&world, &mut models, &mut file, step);
            check_all(&world, &models, &file);
        }
        world.fail_after.set(usize::MAX);
        for (process, model) in models.iter().enumerate() {
            for (&page, held) in model {
                if let Some(byte) = touch(&world, process, page, false) {
                    check_byte(held, byte, &file);
                }
            }
        }
        check_all(&world, &models, &file);
        world.end();
    }
}
