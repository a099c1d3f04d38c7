//! Virtio devices over MMIO: what files of the host and swap come through.
//!
//! A device is asked one thing at a time, and nothing else runs meanwhile:
//! [`Device::request`] writes a chain of descriptors, rings, and waits until the
//! device has used it. It looks for a moment whether the answer is there already,
//! with the device told to keep its interrupt back meanwhile, then halts. Other interrupts that come while it halts are put off until it is done,
//! because whoever asks may hold locks.
//!
//! The device is as untrusted as the host can be: what it writes into the ring
//! is checked ([`pagelab_virtqueue`]), and after the first nonsense it is not asked
//! again. Its interrupt
//! status is not read or acknowledged: each device has a line of its own, which
//! is edge-triggered, and each access to a register is an exit to the host.

pub mod disk;
mod ring;

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pagelab_abi::addr::Frame;
use pagelab_abi::layout::{MAX_VIRTIO_DEVICES, VIRTIO_IRQ_FIRST, virtio_device};

use crate::trap::vector;
use crate::{cpu, interrupts, stack};
use ring::Ring;

/// Device ID of a block device.
pub const KIND_BLOCK: u32 = 2;
/// Device ID of a file system.
pub const KIND_FILE_SYSTEM: u32 = 26;

/// Registers, as offsets in the device's page.
mod register {
    pub(super) const MAGIC: u64 = 0x000;
    pub(super) const VERSION: u64 = 0x004;
    pub(super) const DEVICE_ID: u64 = 0x008;
    pub(super) const DEVICE_FEATURES: u64 = 0x010;
    pub(super) const DEVICE_FEATURES_SELECT: u64 = 0x014;
    pub(super) const DRIVER_FEATURES: u64 = 0x020;
    pub(super) const DRIVER_FEATURES_SELECT: u64 = 0x024;
    pub(super) const QUEUE_SELECT: u64 = 0x030;
    pub(super) const QUEUE_SIZE_MAX: u64 = 0x034;
    pub(super) const QUEUE_SIZE: u64 = 0x038;
    pub(super) const QUEUE_READY: u64 = 0x044;
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const STATUS: u64 = 0x070;
    pub(super) const QUEUE_DESCRIPTORS: u64 = 0x080;
    pub(super) const QUEUE_DRIVER: u64 = 0x090;
    pub(super) const QUEUE_DEVICE: u64 = 0x0a0;
    pub(super) const CONFIGURATION: u64 = 0x100;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;

const STATUS_ACKNOWLEDGE: u32 = 1;
const STATUS_DRIVER: u32 = 2;
const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;

/// Feature 32, in the high half: not a device of old.
const FEATURE_VERSION_1: u32 = 1 << 0;

/// How often the ring is looked at before the processor halts.
const PATIENCE: u32 = 100;

/// Memory that the device reads.
#[derive(Clone, Copy, Debug)]
pub enum Readable<'a> {
    /// Bytes of the kernel's own.
    Bytes(&'a [u8]),
    /// So many bytes of frames, one after the other.
    Frames(&'a [Frame], usize),
}

/// Memory that the device writes. Frames are the caller's to give.
#[derive(Debug)]
pub enum Writable<'a> {
    /// Bytes of the kernel's own.
    Bytes(&'a mut [u8]),
    /// So many bytes of frames, one after the other.
    Frames(&'a [Frame], usize),
}

/// Why a device cannot be used, or did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no device, or none of this kind.
    Missing,
    /// It does not speak this version.
    Refused,
    /// There is no memory for its queue.
    OutOfMemory,
    /// The request has more pieces than the queue.
    TooLong,
    /// What it wrote into the ring makes no sense; it is not used any more.
    Nonsense,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no such virtio device",
            Self::Refused => "the virtio device does not agree to what is asked of it",
            Self::OutOfMemory => "no memory for a virtio queue",
            Self::TooLong => "a request with too many pieces",
            Self::Nonsense => "the virtio device answers nonsense",
        })
    }
}

/// Device ID of virtio device `index`, if there is one.
#[must_use]
pub fn kind(index: u32) -> Option<u32> {
    let registers = Registers::map(index)?;
    (registers.read(register::MAGIC) == MAGIC && registers.read(register::VERSION) == VERSION)
        .then(|| registers.read(register::DEVICE_ID))
        .filter(|&kind| kind != 0)
}

/// The registers of a device.
#[derive(Clone, Copy, Debug)]
struct Registers {
    base: u64,
}

impl Registers {
    fn map(index: u32) -> Option<Self> {
        if index >= MAX_VIRTIO_DEVICES {
            return None;
        }
        stack::map_device(virtio_device(index)).map(|base| Self { base })
    }

    fn read(self, register: u64) -> u32 {
        // SAFETY: a register in the page that `map` mapped.
        unsafe { ((self.base + register) as *const u32).read_volatile() }
    }

    fn write(self, register: u64, value: u32) {
        // SAFETY: as above; memory that the device is told of is the queue's.
        unsafe { ((self.base + register) as *mut u32).write_volatile(value) };
    }

    /// Writes an address to a pair of registers.
    fn write_address(self, register: u64, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }
}

/// A device with one queue in use.
pub struct Device {
    registers: Registers,
    queue: u32,
    line: u32,
    line_enabled: bool,
    ring: Ring,
}

impl Device {
    /// Sets up device `index` of this kind to be asked through one of its queues.
    ///
    /// # Errors
    ///
    /// If there is no such device, or it does not agree.
    pub fn open(index: u32, wanted: u32, queue: u32) -> Result<Self, Error> {
        if kind(index) != Some(wanted) {
            return Err(Error::Missing);
        }
        let registers = Registers::map(index).ok_or(Error::Missing)?;
        let ring = Ring::new().ok_or(Error::OutOfMemory)?;
        registers.write(register::STATUS, 0);
        registers.write(register::STATUS, STATUS_ACKNOWLEDGE);
        let mut status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
        registers.write(register::STATUS, status);
        registers.write(register::DEVICE_FEATURES_SELECT, 1);
        if registers.read(register::DEVICE_FEATURES) & FEATURE_VERSION_1 == 0 {
            return Err(Error::Refused);
        }
        for (half, wanted) in [(0, 0), (1, FEATURE_VERSION_1)] {
            registers.write(register::DRIVER_FEATURES_SELECT, half);
            registers.write(register::DRIVER_FEATURES, wanted);
        }
        status |= STATUS_FEATURES_OK;
        registers.write(register::STATUS, status);
        if registers.read(register::STATUS) & STATUS_FEATURES_OK == 0 {
            return Err(Error::Refused);
        }
        registers.write(register::QUEUE_SELECT, queue);
        if registers.read(register::QUEUE_SIZE_MAX) < u32::from(ring::SIZE) {
            return Err(Error::Refused);
        }
        registers.write(register::QUEUE_SIZE, ring::SIZE.into());
        registers.write_address(register::QUEUE_DESCRIPTORS, ring.descriptors());
        registers.write_address(register::QUEUE_DRIVER, ring.available());
        registers.write_address(register::QUEUE_DEVICE, ring.used());
        registers.write(register::QUEUE_READY, 1);
        registers.write(register::STATUS, status | STATUS_DRIVER_OK);
        let line = VIRTIO_IRQ_FIRST + index;
        Ok(Self { registers, queue, line, line_enabled: false, ring })
    }

    /// A word of the device's configuration.
    #[must_use]
    pub fn configuration(&self, offset: u16) -> u32 {
        self.registers.read(register::CONFIGURATION + u64::from(offset & !3))
    }

    /// Most pieces of a request; bytes of the kernel's own that lie across pages
    /// are several.
    #[must_use]
    pub const fn most_pieces() -> usize {
        ring::SIZE as usize
    }

    /// Has the device do something and waits for it. Returns how many bytes it
    /// says it wrote, which are no more than it could.
    ///
    /// # Errors
    ///
    /// If the request is too long or the device fails.
    pub fn request(
        &mut self,
        readable: &[Readable<'_>],
        writable: &mut [Writable<'_>],
    ) -> Result<usize, Error> {
        self.ring.offer(readable, writable)?;
        self.registers.write(register::QUEUE_NOTIFY, self.queue);
        self.wait();
        self.ring.take_used()
    }

    /// Waits until the device has used something.
    fn wait(&mut self) {
        for _ in 0..PATIENCE {
            if self.ring.has_used() {
                return;
            }
            core::hint::spin_loop();
        }
        if !self.line_enabled {
            self.line_enabled = interrupts::enable_line(self.line, vector::VIRTIO);
        }
        self.ring.want_interrupt();
        WAITING.store(true, Ordering::Relaxed);
        while !self.ring.has_used() {
            cpu::wait_for_interrupt();
        }
        WAITING.store(false, Ordering::Relaxed);
        let mut put_off = PUT_OFF.swap(0, Ordering::Relaxed);
        while put_off != 0 {
            interrupts::raise(vector::FIRST_INTERRUPT + put_off.trailing_zeros() as u8);
            put_off &= put_off - 1;
        }
    }
}

impl Drop for Device {
    /// The queue's memory is free only when the device does not use it.
    fn drop(&mut self) {
        self.registers.write(register::STATUS, 0);
    }
}

static WAITING: AtomicBool = AtomicBool::new(false);
/// Interrupts that came meanwhile, from [`vector::FIRST_INTERRUPT`] on.
static PUT_OFF: AtomicU32 = AtomicU32::new(0);

/// Called for an interrupt in ring 0: whether it came while somebody waits for a
/// device, and is dealt with.
pub(crate) fn is_put_off(number: u8) -> bool {
    if !WAITING.load(Ordering::Relaxed) {
        return false;
    }
    if !matches!(number, vector::VIRTIO | vector::SPURIOUS) {
        let bit = 1 << (number - vector::FIRST_INTERRUPT);
        PUT_OFF.store(PUT_OFF.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
    }
    if number != vector::SPURIOUS {
        interrupts::end_of_interrupt();
    }
    true
}
