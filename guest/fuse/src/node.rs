//! A file of the server for as long as it is known here: its handles, what is
//! known of its attributes, and its pages.
//!
//! It outlives its inode while a mapping still needs its pages. When the last
//! user lets go, handles are released and the server may forget the node.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, PAGE_SIZE};
use pagelab_vfs::inode::{DeviceNumber, FileKind, Metadata};
use pagelab_vfs::store::{PAGE_BYTES, PageBacking};
use pagelab_vfs::{Errno, Timespec};
use spin::Mutex;

use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::protocol::{Attributes, ROOT_NODE, SetAttrIn, set};

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;

/// Longest time that attributes or names are believed without asking again,
/// whatever the server says, in nanoseconds.
pub(crate) const LONGEST_BELIEF: u64 = 1_000_000_000;

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(time.nanoseconds.into())
}

/// For how long the server wants something to be believed.
pub(crate) fn belief(seconds: u64, nanoseconds: u32) -> u64 {
    let wanted = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds.into());
    wanted.min(LONGEST_BELIEF)
}

#[derive(Clone, Copy)]
struct OpenHandle {
    handle: u64,
    flags: u32,
}

/// A file has at most two: one only for reading, opened first, and one for
/// writing, opened when it is needed.
#[derive(Default)]
struct Handles {
    reading: Option<OpenHandle>,
    writing: Option<OpenHandle>,
    directory: Option<u64>,
}

/// What is known of the attributes.
#[derive(Clone, Copy)]
struct Known {
    attributes: Attributes,
    /// When they were told, and until when they are believed.
    told: u64,
    until: u64,
    /// When the data was last changed from here; the server learns of it when
    /// pages are written.
    changed_here: Timespec,
}

/// A file of the server.
pub struct Node {
    connection: Arc<Connection>,
    id: u64,
    kind: FileKind,
    lookups: AtomicU64,
    known: Mutex<Known>,
    handles: Mutex<Handles>,
    /// The data at the server changed, and it was this kernel that did it.
    changed_by_us: AtomicBool,
}

impl Node {
    /// A node that was looked up once, with the attributes that came with it.
    ///
    /// # Errors
    ///
    /// If it is of no kind that there is.
    pub(crate) fn new(
        connection: &Arc<Connection>,
        id: u64,
        attributes: &Attributes,
        now: u64,
        belief: u64,
    ) -> Result<Self> {
        let kind = FileKind::from_mode(attributes.mode)
            .ok_or(Error::Protocol("a file of a kind that does not exist"))?;
        let known = Known {
            attributes: *attributes,
            told: now,
            until: now.saturating_add(belief),
            changed_here: Timespec::default(),
        };
        Ok(Self {
            connection: Arc::clone(connection),
            id,
            kind,
            lookups: AtomicU64::new(1),
            known: Mutex::new(known),
            handles: Mutex::default(),
            changed_by_us: AtomicBool::new(false),
        })
    }

    /// Its number at the server.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    pub(crate) const fn kind(&self) -> FileKind {
        self.kind
    }

    /// It was looked up once more.
    pub(crate) fn count_lookup(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }

    /// The server told its attributes.
    pub(crate) fn learn(&self, attributes: &Attributes, now: u64, belief: u64) -> Result<()> {
        if FileKind::from_mode(attributes.mode) != Some(self.kind) {
            return Err(Error::Server(Errno::ESTALE));
        }
        let mut known = self.known.lock();
        known.attributes = *attributes;
        known.told = now;
        known.until = now.saturating_add(belief);
        Ok(())
    }

    /// What is known may be wrong from now on.
    pub(crate) fn doubt(&self) {
        let mut known = self.known.lock();
        known.until = 0;
        known.told = 0;
    }

    /// The data was changed from here.
    pub(crate) fn changed_at(&self, now: Timespec) {
        self.known.lock().changed_here = now;
    }

    /// Attributes that are still believed, or at least not older than `age`.
    pub(crate) fn attributes(&self, now: u64, age: Option<u64>) -> Result<Attributes> {
        {
            let known = self.known.lock();
            let fresh = match age {
                None => now < known.until,
                Some(age) => now < known.told.saturating_add(age),
            };
            if fresh {
                return Ok(known.attributes);
            }
        }
        let reply = self.connection.get_attributes(self.id)?;
        self.learn(&reply.attributes, now, belief(reply.valid, reply.valid_nanoseconds))?;
        Ok(reply.attributes)
    }

    /// Attributes as `stat` shows them.
    pub(crate) fn metadata(&self, now: u64) -> Result<Metadata> {
        let told = self.attributes(now, None)?;
        let changed_here = self.known.lock().changed_here;
        Ok(Metadata {
            ino: told.ino,
            kind: self.kind,
            permissions: u16::try_from(told.mode & 0o7777).unwrap_or(0),
            links: told.links,
            uid: told.uid,
            gid: told.gid,
            device: DeviceNumber(told.device.into()),
            size: told.size,
            blocks: told.blocks,
            block_size: told.block_size.clamp(512, 1 << 20),
            accessed: time(told.accessed, told.accessed_nanoseconds),
            modified: time(told.modified, told.modified_nanoseconds).max(changed_here),
            changed: time(told.changed, told.changed_nanoseconds).max(changed_here),
            born: Timespec::default(),
        })
    }

    /// Number of its inode at the host.
    pub(crate) fn ino(&self) -> u64 {
        self.known.lock().attributes.ino
    }

    /// How many names it has, as far as is known.
    pub(crate) fn links(&self) -> u32 {
        self.known.lock().attributes.links
    }

    /// Until when its name is believed, if it has only one.
    pub(crate) fn believed_until(&self) -> u64 {
        self.known.lock().until
    }

    /// Size and time of the last change, which tell whether the host changed
    /// the data.
    pub(crate) fn version(attributes: &Attributes) -> (u64, u64, u32) {
        (attributes.size, attributes.modified, attributes.modified_nanoseconds)
    }

    /// Whether this kernel changed the data since that was last taken.
    pub(crate) fn is_changed_by_us(&self) -> bool {
        self.changed_by_us.load(Ordering::Relaxed)
    }

    /// Whether this kernel changed the data since this was last asked.
    pub(crate) fn take_changed_by_us(&self) -> bool {
        self.changed_by_us.swap(false, Ordering::Relaxed)
    }

    /// Changes attributes at the server.
    pub(crate) fn change(&self, mut changes: SetAttrIn, now: u64) -> Result<()> {
        if changes.valid & set::SIZE != 0
            && let Some(open) = self.handles.lock().writing
        {
            changes.valid |= set::HANDLE;
            changes.handle = open.handle;
        }
        if changes.valid & set::MODIFIED != 0 {
            self.known.lock().changed_here = Timespec::default();
        }
        let attributes = self.connection.set_attributes(self.id, &changes)?;
        self.changed_by_us.store(true, Ordering::Relaxed);
        self.learn(&attributes, now, 0)
    }

    /// Makes sure that there is a handle to read by, or also to write by.
    pub(crate) fn open(&self, writes: bool) -> Result<u64> {
        let mut handles = self.handles.lock();
        let found = if writes {
            handles.writing
        } else {
            handles.reading.or(handles.writing.filter(|open| open.flags == O_RDWR))
        };
        if let Some(open) = found {
            return Ok(open.handle);
        }
        if !writes {
            let handle = self.connection.open_file(self.id, O_RDONLY)?;
            handles.reading = Some(OpenHandle { handle, flags: O_RDONLY });
            return Ok(handle);
        }
        let mut flags = O_RDWR;
        let handle = match self.connection.open_file(self.id, flags) {
            Err(Error::Server(Errno::EACCES)) => {
                // Pages that are written whole need not be read.
                flags = O_WRONLY;
                self.connection.open_file(self.id, flags)?
            }
            result => result?,
        };
        handles.writing = Some(OpenHandle { handle, flags });
        Ok(handle)
    }

    /// The handle that came with the file when it was made.
    pub(crate) fn give_handle(&self, handle: u64) {
        self.handles.lock().writing = Some(OpenHandle { handle, flags: O_RDWR });
    }

    /// Makes sure that there is a handle to list by.
    pub(crate) fn open_directory(&self) -> Result<u64> {
        let mut handles = self.handles.lock();
        if let Some(handle) = handles.directory {
            return Ok(handle);
        }
        let handle = self.connection.open_directory(self.id)?;
        handles.directory = Some(handle);
        Ok(handle)
    }

    /// A listing is at its end: the next one opens the directory again.
    pub(crate) fn close_directory(&self) {
        let handle = self.handles.lock().directory.take();
        if let Some(handle) = handle {
            self.connection.release_directory(self.id, handle);
        }
    }

    /// Reads consecutive pages; fewer bytes than fit are the end of the file.
    fn read_frames(&self, index: u64, frames: &[Frame]) -> Result<usize> {
        let handle = self.open(false)?;
        let mut done = 0;
        for part in frames.chunks(self.connection.max_pages()) {
            let offset = index * PAGE_SIZE + done as u64;
            let length = part.len() * PAGE_BYTES;
            let read = self.connection.read(self.id, handle, offset, part, length)?;
            done += read;
            if read < length {
                break;
            }
        }
        Ok(done)
    }

    /// Writes the first `bytes` of consecutive pages.
    fn write_frames(&self, index: u64, frames: &[Frame], bytes: usize) -> Result<()> {
        let handle = self.open(true)?;
        let bytes = bytes.min(frames.len() * PAGE_BYTES);
        let mut done = 0;
        while done < bytes {
            let part = &frames[done / PAGE_BYTES..];
            let part = &part[..part.len().min(self.connection.max_pages())];
            let length = (bytes - done).min(part.len() * PAGE_BYTES);
            let offset = index * PAGE_SIZE + done as u64;
            let written = self.connection.write(self.id, handle, offset, part, length)?;
            if written == length {
                done += written;
                continue;
            }
            // The disk is full, or nearly: whole pages are done, the rest is
            // tried again, which brings the reason.
            let whole = written / PAGE_BYTES * PAGE_BYTES;
            if whole == 0 {
                return Err(Error::Server(Errno::ENOSPC));
            }
            done += whole;
        }
        self.changed_by_us.store(true, Ordering::Relaxed);
        self.doubt();
        Ok(())
    }
}

const fn time(seconds: u64, nanoseconds: u32) -> Timespec {
    Timespec { seconds: seconds.cast_signed(), nanoseconds: nanoseconds % 1_000_000_000 }
}

impl PageBacking for Node {
    fn read_pages(&self, index: u64, frames: &[Frame]) -> pagelab_vfs::Result<usize> {
        Ok(self.read_frames(index, frames)?)
    }

    fn write_pages(&self, index: u64, frames: &[Frame], bytes: usize) -> pagelab_vfs::Result<()> {
        Ok(self.write_frames(index, frames, bytes)?)
    }

    fn set_size(&self, size: u64) -> pagelab_vfs::Result<()> {
        let changes = SetAttrIn { valid: set::SIZE, size, ..SetAttrIn::default() };
        Ok(self.change(changes, 0)?)
    }

    fn sync(&self, data_only: bool) -> pagelab_vfs::Result<()> {
        // What was never opened for writing was not written.
        let Some(open) = self.handles.lock().writing else { return Ok(()) };
        Ok(self.connection.sync_file(self.id, open.handle, data_only)?)
    }

    fn size(&self) -> pagelab_vfs::Result<u64> {
        Ok(self.connection.get_attributes(self.id)?.attributes.size)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let handles = core::mem::take(self.handles.get_mut());
        for open in [handles.reading, handles.writing].into_iter().flatten() {
            self.connection.release(self.id, open.handle, open.flags);
        }
        if let Some(handle) = handles.directory {
            self.connection.release_directory(self.id, handle);
        }
        if self.id != ROOT_NODE {
            self.connection.forget(self.id, self.lookups.load(Ordering::Relaxed));
        }
    }
}
