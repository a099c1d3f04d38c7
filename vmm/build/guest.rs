//! Runs the nested cargo that builds the guest's packages.
//!
//! It has a target folder of its own and an environment of its own: what the
//! outer cargo says to its compiler (flags, wrappers, the host's target) must
//! not reach the guest.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::toolchain::{Core, Linker, TARGET, Toolchain};

const KERNEL: &str = "pagelab-kernel";
const FIRST: &str = "pagelab-first";

/// Cargo's own settings of where crates come from and how many jobs run; the
/// nested cargo needs them as much as the outer one does.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "CARGO_SOURCE_",
];

/// What is to be built, and where.
pub(crate) struct GuestBuild<'a> {
    /// The workspace's root.
    pub(crate) workspace: &'a Path,
    /// The nested cargo's target folder.
    pub(crate) target_dir: &'a Path,
    /// With debug assertions and overflow checks.
    pub(crate) checked: bool,
}

/// The guest's two programs.
pub(crate) struct GuestFiles {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// The first ring-3 program.
    pub(crate) first: PathBuf,
}

/// Why the guest could not be built.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// The nested cargo could not be run.
    NotRun(PathBuf, io::Error),
    /// It failed; what it said.
    Failed { command: String, toolchain: String, messages: String },
    /// It succeeded, and the program is not where it belongs.
    Missing(PathBuf),
}

impl GuestBuild<'_> {
    /// Builds both packages.
    pub(crate) fn run(&self, toolchain: &Toolchain) -> Result<GuestFiles, BuildError> {
        let mut cargo = self.command(toolchain);
        let output =
            cargo.output().map_err(|error| BuildError::NotRun(toolchain.cargo.clone(), error))?;
        self.judge(&cargo, toolchain, &output)?;
        let folder = self.target_dir.join(TARGET).join(self.profile());
        Ok(GuestFiles {
            kernel: existing(folder.join(KERNEL))?,
            first: existing(folder.join(FIRST))?,
        })
    }

    fn profile(&self) -> &'static str {
        if self.checked { "guest-checked" } else { "guest" }
    }

    fn command(&self, toolchain: &Toolchain) -> Command {
        let mut cargo = Command::new(&toolchain.cargo);
        for (variable, _) in env::vars_os() {
            if is_outer_setting(&variable) {
                cargo.env_remove(variable);
            }
        }
        cargo
            .current_dir(self.workspace)
            .stdin(Stdio::null())
            .env("RUSTC", &toolchain.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(&toolchain.linker).join("\x1f"))
            .args(["build", "--quiet", "--locked", "--package", KERNEL, "--package", FIRST])
            .args(["--target", TARGET, "--profile", self.profile(), "--target-dir"])
            .arg(self.target_dir);
        if toolchain.core == Core::FromSource {
            // Building the standard library's crates is what only a nightly cargo
            // offers; nothing in the guest itself uses an unstable feature.
            cargo
                .env("RUSTC_BOOTSTRAP", "1")
                .arg("-Zbuild-std=core,alloc,compiler_builtins")
                .arg("-Zbuild-std-features=compiler-builtins-mem");
        }
        cargo
    }

    fn flags(&self, linker: &Linker) -> Vec<String> {
        let mut flags = vec![
            "-Crelocation-model=static".to_owned(),
            // Backtraces walk the frame pointers.
            "-Cforce-frame-pointers=yes".to_owned(),
            // The ELF's line table names files relative to the workspace.
            format!("--remap-path-prefix={}=.", self.workspace.display()),
        ];
        let (program, flavor) = match linker {
            Linker::Bundled => return flags,
            Linker::Lld(program) => (program, "ld.lld"),
            Linker::Gnu(program) => (program, "ld"),
        };
        flags.push(format!("-Clinker={}", program.display()));
        flags.push(format!("-Clinker-flavor={flavor}"));
        flags
    }

    /// Passes the nested cargo's warnings on, and its errors.
    fn judge(
        &self,
        cargo: &Command,
        toolchain: &Toolchain,
        output: &Output,
    ) -> Result<(), BuildError> {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            for line in messages.lines().filter(|line| !line.trim().is_empty()) {
                println!("cargo::warning={line}");
            }
            return Ok(());
        }
        let words = cargo.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>();
        Err(BuildError::Failed {
            command: format!("{} {}", toolchain.cargo.display(), words.join(" ")),
            toolchain: format!("{} ({:?} core)", toolchain.rustc.display(), toolchain.core),
            messages,
        })
    }
}

/// Whether a variable belongs to the outer cargo's build and not to the guest's.
fn is_outer_setting(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    let cargos = name.starts_with("CARGO") && !KEPT.iter().any(|kept| name.starts_with(kept));
    cargos || name.starts_with("RUSTC") || ["RUSTFLAGS", "RUSTUP_TOOLCHAIN"].contains(&&*name)
}

fn existing(file: PathBuf) -> Result<PathBuf, BuildError> {
    if file.is_file() { Ok(file) } else { Err(BuildError::Missing(file)) }
}

impl fmt::Display for BuildError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun(cargo, error) => write!(out, "cannot run {}: {error}", cargo.display()),
            Self::Failed { command, toolchain, messages } => {
                writeln!(out, "the guest does not build with {toolchain}")?;
                writeln!(out, "command: {command}")?;
                write!(out, "{}", messages.trim_end())
            }
            Self::Missing(file) => {
                write!(out, "the guest was built, yet {} does not exist", file.display())
            }
        }
    }
}
