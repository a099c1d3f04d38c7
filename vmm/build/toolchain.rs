//! Finds a Rust toolchain that can build for the guest's target.
//!
//! A toolchain is judged by what its sysroot holds, never by its name or by
//! who installed it: either a ready-made `core` for the target, or the library
//! sources of exactly its own version, from which cargo builds `core`.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The guest's target.
pub(crate) const TARGET: &str = "x86_64-unknown-none";
/// Environment variable that names the compiler to use, whatever else exists.
pub(crate) const RUSTC_OVERRIDE: &str = "PAGELAB_GUEST_RUSTC";
/// Environment variable that names the cargo to use with it.
pub(crate) const CARGO_OVERRIDE: &str = "PAGELAB_GUEST_CARGO";

/// Where distributions install Rust.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";
const SYSTEM_CARGO: &str = "/usr/bin/cargo";

/// Where `core` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// The sysroot has it compiled for the target.
    ReadyMade,
    /// Cargo builds it from the sysroot's library sources.
    FromSource,
}

/// Which linker the toolchain needs to be told to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Linker {
    /// The toolchain brings `rust-lld`, the target's default.
    Bundled,
    /// LLVM's linker, found on the machine.
    Lld(PathBuf),
    /// GNU ld, found on the machine.
    Gnu(PathBuf),
}

/// A compiler and a cargo that can build the guest.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler itself, not a proxy that picks one.
    pub(crate) rustc: PathBuf,
    /// The cargo that runs it.
    pub(crate) cargo: PathBuf,
    /// Where `core` comes from.
    pub(crate) core: Core,
    /// What links the guest.
    pub(crate) linker: Linker,
}

/// Why no toolchain was found: each candidate with what it lacks.
#[derive(Debug)]
pub(crate) struct NotFound {
    tried: Vec<(String, Unusable)>,
}

/// Why one candidate cannot build the guest.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It could not be run.
    NotRun(PathBuf, io::Error),
    /// It ran, and failed or printed something unexpected.
    BadAnswer(PathBuf, String),
    /// Its sysroot has neither the target nor the sources.
    NoCore(PathBuf),
    /// The sources in its sysroot belong to another version.
    OtherVersion { sources: PathBuf, theirs: String, compiler: String },
    /// There is no cargo to go with it.
    NoCargo(PathBuf),
    /// It brings no linker, and the machine has none.
    NoLinker,
}

/// Finds the toolchain: the override, the one that runs this build, the system's.
pub(crate) fn find() -> Result<Toolchain, NotFound> {
    if let Some(rustc) = path_from_env(RUSTC_OVERRIDE) {
        let cargo = path_from_env(CARGO_OVERRIDE)
            .or_else(|| sibling_cargo(&rustc))
            .or_else(|| path_from_env("CARGO"));
        let name = format!("{RUSTC_OVERRIDE}={}", rustc.display());
        return inspect(&rustc, cargo).map_err(|why| NotFound { tried: vec![(name, why)] });
    }
    let current = path_from_env("RUSTC").unwrap_or_else(|| "rustc".into());
    let candidates = [
        ("the current toolchain", current, path_from_env("CARGO")),
        ("the system's toolchain", SYSTEM_RUSTC.into(), Some(SYSTEM_CARGO.into())),
    ];
    let mut tried = Vec::new();
    for (name, rustc, cargo) in candidates {
        match inspect(&rustc, cargo) {
            Ok(toolchain) => return Ok(toolchain),
            Err(why) => tried.push((format!("{name} ({})", rustc.display()), why)),
        }
    }
    Err(NotFound { tried })
}

/// Looks at one compiler and its sysroot.
fn inspect(rustc: &Path, cargo: Option<PathBuf>) -> Result<Toolchain, Unusable> {
    let version = ask(rustc, &["-vV"])?;
    let field = |name: &str| {
        let line = version.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
            .ok_or_else(|| Unusable::BadAnswer(rustc.to_owned(), version.clone()))
    };
    let (host, release) = (field("host:")?, field("release:")?);
    let sysroot = PathBuf::from(ask(rustc, &["--print", "sysroot"])?.trim());

    let core = find_core(&sysroot, &release)?;
    // A proxy would choose again, and perhaps otherwise: name the real compiler.
    let in_sysroot = sysroot.join("bin/rustc");
    let rustc = if in_sysroot.is_file() { in_sysroot } else { rustc.to_owned() };
    let cargo = cargo.filter(|cargo| ask(cargo, &["--version"]).is_ok());
    let cargo = cargo.ok_or_else(|| Unusable::NoCargo(rustc.clone()))?;
    let linker = find_linker(&sysroot, &host).ok_or(Unusable::NoLinker)?;
    Ok(Toolchain { rustc, cargo, core, linker })
}

fn find_core(sysroot: &Path, release: &str) -> Result<Core, Unusable> {
    let rustlib = sysroot.join("lib/rustlib");
    if has_compiled_core(&rustlib.join(TARGET).join("lib")) {
        return Ok(Core::ReadyMade);
    }
    let sources = rustlib.join("src/rust");
    if !sources.join("library/core/src/lib.rs").is_file() {
        return Err(Unusable::NoCore(sysroot.to_owned()));
    }
    // Distributions unpack a whole source tree, which states its version; rustup
    // installs the bare libraries, always those of the toolchain they belong to.
    match fs::read_to_string(sources.join("src/version")) {
        Ok(theirs) if theirs.trim() != release => Err(Unusable::OtherVersion {
            sources,
            theirs: theirs.trim().to_owned(),
            compiler: release.to_owned(),
        }),
        _ => Ok(Core::FromSource),
    }
}

fn has_compiled_core(libraries: &Path) -> bool {
    let Ok(entries) = fs::read_dir(libraries) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn find_linker(sysroot: &Path, host: &str) -> Option<Linker> {
    let bundled = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    if bundled.is_file() {
        return Some(Linker::Bundled);
    }
    on_path("ld.lld").map(Linker::Lld).or_else(|| on_path("ld").map(Linker::Gnu))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn path_from_env(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn sibling_cargo(rustc: &Path) -> Option<PathBuf> {
    Some(rustc.parent()?.join("cargo")).filter(|cargo| cargo.is_file())
}

/// Runs a tool that answers a question on its standard output.
fn ask(tool: &Path, arguments: &[&str]) -> Result<String, Unusable> {
    let output = Command::new(tool)
        .args(arguments)
        .output()
        .map_err(|error| Unusable::NotRun(tool.to_owned(), error))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Unusable::BadAnswer(tool.to_owned(), message));
    }
    String::from_utf8(output.stdout)
        .map_err(|error| Unusable::BadAnswer(tool.to_owned(), error.to_string()))
}

impl fmt::Display for NotFound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "no Rust toolchain here can build the guest kernel for {TARGET}")?;
        for (name, why) in &self.tried {
            writeln!(out, "  - {name}: {why}")?;
        }
        writeln!(out, "Install one of these, then build again:")?;
        writeln!(out, "  with rustup:      rustup target add {TARGET}")?;
        writeln!(out, "  or its sources:   rustup component add rust-src")?;
        writeln!(out, "  Debian 12:        apt-get install rustc-web cargo-web rust-web-src lld")?;
        writeln!(out, "  newer releases:   apt-get install rustc cargo rust-src lld")?;
        write!(
            out,
            "or name a toolchain that has one of them by {RUSTC_OVERRIDE} and {CARGO_OVERRIDE}"
        )
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun(tool, error) => write!(out, "cannot run {}: {error}", tool.display()),
            Self::BadAnswer(tool, answer) => {
                write!(out, "{} gave no usable answer: {answer}", tool.display())
            }
            Self::NoCore(sysroot) => write!(
                out,
                "its sysroot {} has neither the target {TARGET} nor the library sources",
                sysroot.display()
            ),
            Self::OtherVersion { sources, theirs, compiler } => write!(
                out,
                "the library sources in {} are of {theirs}, the compiler is {compiler}",
                sources.display()
            ),
            Self::NoCargo(rustc) => write!(out, "no cargo runs beside {}", rustc.display()),
            Self::NoLinker => {
                write!(out, "it brings no rust-lld, and neither ld.lld nor ld is on the PATH")
            }
        }
    }
}
