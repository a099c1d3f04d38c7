//! What each operation of the doorbell does.

use std::io;
use std::ops::ControlFlow;

use pagelab_abi::addr::PAGE_SHIFT;
use pagelab_abi::lab::{
    OP_COPY, OP_COPY_FRAME, OP_DRAIN_EVENTS, OP_EVENT, OP_INPUT_TAKEN, OP_LOG, OP_PANIC,
    OP_POWER_OFF, OP_WRITE, OP_ZERO_FRAME, PanicState, Request, STATUS_BAD_SEGMENT,
    STATUS_IO_ERROR, STATUS_OK, STATUS_UNKNOWN, STREAM_ERROR, STREAM_OUTPUT,
};
use vm_memory::VolatileSlice;
use zerocopy::FromBytes;

use super::segments::{self, BadSegments};
use super::{LabDevice, LabObserver};
use crate::devices::Ending;
use crate::devices::output::{Output, Stream};
use crate::stop::PanicReport;

/// Longest log record that is passed on; the rest is cut off.
const MAX_LOG_BYTES: usize = 4096;
/// Longest panic message that is kept.
const MAX_PANIC_BYTES: usize = 64 << 10;

/// What an operation came to: a status for the guest, or the end.
type Done = ControlFlow<Ending, u32>;

impl<O: Output, B: LabObserver> LabDevice<O, B> {
    /// Does what the doorbell asks; says the status that the guest reads.
    pub(super) fn carry_out(&mut self, operation: u32, request: &Request) -> Done {
        let result = match operation {
            OP_WRITE => self.write_stream(request),
            OP_LOG => self.log(request),
            OP_POWER_OFF => return ControlFlow::Break(Ending::PoweredOff(request.argument)),
            OP_DRAIN_EVENTS => {
                self.observer.drain_events();
                Ok(ControlFlow::Continue(STATUS_OK))
            }
            OP_EVENT => {
                self.observer.event_written();
                Ok(ControlFlow::Continue(STATUS_OK))
            }
            OP_INPUT_TAKEN => {
                self.observer.input_taken();
                Ok(ControlFlow::Continue(STATUS_OK))
            }
            OP_PANIC => return ControlFlow::Break(Ending::Panicked(self.panic(request))),
            OP_COPY => self.copy(request),
            OP_COPY_FRAME => self.copy_frame(request),
            OP_ZERO_FRAME => self.zero_frame(request),
            _ => {
                log::debug!("the guest asks for operation {operation}, which does not exist");
                Ok(ControlFlow::Continue(STATUS_UNKNOWN))
            }
        };
        result.unwrap_or_else(|error| {
            log::debug!("operation {operation} of the guest is refused: {error}");
            ControlFlow::Continue(STATUS_BAD_SEGMENT)
        })
    }

    fn write_stream(&mut self, request: &Request) -> Result<Done, BadSegments> {
        let stream = match request.argument {
            STREAM_OUTPUT => Stream::Output,
            STREAM_ERROR => Stream::Error,
            _ => return Ok(ControlFlow::Continue(STATUS_UNKNOWN)),
        };
        for slice in segments::check(self.shared.ram(), request)? {
            match self.output.write(stream, &slice) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ControlFlow::Break(Ending::OutputClosed));
                }
                Err(error) => {
                    log::warn!("cannot write the guest's {stream:?}: {error}");
                    return Ok(ControlFlow::Continue(STATUS_IO_ERROR));
                }
            }
        }
        Ok(ControlFlow::Continue(STATUS_OK))
    }

    fn log(&mut self, request: &Request) -> Result<Done, BadSegments> {
        let level = match request.argument {
            1 => log::Level::Error,
            2 => log::Level::Warn,
            3 => log::Level::Info,
            4 => log::Level::Debug,
            5 => log::Level::Trace,
            _ => return Ok(ControlFlow::Continue(STATUS_UNKNOWN)),
        };
        let slices = segments::check(self.shared.ram(), request)?;
        self.observer.log(level, &printable(&segments::gather(&slices, MAX_LOG_BYTES)));
        Ok(ControlFlow::Continue(STATUS_OK))
    }

    /// A panic ends the lab whatever state the request is in: what cannot be
    /// believed is left out.
    fn panic(&self, request: &Request) -> Box<PanicReport> {
        let slices = match segments::check(self.shared.ram(), request) {
            Ok(slices) => slices,
            Err(error) => {
                let message = format!("(the message cannot be read: {error})");
                return Box::new(PanicReport { message, state: None });
            }
        };
        let (text, state) = match slices.split_last() {
            Some((last, text)) if last.len() == size_of::<PanicState>() => (text, read_state(last)),
            _ => (slices.as_slice(), None),
        };
        let message = printable(&segments::gather(text, MAX_PANIC_BYTES));
        Box::new(PanicReport { message, state })
    }

    fn copy_frame(&self, request: &Request) -> Result<Done, BadSegments> {
        let [from, to] = segments::frames(self.shared.ram(), request)?;
        from.copy_to_volatile_slice(to);
        Ok(ControlFlow::Continue(STATUS_OK))
    }

    fn copy(&self, request: &Request) -> Result<Done, BadSegments> {
        let [from, to] = segments::pair(self.shared.ram(), request)?;
        from.copy_to_volatile_slice(to);
        Ok(ControlFlow::Continue(STATUS_OK))
    }

    fn zero_frame(&self, request: &Request) -> Result<Done, BadSegments> {
        const ZEROS: [u8; 1 << PAGE_SHIFT] = [0; 1 << PAGE_SHIFT];
        let [frame] = segments::frames(self.shared.ram(), request)?;
        frame.copy_from(&ZEROS);
        Ok(ControlFlow::Continue(STATUS_OK))
    }
}

fn read_state(slice: &VolatileSlice<'_>) -> Option<PanicState> {
    let mut bytes = [0; size_of::<PanicState>()];
    slice.copy_to(&mut bytes);
    PanicState::read_from_bytes(&bytes).ok()
}

/// Text of the guest's kernel, for the host's terminal: control characters
/// other than a line's end are made visible, so that they can do nothing there.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for character in text.trim_end_matches('\n').chars() {
        if character.is_control() && character != '\n' && character != '\t' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}
