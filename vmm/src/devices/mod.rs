//! What the guest finds on its buses. Nothing in here knows KVM: devices work
//! on guest memory, an [`output::Output`], a trigger for interrupts and an
//! observer, and so are tested without `/dev/kvm`.
//!
//! * [`bus`]: from an address to a device; what nothing answers to
//! * [`serial`]: the serial console (COM1)
//! * [`lab`]: the lab's own device
//! * [`shared`]: the pages that the guest shares with the host
//! * [`output`]: where the guest's output goes
//! * [`virtio`]: shared folders and swap
//!
//! | a guest may… | and the device… |
//! | --- | --- |
//! | access any address in any width | answers all ones, or ignores the write |
//! | name memory that it does not have | refuses the request before doing any of it |
//! | change a request while it is carried out | has copied it already |
//! | write without end | passes it on; the host's reader sets the pace, and stopping still works |
//! | lie in the shared pages | reads a bounded number of slots and counts what it cannot believe |

pub mod bus;
pub mod lab;
pub mod output;
pub mod serial;
pub mod shared;
pub mod virtio;

use std::io;

use crate::stop::PanicReport;

/// What a device has to say about the future of the lab.
#[derive(Debug)]
pub enum Ending {
    /// The guest powered off.
    PoweredOff(u32),
    /// The guest's kernel panicked.
    Panicked(Box<PanicReport>),
    /// Nobody reads the output any more.
    OutputClosed,
    /// The console cannot be written for another reason.
    OutputFailed(io::Error),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::OutputFailed(error)
        }
    }
}
