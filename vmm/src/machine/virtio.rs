//! The virtio devices of a lab: made, put on the bus, connected to KVM, served.

use std::path::Path;
use std::sync::Arc;

use pagelab_abi::layout::{VIRTIO_IRQ_FIRST, VIRTIO_STRIDE, virtio_device};

use super::MachineError;
use crate::devices::bus::Bus;
use crate::devices::virtio::Backend;
use crate::devices::virtio::block::{Block, BlockStatistics};
use crate::devices::virtio::fs::FileSystem;
use crate::devices::virtio::link::Link;
use crate::devices::virtio::registers::Registers;
use crate::devices::virtio::worker::{Served, Worker};
use crate::memory::GuestRam;
use crate::share::config::{Share, Shares};
use crate::share::fault::Fault;
use crate::share::server::{Server, ServerOptions, descriptors_per_share};
use crate::share::statistics::ShareStatistics;
use crate::vstate::vm::Vm;

/// Which virtio devices a lab has.
#[derive(Clone, Debug, Default)]
pub struct VirtioConfig {
    /// Folders of the host.
    pub shares: Shares,
    /// Failures on purpose, in all folders.
    pub faults: Vec<Fault>,
    /// Bytes of swap space.
    pub swap: Option<u64>,
}

impl VirtioConfig {
    /// How many devices that makes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shares.as_slice().len() + usize::from(self.swap.is_some())
    }
}

/// What the virtio devices of a lab did.
#[derive(Clone, Debug, Default)]
pub struct VirtioReport {
    /// Each folder, with its counters.
    pub shares: Vec<(Share, Arc<ShareStatistics>)>,
    /// Size of the swap space in bytes, with its counters.
    pub swap: Option<(u64, Arc<BlockStatistics>)>,
}

/// Devices that are on the bus and not yet served.
pub(super) struct Attached {
    served: Vec<Served>,
    pub(super) report: VirtioReport,
}

impl Attached {
    /// Makes the devices of `config`: folders first, then swap.
    pub(super) fn new(
        vm: &Vm,
        ram: &Arc<GuestRam>,
        memory: &mut Bus,
        config: &VirtioConfig,
    ) -> Result<Self, MachineError> {
        let mut attached = Self { served: Vec::new(), report: VirtioReport::default() };
        let shares = config.shares.as_slice();
        let descriptors = if shares.is_empty() { 0 } else { descriptors_per_share(shares.len()) };
        for (index, share) in shares.iter().enumerate() {
            let options = ServerOptions {
                read_only: share.read_only,
                faults: config.faults.clone(),
                descriptors,
            };
            let server = Server::new(&share.folder, options)
                .map_err(|source| MachineError::Share { folder: share.folder.clone(), source })?;
            attached.report.shares.push((share.clone(), Arc::clone(server.statistics())));
            let device = FileSystem::new(Shares::tag(index), server);
            attached.add(vm, ram, memory, Box::new(device))?;
        }
        if let Some(size) = config.swap {
            let disk = Block::create(size, Path::new(&std::env::temp_dir()))?;
            attached.report.swap = Some((size, Arc::clone(disk.statistics())));
            attached.add(vm, ram, memory, Box::new(disk))?;
        }
        Ok(attached)
    }

    fn add(
        &mut self,
        vm: &Vm,
        ram: &Arc<GuestRam>,
        memory: &mut Bus,
        backend: Box<dyn Backend>,
    ) -> Result<(), MachineError> {
        let index = self.count();
        let address = virtio_device(index);
        let link = Arc::new(Link::new().map_err(MachineError::Descriptor)?);
        vm.connect_interrupt(link.interrupt(), VIRTIO_IRQ_FIRST + index)?;
        vm.connect_notification(link.notify(), address.0 + Registers::NOTIFY)?;
        let registers = Registers::new(backend.profile(), Arc::clone(&link));
        memory.insert(address.0, VIRTIO_STRIDE, Box::new(registers))?;
        self.served.push(Served::new(Arc::clone(ram), link, backend));
        Ok(())
    }

    /// How many devices there are.
    pub(super) fn count(&self) -> u32 {
        // At most eight: the shares were counted.
        u32::try_from(self.served.len()).unwrap_or(u32::MAX)
    }

    /// Starts serving them, where there are any.
    pub(super) fn start(self) -> std::io::Result<Option<Worker>> {
        if self.served.is_empty() { Ok(None) } else { Worker::start(self.served).map(Some) }
    }
}
