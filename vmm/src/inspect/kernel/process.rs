//! Processes as the guest kernel publishes them, their address spaces and areas.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pagelab_abi::addr::{GuestPhys, PAGE_SHIFT};
use pagelab_abi::directory::{
    AreaRecord, BACKING_OBJECT, Directory, LEAF_STRIDE, LeafRecord, NameRecord, PlaceRecord,
    ProcessRecord, STATE_ENDED, STATE_STOPPED, SpaceRecord, UserFrame,
};
use pagelab_abi::fault::{FAULT_KINDS, FaultKind};
use pagelab_abi::layout::USER_END;
use serde::{Serialize, Serializer};
use zerocopy::FromBytes;

use super::{FEW_ATTEMPTS, Kernel, KernelError};
use crate::inspect::PhysicalMemory;
use crate::inspect::value::{Consistency, Hex};

/// More processes than there are numbers.
const MAX_PLACES: u64 = 1 << 16;
/// More areas than an address space may have, and as many leaves.
const MAX_AREAS: u64 = 1 << 17;
/// More areas than a leaf holds.
const MAX_LEAF_AREAS: u64 = 1 << 10;
/// More named objects than fit into memory.
const MAX_NAMES: u64 = 1 << 16;
/// Longest path.
const MAX_PATH: u64 = 1 << 13;
/// Longest of all paths together.
const MAX_PATHS: usize = 1 << 24;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// One of its threads runs or waits for its turn.
    Running,
    /// It waits for something.
    Sleeping,
    /// It was stopped by a signal.
    Stopped,
    /// It has ended and waits to be waited for.
    Ended,
}

impl ProcessState {
    /// The letter of `ps`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Sleeping => 'S',
            Self::Stopped => 'T',
            Self::Ended => 'Z',
        }
    }
}

/// Faults by kind: how many, and what they cost in time-stamp counter ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many.
    pub count: [u64; FAULT_KINDS],
    /// What they cost.
    pub cost: [u64; FAULT_KINDS],
}

impl Faults {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.count.iter().sum()
    }
}

impl Serialize for Faults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct One {
            count: u64,
            cost: u64,
        }
        serializer.collect_map(FaultKind::ALL.into_iter().filter_map(|kind| {
            let (count, cost) = (self.count[kind as usize], self.cost[kind as usize]);
            (count > 0).then_some((kind.name(), One { count, cost }))
        }))
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's, 0 for the first.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// What it does.
    pub state: ProcessState,
    /// How many threads it has.
    pub threads: u32,
    /// Its wait status, once it has ended.
    pub wait_status: Option<u32>,
    /// Name of its program.
    pub name: String,
    /// Its faults so far.
    pub faults: Faults,
    /// Its address space; `None` once it has ended.
    pub space: Option<Space>,
    /// Whether all of this belongs together.
    pub consistency: Consistency,
    #[serde(skip)]
    space_at: u64,
    #[serde(skip)]
    space_sequence: u64,
    #[serde(skip)]
    leader_stack: u64,
}

impl Process {
    /// The root of its page tables, while it lives.
    #[must_use]
    pub fn root(&self) -> Option<GuestPhys> {
        self.space.as_ref().map(|space| GuestPhys(space.root.0))
    }
}

/// An address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Space {
    /// The root table.
    pub root: Hex,
    /// First and last-but-one address of the heap.
    pub heap: (Hex, Hex),
    /// Anonymous pages that are present.
    pub anonymous_pages: u64,
    /// Pages of files that are present.
    pub file_pages: u64,
    /// Pages of shared memory that are present.
    pub shared_memory_pages: u64,
    /// Pages that are in swap.
    pub swapped_pages: u64,
    /// Page tables, with the root.
    pub tables: u64,
    /// How many areas there are.
    pub areas: u64,
    #[serde(skip)]
    leaves: u64,
    #[serde(skip)]
    leaf_count: u64,
}

impl Space {
    /// Pages that are present.
    #[must_use]
    pub const fn resident_pages(&self) -> u64 {
        self.anonymous_pages
            .saturating_add(self.file_pages)
            .saturating_add(self.shared_memory_pages)
    }

    fn from_record(record: &SpaceRecord) -> Self {
        Self {
            root: Hex(u64::from(record.root) << PAGE_SHIFT),
            heap: (Hex(record.heap_start), Hex(record.heap_end)),
            anonymous_pages: record.anonymous,
            file_pages: record.file,
            shared_memory_pages: record.shared_memory,
            swapped_pages: record.swapped,
            tables: record.tables.saturating_add(1),
            areas: record.area_count,
            leaves: record.leaves,
            leaf_count: record.leaf_count,
        }
    }
}

/// All processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessList {
    /// In the order of their numbers.
    pub processes: Vec<Process>,
    /// The one that runs (or ran last), 0 if none has yet.
    pub current: u32,
    /// Whether the list is whole.
    pub consistency: Consistency,
}

/// An area of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Area {
    /// First byte.
    pub start: Hex,
    /// The byte after the last.
    pub end: Hex,
    /// Page number of the first page in what is mapped.
    pub offset: u64,
    /// The object that is mapped; `None` for anonymous memory.
    pub object: Option<u32>,
    /// `pagelab_abi::directory::PROTECTION_*` bits.
    pub protection: u8,
    /// `pagelab_abi::directory::area` bits.
    pub flags: u32,
}

impl Area {
    /// Whether a flag of `pagelab_abi::directory::area` is set.
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag == flag
    }

    /// Length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.end.0 - self.start.0
    }
}

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectName {
    /// Major and minor device number of its file system.
    pub device: (u32, u32),
    /// Its number there.
    pub inode: u64,
    /// Its path.
    pub path: String,
}

impl<M: PhysicalMemory> Kernel<'_, M> {
    /// All processes.
    ///
    /// # Errors
    ///
    /// If the guest's table of processes makes no sense.
    pub fn processes(&self) -> Result<ProcessList, KernelError> {
        let (places, consistency) = self.observe_directory(|directory| self.places(directory))?;
        let mut processes = Vec::new();
        for place in places {
            let process = self.process_at(place)?;
            // One that came to be or went meanwhile has no number.
            if process.pid != 0 {
                processes.push(process);
            }
        }
        processes.sort_by_key(|process| process.pid);
        Ok(ProcessList { processes, current: self.current()?.0, consistency })
    }

    /// One process.
    ///
    /// # Errors
    ///
    /// If there is none with this number.
    pub fn process(&self, pid: u32) -> Result<Process, KernelError> {
        let list = self.processes()?;
        let found = list.processes.into_iter().find(|process| process.pid == pid);
        found.ok_or(KernelError::NoProcess(pid))
    }

    /// Addresses of the processes' records.
    fn places(&self, directory: &Directory) -> Result<Vec<u64>, KernelError> {
        let start = directory.processes.load(Ordering::Relaxed);
        let count = directory.process_places.load(Ordering::Relaxed);
        let size = bounded("processes", count, MAX_PLACES, size_of::<PlaceRecord>(), start)?;
        let bytes = self.read_bytes("the table of processes", start, size)?;
        let records =
            bytes.chunks_exact(size_of::<PlaceRecord>()).map(PlaceRecord::read_from_bytes);
        Ok(records.filter_map(Result::ok).map(|place| place.record).collect())
    }

    fn process_at(&self, address: u64) -> Result<Process, KernelError> {
        let (record, consistency) =
            self.observe(address, || self.read::<ProcessRecord>("a process", address))?;
        let load = |field: &AtomicU32| field.load(Ordering::Relaxed);
        let word = |field: &AtomicU64| field.load(Ordering::Relaxed);
        let faults = record.faults();
        let name = record.name();
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        let state = match load(&record.state) {
            STATE_ENDED => ProcessState::Ended,
            STATE_STOPPED => ProcessState::Stopped,
            _ if load(&record.ready_threads) > 0 => ProcessState::Running,
            _ => ProcessState::Sleeping,
        };
        let has_ended = state == ProcessState::Ended;
        let mut process = Process {
            pid: load(&record.pid),
            parent: load(&record.parent),
            group: load(&record.group),
            session: load(&record.session),
            state,
            threads: load(&record.threads),
            wait_status: has_ended.then(|| load(&record.wait_status)),
            name: String::from_utf8_lossy(&name[..end]).into_owned(),
            faults: Faults { count: faults.count, cost: faults.cost },
            space: None,
            consistency,
            space_at: word(&record.space),
            space_sequence: word(&record.space_sequence),
            leader_stack: word(&record.leader_stack),
        };
        if !has_ended && process.space_at != 0 {
            let (space, consistency) = self.space_of(&process)?;
            process.space = Some(space);
            process.consistency = process.consistency.and(consistency);
        }
        Ok(process)
    }

    /// The registers of a process's program, saved when its first thread entered
    /// the kernel; `None` if that is not there now.
    #[must_use]
    pub fn user_registers(&self, process: &Process) -> Option<UserFrame> {
        let address = process.leader_stack.checked_sub(size_of::<UserFrame>() as u64)?;
        let frame = self.read::<UserFrame>("a program's registers", address).ok()?;
        // Another thing lies there before the program's first instruction.
        (frame.cs & 3 == 3 && frame.rip <= USER_END.0).then_some(frame)
    }

    /// The address space of a process, as it is now.
    fn space_of(&self, process: &Process) -> Result<(Space, Consistency), KernelError> {
        self.observe(process.space_sequence, || {
            let record = self.read::<SpaceRecord>("an address space", process.space_at)?;
            Ok(Space::from_record(&record))
        })
    }

    /// The areas of a process, in order.
    ///
    /// # Errors
    ///
    /// If they make no sense.
    pub fn areas(&self, process: &Process) -> Result<(Vec<Area>, Consistency), KernelError> {
        if process.space.is_none() {
            return Ok((Vec::new(), Consistency::Consistent));
        }
        self.observe(process.space_sequence, || {
            let record = self.read::<SpaceRecord>("an address space", process.space_at)?;
            self.read_areas(&Space::from_record(&record))
        })
    }

    fn read_areas(&self, space: &Space) -> Result<Vec<Area>, KernelError> {
        let size = bounded("areas", space.leaf_count, MAX_AREAS, LEAF_STRIDE, space.leaves)?;
        if space.areas > MAX_AREAS {
            return Err(KernelError::TooMany { what: "areas", number: space.areas });
        }
        let leaves = self.read_bytes("the table of areas", space.leaves, size)?;
        let mut areas = Vec::new();
        for leaf in leaves.chunks_exact(LEAF_STRIDE) {
            let Ok((leaf, _)) = LeafRecord::read_from_prefix(leaf) else { continue };
            let each = size_of::<AreaRecord>();
            let size = bounded("areas", leaf.count, MAX_LEAF_AREAS, each, leaf.areas)?;
            let bytes = self.read_bytes("areas", leaf.areas, size)?;
            for record in bytes.chunks_exact(each) {
                let Ok(record) = AreaRecord::read_from_bytes(record) else { continue };
                areas.push(Area::from_record(&record));
            }
            if areas.len() as u64 > MAX_AREAS {
                return Err(KernelError::TooMany { what: "areas", number: areas.len() as u64 });
            }
        }
        let in_order = |pair: &[Area]| pair[0].end <= pair[1].start;
        let is_sound = areas.iter().all(|area| area.start < area.end)
            && areas.windows(2).all(in_order)
            && areas.len() as u64 == space.areas;
        if is_sound { Ok(areas) } else { Err(KernelError::AreasOutOfOrder) }
    }

    /// What objects are called, by their numbers.
    ///
    /// # Errors
    ///
    /// If the guest's table of names makes no sense.
    pub fn object_names(&self) -> Result<(BTreeMap<u32, ObjectName>, Consistency), KernelError> {
        self.observe_directory(|directory| {
            let start = directory.names.load(Ordering::Relaxed);
            let count = directory.name_count.load(Ordering::Relaxed);
            let each = size_of::<NameRecord>();
            let size = bounded("names", count, MAX_NAMES, each, start)?;
            let bytes = self.read_bytes("the table of names", start, size)?;
            let mut names = BTreeMap::new();
            let mut total = 0;
            for record in bytes.chunks_exact(each) {
                let Ok(record) = NameRecord::read_from_bytes(record) else { continue };
                let length = u64::from(record.length);
                let length = bounded("bytes of a name", length, MAX_PATH, 1, record.path)?;
                total += length;
                if total > MAX_PATHS {
                    return Err(KernelError::TooMany {
                        what: "bytes of names",
                        number: total as u64,
                    });
                }
                let path = self.read_bytes("a name", record.path, length)?;
                let mut path = String::from_utf8_lossy(&path).into_owned();
                if record.deleted != 0 {
                    path.push_str(" (deleted)");
                }
                let name = ObjectName {
                    device: (record.device >> 8, record.device & 0xff),
                    inode: record.inode,
                    path,
                };
                names.insert(record.object, name);
            }
            Ok(names)
        })
    }

    /// Does something with a process's memory and says whether its address
    /// space stayed as it was meanwhile: areas, page tables, counters. It may be
    /// done a few times until it did.
    pub fn while_unchanged<T>(
        &self,
        process: &Process,
        mut look: impl FnMut() -> T,
    ) -> (T, Consistency) {
        let looked = self.observe_often(process.space_sequence, FEW_ATTEMPTS, || Ok(look()));
        looked.unwrap_or_else(|_| (look(), Consistency::Unknown))
    }
}

impl Area {
    fn from_record(record: &AreaRecord) -> Self {
        Self {
            start: Hex(record.start),
            end: Hex(record.end),
            offset: record.offset,
            object: (record.backing == BACKING_OBJECT).then_some(record.object),
            protection: record.protection,
            flags: record.flags,
        }
    }
}

/// The size in bytes of `count` things of `each` bytes at `start`, if that can be
/// right.
fn bounded(
    what: &'static str,
    count: u64,
    most: u64,
    each: usize,
    start: u64,
) -> Result<usize, KernelError> {
    let size = count
        .checked_mul(each as u64)
        .filter(|&size| count <= most && start.checked_add(size).is_some());
    let size = size.and_then(|size| usize::try_from(size).ok());
    size.ok_or(KernelError::TooMany { what, number: count })
}

impl fmt::Display for ProcessList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>5} {:>5} S {:>4} {:>9} {:>9} ROOT       NAME",
            "PID", "PPID", "THR", "RSS", "FAULTS"
        )?;
        for process in &self.processes {
            let resident = process.space.map_or(0, |space| space.resident_pages());
            let root = process.space.map_or(Hex(0), |space| space.root);
            let mark = if process.pid == self.current { '*' } else { ' ' };
            writeln!(
                f,
                "{:>5} {:>5} {} {:>4} {:>7} K {:>9} {:<10} {}{mark}",
                process.pid,
                process.parent,
                process.state.letter(),
                process.threads,
                resident.saturating_mul(4),
                process.faults.total(),
                root,
                process.name,
            )?;
        }
        writeln!(f, "{}", self.consistency)
    }
}
