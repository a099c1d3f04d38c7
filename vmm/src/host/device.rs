//! Opening `/dev/kvm`, and what to do where that fails.
//!
//! Three things go wrong on real machines: there is no device, this user may
//! not open it, or it is something else. Each is an [`OpenError`] of its own,
//! with the commands that mend it and an exit status of its own. Nothing is
//! guessed from the name of a machine; the advice follows what the CPU, the
//! file's owner and the surroundings say.

use std::env;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kvm_ioctls::Kvm;
use thiserror::Error;

use crate::vstate::KVM_PATH_VARIABLE;

/// The only version of KVM's interface there ever was in a released kernel.
pub const API_VERSION: i32 = 12;

/// Why KVM cannot be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no such device.
    #[error("there is no {}: KVM is not available here", path.display())]
    Missing {
        /// The device.
        path: PathBuf,
        /// What opening it said.
        source: io::Error,
    },
    /// This user may not open it.
    #[error("no permission to open {}{owner}", path.display())]
    Denied {
        /// The device.
        path: PathBuf,
        /// Owner, group and mode, in words.
        owner: String,
        /// What opening it said.
        source: io::Error,
    },
    /// It opened but does not answer as KVM.
    #[error("{} is not KVM: it does not answer KVM_GET_API_VERSION", path.display())]
    NotKvm {
        /// The file.
        path: PathBuf,
    },
    /// It speaks another version of the interface.
    #[error("{} speaks version {found} of KVM's interface, not {API_VERSION}", path.display())]
    WrongVersion {
        /// The device.
        path: PathBuf,
        /// The version it speaks.
        found: i32,
    },
    /// Anything else.
    #[error("{} cannot be opened", path.display())]
    Other {
        /// The device.
        path: PathBuf,
        /// What opening it said.
        source: io::Error,
    },
}

/// Opens KVM at `path` and checks its version.
///
/// # Errors
///
/// If there is no KVM to be had there.
pub fn open(path: &Path) -> Result<Kvm, OpenError> {
    let Ok(c_path) = CString::new(path.as_os_str().as_bytes()) else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        return Err(OpenError::Other { path: path.to_owned(), source });
    };
    let kvm = Kvm::new_with_path(c_path)
        .map_err(|error| classify(path, io::Error::from_raw_os_error(error.errno())))?;
    match kvm.get_api_version() {
        API_VERSION => Ok(kvm),
        negative if negative < 0 => Err(OpenError::NotKvm { path: path.to_owned() }),
        found => Err(OpenError::WrongVersion { path: path.to_owned(), found }),
    }
}

fn classify(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO | libc::ENOTDIR) => {
            OpenError::Missing { path, source }
        }
        Some(libc::EACCES | libc::EPERM) => {
            let owner = describe_owner(&path);
            OpenError::Denied { path, owner, source }
        }
        _ => OpenError::Other { path, source },
    }
}

/// ` (it belongs to user 0, group kvm, mode 0660)`, or nothing.
fn describe_owner(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return String::new() };
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let group = group_name(&groups, metadata.gid()).unwrap_or("without a name");
    format!(
        " (it belongs to user {}, group {} {group}, mode {:04o})",
        metadata.uid(),
        metadata.gid(),
        metadata.mode() & 0o7777,
    )
}

fn group_name(groups: &str, number: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == number).then_some(name)
    })
}

impl OpenError {
    /// Exit status of the program for this error.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Missing { .. } => 3,
            Self::Denied { .. } => 4,
            Self::NotKvm { .. } | Self::WrongVersion { .. } => 5,
            Self::Other { .. } => 1,
        }
    }

    /// What to do about it: lines for a person, commands indented.
    #[must_use]
    pub fn advice(&self) -> Vec<String> {
        match self {
            Self::Missing { .. } => missing_advice(&Surroundings::look()),
            Self::Denied { path, .. } => denied_advice(path),
            Self::NotKvm { .. } => {
                vec![format!("Unset {KVM_PATH_VARIABLE}, or let it name the KVM device.")]
            }
            Self::WrongVersion { .. } => {
                vec![
                    "Linux 2.6.22 and later all speak version 12: this kernel is too old or \
                      the device is not Linux's KVM."
                        .to_owned(),
                ]
            }
            Self::Other { .. } => Vec::new(),
        }
    }
}

/// What decides which advice helps.
#[derive(Clone, Copy, Debug)]
struct Surroundings {
    vmx: bool,
    svm: bool,
    virtual_machine: bool,
    container: bool,
}

impl Surroundings {
    fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = super::cpu::flags(&cpuinfo);
        let marks = ["/.dockerenv", "/run/.containerenv"];
        Self {
            vmx: flags.contains(&"vmx"),
            svm: flags.contains(&"svm"),
            virtual_machine: flags.contains(&"hypervisor"),
            container: marks.iter().any(|mark| Path::new(mark).exists())
                || env::var_os("container").is_some_and(|name| name != OsStr::new("")),
        }
    }
}

fn missing_advice(surroundings: &Surroundings) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |line: &str| lines.push(line.to_owned());
    if surroundings.vmx {
        say("The CPU can do it (VMX): load the module.");
        say("    sudo modprobe kvm_intel");
    } else if surroundings.svm {
        say("The CPU can do it (SVM): load the module.");
        say("    sudo modprobe kvm_amd");
    } else if surroundings.virtual_machine {
        say("This is a virtual machine whose CPU shows neither VMX nor SVM. Have nested");
        say("virtualization switched on where it is hosted, then load the module here:");
        say("    on its host:  sudo modprobe -r kvm_intel && sudo modprobe kvm_intel nested=1");
        say("                  (kvm_amd on AMD), and give the machine the host's CPU model");
        say("    in the cloud: choose a machine type with nested virtualization, or bare metal");
        say("    here:         sudo modprobe kvm_intel || sudo modprobe kvm_amd");
        say("A kernel with KVM for machines without either (kvm_pvm) works as well.");
    } else {
        say("The CPU shows neither VMX nor SVM: switch virtualization on in the firmware setup");
        say("(\"Intel Virtualization Technology\", \"SVM Mode\"), then load the module:");
        say("    sudo modprobe kvm_intel || sudo modprobe kvm_amd");
    }
    if surroundings.container {
        say("This is a container: hand the device in when starting it.");
        say("    docker run --device /dev/kvm …      podman run --device /dev/kvm …");
    } else {
        say("In a container, hand the device in: docker run --device /dev/kvm …");
    }
    lines
}

fn denied_advice(path: &Path) -> Vec<String> {
    let device = path.display();
    vec![
        "One of these, as an administrator:".to_owned(),
        "  for good, for this user (log in again afterwards):".to_owned(),
        "    sudo usermod -aG kvm \"$USER\"".to_owned(),
        "  at once, until the next boot:".to_owned(),
        format!("    sudo setfacl -m u:\"$USER\":rw {device}"),
        "  for good, for everybody (as on a CI runner), a udev rule:".to_owned(),
        "    echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0666\", OPTIONS+=\"static_node=kvm\"' \
         | sudo tee /etc/udev/rules.d/99-kvm.rules"
            .to_owned(),
        "    sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm"
            .to_owned(),
        "  in a container, the device must also be handed in:".to_owned(),
        "    docker run --device /dev/kvm --group-add \"$(stat -c %g /dev/kvm)\" …".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(error: &OpenError) -> String {
        error.advice().join("\n")
    }

    #[test]
    fn a_missing_device_is_said_to_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(&folder.path().join("kvm")).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "{error:?}");
        assert_eq!(error.exit_status(), 3);
        assert!(advice(&error).contains("modprobe"));
    }

    #[test]
    fn a_file_that_is_not_kvm_is_said_to_be_no_kvm() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(file.path()).unwrap_err();
        assert!(matches!(error, OpenError::NotKvm { .. }), "{error:?}");
        assert_eq!(error.exit_status(), 5);
        assert!(advice(&error).contains(KVM_PATH_VARIABLE));
    }

    #[test]
    fn a_refusal_names_the_commands_that_mend_it() {
        let source = io::Error::from_raw_os_error(libc::EACCES);
        let error = classify(Path::new("/"), source);
        assert_eq!(error.exit_status(), 4);
        assert!(error.to_string().contains("user 0, group 0"), "{error}");
        for part in ["usermod -aG kvm", "setfacl -m", "KERNEL==\"kvm\"", "udevadm trigger"] {
            assert!(advice(&error).contains(part), "{part}");
        }
    }

    #[test]
    fn a_wrong_version_names_both() {
        let error = OpenError::WrongVersion { path: "/dev/kvm".into(), found: 11 };
        assert_eq!(error.to_string(), "/dev/kvm speaks version 11 of KVM's interface, not 12");
        assert_eq!(error.exit_status(), 5);
    }

    #[test]
    fn advice_follows_the_surroundings() {
        let base =
            Surroundings { vmx: false, svm: false, virtual_machine: false, container: false };
        let text = |surroundings| missing_advice(&surroundings).join("\n");
        assert!(text(base).contains("firmware"));
        assert!(text(Surroundings { vmx: true, ..base }).contains("modprobe kvm_intel"));
        assert!(text(Surroundings { svm: true, ..base }).contains("modprobe kvm_amd"));
        assert!(text(Surroundings { virtual_machine: true, ..base }).contains("nested=1"));
        assert!(text(Surroundings { container: true, ..base }).contains("This is a container"));
    }

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\nkvm:x:104:alice\nbroken\n";
        assert_eq!(group_name(groups, 104), Some("kvm"));
        assert_eq!(group_name(groups, 7), None);
    }
}
