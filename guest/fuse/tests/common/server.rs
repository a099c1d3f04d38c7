//! A server for a directory of this machine, as simple as can be: nodes are
//! paths, handles are none.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pagelab_fuse::protocol::{
    Attributes, AttributesOut, BatchForgetIn, CreateIn, CreateOut, DirEntry, EntryOut, ForgetIn,
    ForgetOne, INIT_READDIRPLUS, InHeader, InitOut, LinkIn, MkDirIn, OpenOut, Operation, OutHeader,
    ReadIn, Rename2In, SetAttrIn, StatFsOut, WriteIn, WriteOut, set,
};
use zerocopy::{FromBytes, IntoBytes};

use super::Answer;

/// Nodes and how often each was looked up.
pub struct Server {
    nodes: BTreeMap<u64, (PathBuf, u64)>,
    next: u64,
    /// For how many seconds names and attributes may be believed.
    pub belief: u64,
    /// OPEN and OPENDIR are answered with ENOSYS.
    pub no_open: bool,
    pub plus: bool,
    /// Positions in listings are huge, as on ext4.
    pub huge_positions: bool,
    /// What was asked for, by number.
    pub asked: Vec<u32>,
}

type Done = io::Result<Vec<u8>>;

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn names(rest: &[u8]) -> Vec<&Path> {
    let mut names: Vec<_> =
        rest.split(|byte| *byte == 0).map(std::ffi::OsStr::from_bytes).collect();
    assert_eq!(names.pop().map(|last| last.len()), Some(0), "names end with a NUL");
    names.into_iter().map(Path::new).collect()
}

fn attributes(path: &Path) -> io::Result<Attributes> {
    let found = fs::symlink_metadata(path)?;
    Ok(Attributes {
        ino: found.ino(),
        size: found.size(),
        blocks: found.blocks(),
        modified: found.mtime().cast_unsigned(),
        modified_nanoseconds: u32::try_from(found.mtime_nsec()).unwrap(),
        mode: found.mode(),
        links: u32::try_from(found.nlink()).unwrap(),
        uid: found.uid(),
        gid: found.gid(),
        block_size: 4096,
        ..Attributes::default()
    })
}

impl Server {
    pub fn new(root: &Path) -> Self {
        Self {
            nodes: BTreeMap::from([(1, (root.to_path_buf(), 1))]),
            next: 2,
            belief: 0,
            no_open: false,
            plus: false,
            huge_positions: false,
            asked: Vec::new(),
        }
    }

    /// How many nodes the client holds.
    pub fn held(&self) -> usize {
        self.nodes.len() - 1
    }

    fn path(&self, node: u64) -> PathBuf {
        self.nodes[&node].0.clone()
    }

    /// The node of a path: one for each inode.
    fn entry(&mut self, path: PathBuf) -> io::Result<EntryOut> {
        let attributes = attributes(&path)?;
        let known = self.nodes.iter().find(|(_, (known, _))| {
            fs::symlink_metadata(known).is_ok_and(|found| found.ino() == attributes.ino)
        });
        let node = known.map(|(node, _)| *node).unwrap_or_else(|| {
            self.next += 1;
            self.nodes.insert(self.next, (path, 0));
            self.next
        });
        self.nodes.get_mut(&node).unwrap().1 += 1;
        let belief = self.belief;
        Ok(EntryOut {
            node,
            entry_valid: belief,
            attributes_valid: belief,
            attributes,
            ..EntryOut::default()
        })
    }

    fn forget(&mut self, node: u64, lookups: u64) {
        let held = &mut self.nodes.get_mut(&node).expect("a node is forgotten once").1;
        *held = held.checked_sub(lookups).expect("no more than was looked up");
        if *held == 0 {
            self.nodes.remove(&node);
        }
    }

    fn list(&mut self, path: &Path, asked: &ReadIn, plus: bool) -> Done {
        let mut names: Vec<_> =
            fs::read_dir(path)?.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.insert(0, "..".into());
        names.insert(0, ".".into());
        let base = if self.huge_positions { i64::MAX.unsigned_abs() - 10_000 } else { 0 };
        let start = usize::try_from(asked.offset.saturating_sub(base)).unwrap();
        let mut out = Vec::new();
        for (index, name) in names.iter().enumerate().skip(start) {
            let name = name.as_bytes();
            let head = if plus { size_of::<EntryOut>() } else { 0 } + size_of::<DirEntry>();
            if out.len() + (head + name.len()).next_multiple_of(8) > asked.size as usize {
                break;
            }
            let inner = path.join(std::ffi::OsStr::from_bytes(name));
            let found = attributes(&inner)?;
            if plus {
                let dots = matches!(name, b"." | b"..");
                let entry = if dots { EntryOut::default() } else { self.entry(inner)? };
                out.extend_from_slice(entry.as_bytes());
            }
            let entry = DirEntry {
                ino: found.ino,
                next: base + index as u64 + 1,
                name_length: u32::try_from(name.len()).unwrap(),
                kind: found.mode >> 12,
            };
            out.extend_from_slice(entry.as_bytes());
            out.extend_from_slice(name);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        Ok(out)
    }

    fn change(&self, path: &Path, change: &SetAttrIn) -> Done {
        if change.valid & set::SIZE != 0 {
            OpenOptions::new().write(true).open(path)?.set_len(change.size)?;
        }
        if change.valid & set::MODE != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(change.mode & 0o7777))?;
        }
        if change.valid & set::MODIFIED != 0 {
            let time = std::time::UNIX_EPOCH
                + std::time::Duration::new(change.modified, change.modified_nanoseconds);
            File::options().write(true).open(path)?.set_modified(time)?;
        }
        let reply = AttributesOut { attributes: attributes(path)?, ..AttributesOut::default() };
        Ok(reply.as_bytes().to_vec())
    }

    fn serve(&mut self, header: &InHeader, rest: &[u8]) -> Done {
        let node = header.node;
        let is = |operation: Operation| header.operation == operation as u32;
        fn read<T: FromBytes>(rest: &[u8]) -> (T, &[u8]) {
            T::read_from_prefix(rest).expect("a whole request")
        }
        let done = Ok(Vec::new());
        if is(Operation::Init) {
            let flags = if self.plus { INIT_READDIRPLUS } else { 0 };
            let reply =
                InitOut { major: 7, minor: 31, max_write: 1 << 20, flags, ..InitOut::default() };
            return Ok(reply.as_bytes().to_vec());
        }
        let here = self.path(node);
        if is(Operation::Lookup) {
            return Ok(self.entry(here.join(names(rest)[0]))?.as_bytes().to_vec());
        } else if is(Operation::GetAttr) {
            let reply = AttributesOut {
                attributes: attributes(&here)?,
                valid: self.belief,
                ..AttributesOut::default()
            };
            return Ok(reply.as_bytes().to_vec());
        } else if is(Operation::SetAttr) {
            return self.change(&here, &read(rest).0);
        } else if is(Operation::ReadLink) {
            return Ok(fs::read_link(here)?.as_os_str().as_bytes().to_vec());
        } else if is(Operation::Symlink) {
            let names = names(rest);
            symlink(names[1], here.join(names[0]))?;
            return Ok(self.entry(here.join(names[0]))?.as_bytes().to_vec());
        } else if is(Operation::MkDir) {
            let (_, rest) = read::<MkDirIn>(rest);
            fs::create_dir(here.join(names(rest)[0]))?;
            return Ok(self.entry(here.join(names(rest)[0]))?.as_bytes().to_vec());
        } else if is(Operation::Unlink) {
            fs::remove_file(here.join(names(rest)[0]))?;
        } else if is(Operation::RmDir) {
            fs::remove_dir(here.join(names(rest)[0]))?;
        } else if is(Operation::Rename2) {
            let (how, rest) = read::<Rename2In>(rest);
            let to = self.path(how.new_directory).join(names(rest)[1]);
            let from = here.join(names(rest)[0]);
            fs::rename(&from, &to)?;
            for (path, _) in self.nodes.values_mut() {
                if let Ok(below) = path.strip_prefix(&from) {
                    *path = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                }
            }
        } else if is(Operation::Link) {
            let (old, rest) = read::<LinkIn>(rest);
            fs::hard_link(self.path(old.old_node), here.join(names(rest)[0]))?;
            return Ok(self.entry(here.join(names(rest)[0]))?.as_bytes().to_vec());
        } else if is(Operation::Open) || is(Operation::OpenDir) {
            if self.no_open {
                return Err(error(38));
            }
            return Ok(OpenOut { handle: 7, ..OpenOut::default() }.as_bytes().to_vec());
        } else if is(Operation::Create) {
            let (how, rest) = read::<CreateIn>(rest);
            let path = here.join(names(rest)[0]);
            File::create_new(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(how.mode & 0o7777))?;
            let open = OpenOut { handle: 7, ..OpenOut::default() };
            return Ok(CreateOut { entry: self.entry(path)?, open }.as_bytes().to_vec());
        } else if is(Operation::Read) {
            let (how, _) = read::<ReadIn>(rest);
            let mut bytes = vec![0; how.size as usize];
            let count = File::open(here)?.read_at(&mut bytes, how.offset)?;
            bytes.truncate(count);
            return Ok(bytes);
        } else if is(Operation::Write) {
            let (how, data) = read::<WriteIn>(rest);
            assert_eq!(how.size as usize, data.len());
            OpenOptions::new().write(true).open(here)?.write_all_at(data, how.offset)?;
            return Ok(WriteOut { size: how.size, padding: 0 }.as_bytes().to_vec());
        } else if is(Operation::ReadDir) || is(Operation::ReadDirPlus) {
            return self.list(&here, &read(rest).0, is(Operation::ReadDirPlus));
        } else if is(Operation::StatFs) {
            let reply = StatFsOut {
                blocks: 100,
                blocks_free: 40,
                block_size: 4096,
                ..StatFsOut::default()
            };
            return Ok(reply.as_bytes().to_vec());
        } else if !(is(Operation::Release)
            || is(Operation::ReleaseDir)
            || is(Operation::FSync)
            || is(Operation::FSyncDir))
        {
            return Err(error(38));
        }
        done
    }
}

impl Answer for Server {
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let (header, rest) = InHeader::read_from_prefix(request).unwrap();
        assert_eq!(header.length as usize, request.len());
        self.asked.push(header.operation);
        if header.operation == Operation::Forget as u32 {
            self.forget(header.node, ForgetIn::read_from_prefix(rest).unwrap().0.lookups);
            return Vec::new();
        }
        if header.operation == Operation::BatchForget as u32 {
            let (batch, mut rest) = BatchForgetIn::read_from_prefix(rest).unwrap();
            for _ in 0..batch.count {
                let (one, after) = ForgetOne::read_from_prefix(rest).unwrap();
                self.forget(one.node, one.lookups);
                rest = after;
            }
            return Vec::new();
        }
        let (error, body) = match self.serve(&header, rest) {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error().unwrap_or(5), Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap();
        let mut out = OutHeader { length, error, unique: header.unique }.as_bytes().to_vec();
        out.extend(body);
        out
    }
}
