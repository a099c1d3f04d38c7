//! A folder in which programs work on files, as one side has it.
//!
//! Each program makes a folder of its own in it, named by its seed. A listing has
//! a line for each entry below, with a checksum for every page of a file, so that
//! a difference says where it is.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use thiserror::Error;

/// A folder could not be made, emptied or read.
#[derive(Debug, Error)]
#[error("cannot use the folder {}", path.display())]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
}

/// A folder of this machine that one side works in. It goes with its value.
#[derive(Debug)]
pub struct Folder {
    root: TempDir,
}

const PAGE: usize = 4096;

impl Folder {
    /// A new one below `parent`.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn new(parent: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError { path: parent.to_owned(), source };
        let parent = parent.canonicalize().map_err(failed)?;
        Ok(Self { root: TempDir::new_in(parent).map_err(failed)? })
    }

    /// Where it is on this machine.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Removes all that is in it.
    ///
    /// # Errors
    ///
    /// If something cannot be removed.
    pub fn clear(&self) -> Result<(), FolderError> {
        for path in entries(self.path())? {
            let removed =
                if is_folder(&path)? { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| FolderError { path, source })?;
        }
        Ok(())
    }

    /// What is in it: a line for each entry, sorted.
    ///
    /// # Errors
    ///
    /// If something cannot be read.
    pub fn listing(&self) -> Result<Vec<String>, FolderError> {
        let mut lines = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                let line = format!("{}{}", self.name_of(&path), describe(&path)?);
                lines.push(line);
                if is_folder(&path)? {
                    folders.push(path);
                }
            }
        }
        lines.sort();
        Ok(lines)
    }

    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(self.path()).unwrap_or(path).display().to_string()
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let failed = |source| FolderError { path: folder.to_owned(), source };
    fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}

fn is_folder(path: &Path) -> Result<bool, FolderError> {
    let metadata = fs::symlink_metadata(path);
    metadata
        .map(|metadata| metadata.is_dir())
        .map_err(|source| FolderError { path: path.to_owned(), source })
}

/// What an entry is, and holds.
fn describe(path: &Path) -> Result<String, FolderError> {
    let failed = |source| FolderError { path: path.to_owned(), source };
    let kind = fs::symlink_metadata(path).map_err(failed)?.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        return Ok(format!(" -> {}", target.display()));
    }
    if kind.is_dir() {
        return Ok("/".to_owned());
    }
    let bytes = fs::read(path).map_err(failed)?;
    let mut text = format!(" {} bytes:", bytes.len());
    for page in bytes.chunks(PAGE) {
        // Writing to a string cannot fail.
        let _ = write!(text, " {:08x}", checksum(page));
    }
    Ok(text)
}

/// 0 for zeros.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

/// The lines of a listing that belong to the program with this seed.
#[must_use]
pub fn of_program(listing: &[String], seed: u64) -> &[String] {
    let name = seed.to_string();
    let belongs = |line: &String| {
        let folder = line.split(['/', ' ']).next();
        folder == Some(&name)
    };
    let start = listing.iter().position(belongs).unwrap_or(listing.len());
    let count = listing[start..].iter().take_while(|line| belongs(line)).count();
    &listing[start..start + count]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> Folder {
        Folder::new(&std::env::temp_dir()).expect("a folder")
    }

    #[test]
    fn a_listing_tells_contents_targets_and_sizes_apart() {
        let (one, other) = (folder(), folder());
        for root in [one.path(), other.path()] {
            fs::create_dir(root.join("7")).expect("a folder");
            fs::write(root.join("7/a"), vec![1; 5000]).expect("a file");
        }
        let listing = || one.listing().expect("a listing");
        let others = other.listing().expect("a listing");
        assert_eq!(listing(), others);
        assert_eq!(listing().len(), 2);
        assert_eq!(of_program(&listing(), 7).len(), 2);
        assert_eq!(of_program(&listing(), 70).len(), 0);

        fs::write(one.path().join("7/a"), [vec![1; 4999], vec![2]].concat()).expect("a file");
        assert_ne!(listing(), others);
        fs::write(one.path().join("7/a"), vec![1; 4999]).expect("a file");
        assert_ne!(listing(), others);
        std::os::unix::fs::symlink("a", one.path().join("7/l")).expect("a link");
        assert!(listing().contains(&"7/l -> a".to_owned()), "{:?}", listing());
    }

    #[test]
    fn nothing_is_left_of_a_cleared_folder() {
        let folder = folder();
        fs::create_dir(folder.path().join("7")).expect("a folder");
        fs::write(folder.path().join("7/a"), "text").expect("a file");
        fs::write(folder.path().join("b"), "text").expect("a file");
        folder.clear().expect("it can be cleared");
        assert_eq!(folder.listing().expect("a listing"), [""; 0]);
    }

    #[test]
    fn programs_find_the_lines_that_are_theirs() {
        let lines = ["1/", "1/a 0 bytes:", "10/", "2/"].map(str::to_owned);
        assert_eq!(of_program(&lines, 1), &lines[..2]);
        assert_eq!(of_program(&lines, 10), &lines[2..3]);
    }
}
