//! The lab's own device (`pagelab_abi::lab`): registration of the shared pages,
//! the doorbell and its requests, power-off.
//!
//! A request is copied out of the shared pages once, then its segments are
//! checked, and only then is any of it carried out ([`segments`]); what each
//! operation does is in [`operations`].

mod operations;
mod segments;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;

use pagelab_abi::addr::Frame;
use pagelab_abi::lab::{
    DEVICE_ID, PORT_DOORBELL, PORT_FIRST_USER, PORT_POWER, PORT_REGISTER, POWER_OFF,
    STATUS_BAD_SEGMENT, STATUS_OK, STATUS_UNKNOWN,
};

use super::Ending;
use super::bus::BusDevice;
use super::output::Output;
use super::shared::SharedPages;

/// Is told what the device cannot do by itself.
pub trait LabObserver: Send {
    /// The shared pages were registered.
    fn registered(&mut self);
    /// The guest took bytes from the input ring that was full.
    fn input_taken(&mut self);
    /// The event ring is full, and the guest waits until it has been read.
    fn drain_events(&mut self);
    /// The guest wrote an event of a kind that it was to wait after, and waits.
    fn event_written(&mut self);
    /// A log record of the guest.
    fn log(&mut self, level: log::Level, text: &str);
}

/// The device, generic over where output goes and who is told.
pub struct LabDevice<O: Output, B: LabObserver> {
    shared: Arc<SharedPages>,
    output: O,
    observer: B,
    status: u32,
}

/// Which part of a power-off value marks it as one, and which is the status.
const POWER_OFF_MARK: u32 = 0xffff_0000;

impl<O: Output, B: LabObserver> LabDevice<O, B> {
    /// A device that takes `shared` from its guest.
    pub const fn new(shared: Arc<SharedPages>, output: O, observer: B) -> Self {
        Self { shared, output, observer, status: STATUS_OK }
    }

    fn register(&mut self, frame: u32) {
        match self.shared.register(Frame(frame)) {
            Ok(()) => {
                self.status = STATUS_OK;
                self.observer.registered();
            }
            Err(error) => {
                log::warn!("{error}");
                self.status = STATUS_BAD_SEGMENT;
            }
        }
    }

    fn doorbell(&mut self, operation: u32) -> ControlFlow<Ending> {
        let Some(request) = self.shared.request() else {
            log::debug!("the guest asks for operation {operation} without shared pages");
            self.status = STATUS_UNKNOWN;
            return ControlFlow::Continue(());
        };
        self.status = self.carry_out(operation, &request)?;
        ControlFlow::Continue(())
    }
}

impl<O: Output, B: LabObserver> BusDevice for LabDevice<O, B> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match u16::try_from(offset) {
            Ok(PORT_REGISTER) => DEVICE_ID,
            Ok(PORT_DOORBELL) => self.status,
            Ok(PORT_POWER) => pagelab_abi::VERSION,
            _ => u32::MAX,
        };
        // A narrower access gets the low bytes, a longer one the value again.
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes().into_iter().cycle()) {
            *byte = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> ControlFlow<Ending> {
        let Ok(bytes) = data.try_into() else {
            log::debug!("a write of {} bytes to the lab device is ignored", data.len());
            return ControlFlow::Continue(());
        };
        let value = u32::from_le_bytes(bytes);
        match u16::try_from(offset) {
            Ok(PORT_REGISTER) => self.register(value),
            Ok(PORT_DOORBELL) => return self.doorbell(value),
            Ok(PORT_POWER) if value & POWER_OFF_MARK == POWER_OFF => {
                return ControlFlow::Break(Ending::PoweredOff(value & !POWER_OFF_MARK));
            }
            // The vCPU takes note, see there.
            Ok(PORT_FIRST_USER) => {}
            _ => log::debug!("a write of {value:#x} to lab port {offset} means nothing"),
        }
        ControlFlow::Continue(())
    }
}
