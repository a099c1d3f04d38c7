//! One server: requests go out, replies are checked.
//!
//! Requests are made in one buffer that is used for all of them, one after the
//! other, under one lock, so that none costs an allocation. Nodes that nobody
//! uses any more are collected and forgotten many at a time.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pagelab_vfs::Errno;
use spin::Mutex;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::{Error, Result};
use crate::protocol::{
    BatchForgetIn, ForgetIn, ForgetOne, INIT_BIG_WRITES, INIT_MAX_PAGES, INIT_NO_OPEN,
    INIT_NO_OPENDIR, INIT_READDIRPLUS, InHeader, InitIn, InitOut, MAJOR, MINOR, OLDEST_MINOR,
    Operation, OutHeader,
};
use crate::transport::{Readable, Transport, Writable};

/// Room for the longest request without data: a header, a structure, and either
/// two names or a link's text and a name.
const REQUEST_ROOM: usize = 6 * 1024;
/// Room for the longest reply that is a structure.
const REPLY_ROOM: usize = 256;
/// How many nodes are collected before the server is told to forget them.
const FORGET_BATCH: usize = 64;
/// Pages of a request with a server that does not say how many it takes.
const DEFAULT_PAGES: u16 = 32;
const PAGE_BYTES: u32 = 4096;

const HEADER: usize = size_of::<OutHeader>();

struct Buffers {
    unique: u64,
    request: Vec<u8>,
    reply: Box<[u8]>,
}

/// A server, ready to be asked.
pub struct Connection {
    transport: Box<dyn Transport>,
    buffers: Mutex<Buffers>,
    forgets: Mutex<Vec<ForgetOne>>,
    max_pages: AtomicU32,
    listing_with_attributes: AtomicBool,
    /// The server needs no handles for files, or for directories.
    pub(crate) no_open: AtomicBool,
    pub(crate) no_open_directory: AtomicBool,
}

/// What a request is made of, besides its operation and node.
#[derive(Clone, Copy)]
struct Parts<'a> {
    argument: &'a [u8],
    /// Each is followed by a NUL.
    names: &'a [&'a [u8]],
    data: Option<Readable<'a>>,
}

impl Connection {
    /// Greets the server.
    ///
    /// # Errors
    ///
    /// If it cannot be reached or speaks another version.
    pub fn open(transport: Box<dyn Transport>) -> Result<Self> {
        let connection = Self {
            transport,
            buffers: Mutex::new(Buffers {
                unique: 0,
                request: Vec::with_capacity(REQUEST_ROOM),
                reply: alloc::vec![0; REPLY_ROOM].into_boxed_slice(),
            }),
            forgets: Mutex::new(Vec::new()),
            max_pages: AtomicU32::new(1),
            listing_with_attributes: AtomicBool::new(false),
            no_open: AtomicBool::new(false),
            no_open_directory: AtomicBool::new(false),
        };
        let wanted = InitIn {
            major: MAJOR,
            minor: MINOR,
            max_readahead: u32::MAX,
            flags: INIT_READDIRPLUS
                | INIT_BIG_WRITES
                | INIT_NO_OPEN
                | INIT_MAX_PAGES
                | INIT_NO_OPENDIR,
            ..InitIn::default()
        };
        let agreed: InitOut = connection.request(Operation::Init, 0, &wanted, &[])?;
        connection.agree(&agreed)?;
        Ok(connection)
    }

    fn agree(&self, agreed: &InitOut) -> Result<()> {
        if agreed.major != MAJOR || agreed.minor < OLDEST_MINOR {
            return Err(Error::Protocol("a version that is not spoken here"));
        }
        let says_pages = agreed.flags & INIT_MAX_PAGES != 0 && agreed.max_pages != 0;
        let pages = u32::from(if says_pages { agreed.max_pages } else { DEFAULT_PAGES });
        let carried = u32::try_from(self.transport.most_frames()).unwrap_or(u32::MAX);
        let pages = pages.min(agreed.max_write / PAGE_BYTES).min(carried).max(1);
        self.max_pages.store(pages, Ordering::Relaxed);
        let plus = agreed.flags & INIT_READDIRPLUS != 0;
        self.listing_with_attributes.store(plus, Ordering::Relaxed);
        Ok(())
    }

    /// How many pages one reading or writing can move.
    #[must_use]
    pub fn max_pages(&self) -> usize {
        self.max_pages.load(Ordering::Relaxed) as usize
    }

    /// Whether listings can bring attributes.
    #[must_use]
    pub fn lists_attributes(&self) -> bool {
        self.listing_with_attributes.load(Ordering::Relaxed)
    }

    /// A request whose reply is one structure.
    pub(crate) fn request<A, R>(
        &self,
        operation: Operation,
        node: u64,
        argument: &A,
        names: &[&[u8]],
    ) -> Result<R>
    where
        A: IntoBytes + Immutable,
        R: FromBytes,
    {
        const { assert!(size_of::<R>() <= REPLY_ROOM - HEADER) };
        let parts = Parts { argument: argument.as_bytes(), names, data: None };
        self.structured(operation, node, parts)
    }

    /// The same with data that the server reads.
    pub(crate) fn request_with_data<A, R>(
        &self,
        operation: Operation,
        node: u64,
        argument: &A,
        data: Readable<'_>,
    ) -> Result<R>
    where
        A: IntoBytes + Immutable,
        R: FromBytes,
    {
        const { assert!(size_of::<R>() <= REPLY_ROOM - HEADER) };
        let parts = Parts { argument: argument.as_bytes(), names: &[], data: Some(data) };
        self.structured(operation, node, parts)
    }

    fn structured<R: FromBytes>(
        &self,
        operation: Operation,
        node: u64,
        parts: Parts<'_>,
    ) -> Result<R> {
        let mut buffers = self.buffers.lock();
        let end = HEADER + size_of::<R>();
        let length = self.exchange(&mut buffers, operation, node, parts, end, None)?;
        if length < size_of::<R>() {
            return Err(Error::Protocol("a reply that is too short"));
        }
        R::read_from_bytes(&buffers.reply[HEADER..end])
            .map_err(|_| Error::Protocol("a reply that is too short"))
    }

    /// A request whose reply is data; returns how many bytes came.
    pub(crate) fn request_data<A: IntoBytes + Immutable>(
        &self,
        operation: Operation,
        node: u64,
        argument: &A,
        room: Writable<'_>,
    ) -> Result<usize> {
        let parts = Parts { argument: argument.as_bytes(), names: &[], data: None };
        let mut buffers = self.buffers.lock();
        self.exchange(&mut buffers, operation, node, parts, HEADER, Some(room))
    }

    /// Sends a request, and checks that there is a reply to it that the server
    /// meant as success. Returns how many bytes follow the reply's header: those
    /// up to `fixed` are in the buffer, the others in `room`.
    fn exchange(
        &self,
        buffers: &mut Buffers,
        operation: Operation,
        node: u64,
        parts: Parts<'_>,
        fixed: usize,
        room: Option<Writable<'_>>,
    ) -> Result<usize> {
        buffers.unique += 2;
        let unique = buffers.unique;
        fill_request(&mut buffers.request, operation, node, unique, parts)?;
        let all = room.as_ref().map_or(0, Writable::room) + fixed;
        let head = Readable::Bytes(&buffers.request);
        let fixed = Writable::Bytes(&mut buffers.reply[..fixed]);
        let written = match (parts.data, room) {
            (None, None) => self.transport.exchange(&[head], &mut [fixed]),
            (Some(data), None) => self.transport.exchange(&[head, data], &mut [fixed]),
            (None, Some(room)) => self.transport.exchange(&[head], &mut [fixed, room]),
            (Some(data), Some(room)) => self.transport.exchange(&[head, data], &mut [fixed, room]),
        }?;
        if written > all {
            return Err(Error::Protocol("a reply that is longer than its room"));
        }
        check_header(&buffers.reply, written, unique)
    }

    /// The server may forget `lookups` lookups of a node, soon.
    pub(crate) fn forget(&self, node: u64, lookups: u64) {
        let batch = {
            let mut forgets = self.forgets.lock();
            forgets.push(ForgetOne { node, lookups });
            if forgets.len() < FORGET_BATCH {
                return;
            }
            core::mem::take(&mut *forgets)
        };
        self.send_forgets(&batch);
    }

    /// Tells the server at once what it may forget.
    pub fn flush_forgets(&self) {
        let batch = core::mem::take(&mut *self.forgets.lock());
        self.send_forgets(&batch);
    }

    fn send_forgets(&self, batch: &[ForgetOne]) {
        let (operation, node, single, many);
        let parts = match batch {
            [] => return,
            [one] => {
                (operation, node) = (Operation::Forget, one.node);
                single = ForgetIn { lookups: one.lookups };
                Parts { argument: single.as_bytes(), names: &[], data: None }
            }
            _ => {
                (operation, node) = (Operation::BatchForget, 0);
                many = BatchForgetIn {
                    count: u32::try_from(batch.len()).unwrap_or(u32::MAX),
                    padding: 0,
                };
                let data = Some(Readable::Bytes(batch.as_bytes()));
                Parts { argument: many.as_bytes(), names: &[], data }
            }
        };
        let buffers = &mut *self.buffers.lock();
        buffers.unique += 2;
        let unique = buffers.unique;
        if fill_request(&mut buffers.request, operation, node, unique, parts).is_err() {
            return;
        }
        let head = Readable::Bytes(&buffers.request);
        // Nobody waits for it, and a server that is not there has nothing to
        // forget.
        let _ = match parts.data {
            None => self.transport.exchange(&[head], &mut []),
            Some(data) => self.transport.exchange(&[head, data], &mut []),
        };
    }
}

/// Lays out header, argument and names; notes the length with the data.
fn fill_request(
    request: &mut Vec<u8>,
    operation: Operation,
    node: u64,
    unique: u64,
    parts: Parts<'_>,
) -> Result<()> {
    let names: usize = parts.names.iter().map(|name| name.len() + 1).sum();
    let head = size_of::<InHeader>() + parts.argument.len() + names;
    if head > REQUEST_ROOM {
        return Err(Error::Server(Errno::ENAMETOOLONG));
    }
    let data = match parts.data {
        None => 0,
        Some(Readable::Bytes(bytes)) => bytes.len(),
        Some(Readable::Frames(_, length)) => length,
    };
    let length = u32::try_from(head + data).map_err(|_| Error::Server(Errno::EINVAL))?;
    let header =
        InHeader { length, operation: operation as u32, unique, node, ..InHeader::default() };
    request.clear();
    request.extend_from_slice(header.as_bytes());
    request.extend_from_slice(parts.argument);
    for name in parts.names {
        request.extend_from_slice(name);
        request.push(0);
    }
    Ok(())
}

/// Checks a reply's header; returns how many bytes follow it.
fn check_header(reply: &[u8], written: usize, unique: u64) -> Result<usize> {
    let (header, _) = OutHeader::read_from_prefix(reply)
        .map_err(|_| Error::Protocol("a reply without a header"))?;
    if written < HEADER || header.length as usize != written {
        return Err(Error::Protocol("a reply of another length than it says"));
    }
    if header.unique != unique {
        return Err(Error::Protocol("a reply to another request"));
    }
    if header.error == 0 {
        return Ok(written - HEADER);
    }
    // Numbers are negative, and those that programs may see are below 512.
    let number = header.error.checked_neg().and_then(|number| u16::try_from(number).ok());
    match number.filter(|&number| number < 512).and_then(Errno::from_number) {
        Some(errno) => Err(Error::Server(errno)),
        None => Err(Error::Protocol("an error number that does not exist")),
    }
}
