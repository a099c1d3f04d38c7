//! The serial console: vm-superio's 16550 as COM1. It is the console of a kernel
//! that does not know the lab's device; there is no input.

use std::io;
use std::ops::ControlFlow;

use vm_memory::VolatileSlice;
use vm_superio::Trigger;
use vm_superio::serial::{Error, NoEvents, Serial};
use vmm_sys_util::eventfd::EventFd;

use super::Ending;
use super::bus::BusDevice;
use super::output::{Output, Stream};

/// An interrupt line that is raised by writing to an event descriptor.
#[derive(Debug)]
pub struct EventTrigger(pub EventFd);

impl Trigger for EventTrigger {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Makes an [`Output`] what vm-superio writes to.
struct Writer<O>(O);

impl<O: Output> io::Write for Writer<O> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut copy = bytes.to_vec();
        self.0.write(Stream::Output, &VolatileSlice::from(copy.as_mut_slice()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The serial console, generic over its interrupt and its output.
pub struct SerialConsole<T: Trigger, O: Output> {
    device: Serial<T, NoEvents, Writer<O>>,
}

impl<T: Trigger, O: Output> SerialConsole<T, O> {
    /// A serial console in the state after a reset.
    pub fn new(trigger: T, output: O) -> Self {
        Self { device: Serial::new(trigger, Writer(output)) }
    }
}

impl<T: Trigger + Send, O: Output> BusDevice for SerialConsole<T, O> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // All registers have one byte; more than one is one access per byte.
        for byte in data {
            *byte = u8::try_from(offset).map_or(0xff, |offset| self.device.read(offset));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> ControlFlow<Ending> {
        let Ok(offset) = u8::try_from(offset) else {
            return ControlFlow::Continue(());
        };
        for &byte in data {
            match self.device.write(offset, byte) {
                Ok(()) => {}
                Err(Error::IOError(error)) => return ControlFlow::Break(error.into()),
                Err(Error::Trigger(error)) => log::warn!("serial interrupt: {error:?}"),
                Err(Error::FullFifo) => log::debug!("serial input is full"),
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Recorded;
    use super::*;

    const LINE_STATUS: u64 = 5;

    fn console(output: Recorded) -> SerialConsole<EventTrigger, Recorded> {
        SerialConsole::new(EventTrigger(EventFd::new(libc::EFD_NONBLOCK).unwrap()), output)
    }

    #[test]
    fn bytes_written_come_out() {
        let output = Recorded::default();
        let mut console = console(output.clone());
        let mut status = [0];
        console.read(LINE_STATUS, &mut status);
        assert_ne!(status[0] & 0x20, 0, "ready to send");
        for byte in b"boot" {
            assert!(console.write(0, &[*byte]).is_continue());
        }
        assert_eq!(*output.output.lock().unwrap(), b"boot");
    }

    #[test]
    fn garbage_in_every_register_and_width_does_no_harm() {
        let mut console = console(Recorded::default());
        for round in 0..=u8::MAX {
            for offset in 0..8 {
                for width in [1, 2, 4, 8] {
                    let mut data = vec![round; width];
                    assert!(console.write(offset, &data).is_continue());
                    console.read(offset, &mut data);
                }
            }
        }
        assert!(console.write(1 << 40, &[1]).is_continue());
    }

    #[test]
    fn a_closed_output_ends_the_lab() {
        let closed =
            Recorded { fails_with: Some(io::ErrorKind::BrokenPipe), ..Recorded::default() };
        let mut console = console(closed);
        assert!(matches!(console.write(0, b"x"), ControlFlow::Break(Ending::OutputClosed)));
    }
}
