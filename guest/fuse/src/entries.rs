//! Listings of directories: records in a buffer that a server filled.

use pagelab_vfs::abi::NAME_MAX;
use pagelab_vfs::inode::FileKind;
use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::protocol::{DirEntry, EntryOut};

/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;

/// One entry of a listing.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Its name, which is one component and not empty; `.` and `..` occur.
    pub name: &'a [u8],
    /// Number of its inode.
    pub ino: u64,
    /// Its kind; anonymous (`DT_UNKNOWN`) where the server does not know.
    pub kind: FileKind,
    /// Where to go on after it.
    pub next: u64,
    /// The node, if the listing has attributes and the server counted this as
    /// a lookup.
    pub entry: Option<EntryOut>,
}

impl Listed<'_> {
    /// Whether it is `.` or `..`.
    #[must_use]
    pub fn is_dots(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// The entries in what a listing brought.
#[derive(Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
    with_attributes: bool,
}

impl<'a> Entries<'a> {
    /// Reads them from `bytes`, which is all that came.
    #[must_use]
    pub const fn new(bytes: &'a [u8], with_attributes: bool) -> Self {
        Self { rest: bytes, with_attributes }
    }

    fn read(&mut self) -> Result<Listed<'a>> {
        const CUT: Error = Error::Protocol("an entry of a listing that is cut off");
        let mut bytes = self.rest;
        let mut entry = None;
        let mut length = size_of::<DirEntry>();
        if self.with_attributes {
            let (found, after) = EntryOut::read_from_prefix(bytes).map_err(|_| CUT)?;
            entry = (found.node != 0).then_some(found);
            length += size_of::<EntryOut>();
            bytes = after;
        }
        let (record, after) = DirEntry::read_from_prefix(bytes).map_err(|_| CUT)?;
        let name_length = record.name_length as usize;
        let name = after.get(..name_length).ok_or(CUT)?;
        if name.is_empty() || name.len() > NAME_MAX || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(Error::Protocol("an entry of a listing whose name is none"));
        }
        let whole = (length + name_length).next_multiple_of(ALIGNMENT);
        self.rest = self.rest.get(whole..).unwrap_or_default();
        let kind = FileKind::from_mode(record.kind << 12).unwrap_or(FileKind::Anonymous);
        Ok(Listed { name, ino: record.ino, kind, next: record.next, entry })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Listed<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}
