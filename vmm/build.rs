//! Builds the guest (kernel and first ring-3 program) and hands the two ELF
//! files to the VMM, which embeds them.
//!
//! [`toolchain`] finds a compiler that can build for the guest's target and
//! [`guest`] runs a nested cargo with it. Where that fails, the build stops
//! with a message that says what to install.

#[path = "build/guest.rs"]
mod guest;
#[path = "build/toolchain.rs"]
mod toolchain;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the guest is built from, relative to the workspace. The nested cargo
/// decides what is stale; this only decides when it is asked.
const GUEST_SOURCES: [&str; 3] = ["guest", "Cargo.toml", "Cargo.lock"];

fn main() -> ExitCode {
    match build_and_export() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Cargo prints the first line by itself, then all of standard error.
            println!("cargo::error={}", message.lines().next().unwrap_or_default());
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build_and_export() -> Result<(), String> {
    let workspace = workspace_root()?;
    for source in GUEST_SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    for script in ["build.rs", "build/guest.rs", "build/toolchain.rs"] {
        println!("cargo::rerun-if-changed={script}");
    }
    for variable in [toolchain::RUSTC_OVERRIDE, toolchain::CARGO_OVERRIDE] {
        println!("cargo::rerun-if-env-changed={variable}");
    }

    let toolchain = toolchain::find().map_err(|error| error.to_string())?;
    let build = guest::GuestBuild {
        workspace: &workspace,
        target_dir: &PathBuf::from(required("OUT_DIR")?).join("guest"),
        checked: required("PROFILE")? == "debug",
    };
    let guest = build.run(&toolchain).map_err(|error| error.to_string())?;
    println!("cargo::rustc-env=PAGELAB_KERNEL_ELF={}", guest.kernel.display());
    println!("cargo::rustc-env=PAGELAB_FIRST_ELF={}", guest.first.display());
    Ok(())
}

/// The workspace is the parent of this package.
fn workspace_root() -> Result<PathBuf, String> {
    let package = PathBuf::from(required("CARGO_MANIFEST_DIR")?);
    package
        .parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| format!("{} has no parent folder", package.display()))
}

fn required(variable: &str) -> Result<String, String> {
    env::var(variable).map_err(|error| format!("cargo did not set {variable}: {error}"))
}
