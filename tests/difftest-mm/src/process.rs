//! One process: an address space, and accesses that may fault.

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SIZE};
use pagelab_mm::frames::FramesError;
use pagelab_mm::{
    Access, AddressSpace, Block, FaultError, FrameInfo, FrameRange, Frames, Layout, Limits,
    Machine, MapFlags, MapRequest, MapSource, Memory, Metadata, MmError, OutOfMemory, Protection,
};
use thiserror::Error;

use crate::machine::Ram;
use crate::windows::Windows;

/// Frames of the machine: far more than any program uses.
const FRAMES: u32 = 16384;

/// The stage could not be set.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error("no frames: {0:?}")]
    Frames(FramesError),
    #[error("no neighbours of the windows: {0}")]
    Neighbours(#[from] MmError),
    #[error("out of memory before the program began")]
    OutOfMemory,
}

impl From<OutOfMemory> for HostError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// What all processes of a program share.
pub(crate) struct Host {
    pub(crate) memory: Memory<Ram>,
    free: u64,
}

/// A process.
pub(crate) struct Process {
    pub(crate) space: AddressSpace,
    pub(crate) windows: Windows,
    /// How deep below the program's first process.
    pub(crate) depth: usize,
    /// Faults since they were last printed.
    pub(crate) faults: u64,
}

impl Host {
    pub(crate) fn new() -> Result<Self, HostError> {
        let range = FrameRange { first: Frame(256), end: Frame(256 + FRAMES), zero: true };
        let need = Metadata::for_memory_to(range.end);
        // A program's memory lives as long as this process, which is short.
        let info = Box::leak(vec![FrameInfo::default(); need.frames].into_boxed_slice());
        let blocks = Box::leak(vec![Block::default(); need.blocks].into_boxed_slice());
        let frames = Frames::new(info, blocks, &[range]).map_err(HostError::Frames)?;
        let frames = Box::leak(Box::new(frames));
        let memory = Memory::new(Ram::new(range.end.index()), frames, None);
        let memory = memory.map_err(|_| HostError::OutOfMemory)?;
        let free = memory.frames.free();
        Ok(Self { memory, free })
    }

    pub(crate) fn first_process(&self, starts: [u64; 3]) -> Result<Process, HostError> {
        let windows = Windows::new(starts);
        let base = windows.mmap_base();
        let layout = Layout { stack_top: base, mmap_base: base };
        let limits = Limits { may_lock: true, ..Limits::default() };
        let mut space = AddressSpace::new(&self.memory, layout, limits)?;
        self.map_neighbours(&mut space, &windows)?;
        Ok(Process { space, windows, depth: 0, faults: 0 })
    }

    /// Maps what bounds the windows in the tester too: a page of shared memory
    /// above the one from which mappings are placed downwards, and the heap's
    /// first page, without access.
    fn map_neighbours(&self, space: &mut AddressSpace, windows: &Windows) -> Result<(), MmError> {
        let request = MapRequest {
            address: windows.mmap_base(),
            length: PAGE_SIZE,
            protection: Protection::empty(),
            flags: MapFlags::SHARED | MapFlags::ANONYMOUS | MapFlags::FIXED,
            source: MapSource::Anonymous,
        };
        space.mmap(&self.memory, &request)?;
        let heap = GuestVirt(windows.heap().0 - PAGE_SIZE);
        space.set_heap(heap, 0);
        space.brk(&self.memory, windows.heap());
        space.mprotect(&self.memory, heap, PAGE_SIZE, 0)
    }

    /// Ends a process.
    pub(crate) fn end(&self, process: Process) {
        let root = process.space.root();
        process.space.destroy(&self.memory);
        self.memory.machine.forget_root(root);
    }

    /// What was not given back at the end, said in lines.
    pub(crate) fn leaks(&self) -> Vec<String> {
        self.memory.machine.check_tlb();
        let free = self.memory.frames.free();
        [
            ("frames", self.free.abs_diff(free)),
            ("objects", self.memory.objects.count() as u64),
            ("promises", self.memory.commit.promised()),
        ]
        .into_iter()
        .filter(|&(_, count)| count != 0)
        .map(|(what, count)| format!("difftest-mm: {count} {what} leaked"))
        .collect()
    }
}

/// Why an access ended with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: &'static str,
    pub(crate) code: u32,
    pub(crate) address: u64,
}

impl Process {
    /// Runs one access of the program to its end: the frame, or a signal.
    fn touch(&mut self, host: &Host, address: u64, access: Access) -> Result<Frame, Signal> {
        let at = GuestVirt(address);
        loop {
            if let Some(frame) = host.memory.machine.access(self.space.root(), at, access) {
                return Ok(frame);
            }
            match self.space.fault(&host.memory, at, access) {
                Ok(_) => self.faults += 1,
                Err(error) => {
                    let (name, code) = match error {
                        FaultError::NoMapping => ("SIGSEGV", 1),
                        FaultError::Forbidden => ("SIGSEGV", 2),
                        FaultError::NoBacking => ("SIGBUS", 2),
                        FaultError::OutOfMemory => ("SIGKILL", 0),
                        FaultError::NeedsPage(_) => ("NeedsPage", 0),
                    };
                    return Err(Signal { name, code, address });
                }
            }
        }
    }

    pub(crate) fn read(&mut self, host: &Host, address: u64) -> Result<u8, Signal> {
        let frame = self.touch(host, address, Access::READ)?;
        let mut byte = [0];
        host.memory.machine.read_bytes(frame, offset_of(address), &mut byte);
        Ok(byte[0])
    }

    pub(crate) fn write(&mut self, host: &Host, address: u64, byte: u8) -> Result<(), Signal> {
        let frame = self.touch(host, address, Access::WRITE)?;
        host.memory.machine.write_bytes(frame, offset_of(address), &[byte]);
        Ok(())
    }

    pub(crate) fn execute(&mut self, host: &Host, address: u64) -> Result<(), Signal> {
        self.touch(host, address, Access::EXECUTE).map(|_| ())
    }

    /// A child; neither side has faults to be printed then.
    pub(crate) fn fork(&mut self, host: &Host) -> Result<Self, MmError> {
        let space = self.space.fork(&host.memory)?;
        self.forget_faults(host);
        Ok(Self { space, windows: self.windows.clone(), depth: self.depth + 1, faults: 0 })
    }

    /// Starts counting faults anew.
    pub(crate) fn forget_faults(&mut self, host: &Host) {
        self.take_software_faults(host);
        self.faults = 0;
    }

    /// Adds the faults that the kernel took for the process.
    pub(crate) fn take_software_faults(&mut self, host: &Host) {
        self.faults += host.memory.machine.software_faults.borrow_mut().drain(..).count() as u64;
    }
}

#[allow(clippy::cast_possible_truncation, reason = "below 4096")]
const fn offset_of(address: u64) -> usize {
    GuestVirt(address).page_offset() as usize
}
