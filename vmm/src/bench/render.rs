//! The result of `pagelab bench boot` for people.

use std::fmt::{self, Write};

use super::summary::Summary;
use super::{BootReport, QemuFigures};
use crate::resident::ResidentMemory;

/// Width of the column of names.
const NAME_WIDTH: usize = 44;

impl BootReport {
    /// The report as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = Page(String::new());
        page.put(format_args!(
            "Booting {} times each, {} of guest memory; milliseconds since exec\n\n",
            self.runs, self.guest_memory
        ));
        page.put(format_args!("{:NAME_WIDTH$}  {:>9}  {:>9}\n", "", "least", "median"));
        let times = &self.lab.times;
        page.put(format_args!("pagelab, with its first program\n"));
        page.row("  main", times.to_main.as_ref());
        page.row("  guest ready to be entered", times.to_ready.as_ref());
        page.row("  first guest instruction", times.to_kernel.as_ref());
        page.row("  kernel set up", times.to_kernel_ready.as_ref());
        page.row("  first instruction in ring 3", times.to_user.as_ref());
        page.row("  guest powered off", times.to_power_off.as_ref());
        page.row("  exit", times.to_exit.as_ref());
        page.put(format_args!("pagelab, the kernel only\n"));
        page.row("  exit", self.lab.kernel_only_to_exit.as_ref());
        for figures in &self.qemu {
            page.qemu(figures);
        }
        page.put(format_args!("\nresident memory beyond the guest's RAM, in KiB\n"));
        page.memory("pagelab", self.lab.memory.as_ref());
        for figures in &self.qemu {
            page.memory(&format!("QEMU, {}", figures.accelerator), figures.memory.as_ref());
        }
        page.put(format_args!("\n"));
        if let Some(version) = &self.qemu_version {
            page.put(format_args!("{version}\n"));
        }
        for problem in &self.qemu_problems {
            page.put(format_args!("QEMU: {problem}\n"));
        }
        match self.qemu_times_slower {
            Some(ratio) => page.put(format_args!(
                "QEMU microvm under KVM takes {ratio:.1} times as long as pagelab for the same \
                 kernel (medians, exec to exit).\n"
            )),
            None => page.put(format_args!("No comparison with QEMU under KVM was possible.\n")),
        }
        page.0
    }
}

struct Page(String);

impl Page {
    fn row(&mut self, name: &str, summary: Option<&Summary>) {
        match summary {
            Some(Summary { least, median, .. }) => {
                self.put(format_args!("{name:NAME_WIDTH$}  {least:>9.2}  {median:>9.2}\n"));
            }
            None => self.put(format_args!("{name:NAME_WIDTH$}  {:>9}  {:>9}\n", "-", "-")),
        }
    }

    fn qemu(&mut self, figures: &QemuFigures) {
        let note = match figures.accelerator {
            "tcg" => "QEMU microvm, translating (tcg): for reference",
            _ => "QEMU microvm under KVM",
        };
        self.put(format_args!("{note}, the kernel only, -cpu {}\n", figures.cpu));
        self.row("  first output", figures.to_output.as_ref());
        self.row("  exit", figures.to_exit.as_ref());
    }

    fn memory(&mut self, name: &str, memory: Option<&ResidentMemory>) {
        let Some(memory) = memory else {
            return self.put(format_args!("  {name:18} not known\n"));
        };
        self.put(format_args!(
            "  {name:18} {:>7}: {} anonymous, {} of files; guest RAM touched: {}\n",
            memory.beyond_guest_ram_kib(),
            memory.anonymous_kib,
            memory.files_kib,
            memory.guest_ram_kib
        ));
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(text);
    }
}
