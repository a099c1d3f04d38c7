//! Devices, and those that are nothing but a rule: `/dev/null` and its kin.

use alloc::sync::Arc;

use crate::buffer::{Sink, Source, moved_or_fault};
use crate::errno::{Errno, Result};
use crate::file::{File, Seeking};
use crate::inode::DeviceNumber;
use crate::platform::Platform;
use crate::tree::Vfs;

/// What answers when a device node is opened.
pub trait Device: Send + Sync {
    /// Opens it with the flags of `open`.
    fn open(&self, flags: u32) -> Result<Arc<dyn File>>;
}

/// `/dev/null`.
pub const NULL: DeviceNumber = DeviceNumber::new(1, 3);
/// `/dev/zero`.
pub const ZERO: DeviceNumber = DeviceNumber::new(1, 5);
/// `/dev/full`.
pub const FULL: DeviceNumber = DeviceNumber::new(1, 7);
/// `/dev/random`.
pub const RANDOM: DeviceNumber = DeviceNumber::new(1, 8);
/// `/dev/urandom`.
pub const URANDOM: DeviceNumber = DeviceNumber::new(1, 9);
/// `/dev/tty`: the terminal of the session that opens it.
pub const TTY: DeviceNumber = DeviceNumber::new(5, 0);
/// `/dev/console`.
pub const CONSOLE: DeviceNumber = DeviceNumber::new(5, 1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Null,
    Zero,
    Full,
}

/// `null`, `zero` or `full`. A mapping of `zero` is anonymous memory: see
/// [`is_zero`](Self::is_zero).
#[derive(Clone, Copy, Debug)]
pub struct MemoryDevice(Rule);

impl MemoryDevice {
    /// Whether it is `/dev/zero`, which can be mapped.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == Rule::Zero
    }
}

impl Device for MemoryDevice {
    fn open(&self, _flags: u32) -> Result<Arc<dyn File>> {
        Ok(Arc::new(*self))
    }
}

impl File for MemoryDevice {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        if self.0 == Rule::Null {
            return Ok(0);
        }
        let wanted = sink.remaining();
        moved_or_fault(sink.put_zeros(wanted), wanted)
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        let count = source.remaining();
        if self.0 == Rule::Full && count > 0 {
            return Err(Errno::ENOSPC);
        }
        Ok(source.skip(count))
    }

    fn seeking(&self) -> Seeking {
        Seeking::Ignored
    }
}

/// `random` and `urandom`.
struct RandomDevice(Arc<dyn Platform>);

impl Device for RandomDevice {
    fn open(&self, _flags: u32) -> Result<Arc<dyn File>> {
        Ok(Arc::new(Self(Arc::clone(&self.0))))
    }
}

impl File for RandomDevice {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let wanted = sink.remaining();
        let mut chunk = [0; 256];
        let mut done = 0;
        while done < wanted {
            let length = chunk.len().min(wanted - done);
            self.0.fill_random(&mut chunk[..length]);
            let moved = sink.put(&chunk[..length]);
            done += moved;
            if moved < length {
                break;
            }
        }
        moved_or_fault(done, wanted)
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        let count = source.remaining();
        Ok(source.skip(count))
    }

    fn seeking(&self) -> Seeking {
        Seeking::Ignored
    }
}

/// Registers the devices of this module.
pub(crate) fn register(vfs: &Vfs) {
    for (number, rule) in [(NULL, Rule::Null), (ZERO, Rule::Zero), (FULL, Rule::Full)] {
        vfs.register_device(number, Arc::new(MemoryDevice(rule)));
    }
    for number in [RANDOM, URANDOM] {
        vfs.register_device(number, Arc::new(RandomDevice(Arc::clone(vfs.platform()))));
    }
}
