//! The FUSE protocol, version 7: numbers and structures, all little-endian here.
//!
//! A request is an [`InHeader`], a structure of the operation, then names that
//! end with a NUL, or data. A reply is an [`OutHeader`], then a structure or
//! data; with an error it is the header alone.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version that is spoken.
pub const MAJOR: u32 = 7;
/// Its minor number: structures are as of this one.
pub const MINOR: u32 = 31;
/// The oldest minor number of a server whose structures are the same.
pub const OLDEST_MINOR: u32 = 23;
/// The root directory.
pub const ROOT_NODE: u64 = 1;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names of the protocol")]
pub enum Operation {
    Lookup = 1,
    Forget = 2,
    GetAttr = 3,
    SetAttr = 4,
    ReadLink = 5,
    Symlink = 6,
    MkNod = 8,
    MkDir = 9,
    Unlink = 10,
    RmDir = 11,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    StatFs = 17,
    Release = 18,
    FSync = 20,
    Flush = 25,
    Init = 26,
    OpenDir = 27,
    ReadDir = 28,
    ReleaseDir = 29,
    FSyncDir = 30,
    Create = 35,
    BatchForget = 42,
    FAllocate = 43,
    ReadDirPlus = 44,
    Rename2 = 45,
    LSeek = 46,
}

/// In INIT: listings may carry attributes.
pub const INIT_READDIRPLUS: u32 = 1 << 13;
/// In INIT: writes may be longer than a page.
pub const INIT_BIG_WRITES: u32 = 1 << 5;
/// In INIT: a server that answers OPEN with ENOSYS needs no handles.
pub const INIT_NO_OPEN: u32 = 1 << 17;
/// In INIT: the number of pages of a request is agreed on.
pub const INIT_MAX_PAGES: u32 = 1 << 22;
/// In INIT: the same as [`INIT_NO_OPEN`] for directories.
pub const INIT_NO_OPENDIR: u32 = 1 << 24;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident $size:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            #[allow(missing_docs, reason = "the names of the protocol")]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
            const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}

structures! {
    /// Begins every request.
    InHeader 40 {
        length: u32, operation: u32, unique: u64, node: u64, uid: u32, gid: u32, pid: u32,
        padding: u32,
    }
    /// Begins every reply.
    OutHeader 16 { length: u32, error: i32, unique: u64, }
    /// INIT's request.
    InitIn 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11],
    }
    /// INIT's reply.
    InitOut 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_granularity: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, unused: [u32; 7],
    }
    /// What `stat` tells.
    Attributes 88 {
        ino: u64, size: u64, blocks: u64, accessed: u64, modified: u64, changed: u64,
        accessed_nanoseconds: u32, modified_nanoseconds: u32, changed_nanoseconds: u32,
        mode: u32, links: u32, uid: u32, gid: u32, device: u32, block_size: u32, flags: u32,
    }
    /// A node that was looked up or made.
    EntryOut 128 {
        node: u64, generation: u64, entry_valid: u64, attributes_valid: u64,
        entry_valid_nanoseconds: u32, attributes_valid_nanoseconds: u32, attributes: Attributes,
    }
    /// GETATTR's request.
    GetAttrIn 16 { flags: u32, padding: u32, handle: u64, }
    /// GETATTR's and SETATTR's reply.
    AttributesOut 104 {
        valid: u64, valid_nanoseconds: u32, padding: u32, attributes: Attributes,
    }
    /// SETATTR's request.
    SetAttrIn 88 {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64, accessed: u64,
        modified: u64, changed: u64, accessed_nanoseconds: u32, modified_nanoseconds: u32,
        changed_nanoseconds: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD's request, before the name.
    MkNodIn 16 { mode: u32, device: u32, umask: u32, padding: u32, }
    /// MKDIR's request, before the name.
    MkDirIn 8 { mode: u32, umask: u32, }
    /// RENAME2's request, before both names.
    Rename2In 16 { new_directory: u64, flags: u32, padding: u32, }
    /// LINK's request, before the name.
    LinkIn 8 { old_node: u64, }
    /// OPEN's and OPENDIR's request.
    OpenIn 8 { flags: u32, open_flags: u32, }
    /// CREATE's request, before the name.
    CreateIn 16 { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// OPEN's and OPENDIR's reply.
    OpenOut 16 { handle: u64, open_flags: u32, backing: u32, }
    /// CREATE's reply.
    CreateOut 144 { entry: EntryOut, open: OpenOut, }
    /// RELEASE's and RELEASEDIR's request.
    ReleaseIn 24 { handle: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// FLUSH's request.
    FlushIn 24 { handle: u64, unused: u32, padding: u32, lock_owner: u64, }
    /// READ's, READDIR's and READDIRPLUS's request.
    ReadIn 40 {
        handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// WRITE's request, before the data.
    WriteIn 40 {
        handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// WRITE's reply.
    WriteOut 8 { size: u32, padding: u32, }
    /// STATFS's reply.
    StatFsOut 80 {
        blocks: u64, blocks_free: u64, blocks_available: u64, files: u64, files_free: u64,
        block_size: u32, name_length: u32, fragment_size: u32, padding: u32, spare: [u32; 6],
    }
    /// FSYNC's and FSYNCDIR's request.
    FSyncIn 16 { handle: u64, flags: u32, padding: u32, }
    /// FALLOCATE's request.
    FAllocateIn 32 { handle: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// LSEEK's request.
    LSeekIn 24 { handle: u64, offset: u64, whence: u32, padding: u32, }
    /// LSEEK's reply.
    LSeekOut 8 { offset: u64, }
    /// FORGET's request, which has no reply.
    ForgetIn 8 { lookups: u64, }
    /// BATCH_FORGET's request, before its [`ForgetOne`]s; it has no reply.
    BatchForgetIn 8 { count: u32, padding: u32, }
    /// One node of BATCH_FORGET.
    ForgetOne 16 { node: u64, lookups: u64, }
    /// One entry of a listing, before its name; padded to 8 bytes.
    DirEntry 24 { ino: u64, next: u64, name_length: u32, kind: u32, }
}

/// In [`SetAttrIn::valid`].
pub mod set {
    /// The mode.
    pub const MODE: u32 = 1 << 0;
    /// The owner.
    pub const UID: u32 = 1 << 1;
    /// The group.
    pub const GID: u32 = 1 << 2;
    /// The size.
    pub const SIZE: u32 = 1 << 3;
    /// The time of last reading.
    pub const ACCESSED: u32 = 1 << 4;
    /// The time of last change of the data.
    pub const MODIFIED: u32 = 1 << 5;
    /// The handle is one of this file.
    pub const HANDLE: u32 = 1 << 6;
}

/// In [`FSyncIn::flags`]: the data alone.
pub const FSYNC_DATA_ONLY: u32 = 1;
