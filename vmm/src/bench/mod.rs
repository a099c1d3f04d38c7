//! How fast a lab boots and how little memory it needs: `pagelab bench boot`.
//!
//! Every figure is taken from outside, on processes that are started one after
//! the other; what is inside comes from the process itself on the same clock
//! ([`crate::timings`]). QEMU runs beside it on the same kernel ELF, in turn, so
//! that a busy host slows both; ratios only ever compare figures of one run.
//!
//! * [`lab`]: one boot of a lab
//! * [`qemu`]: one boot of QEMU's microvm
//! * [`process`]: starting a process and waiting for it, with times
//! * [`debug`]: what the debug port costs; beside it [`debugger`], a script in gdb
//! * [`programs`]: programs for the guest that are measured
//! * [`summary`]: least and median of what was measured
//! * [`render`]: the result for people

pub mod debug;
pub mod debugger;
pub mod lab;
pub mod process;
pub mod programs;
pub mod qemu;
pub mod render;
pub mod summary;

use serde::Serialize;

use crate::resident::ResidentMemory;
use lab::{LabBoot, LabError, LabLauncher};
use qemu::{Qemu, QemuBoot, QemuError};
use summary::Summary;

/// Size of the guest's RAM in all boots.
pub const MEMORY: &str = "128M";

/// What to measure.
#[derive(Debug)]
pub struct BootBench<'a> {
    /// How often each is booted.
    pub runs: usize,
    /// The kernel that all boot.
    pub kernel: &'a [u8],
    /// Whether to boot QEMU as well.
    pub with_qemu: bool,
}

/// Times of a lab that runs the built-in first program, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct LabTimes {
    /// From exec to `main`.
    pub to_main: Option<Summary>,
    /// From exec until the guest can be entered.
    pub to_ready: Option<Summary>,
    /// From exec to the kernel's first instructions.
    pub to_kernel: Option<Summary>,
    /// From exec to the kernel being set up.
    pub to_kernel_ready: Option<Summary>,
    /// From exec to the first instruction in ring 3.
    pub to_user: Option<Summary>,
    /// From exec to the guest's power-off.
    pub to_power_off: Option<Summary>,
    /// From exec to the process's exit.
    pub to_exit: Option<Summary>,
}

/// A lab's figures.
#[derive(Clone, Debug, Serialize)]
pub struct LabFigures {
    /// With the first program.
    pub times: LabTimes,
    /// Without a program, from exec to exit, in milliseconds: what QEMU does,
    /// too.
    pub kernel_only_to_exit: Option<Summary>,
    /// Resident memory of the last boot, at the guest's end.
    pub memory: Option<ResidentMemory>,
}

/// QEMU's figures with one accelerator.
#[derive(Clone, Debug, Serialize)]
pub struct QemuFigures {
    /// `kvm`, or `tcg`: QEMU's own translator, for reference only.
    pub accelerator: &'static str,
    /// Options besides that were needed to make it run here.
    pub cpu: String,
    /// From exec to its first line of output, in milliseconds.
    pub to_output: Option<Summary>,
    /// From exec to its exit, in milliseconds.
    pub to_exit: Option<Summary>,
    /// Resident memory when the guest was over.
    pub memory: Option<ResidentMemory>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BootReport {
    /// How often each was booted.
    pub runs: usize,
    /// Guest RAM of all.
    pub guest_memory: &'static str,
    /// The lab.
    pub lab: LabFigures,
    /// QEMU's version, if it is installed and was asked for.
    pub qemu_version: Option<String>,
    /// QEMU, one entry for each accelerator that works.
    pub qemu: Vec<QemuFigures>,
    /// What of QEMU did not work, and why.
    pub qemu_problems: Vec<String>,
    /// QEMU's median time under KVM from exec to exit, divided by the lab's with
    /// the same kernel and no program.
    pub qemu_times_slower: Option<f64>,
}

impl BootBench<'_> {
    /// Boots everything in turn.
    ///
    /// # Errors
    ///
    /// If a lab does not boot. What is wrong with QEMU is part of the report.
    pub fn run(&self) -> Result<BootReport, LabError> {
        let launcher = LabLauncher::new(self.kernel)?;
        let mut problems = Vec::new();
        let qemu = if self.with_qemu { self.find_qemu(&mut problems) } else { None };
        let variants = match &qemu {
            Some(qemu) => qemu.working_variants(launcher.kernel_path(), &mut problems),
            None => Vec::new(),
        };
        let mut with_program = Vec::new();
        let mut kernel_only = Vec::new();
        let mut qemu_boots: Vec<Vec<QemuBoot>> = vec![Vec::new(); variants.len()];
        for _ in 0..self.runs {
            with_program.push(launcher.boot_first_program()?);
            kernel_only.push(launcher.boot_kernel_only()?);
            for (boots, variant) in qemu_boots.iter_mut().zip(&variants) {
                match variant.boot(launcher.kernel_path()) {
                    Ok(boot) => boots.push(boot),
                    Err(error) => problems.push(format!("{}: {error}", variant.accelerator)),
                }
            }
        }
        let figures = variants.iter().zip(&qemu_boots).map(|(variant, boots)| QemuFigures {
            accelerator: variant.accelerator,
            cpu: variant.cpu.to_owned(),
            to_output: Summary::of(boots.iter().filter_map(|boot| boot.to_output)),
            to_exit: Summary::of(boots.iter().map(|boot| boot.to_exit)),
            memory: variant
                .memory(launcher.kernel_path())
                .map_err(|error| problems.push(format!("{}: {error}", variant.accelerator)))
                .ok(),
        });
        let figures: Vec<_> = figures.collect();
        let kernel_only_to_exit = Summary::of(kernel_only.iter().map(|boot| boot.to_exit));
        Ok(BootReport {
            runs: self.runs,
            guest_memory: MEMORY,
            qemu_times_slower: ratio(&figures, kernel_only_to_exit.as_ref()),
            lab: lab_figures(&with_program, kernel_only_to_exit),
            qemu_version: qemu.map(|qemu| qemu.version),
            qemu: figures,
            qemu_problems: problems,
        })
    }

    fn find_qemu(&self, problems: &mut Vec<String>) -> Option<Qemu> {
        Qemu::find().map_err(|error: QemuError| problems.push(error.to_string())).ok()
    }
}

fn lab_figures(boots: &[LabBoot], kernel_only_to_exit: Option<Summary>) -> LabFigures {
    let summary = |time: fn(&LabBoot) -> Option<f64>| Summary::of(boots.iter().filter_map(time));
    let times = LabTimes {
        to_main: summary(|boot| boot.since_exec(boot.timings.main)),
        to_ready: summary(|boot| boot.since_exec(boot.timings.ready)),
        to_kernel: summary(|boot| boot.since_exec(boot.timings.kernel_entry)),
        to_kernel_ready: summary(|boot| boot.since_exec(boot.timings.kernel_ready)),
        to_user: summary(|boot| boot.since_exec(boot.timings.first_user)),
        to_power_off: summary(|boot| boot.since_exec(boot.timings.power_off)),
        to_exit: summary(|boot| Some(boot.to_exit)),
    };
    let memory = boots.last().and_then(|boot| boot.timings.memory);
    LabFigures { times, kernel_only_to_exit, memory }
}

fn ratio(figures: &[QemuFigures], lab: Option<&Summary>) -> Option<f64> {
    let qemu = figures.iter().find(|figures| figures.accelerator == "kvm")?;
    Some(qemu.to_exit.as_ref()?.median / lab?.median)
}
