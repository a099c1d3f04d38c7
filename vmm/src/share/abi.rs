//! The FUSE protocol's structures and numbers, version 7.31, as far as the
//! server uses them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version.
pub const MAJOR: u32 = 7;
/// The protocol's minor version.
pub const MINOR: u32 = 31;
/// The node that a session begins with.
pub const ROOT: u64 = 1;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident: $size:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        #[allow(missing_docs, reason = "named as in the protocol")]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

structures! {
    /// Start of every request.
    InHeader: 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64,
        uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    }
    /// Start of every answer.
    OutHeader: 16 { len: u32, error: i32, unique: u64, }
    /// A node's attributes.
    Attr: 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// A node that a name leads to.
    EntryOut: 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    /// Answer to GETATTR and SETATTR.
    AttrOut: 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    /// SETATTR.
    SetAttrIn: 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD, before the name.
    MknodIn: 16 { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// MKDIR, before the name.
    MkdirIn: 8 { mode: u32, umask: u32, }
    /// RENAME, before the names.
    RenameIn: 8 { newdir: u64, }
    /// RENAME2, before the names.
    Rename2In: 16 { newdir: u64, flags: u32, padding: u32, }
    /// LINK, before the name.
    LinkIn: 8 { oldnodeid: u64, }
    /// OPEN and OPENDIR.
    OpenIn: 8 { flags: u32, open_flags: u32, }
    /// CREATE, before the name.
    CreateIn: 16 { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// Answer to OPEN, OPENDIR and, behind an [`EntryOut`], CREATE.
    OpenOut: 16 { fh: u64, open_flags: u32, padding: u32, }
    /// RELEASE and RELEASEDIR.
    ReleaseIn: 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// FLUSH.
    FlushIn: 24 { fh: u64, unused: u32, padding: u32, lock_owner: u64, }
    /// READ, READDIR and READDIRPLUS; WRITE, before the bytes.
    TransferIn: 40 {
        fh: u64, offset: u64, size: u32, transfer_flags: u32, lock_owner: u64,
        flags: u32, padding: u32,
    }
    /// Answer to WRITE.
    WriteOut: 8 { size: u32, padding: u32, }
    /// Answer to STATFS.
    StatfsOut: 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// FSYNC and FSYNCDIR.
    FsyncIn: 16 { fh: u64, fsync_flags: u32, padding: u32, }
    /// ACCESS.
    AccessIn: 8 { mask: u32, padding: u32, }
    /// INIT, as far as all versions have it.
    InitIn: 16 { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    /// Answer to INIT.
    InitOut: 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_gran: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }
    /// FALLOCATE.
    FallocateIn: 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// LSEEK.
    LseekIn: 24 { fh: u64, offset: u64, whence: u32, padding: u32, }
    /// Answer to LSEEK.
    LseekOut: 8 { offset: u64, }
    /// FORGET.
    ForgetIn: 8 { nlookup: u64, }
    /// BATCH_FORGET, before the [`ForgetOne`]s.
    BatchForgetIn: 8 { count: u32, dummy: u32, }
    /// One node to forget.
    ForgetOne: 16 { nodeid: u64, nlookup: u64, }
    /// A directory's entry, before its name.
    Dirent: 24 { ino: u64, off: u64, namelen: u32, kind: u32, }
}

/// INIT: OPEN may truncate.
pub const FUSE_ATOMIC_O_TRUNC: u32 = 1 << 3;
/// INIT: more than 4 KiB in a WRITE.
pub const FUSE_BIG_WRITES: u32 = 1 << 5;
/// INIT: READDIRPLUS is there.
pub const FUSE_DO_READDIRPLUS: u32 = 1 << 13;
/// INIT: `max_pages` is meant.
pub const FUSE_MAX_PAGES: u32 = 1 << 22;

/// SETATTR: the mode.
pub const FATTR_MODE: u32 = 1 << 0;
/// SETATTR: the owner.
pub const FATTR_UID: u32 = 1 << 1;
/// SETATTR: the group.
pub const FATTR_GID: u32 = 1 << 2;
/// SETATTR: the size.
pub const FATTR_SIZE: u32 = 1 << 3;
/// SETATTR: the time of the last access.
pub const FATTR_ATIME: u32 = 1 << 4;
/// SETATTR: the time of the last change of the content.
pub const FATTR_MTIME: u32 = 1 << 5;
/// SETATTR: `fh` is meant.
pub const FATTR_FH: u32 = 1 << 6;
/// SETATTR: now is the time of the last access.
pub const FATTR_ATIME_NOW: u32 = 1 << 7;
/// SETATTR: now is the time of the last change.
pub const FATTR_MTIME_NOW: u32 = 1 << 8;

/// FSYNC: only what is needed to read the content again.
pub const FSYNC_DATA_ONLY: u32 = 1 << 0;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationInfo {
    /// Its number in the protocol.
    pub number: u32,
    /// Its name, in small letters.
    pub name: &'static str,
    /// How many bytes of answer it needs room for at least, behind the header.
    pub answer: usize,
    /// Whether it changes the folder, so that a read-only one refuses it.
    pub changes: bool,
}

macro_rules! operations {
    ($($operation:ident = $number:literal, $name:literal, $answer:expr, $changes:literal;)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "named as in the protocol")]
        pub enum Operation { $($operation,)* }

        /// All kinds of request, in the order of [`Operation`].
        pub const OPERATIONS: &[OperationInfo] = &[$(OperationInfo {
            number: $number, name: $name, answer: $answer, changes: $changes,
        },)*];

        impl Operation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$operation,)*];
        }
    };
}

operations! {
    Lookup = 1, "lookup", size_of::<EntryOut>(), false;
    Forget = 2, "forget", 0, false;
    GetAttr = 3, "getattr", size_of::<AttrOut>(), false;
    SetAttr = 4, "setattr", size_of::<AttrOut>(), true;
    ReadLink = 5, "readlink", 1, false;
    Symlink = 6, "symlink", size_of::<EntryOut>(), true;
    Mknod = 8, "mknod", size_of::<EntryOut>(), true;
    Mkdir = 9, "mkdir", size_of::<EntryOut>(), true;
    Unlink = 10, "unlink", 0, true;
    Rmdir = 11, "rmdir", 0, true;
    Rename = 12, "rename", 0, true;
    Link = 13, "link", size_of::<EntryOut>(), true;
    Open = 14, "open", size_of::<OpenOut>(), false;
    Read = 15, "read", 0, false;
    Write = 16, "write", size_of::<WriteOut>(), true;
    Statfs = 17, "statfs", size_of::<StatfsOut>(), false;
    Release = 18, "release", 0, false;
    Fsync = 20, "fsync", 0, false;
    Flush = 25, "flush", 0, false;
    Init = 26, "init", size_of::<InitOut>(), false;
    OpenDir = 27, "opendir", size_of::<OpenOut>(), false;
    ReadDir = 28, "readdir", 0, false;
    ReleaseDir = 29, "releasedir", 0, false;
    FsyncDir = 30, "fsyncdir", 0, false;
    Access = 34, "access", 0, false;
    Create = 35, "create", size_of::<EntryOut>() + size_of::<OpenOut>(), true;
    Interrupt = 36, "interrupt", 0, false;
    Destroy = 38, "destroy", 0, false;
    BatchForget = 42, "batch_forget", 0, false;
    Fallocate = 43, "fallocate", 0, true;
    ReadDirPlus = 44, "readdirplus", 0, false;
    Rename2 = 45, "rename2", 0, true;
    Lseek = 46, "lseek", size_of::<LseekOut>(), false;
    SyncFs = 50, "syncfs", 0, false;
}

impl Operation {
    /// The operation with the protocol's `number`.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let index = OPERATIONS.iter().position(|info| info.number == number)?;
        Self::ALL.get(index).copied()
    }

    /// The operation called `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let index = OPERATIONS.iter().position(|info| info.name == name)?;
        Self::ALL.get(index).copied()
    }

    /// What is known about it.
    #[must_use]
    pub const fn info(self) -> &'static OperationInfo {
        &OPERATIONS[self as usize]
    }
}
