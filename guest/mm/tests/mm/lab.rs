//! A small kernel around the crate: memory, spaces, programs that touch bytes.

use pagelab_abi::addr::{Frame, GuestVirt};
use pagelab_abi::fault::FaultKind;
use pagelab_mm::area::Protection;
use pagelab_mm::{
    Access, AddressSpace, Block, FaultError, FrameInfo, FrameRange, Frames, Layout, LayoutShift,
    Limits, MapFlags, MapRequest, MapSource, Memory, Metadata, MmError, Resolved, Use,
};

use crate::machine::Ram;

pub const PAGE: u64 = 4096;
pub const RW: Protection = Protection::READ.union(Protection::WRITE);
pub const PRIVATE: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANONYMOUS);
pub const SHARED: MapFlags = MapFlags::SHARED.union(MapFlags::ANONYMOUS);

pub fn frames(ranges: &[FrameRange]) -> Frames {
    let end = ranges.iter().map(|range| range.end).max().unwrap();
    let need = Metadata::for_memory_to(end);
    let info = Box::leak(vec![FrameInfo::default(); need.frames].into_boxed_slice());
    let blocks = Box::leak(vec![Block::default(); need.blocks].into_boxed_slice());
    Frames::new(info, blocks, ranges).unwrap()
}

pub struct Lab {
    pub memory: Memory<Ram>,
    /// Free frames before anything was made.
    free: u64,
}

impl Lab {
    pub fn new(count: u32) -> Self {
        let first = Frame(256);
        let end = Frame(first.0 + count);
        let frames = frames(&[FrameRange { first, end, zero: true }]);
        let frames: &'static Frames = Box::leak(Box::new(frames));
        let memory = Memory::new(Ram::new(end.index()), frames, None).unwrap();
        let free = memory.frames.free();
        Self { memory, free }
    }

    pub fn space(&self) -> AddressSpace {
        let layout = Layout::new(8 << 20, LayoutShift::default());
        AddressSpace::new(&self.memory, layout, Limits::default()).unwrap()
    }

    /// Ends a process.
    pub fn end(&self, space: AddressSpace) {
        let root = space.root();
        space.destroy(&self.memory);
        self.memory.machine.forget_root(root);
    }

    /// Everything was given back.
    pub fn check_balance(&self) {
        self.memory.machine.check_tlb();
        assert_eq!(self.memory.objects.count(), 0, "objects left");
        assert_eq!(self.memory.commit.promised(), 0, "promises left");
        assert_eq!(self.memory.frames.free(), self.free, "frames left");
    }

    pub fn map(
        &self,
        space: &mut AddressSpace,
        pages: u64,
        protection: Protection,
        flags: MapFlags,
    ) -> GuestVirt {
        self.map_at(space, 0, pages, protection, flags).unwrap()
    }

    pub fn map_at(
        &self,
        space: &mut AddressSpace,
        address: u64,
        pages: u64,
        protection: Protection,
        flags: MapFlags,
    ) -> Result<GuestVirt, MmError> {
        let request = MapRequest {
            address: GuestVirt(address),
            length: pages * PAGE,
            protection,
            flags,
            source: MapSource::Anonymous,
        };
        let mapped = space.mmap(&self.memory, &request)?;
        if mapped.populate {
            let end = GuestVirt(mapped.start.0 + mapped.length);
            space
                .populate(&self.memory, mapped.start, end, pagelab_mm::Populate::Mapping, false)
                .unwrap();
        }
        Ok(mapped.start)
    }

    /// Runs one access of a program to its end; returns the faults it took.
    pub fn touch(
        &self,
        space: &mut AddressSpace,
        address: GuestVirt,
        access: Access,
    ) -> Result<(Frame, Vec<Resolved>), FaultError> {
        let mut faults = Vec::new();
        loop {
            if let Some(frame) = self.memory.machine.access(space.root(), address, access) {
                assert!(faults.len() <= 1, "one access took {faults:?}");
                return Ok((frame, faults));
            }
            faults.push(space.fault(&self.memory, address, access)?);
            self.memory.machine.check_tlb();
        }
    }

    pub fn read(&self, space: &mut AddressSpace, address: GuestVirt) -> Option<FaultKind> {
        kind_of(&self.touch(space, address, Access::READ).unwrap().1)
    }

    pub fn write(&self, space: &mut AddressSpace, address: GuestVirt) -> Option<FaultKind> {
        kind_of(&self.touch(space, address, Access::WRITE).unwrap().1)
    }

    /// Writes a byte as a program does.
    pub fn store(
        &self,
        space: &mut AddressSpace,
        address: GuestVirt,
        byte: u8,
    ) -> Result<Option<FaultKind>, FaultError> {
        let (frame, faults) = self.touch(space, address, Access::WRITE)?;
        pagelab_mm::Machine::write_bytes(
            &self.memory.machine,
            frame,
            address.page_offset() as usize,
            &[byte],
        );
        Ok(kind_of(&faults))
    }

    /// Reads a byte as a program does.
    pub fn load(
        &self,
        space: &mut AddressSpace,
        address: GuestVirt,
    ) -> Result<(u8, Option<FaultKind>), FaultError> {
        let (frame, faults) = self.touch(space, address, Access::READ)?;
        let mut byte = [0];
        pagelab_mm::Machine::read_bytes(
            &self.memory.machine,
            frame,
            address.page_offset() as usize,
            &mut byte,
        );
        Ok((byte[0], kind_of(&faults)))
    }

    /// An object's page that holds `byte` everywhere.
    pub fn page_of(&self, byte: u8) -> Frame {
        let frame = self.memory.frames.alloc(Use::Cache).unwrap();
        pagelab_mm::Machine::write_bytes(&self.memory.machine, frame, 0, &[byte; 4096]);
        frame
    }
}

fn kind_of(faults: &[Resolved]) -> Option<FaultKind> {
    faults.first().map(|resolved| resolved.kind)
}

/// The address `pages` further on.
pub fn page(start: GuestVirt, pages: u64) -> GuestVirt {
    GuestVirt(start.0 + pages * PAGE)
}
