//! What this host's KVM is and can do: the matter of `pagelab host`.
//!
//! * [`device`]: opening `/dev/kvm`, and what to do where that fails
//! * [`modules`], [`cpu`], [`capabilities`]: what the host says of itself
//! * [`probe`]: what tiny guests find out by trying
//! * [`debugging`]: the same, of what stops a guest, for a lab that runs
//! * [`render`]: all of it for people
//!
//! No host is known by name here: what a host cannot do is found by the probe,
//! on every run.

pub mod capabilities;
pub mod cpu;
pub mod debugging;
pub mod device;
pub mod modules;
pub mod probe;
pub mod render;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use device::{OpenError, open};

/// Everything about this host's KVM.
#[derive(Clone, Debug, Serialize)]
pub struct HostReport {
    /// The device that was asked.
    pub device: PathBuf,
    /// Version of its interface.
    pub api_version: i32,
    /// Release of the host's Linux.
    pub linux: String,
    /// The host's processor.
    pub cpu: cpu::Cpu,
    /// KVM's modules and what they say about the second level.
    pub modules: modules::Modules,
    /// Extensions of KVM that the lab wants.
    pub capabilities: Vec<capabilities::Capability>,
    /// Processor features that guests have; empty if KVM does not say.
    pub features: Vec<cpu::Feature>,
    /// What tiny guests found.
    pub probes: probe::Findings,
}

impl HostReport {
    /// Asks and probes the KVM at `device`; takes a few hundred milliseconds.
    ///
    /// # Errors
    ///
    /// If there is no KVM to be had there.
    pub fn gather(device: &Path) -> Result<Self, OpenError> {
        let kvm = device::open(device)?;
        let features = cpu::offered_features(&kvm).unwrap_or_else(|error| {
            log::warn!("KVM does not say which features guests have: {error}");
            Vec::new()
        });
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            device: device.to_owned(),
            api_version: kvm.get_api_version(),
            linux: release.trim().to_owned(),
            cpu: cpu::Cpu::look(),
            modules: modules::Modules::look(Path::new("/sys/module")),
            capabilities: capabilities::check(&kvm),
            features,
            probes: probe::run(kvm),
        })
    }

    /// Extensions without which the lab cannot run, and that are missing.
    pub fn missing_requirements(&self) -> impl Iterator<Item = &capabilities::Capability> {
        self.capabilities
            .iter()
            .filter(|capability| capability.required && !capability.is_present())
    }
}
