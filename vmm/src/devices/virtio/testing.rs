//! A driver for tests: it does by the book what tests then break.

use std::sync::Arc;

use pagelab_abi::addr::GuestPhys;

use super::Backend;
use super::link::Link;
use super::registers::Registers;
use super::worker::Served;
use crate::devices::bus::BusDevice;
use crate::memory::{GuestRam, MemorySize};

/// Where queue 0 is; the next ones follow at this distance.
const QUEUES: u64 = 0x10_0000;
const AVAILABLE: u64 = 0x8000;
const USED: u64 = 0xa000;
/// Where requests are put together.
pub(crate) const DATA: u64 = 0x80_0000;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// A driver and the device it drives, on one thread.
pub(crate) struct Driver {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) link: Arc<Link>,
    pub(crate) registers: Registers,
    pub(crate) served: Served,
    size: u16,
    given: [u16; 2],
}

impl Driver {
    /// A device that was not touched yet.
    pub(crate) fn new(backend: Box<dyn Backend>) -> Self {
        let ram = Arc::new(GuestRam::new(MemorySize::new(16 << 20).unwrap()).unwrap());
        let link = Arc::new(Link::new().unwrap());
        let registers = Registers::new(backend.profile(), Arc::clone(&link));
        let served = Served::new(Arc::clone(&ram), Arc::clone(&link), backend);
        Self { ram, link, registers, served, size: 64, given: [0; 2] }
    }

    /// A device that is ready, with queues of `size` descriptors.
    pub(crate) fn ready(backend: Box<dyn Backend>, size: u16) -> Self {
        let mut driver = Self::new(backend);
        driver.start(size);
        assert_eq!(driver.read(0x70), 15);
        driver
    }

    pub(crate) fn read(&mut self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.registers.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn write(&mut self, register: u64, value: u32) {
        assert!(self.registers.write(register, &value.to_le_bytes()).is_continue());
    }

    /// The device's other thread gets to run.
    pub(crate) fn let_device_work(&mut self) {
        self.served.obey();
        self.served.serve();
    }

    /// Initialises the device as the standard says.
    pub(crate) fn start(&mut self, size: u16) {
        self.size = size;
        self.given = [0; 2];
        self.write(0x70, 0);
        self.let_device_work();
        assert_eq!(self.read(0x70), 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        self.write(0x24, 1);
        self.write(0x20, 1);
        self.write(0x70, 11);
        assert_eq!(self.read(0x70), 11);
        for queue in 0..2 {
            self.write(0x30, queue);
            if self.read(0x34) == 0 {
                continue;
            }
            let base = self.queue_base(queue as usize);
            self.ram.write(GuestPhys(base), &[0; 0xc000]).unwrap();
            self.write(0x38, size.into());
            for (register, address) in [(0x80, base), (0x90, base + AVAILABLE), (0xa0, base + USED)]
            {
                self.write(register, u32::try_from(address).unwrap());
                self.write(register + 4, 0);
            }
            self.write(0x44, 1);
        }
        self.write(0x70, 15);
        self.let_device_work();
    }

    pub(crate) fn queue_base(&self, queue: usize) -> u64 {
        QUEUES * (queue as u64 + 1)
    }

    pub(crate) fn put_u16(&self, address: u64, value: u16) {
        self.ram.write(GuestPhys(address), &value.to_le_bytes()).unwrap();
    }

    pub(crate) fn put_descriptor(&self, table: u64, index: u16, desc: Desc) {
        let mut bytes = desc.address.to_le_bytes().to_vec();
        bytes.extend(desc.length.to_le_bytes());
        bytes.extend(desc.flags.to_le_bytes());
        bytes.extend(desc.next.to_le_bytes());
        self.ram.write(GuestPhys(table + u64::from(index) * 16), &bytes).unwrap();
    }

    /// Makes the chain from `head` available and rings the bell.
    pub(crate) fn give(&mut self, queue: usize, head: u16) {
        let base = self.queue_base(queue);
        let slot = u64::from(self.given[queue] % self.size);
        self.put_u16(base + AVAILABLE + 4 + 2 * slot, head);
        self.given[queue] = self.given[queue].wrapping_add(1);
        self.put_u16(base + AVAILABLE + 2, self.given[queue]);
        self.write(0x50, u32::try_from(queue).unwrap());
        self.let_device_work();
    }

    /// Sets the index of the ring of what is available.
    pub(crate) fn set_available_index(&self, queue: usize, index: u16) {
        self.put_u16(self.queue_base(queue) + AVAILABLE + 2, index);
    }

    /// The index of the ring of what was used, and its last entry.
    pub(crate) fn used(&self, queue: usize) -> (u16, u32, u32) {
        let base = self.queue_base(queue) + USED;
        let word = |address| {
            let mut bytes = [0; 4];
            self.ram.read(GuestPhys(address), &mut bytes).unwrap();
            u32::from_le_bytes(bytes)
        };
        #[allow(clippy::cast_possible_truncation, reason = "the upper half of a word")]
        let index = (word(base) >> 16) as u16;
        let slot = u64::from(index.wrapping_sub(1) % self.size);
        (index, word(base + 4 + 8 * slot), word(base + 8 + 8 * slot))
    }

    /// Sends what the device reads and room for what it writes, a descriptor for
    /// each piece; gives what it wrote.
    pub(crate) fn request(&mut self, queue: usize, read: &[&[u8]], room: &[u32]) -> Vec<u8> {
        let table = self.queue_base(queue);
        let count = u16::try_from(read.len() + room.len()).unwrap();
        let mut address = DATA;
        let mut index = 0;
        let mut add = |driver: &Self, length: u32, flags: u16| {
            let next = if index + 1 < count { NEXT } else { 0 };
            let desc = Desc { address, length, flags: flags | next, next: index + 1 };
            driver.put_descriptor(table, index, desc);
            index += 1;
            address += u64::from(length).next_multiple_of(16);
            desc.address
        };
        for bytes in read {
            let at = add(self, u32::try_from(bytes.len()).unwrap(), 0);
            self.ram.write(GuestPhys(at), bytes).unwrap();
        }
        let places: Vec<(u64, u32)> =
            room.iter().map(|&length| (add(self, length, WRITE), length)).collect();
        let before = self.used(queue).0;
        self.give(queue, 0);
        let (index, head, mut written) = self.used(queue);
        assert_eq!((index, head), (before.wrapping_add(1), 0), "status {:#x}", self.read(0x70));
        let mut answer = Vec::new();
        for (at, length) in places {
            let mut bytes = vec![0; length.min(written) as usize];
            self.ram.read(GuestPhys(at), &mut bytes).unwrap();
            written -= length.min(written);
            answer.extend(bytes);
        }
        answer
    }
}
