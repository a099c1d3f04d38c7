//! What a user wrote after `--share`, and where programs of the host are in the
//! guest.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use pagelab_abi::boot::{SHARE_READ_ONLY, SHARE_WRITABLE};
use pagelab_abi::layout::MAX_VIRTIO_DEVICES;

/// Folders that the guest's kernel fills itself, over a folder that is its root:
/// what the host has there is not seen.
const KERNEL_FOLDERS: [&str; 4] = ["/dev", "/proc", "/run", "/tmp"];
/// Where folders go that are given no place.
const DEFAULT_PLACE: &str = "/mnt";
/// Longest path of a place in the guest.
const MAX_PLACE: usize = 1024;

/// What is wrong with shares.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The folder cannot be used.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Two at one place.
    #[error("two folders at {0} of the guest")]
    SamePlace(String),
    /// One inside another.
    #[error("{inner} lies inside {outer} of the guest, where another folder already is")]
    Nested {
        /// The place inside.
        inner: String,
        /// The place around it.
        outer: String,
    },
    /// More than there can be devices.
    #[error("{0} devices (one per folder, and one for swap) are more than {MAX_VIRTIO_DEVICES}")]
    TooMany(usize),
}

/// A folder as the user named it: `DIR[:GUESTDIR][:ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareOption {
    folder: PathBuf,
    place: Option<String>,
    read_only: bool,
}

impl FromStr for ShareOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, read_only) = match text.rsplit_once(':') {
            Some((rest, SHARE_READ_ONLY)) => (rest, true),
            Some((rest, SHARE_WRITABLE)) => (rest, false),
            _ => (text, false),
        };
        // Only a path from the root can be a place, so a relative folder may
        // have a colon in its name.
        let (folder, place) = match rest.rsplit_once(':') {
            Some((folder, place)) if place.starts_with('/') => (folder, Some(tidy(place)?)),
            Some((folder, place)) if !folder.is_empty() && !Path::new(rest).exists() => {
                return Err(format!(
                    "‘{place}’ is neither a path of the guest from its root, nor ro or rw"
                ));
            }
            _ => (rest, None),
        };
        if folder.is_empty() {
            return Err("write DIR[:GUESTDIR][:ro]".to_owned());
        }
        Ok(Self { folder: folder.into(), place, read_only })
    }
}

/// A path of the guest without empty components; `..` has no place in it.
fn tidy(path: &str) -> Result<String, String> {
    let mut clean = String::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => return Err(format!("‘{path}’ has ‘..’ in it")),
            name if name.len() > 255 => return Err(format!("‘{name}’ is too long for a name")),
            name => {
                clean.push('/');
                clean.push_str(name);
            }
        }
    }
    if clean.is_empty() {
        clean.push('/');
    }
    if clean.len() > MAX_PLACE || clean.contains('\0') {
        return Err(format!("‘{path}’ is no path that the guest can have"));
    }
    Ok(clean)
}

/// A folder that the guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The folder of the host: absolute, without symbolic links.
    pub folder: PathBuf,
    /// Where the guest finds it.
    pub place: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

impl Share {
    fn new(option: &ShareOption) -> Result<Self, ShareError> {
        let unusable = |source| ShareError::Folder { path: option.folder.clone(), source };
        let folder = fs::canonicalize(&option.folder).map_err(unusable)?;
        if !fs::metadata(&folder).map_err(unusable)?.is_dir() {
            return Err(ShareError::NotAFolder(option.folder.clone()));
        }
        let place = option.place.clone().unwrap_or_else(|| match folder.file_name() {
            Some(name) => format!("{DEFAULT_PLACE}/{}", name.to_string_lossy()),
            // The host's root can be nothing but the guest's.
            None => "/".to_owned(),
        });
        Ok(Self { folder, place, read_only: option.read_only })
    }
}

/// All folders of a lab, the one at the guest's root first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares(Vec<Share>);

impl Shares {
    /// Checks what the user wants; `others` is how many other devices there are.
    ///
    /// # Errors
    ///
    /// If a folder cannot be used or they are in each other's way.
    pub fn new(options: &[ShareOption], others: usize) -> Result<Self, ShareError> {
        let devices = options.len() + others;
        if u32::try_from(devices).map_or(true, |devices| devices > MAX_VIRTIO_DEVICES) {
            return Err(ShareError::TooMany(devices));
        }
        let mut shares = options.iter().map(Share::new).collect::<Result<Vec<_>, _>>()?;
        shares.sort_by_key(|share| share.place != "/");
        for (index, share) in shares.iter().enumerate() {
            for other in &shares[index + 1..] {
                check_places(&share.place, &other.place)?;
            }
        }
        Ok(Self(shares))
    }

    /// The folders.
    #[must_use]
    pub fn as_slice(&self) -> &[Share] {
        &self.0
    }

    /// The name that the guest's driver knows folder `index` by.
    #[must_use]
    pub fn tag(index: usize) -> String {
        format!("share{index}")
    }

    /// What the guest's kernel is told: tag, place and access of each.
    #[must_use]
    pub fn module(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, share) in self.0.iter().enumerate() {
            let access = if share.read_only { SHARE_READ_ONLY } else { SHARE_WRITABLE };
            for text in [&Self::tag(index), &share.place, access] {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0);
            }
        }
        bytes
    }

    /// Where the guest finds the host's file at `path`, if it is in a folder that
    /// the guest has, and not hidden there.
    #[must_use]
    pub fn guest_path(&self, path: &Path) -> Option<Vec<u8>> {
        let path = fs::canonicalize(path).ok()?;
        self.0.iter().enumerate().find_map(|(index, share)| {
            let below = path.strip_prefix(&share.folder).ok()?;
            if !below.components().all(|part| matches!(part, Component::Normal(_))) {
                return None;
            }
            let mut guest = share.place.trim_end_matches('/').as_bytes().to_vec();
            guest.push(b'/');
            guest.extend_from_slice(below.as_os_str().as_bytes());
            let hidden = Path::new(OsStr::from_bytes(&guest));
            let others = self.0.iter().skip(index + 1).map(|other| other.place.as_str());
            let in_the_way = |place: &str| place != share.place && hidden.starts_with(place);
            let below_kernel =
                |place: &str| in_the_way(place) && !Path::new(&share.place).starts_with(place);
            let is_hidden =
                others.into_iter().any(in_the_way) || KERNEL_FOLDERS.into_iter().any(below_kernel);
            (!is_hidden).then_some(guest)
        })
    }
}

/// Two places may not be the same, and only the root may have others inside.
fn check_places(one: &str, other: &str) -> Result<(), ShareError> {
    if one == other {
        return Err(ShareError::SamePlace(one.to_owned()));
    }
    let nested = |inner: &str, outer: &str| outer != "/" && Path::new(inner).starts_with(outer);
    let error = |inner: &str, outer: &str| ShareError::Nested {
        inner: inner.to_owned(),
        outer: outer.to_owned(),
    };
    if nested(one, other) {
        return Err(error(one, other));
    }
    if nested(other, one) {
        return Err(error(other, one));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(text: &str) -> ShareOption {
        text.parse().unwrap()
    }

    #[test]
    fn options_are_taken_apart_from_the_right() {
        let parts = |text: &str| {
            let ShareOption { folder, place, read_only } = option(text);
            (folder.to_string_lossy().into_owned(), place.unwrap_or_default(), read_only)
        };
        let expect = |text, folder: &str, place: &str, read_only| {
            assert_eq!(parts(text), (folder.to_owned(), place.to_owned(), read_only), "{text}");
        };
        expect("dir", "dir", "", false);
        expect("dir:ro", "dir", "", true);
        expect("dir:rw", "dir", "", false);
        expect("dir:/data", "dir", "/data", false);
        expect("dir:/data//x/./y/:ro", "dir", "/data/x/y", true);
        expect("/:/:ro", "/", "/", true);
        for wrong in ["", ":ro", ":/x", "dir:data", "dir:/a/../b", "dir:/x:wo"] {
            assert!(wrong.parse::<ShareOption>().is_err(), "{wrong}");
        }
    }

    fn folders() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("a/program"), b"").unwrap();
        std::os::unix::fs::symlink("a/program", folder.path().join("link")).unwrap();
        folder
    }

    fn shares(folder: &Path, options: &[&str]) -> Result<Shares, ShareError> {
        let root = folder.to_str().unwrap();
        let options: Vec<_> = options.iter().map(|text| option(&text.replace('@', root))).collect();
        Shares::new(&options, 0)
    }

    #[test]
    fn places_have_defaults_and_must_not_collide() {
        let folder = folders();
        let good = shares(folder.path(), &["@/a", "@/b:/x:ro"]).unwrap();
        assert_eq!(good.module(), b"share0\0/mnt/a\0rw\0share1\0/x\0ro\0");
        let root_first = shares(folder.path(), &["@/a:/work", "@/b:/"]).unwrap();
        assert_eq!(root_first.as_slice()[0].place, "/");
        let refused = |options: &[&str]| shares(folder.path(), options).unwrap_err().to_string();
        assert!(refused(&["@/a:/x", "@/b:/x"]).contains("two folders at /x"));
        assert!(refused(&["@/a:/x/y", "@/b:/x"]).contains("/x/y lies inside /x"));
        assert!(refused(&["@/nothing"]).contains("No such file"));
        assert!(refused(&["@/a/program"]).contains("not a folder"));
        assert!(refused(&["@/a"; 9]).contains("9 devices"));
    }

    #[test]
    fn programs_are_found_where_the_guest_sees_them() {
        let folder = folders();
        let guest_path = |options: &[&str], path: &str| {
            let shares = shares(folder.path(), options).unwrap();
            shares
                .guest_path(&folder.path().join(path))
                .map(|path| String::from_utf8(path).unwrap())
        };
        let found = |place: &str| Some(place.to_owned());
        assert_eq!(guest_path(&["@/a"], "a/program"), found("/mnt/a/program"));
        assert_eq!(guest_path(&["@/a:/"], "link"), found("/program"));
        assert_eq!(guest_path(&["@/b"], "a/program"), None);
        assert_eq!(guest_path(&["@/a"], "a/nothing"), None);
        assert_eq!(guest_path(&["@:/", "@/b:/a"], "a/program"), None);
        assert_eq!(guest_path(&["@:/tmp/x"], "a/program"), found("/tmp/x/a/program"));
        assert_eq!(guest_path(&["/:/"], "a/program").is_some(), !folder.path().starts_with("/tmp"));
    }
}
