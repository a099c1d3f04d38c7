//! `eventfd`: a counter that can be waited for.

use alloc::sync::Arc;

use spin::Mutex;

use crate::abi::{O_CLOEXEC, O_NONBLOCK, O_RDWR};
use crate::anonymous::AnonymousInode;
use crate::buffer::{Sink, Source, moved_or_fault};
use crate::errno::{Errno, Result};
use crate::file::File;
use crate::inode::FileKind;
use crate::open_file::OpenFile;
use crate::platform::{Platform, Readiness, WaitChannel};
use crate::tree::Vfs;

/// `EFD_SEMAPHORE`: a read takes one, not all.
pub const EFD_SEMAPHORE: u32 = 1;

/// The counter stays below this.
const LIMIT: u64 = u64::MAX;

struct EventCounter {
    platform: Arc<dyn Platform>,
    channel: WaitChannel,
    semaphore: bool,
    count: Mutex<u64>,
}

impl File for EventCounter {
    fn read(&self, _offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        if sink.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let taken = if self.semaphore { 1 } else { *count };
        *count -= taken;
        drop(count);
        self.platform.wake(self.channel, Readiness::WRITE);
        moved_or_fault(sink.put(&taken.to_le_bytes()), 8)
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        if source.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 8];
        if source.take(&mut bytes) < bytes.len() {
            return Err(Errno::EFAULT);
        }
        let added = u64::from_le_bytes(bytes);
        if added == LIMIT {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        match count.checked_add(added) {
            Some(sum) if sum < LIMIT => *count = sum,
            _ => return Err(Errno::EAGAIN),
        }
        drop(count);
        self.platform.wake(self.channel, Readiness::READ);
        Ok(bytes.len())
    }

    fn poll(&self) -> Readiness {
        let count = *self.count.lock();
        let mut ready = Readiness::empty();
        ready.set(Readiness::READ, count > 0);
        ready.set(Readiness::WRITE, count < LIMIT - 1);
        ready
    }

    fn wait_channel(&self) -> Option<WaitChannel> {
        Some(self.channel)
    }
}

impl Vfs {
    /// `eventfd2`.
    pub fn event_counter(&self, initial: u32, flags: u32) -> Result<Arc<OpenFile>> {
        if flags & !(EFD_SEMAPHORE | O_NONBLOCK | O_CLOEXEC) != 0 {
            return Err(Errno::EINVAL);
        }
        let counter = EventCounter {
            platform: Arc::clone(self.platform()),
            channel: WaitChannel::unique(),
            semaphore: flags & EFD_SEMAPHORE != 0,
            count: Mutex::new(initial.into()),
        };
        Ok(self.anonymous_file(Arc::new(counter), b"anon_inode:[eventfd]", flags & O_NONBLOCK))
    }

    /// A file of the kernel's that has no place in the tree.
    #[must_use]
    pub fn anonymous_file(&self, file: Arc<dyn File>, name: &[u8], flags: u32) -> Arc<OpenFile> {
        let inode = AnonymousInode::new(&**self.platform(), FileKind::Anonymous);
        OpenFile::new(self.anonymous_node(inode, name), Some(file), O_RDWR | flags)
    }
}
