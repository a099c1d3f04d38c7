//! The only places where names and descriptors become descriptors.
//!
//! A name is a [`Component`]: it exists only checked. It is looked up with
//! `openat2` below a folder that is held open, following nothing. A node that was
//! found is a descriptor without access rights (`O_PATH`); to read or change it,
//! [`Descriptors`] opens that very node again through the process's own
//! `/proc/self/fd`, so that no name is looked up a second time.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timestamps};
use rustix::io::Errno;

/// Most bytes in a name.
const MAX_NAME: usize = 255;

/// Nothing may lead out of the folder, or anywhere but to the name itself.
const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A name of one component that is neither empty, `.` nor `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component<'a>(&'a CStr);

impl<'a> Component<'a> {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// EINVAL or ENAMETOOLONG.
    pub fn new(name: &'a CStr) -> Result<Self, Errno> {
        let bytes = name.to_bytes();
        if bytes.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG);
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub const fn as_c_str(&self) -> &'a CStr {
        self.0
    }
}

/// Finds what `name` stands for in `folder`, without opening it.
///
/// # Errors
///
/// What the host said.
pub fn find(folder: BorrowedFd<'_>, name: Component<'_>) -> Result<OwnedFd, Errno> {
    open_below(folder, name, OFlags::PATH, Mode::empty())
}

/// Creates a regular file that must not exist, and opens it.
///
/// # Errors
///
/// What the host said.
pub fn create(
    folder: BorrowedFd<'_>,
    name: Component<'_>,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    open_below(folder, name, flags | OFlags::CREATE | OFlags::EXCL, mode)
}

fn open_below(
    folder: BorrowedFd<'_>,
    name: Component<'_>,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    /// The host says EAGAIN when a rename came between; so does a busy one.
    const ATTEMPTS: u32 = 16;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 1..ATTEMPTS {
        match rustix::fs::openat2(folder, name.0, flags, mode, RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    rustix::fs::openat2(folder, name.0, flags, mode, RESOLVE)
}

/// Opens a folder that is held by a descriptor, to read its entries.
///
/// # Errors
///
/// What the host said.
pub fn open_folder(folder: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, c".", flags, Mode::empty())
}

/// This process's descriptors as a folder.
#[derive(Debug)]
pub struct Descriptors {
    folder: OwnedFd,
}

impl Descriptors {
    /// Finds it.
    ///
    /// # Errors
    ///
    /// If the host has no `/proc`.
    pub fn new() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())?;
        Ok(Self { folder })
    }

    /// Opens again what `node` holds, with access rights. It must be a regular
    /// file: opening anything else may do something, or wait.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn reopen(&self, node: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags =
            flags.difference(OFlags::NOFOLLOW | OFlags::CREATE) | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat(&self.folder, number(node), flags, Mode::empty())
    }

    /// Changes the mode of what `node` holds.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn set_mode(&self, node: BorrowedFd<'_>, mode: Mode) -> Result<(), Errno> {
        rustix::fs::chmodat(&self.folder, number(node), mode, AtFlags::empty())
    }

    /// Changes the times of what `node` holds.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn set_times(&self, node: BorrowedFd<'_>, times: &Timestamps) -> Result<(), Errno> {
        rustix::fs::utimensat(&self.folder, number(node), times, AtFlags::empty())
    }

    /// Gives what `node` holds another name.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn link(
        &self,
        node: BorrowedFd<'_>,
        folder: BorrowedFd<'_>,
        name: Component<'_>,
    ) -> Result<(), Errno> {
        let follow = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(&self.folder, number(node), folder, name.0, follow)
    }

    /// Whether this process may access what `node` holds.
    ///
    /// # Errors
    ///
    /// EACCES if not, or what else the host said.
    pub fn access(&self, node: BorrowedFd<'_>, access: rustix::fs::Access) -> Result<(), Errno> {
        rustix::fs::accessat(&self.folder, number(node), access, AtFlags::empty())
    }
}

/// A descriptor's name in `/proc/self/fd`.
fn number(descriptor: BorrowedFd<'_>) -> String {
    descriptor.as_fd().as_raw_fd().to_string()
}
