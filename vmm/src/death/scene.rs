//! The guest as it lies there: registers, code, callers, addresses.

use pagelab_abi::addr::GuestVirt;
use pagelab_paging::EntryFlags;
use pagelab_paging::walk::Outcome;

use super::Report;
use crate::inspect::disassemble::{self, RegisterValues};
use crate::inspect::symbols::{Symbol, Symbols};
use crate::inspect::{AddressSpace, PhysicalMemory, backtrace, walk};
use crate::stop::Registers;

/// Instructions shown before and from the one in question.
const LINES_BEFORE: usize = 4;
const LINES_AFTER: usize = 5;

/// Indices into [`Registers::general`].
const RBP: usize = 6;
pub(super) const RSP: usize = 7;

impl RegisterValues for Registers {
    fn general(&self) -> &[u64; 16] {
        &self.general
    }

    fn segment_bases(&self) -> (u64, u64) {
        (self.fs_base, self.gs_base)
    }
}

/// What is to be done at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Execute,
}

/// A guest that stopped.
pub(super) struct Scene<'a, M> {
    pub(super) space: AddressSpace<'a, M>,
    pub(super) registers: &'a Registers,
    symbols: Symbols<'a>,
}

impl<'a, M: PhysicalMemory> Scene<'a, M> {
    pub(super) const fn new(memory: &'a M, kernel_elf: &'a [u8], registers: &'a Registers) -> Self {
        let space = AddressSpace::new(memory, registers.cr3);
        Self { space, registers, symbols: Symbols::new(kernel_elf) }
    }

    /// Adds registers, code and callers.
    pub(super) fn describe_place(&self, report: &mut Report) {
        report.add("Registers", self.registers());
        report.add("Code", self.code());
        report.add("Called from", self.callers(&[]));
    }

    /// The registers, in lines.
    pub(super) fn registers(&self) -> Vec<String> {
        let text = self.registers.to_string();
        text.lines().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect()
    }

    /// What an address of the kernel is. The kernel's ELF says nothing about
    /// programs.
    fn symbol(&self, address: u64) -> Option<Symbol> {
        is_kernel(address).then(|| self.symbols.lookup(GuestVirt(address)))?
    }

    /// An address with its function, where it has one.
    pub(super) fn place(&self, address: u64) -> String {
        match self.symbol(address) {
            Some(symbol) => format!("{address:#x}, in {symbol}"),
            None => format!("{address:#x}"),
        }
    }

    /// Where the guest was, and the instructions around it.
    pub(super) fn code(&self) -> Vec<String> {
        let rip = self.registers.rip;
        let symbol = self.symbol(rip);
        let start = symbol.as_ref().and_then(|symbol| symbol.start);
        let mut lines = vec![match symbol {
            Some(symbol) => symbol.to_string(),
            None if is_kernel(rip) => "in no function of the kernel".to_owned(),
            None => "in a program".to_owned(),
        }];
        let at = GuestVirt(rip);
        let code = disassemble::around(&self.space, at, start, LINES_BEFORE, LINES_AFTER);
        if code.is_empty() {
            lines.push(format!("cannot be read: {}", walk::show(&self.space, at).conclusion()));
        }
        lines.extend(code.iter().map(ToString::to_string));
        lines
    }

    /// Callers by name and line: those given, or those that the stack shows.
    pub(super) fn callers(&self, given: &[u64]) -> Vec<String> {
        let found: Vec<u64> = if !given.is_empty() {
            given.to_vec()
        } else if is_kernel(self.registers.rip) {
            let rbp = self.registers.general[RBP];
            backtrace::callers(&self.space, rbp).iter().map(|caller| caller.0).collect()
        } else {
            Vec::new()
        };
        found
            .iter()
            .map(|&caller| {
                let symbol = is_kernel(caller)
                    .then(|| self.symbols.lookup_caller(GuestVirt(caller)))
                    .flatten();
                match symbol {
                    Some(symbol) => format!("{caller:016x}  {symbol}"),
                    None if is_kernel(caller) => format!("{caller:016x}  no known function"),
                    None => format!("{caller:016x}  in a program"),
                }
            })
            .collect()
    }

    /// A translation, step by step.
    pub(super) fn walk(&self, address: u64) -> Vec<String> {
        let shown = walk::show(&self.space, GuestVirt(address)).to_string();
        shown.lines().map(str::to_owned).collect()
    }

    /// What stands in the way of an access by ring 0, in words; `None` if
    /// nothing does.
    pub(super) fn obstacle(&self, address: u64, access: Access) -> Option<String> {
        let shown = walk::show(&self.space, GuestVirt(address));
        let Outcome::Mapped { rights, .. } = shown.walk.outcome else {
            return Some(shown.conclusion());
        };
        let allowed = match access {
            Access::Read => true,
            Access::Write => rights.contains(EntryFlags::WRITABLE),
            Access::Execute => !rights.contains(EntryFlags::NO_EXECUTE),
        };
        (!shown.in_memory || !allowed).then(|| shown.conclusion())
    }
}

/// Whether an address belongs to the kernel's half of the address space.
const fn is_kernel(address: u64) -> bool {
    address >> 63 == 1
}
