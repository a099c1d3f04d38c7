//! Whether a file of the host can be a program of the guest, said before the
//! guest boots and in the host's terms.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC};
use elf::file::Class;

use super::elf::{machine_name, read_header};
use crate::memory::size::Bytes;

/// Why a file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no such file.
    #[error("there is no file {}", .0.display())]
    Missing(PathBuf),
    /// A directory.
    #[error("{} is a directory, not a program", .0.display())]
    Directory(PathBuf),
    /// A device, a pipe or a socket.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Far too long.
    #[error(
        "{} has {}; nothing of more than {} is loaded",
        path.display(), Bytes(*.length), Bytes(MAX_FILE)
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
    },
    /// An empty file.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// A script.
    #[error(
        "{} is a script; share its folder and its interpreter's, as --share /:/:ro does, or run \
         a static interpreter: pagelab run bash-static {}", .0.display(), .0.display()
    )]
    Script(PathBuf),
    /// Not ELF.
    #[error("{} is not an ELF program (it begins with {})", path.display(), first_bytes(start))]
    NotElf {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// ELF headers that are cut short or broken.
    #[error("{} has a broken ELF header", .0.display())]
    Broken(PathBuf),
    /// 32 bits.
    #[error("{} is a 32-bit program; the guest runs 64-bit ones", .0.display())]
    ThirtyTwoBits(PathBuf),
    /// Another processor.
    #[error("{} is for {}; the guest is x86-64", path.display(), machine_name(*machine))]
    WrongMachine {
        /// The file.
        path: PathBuf,
        /// Its ELF machine.
        machine: u16,
    },
    /// An object file or a core dump.
    #[error("{} is an ELF file, but not a program (ELF type {kind})", path.display())]
    NotProgram {
        /// The file.
        path: PathBuf,
        /// Its ELF type.
        kind: u16,
    },
}

impl ProgramError {
    /// The exit status that a shell would give: 127 for a program that is not
    /// there, 126 for one that cannot be run.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Missing(_) => 127,
            _ => 126,
        }
    }
}

/// Longest file that is loaded. A length that is not bounded would be one that a
/// sparse file can make up.
const MAX_FILE: u64 = 1 << 30;

/// Reads the program at `path`.
///
/// # Errors
///
/// If it is not there or cannot be a program of the guest.
pub fn read(path: &Path) -> Result<Vec<u8>, ProgramError> {
    let bytes = read_file(path)?;
    check(path, &bytes)?;
    Ok(bytes)
}

/// Reads a regular file of sensible length.
///
/// # Errors
///
/// If there is none.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ProgramError> {
    let length = regular_file(path)?;
    if length > MAX_FILE {
        return Err(ProgramError::TooLong { path: path.to_owned(), length });
    }
    fs::read(path).map_err(|source| read_error(path, source))
}

/// Looks at the program at `path` without reading all of it. It may be a script
/// too: the guest's kernel finds its interpreter.
///
/// # Errors
///
/// If it is not there or cannot be a program of the guest.
pub fn check_file(path: &Path) -> Result<(), ProgramError> {
    /// More than any header.
    const HEADER: u64 = 4096;
    regular_file(path)?;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEADER).read_to_end(&mut bytes));
    read.map_err(|source| read_error(path, source))?;
    if bytes.starts_with(b"#!") { Ok(()) } else { check(path, &bytes) }
}

fn read_error(path: &Path, source: io::Error) -> ProgramError {
    match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing(path.to_owned()),
        _ => ProgramError::Read { path: path.to_owned(), source },
    }
}

/// The length of a regular file.
fn regular_file(path: &Path) -> Result<u64, ProgramError> {
    // Asked before opening, since opening a pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(|source| read_error(path, source))?;
    if metadata.is_dir() {
        return Err(ProgramError::Directory(path.to_owned()));
    }
    if !metadata.is_file() {
        return Err(ProgramError::NotRegular(path.to_owned()));
    }
    Ok(metadata.len())
}

/// Looks at a program's header; the guest's kernel looks at the rest.
fn check(path: &Path, bytes: &[u8]) -> Result<(), ProgramError> {
    let owned = || path.to_owned();
    if bytes.is_empty() {
        return Err(ProgramError::Empty(owned()));
    }
    if bytes.starts_with(b"#!") {
        return Err(ProgramError::Script(owned()));
    }
    if !bytes.starts_with(b"\x7fELF") {
        let start = bytes[..bytes.len().min(8)].to_vec();
        return Err(ProgramError::NotElf { path: owned(), start });
    }
    let header = read_header(bytes).map_err(|_| ProgramError::Broken(owned()))?;
    if header.e_machine != EM_X86_64 && header.e_machine != elf::abi::EM_386 {
        return Err(ProgramError::WrongMachine { path: owned(), machine: header.e_machine });
    }
    if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
        return Err(ProgramError::ThirtyTwoBits(owned()));
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(ProgramError::NotProgram { path: owned(), kind: header.e_type });
    }
    Ok(())
}

/// The first bytes of a file: as text where they are text.
pub(crate) fn first_bytes(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        format!("‘{}’", String::from_utf8_lossy(bytes))
    } else {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.join(" ")
    }
}
