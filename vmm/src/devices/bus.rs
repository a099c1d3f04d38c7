//! A bus: address ranges and the devices that answer there. One for I/O ports
//! and one for memory-mapped I/O.
//!
//! Where nothing answers, reads give all ones, as on a real machine, and writes
//! go nowhere; both are counted, and the first few addresses are logged.

use std::ops::ControlFlow;

use super::Ending;

/// A device on a bus.
///
/// Data may have any length: an instruction moves 1, 2, 4 or 8 bytes, a string
/// instruction may move more at once.
pub trait BusDevice: Send {
    /// Answers a read at `offset` into the device's range.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Takes a write at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]) -> ControlFlow<Ending>;
}

/// A range that overlaps another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} addresses from {start:#x} overlap another device's, or end nowhere")]
pub struct RangeTaken {
    /// First address.
    pub start: u64,
    /// How many.
    pub length: u64,
}

/// How many addresses that nothing answers to are logged.
const LOGGED_ADDRESSES: usize = 16;

struct Slot {
    start: u64,
    length: u64,
    device: Box<dyn BusDevice>,
}

/// A bus.
pub struct Bus {
    name: &'static str,
    slots: Vec<Slot>,
    unanswered: u64,
    logged: Vec<u64>,
}

impl Bus {
    /// A bus with nothing on it; `name` is for the log.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, slots: Vec::new(), unanswered: 0, logged: Vec::new() }
    }

    /// Lets `device` answer to `length` addresses from `start` on.
    ///
    /// # Errors
    ///
    /// If another device answers to one of them.
    pub fn insert(
        &mut self,
        start: u64,
        length: u64,
        device: Box<dyn BusDevice>,
    ) -> Result<(), RangeTaken> {
        let taken = RangeTaken { start, length };
        let end = start.checked_add(length).filter(|_| length > 0).ok_or(taken)?;
        if self.slots.iter().any(|slot| start < slot.start + slot.length && slot.start < end) {
            return Err(taken);
        }
        self.slots.push(Slot { start, length, device });
        Ok(())
    }

    /// A read by the guest.
    pub fn read(&mut self, address: u64, data: &mut [u8]) {
        if let Some((device, offset)) = self.find(address) {
            device.read(offset, data);
        } else {
            data.fill(0xff);
            self.count_unanswered(address, "read from");
        }
    }

    /// A write by the guest.
    pub fn write(&mut self, address: u64, data: &[u8]) -> ControlFlow<Ending> {
        if let Some((device, offset)) = self.find(address) {
            return device.write(offset, data);
        }
        self.count_unanswered(address, "write to");
        ControlFlow::Continue(())
    }

    /// How many accesses nothing answered to.
    #[must_use]
    pub const fn unanswered(&self) -> u64 {
        self.unanswered
    }

    fn find(&mut self, address: u64) -> Option<(&mut dyn BusDevice, u64)> {
        self.slots.iter_mut().find_map(|slot| {
            let offset = address.checked_sub(slot.start)?;
            (offset < slot.length).then_some((&mut *slot.device as &mut dyn BusDevice, offset))
        })
    }

    fn count_unanswered(&mut self, address: u64, what: &str) {
        self.unanswered += 1;
        if self.logged.len() < LOGGED_ADDRESSES && !self.logged.contains(&address) {
            self.logged.push(address);
            log::debug!("{what} {} {address:#x}, where nothing answers", self.name);
            if self.logged.len() == LOGGED_ADDRESSES {
                log::debug!("more such accesses are counted, not logged");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register(u8);

    impl BusDevice for Register {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0.wrapping_add(u8::try_from(offset).unwrap()));
        }

        fn write(&mut self, _offset: u64, data: &[u8]) -> ControlFlow<Ending> {
            self.0 = data[0];
            ControlFlow::Continue(())
        }
    }

    #[test]
    fn the_device_at_an_address_answers() {
        let mut bus = Bus::new("port");
        bus.insert(0x10, 4, Box::new(Register(0))).unwrap();
        bus.insert(0x14, 4, Box::new(Register(0x80))).unwrap();
        assert!(bus.write(0x13, &[7]).is_continue());
        let mut data = [0; 2];
        bus.read(0x11, &mut data);
        assert_eq!(data, [8, 8]);
        bus.read(0x14, &mut data);
        assert_eq!(data, [0x80, 0x80]);
        assert_eq!(bus.unanswered(), 0);
    }

    #[test]
    fn overlaps_and_impossible_ranges_are_refused() {
        let mut bus = Bus::new("port");
        bus.insert(0x10, 4, Box::new(Register(0))).unwrap();
        for (start, length) in [(0x10, 1), (0xf, 2), (0x13, 9), (0, 0x100), (5, 0), (u64::MAX, 2)] {
            let error = bus.insert(start, length, Box::new(Register(0))).unwrap_err();
            assert_eq!(error, RangeTaken { start, length });
        }
    }

    #[test]
    fn where_nothing_answers_reads_are_all_ones_and_counted() {
        let mut bus = Bus::new("memory");
        for width in [1, 2, 4, 8, 64] {
            let mut data = vec![0; width];
            bus.read(u64::MAX, &mut data);
            assert!(data.iter().all(|&byte| byte == 0xff));
            assert!(bus.write(0, &data).is_continue());
        }
        for address in 0..1000 {
            bus.read(address, &mut [0]);
        }
        assert_eq!(bus.unanswered(), 1010);
        assert_eq!(bus.logged.len(), LOGGED_ADDRESSES);
    }
}
