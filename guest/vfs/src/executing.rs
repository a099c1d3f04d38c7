//! A file that is being executed is not written, and the other way round
//! (`ETXTBSY`).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicI32, Ordering};

use crate::errno::{Errno, Result};
use crate::inode::Inode;

/// Who has a file open for writing (above 0), or executes it (below).
#[derive(Debug, Default)]
pub struct TextUse(AtomicI32);

impl TextUse {
    /// `ETXTBSY` while somebody executes the file.
    pub fn check_writable(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) < 0 { Err(Errno::ETXTBSY) } else { Ok(()) }
    }

    /// The file is opened for writing; nobody executes it.
    pub(crate) fn add_writer(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It is closed.
    pub(crate) fn remove_writer(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody executes a file, as long as this is there.
pub struct Executing(Arc<dyn Inode>);

impl Executing {
    /// `ETXTBSY` while the file is open for writing.
    pub fn start(inode: &Arc<dyn Inode>) -> Result<Self> {
        if let Some(TextUse(users)) = inode.text_use() {
            if users.load(Ordering::Relaxed) > 0 {
                return Err(Errno::ETXTBSY);
            }
            users.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(Self(Arc::clone(inode)))
    }
}

impl Clone for Executing {
    fn clone(&self) -> Self {
        if let Some(TextUse(users)) = self.0.text_use() {
            users.fetch_sub(1, Ordering::Relaxed);
        }
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        if let Some(TextUse(users)) = self.0.text_use() {
            users.fetch_add(1, Ordering::Relaxed);
        }
    }
}
