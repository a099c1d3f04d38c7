//! The register file, on the vCPU's thread.
//!
//! It keeps what the driver writes and enforces the order of initialisation; it
//! never looks into a queue. Registers have 32 bits and are only accessed whole,
//! the configuration space in any width.

use std::ops::ControlFlow;
use std::sync::Arc;

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as mmio;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::Profile;
use super::link::{Command, Link};
use super::queue::Placement;
use crate::devices::Ending;
use crate::devices::bus::BusDevice;

/// "virt"
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Virtio 1, not the legacy interface.
const VERSION: u32 = 2;
/// "PLAB"
const VENDOR: u32 = pagelab_abi::lab::DEVICE_ID;
/// Features of the transport.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC;
/// Where the configuration space begins.
const CONFIG: u64 = mmio::VIRTIO_MMIO_CONFIG as u64;

#[derive(Clone, Copy, Debug, Default)]
struct QueueRegisters {
    placement: Placement,
    ready: bool,
}

/// The registers of one device.
#[derive(Debug)]
pub struct Registers {
    profile: Profile,
    link: Arc<Link>,
    device_features_word: u32,
    driver_features_word: u32,
    driver_features: u64,
    selected_queue: u32,
    queues: Vec<QueueRegisters>,
}

impl Registers {
    /// Offset of the register that notifies a queue.
    pub const NOTIFY: u64 = mmio::VIRTIO_MMIO_QUEUE_NOTIFY as u64;

    /// The registers of a device with `profile` whose other half is at `link`.
    #[must_use]
    pub fn new(profile: Profile, link: Arc<Link>) -> Self {
        let mut registers = Self {
            profile,
            link,
            device_features_word: 0,
            driver_features_word: 0,
            driver_features: 0,
            selected_queue: 0,
            queues: Vec::new(),
        };
        registers.forget();
        registers
    }

    /// The state after a reset.
    fn forget(&mut self) {
        self.device_features_word = 0;
        self.driver_features_word = 0;
        self.driver_features = 0;
        self.selected_queue = 0;
        self.queues = self
            .profile
            .queue_sizes
            .iter()
            .map(|&size| QueueRegisters {
                placement: Placement { size: size.into(), ..Placement::default() },
                ready: false,
            })
            .collect();
    }

    const fn features(&self) -> u64 {
        self.profile.features | FEATURES
    }

    fn queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.selected_queue).ok()?)
    }

    fn read_register(&self, register: u32) -> u32 {
        match register {
            mmio::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            mmio::VIRTIO_MMIO_VERSION => VERSION,
            mmio::VIRTIO_MMIO_DEVICE_ID => self.profile.kind,
            mmio::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            mmio::VIRTIO_MMIO_DEVICE_FEATURES => word(self.features(), self.device_features_word),
            mmio::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                let size = usize::try_from(self.selected_queue)
                    .ok()
                    .and_then(|index| self.profile.queue_sizes.get(index));
                size.copied().map_or(0, u32::from)
            }
            mmio::VIRTIO_MMIO_QUEUE_READY => self.queue().is_some_and(|queue| queue.ready).into(),
            mmio::VIRTIO_MMIO_INTERRUPT_STATUS => self.link.interrupt_status(),
            mmio::VIRTIO_MMIO_STATUS => self.link.status(),
            // There is no shared memory region: its length is all ones.
            mmio::VIRTIO_MMIO_SHM_LEN_LOW
            | mmio::VIRTIO_MMIO_SHM_LEN_HIGH
            | mmio::VIRTIO_MMIO_SHM_BASE_LOW
            | mmio::VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            // The configuration never changes, so its generation does not.
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u32, value: u32) {
        if self.link.is_resetting() {
            log::debug!("a write to a virtio device that is being reset is ignored");
            return;
        }
        match register {
            mmio::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_word = value,
            mmio::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_word = value,
            mmio::VIRTIO_MMIO_DRIVER_FEATURES => self.accept_features(value),
            mmio::VIRTIO_MMIO_QUEUE_SEL => self.selected_queue = value,
            mmio::VIRTIO_MMIO_QUEUE_NOTIFY => self.link.notified(),
            mmio::VIRTIO_MMIO_INTERRUPT_ACK => self.link.acknowledge(value),
            mmio::VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.write_queue(register, value),
        }
    }

    fn accept_features(&mut self, value: u32) {
        if self.link.status() & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            log::debug!("features of a virtio device cannot change any more");
            return;
        }
        let shift = match self.driver_features_word {
            0 => 0,
            1 => 32,
            _ => return,
        };
        self.driver_features &= !(u64::from(u32::MAX) << shift);
        self.driver_features |= u64::from(value) << shift;
    }

    /// A register of the selected queue, which must not be in use.
    fn write_queue(&mut self, register: u32, value: u32) {
        let running = self.link.status() & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        let queue = usize::try_from(self.selected_queue)
            .ok()
            .and_then(|index| self.queues.get_mut(index))
            .filter(|queue| {
                !running && (!queue.ready || register == mmio::VIRTIO_MMIO_QUEUE_READY)
            });
        let Some(QueueRegisters { placement, ready }) = queue else {
            log::debug!("a write of {value:#x} to virtio register {register:#x} is ignored");
            return;
        };
        match register {
            mmio::VIRTIO_MMIO_QUEUE_NUM => placement.size = value,
            mmio::VIRTIO_MMIO_QUEUE_READY => *ready = value & 1 != 0,
            mmio::VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut placement.descriptors, value),
            mmio::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut placement.descriptors, value),
            mmio::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut placement.available, value),
            mmio::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut placement.available, value),
            mmio::VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut placement.used, value),
            mmio::VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut placement.used, value),
            _ => log::debug!("a write of {value:#x} to virtio register {register:#x}: no such"),
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.forget();
            self.link.reset();
            return;
        }
        let status = self.link.status();
        let mut added = value & !status;
        if added & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.features_are_good() {
            // The driver sees that the bit does not stay.
            added &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        let both = status | added;
        if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 && both & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            log::debug!("a virtio driver is ready before the features are settled: ignored");
            added &= !VIRTIO_CONFIG_S_DRIVER_OK;
        }
        self.link.add_status(added);
        if added & VIRTIO_CONFIG_S_FAILED != 0 {
            log::warn!("the guest gave up on its virtio device of kind {}", self.profile.kind);
        } else if added & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            let placement = |queue: &QueueRegisters| queue.ready.then_some(queue.placement);
            self.link.give(Command::Start(self.queues.iter().map(placement).collect()));
        }
    }

    /// Whether the driver takes nothing that is not offered, and virtio 1.
    const fn features_are_good(&self) -> bool {
        self.driver_features & !self.features() == 0
            && self.driver_features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.profile.config.get(start..).unwrap_or_default();
        data.fill(0);
        for (byte, value) in data.iter_mut().zip(rest) {
            *byte = *value;
        }
    }
}

/// 32 of the 64 feature bits.
#[allow(clippy::cast_possible_truncation, reason = "one half is wanted")]
const fn word(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}

impl BusDevice for Registers {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.read_config(offset, data);
            return;
        }
        let register = u32::try_from(offset).unwrap_or(u32::MAX);
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(bytes) if register.is_multiple_of(4) => {
                *bytes = self.read_register(register).to_le_bytes();
            }
            _ => {
                log::debug!("{} bytes of virtio register {offset:#x} are read: 0", data.len());
                data.fill(0);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> ControlFlow<Ending> {
        match (u32::try_from(offset), data.try_into()) {
            (Ok(register), Ok(bytes)) if offset < CONFIG && register.is_multiple_of(4) => {
                self.write_register(register, u32::from_le_bytes(bytes));
            }
            _ => log::debug!("a write of {} bytes to virtio register {offset:#x}", data.len()),
        }
        ControlFlow::Continue(())
    }
}
