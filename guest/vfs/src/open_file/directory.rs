//! `getdents64`.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::OpenFile;
use crate::abi::push_dirent64;
use crate::buffer::Sink;
use crate::errno::{Errno, Result};
use crate::inode::FileKind;

/// Most bytes that one call assembles.
const BATCH: usize = 32 * 1024;

/// Positions 0 and 1 are before `.` and `..`; those of the file system follow.
const DOTS: u64 = 2;

impl OpenFile {
    /// Fills `sink` with whole `struct linux_dirent64` records. 0: the end.
    pub fn list(&self, sink: &mut dyn Sink) -> Result<usize> {
        if self.is_path_only() {
            return Err(Errno::EBADF);
        }
        if self.kind() != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.node.dentry.is_deleted() {
            return Err(Errno::ENOENT);
        }
        let limit = sink.remaining().min(BATCH);
        let mut records = Vec::with_capacity(limit.min(2048));
        let mut position = self.position.load(Ordering::Relaxed);
        let mut full = false;
        while position < DOTS && !full {
            let (name, ino): (&[u8], _) = match position {
                0 => (b".", self.inode().ino()),
                _ => (b"..", self.parent_ino()),
            };
            let next = (position + 1).cast_signed();
            full = !push_dirent64(&mut records, limit, ino, next, FileKind::Directory, name);
            position += u64::from(!full);
        }
        if !full {
            self.inode().list(position - DOTS, &mut |entry| {
                let next = entry.next + DOTS;
                let signed = next.cast_signed();
                full =
                    !push_dirent64(&mut records, limit, entry.ino, signed, entry.kind, entry.name);
                if !full {
                    position = next;
                }
                !full
            })?;
        }
        if records.is_empty() {
            return if full { Err(Errno::EINVAL) } else { Ok(0) };
        }
        if sink.put(&records) < records.len() {
            return Err(Errno::EFAULT);
        }
        self.position.store(position, Ordering::Relaxed);
        Ok(records.len())
    }

    fn parent_ino(&self) -> u64 {
        let mut node = self.node.clone();
        if node.dentry.parent().is_none()
            && let Some(at) = &self.node.mount.at
        {
            node = at.clone();
        }
        node.dentry.parent().unwrap_or(node.dentry).inode().ino()
    }
}
