//! Does each operation and writes its lines, as the tester does.

use std::fmt::Write as _;
use std::mem;

use pagelab_abi::addr::{GuestVirt, PAGE_SIZE};
use pagelab_mm::{
    Copies, MapFlags, MapRequest, MapSource, MmError, Populate, Protection, RemapFlags,
    RemapRequest, SyncFlags,
};

use crate::observe;
use crate::plan::{Operation, Program};
use crate::process::{Host, Process, Signal};

/// A place in each page where nothing but code is ever written.
const CODE_OFFSET: u64 = 0xff0;
const CODE_RET: u8 = 0xc3;
/// Linux's `MADV_REMOVE`.
const ADVICE_REMOVE: u32 = 9;

/// A program that is being run.
pub(crate) struct Run<'a> {
    host: &'a Host,
    program: &'a Program,
    /// The processes that wait while another one runs.
    waiting: Vec<Process>,
    text: String,
    count: u64,
}

impl<'a> Run<'a> {
    pub(crate) const fn new(host: &'a Host, program: &'a Program) -> Self {
        Self { host, program, waiting: Vec::new(), text: String::new(), count: 0 }
    }

    /// The transcript, and how many operations there were.
    pub(crate) fn finish(self) -> (String, u64) {
        (self.text, self.count)
    }

    /// Runs the operations whose indices are in `first..end`.
    pub(crate) fn operations(&mut self, process: &mut Process, first: u32, end: u32) {
        let program = self.program;
        let mut index = first;
        while let Some(operation) = program.from(index).filter(|next| next.index < end) {
            self.count += 1;
            let width = 2 * process.depth;
            self.print(format_args!("{:width$}{} {} = ", "", operation.index, operation.text));
            index = match operation.kind() {
                "fork" => self.fork(process, operation, end),
                "fork_held" => self.fork_held(process, operation, end),
                _ => {
                    self.simple(process, operation);
                    operation.index + 1
                }
            };
        }
    }

    // --------------------------------------------------------------- fork

    fn child_of(&mut self, process: &mut Process) -> Option<Process> {
        let child = process.fork(self.host);
        match child {
            Ok(_) => self.text.push('\n'),
            Err(error) => self.print(format_args!("\n{}\n", errno_name(error))),
        }
        child.ok()
    }

    fn child_ended(&mut self, process: &mut Process, child: Process, operation: &Operation) {
        self.host.end(child);
        process.forget_faults(self.host);
        let width = 2 * process.depth;
        self.print(format_args!("{:width$}{} child ended 0x0\n", "", operation.index));
    }

    /// The child does the block; returns where the parent goes on.
    fn fork(&mut self, process: &mut Process, operation: &Operation, end: u32) -> u32 {
        let first = operation.index + 1;
        let Some(child) = self.child_of(process) else { return first };
        let child_end = end.min(first + operation.block);
        let parent = mem::replace(process, child);
        let parent = self.operations_beside(process, parent, first, child_end);
        let child = mem::replace(process, parent);
        self.child_ended(process, child, operation);
        child_end
    }

    /// The parent does one block while the child waits, then the child the next.
    fn fork_held(&mut self, process: &mut Process, operation: &Operation, end: u32) -> u32 {
        let first = operation.index + 1;
        let Some(child) = self.child_of(process) else { return first };
        let parent_end = end.min(first + operation.block);
        let child_end = end.min(parent_end + operation.block);
        let child = self.operations_beside(process, child, first, parent_end);
        let parent = mem::replace(process, child);
        let parent = self.operations_beside(process, parent, parent_end, child_end);
        let child = mem::replace(process, parent);
        self.child_ended(process, child, operation);
        child_end
    }

    /// Runs operations while another process waits, and returns that.
    fn operations_beside(
        &mut self,
        process: &mut Process,
        waiting: Process,
        first: u32,
        end: u32,
    ) -> Process {
        self.waiting.push(waiting);
        self.operations(process, first, end);
        self.waiting.pop().expect("each process is pushed and popped once")
    }

    fn print(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(text);
    }

    fn simple(&mut self, process: &mut Process, operation: &Operation) {
        match operation.kind() {
            "maps" => return observe::maps(process, &mut self.text),
            "smaps" => return observe::smaps(self.host, process, &mut self.text),
            "pagemap" => return observe::pagemap(self.host, process, &mut self.text),
            "mmap_fixed" | "mmap_noreplace" | "mmap_hint" | "mmap_anywhere" => {
                self.mmap(process, operation);
            }
            "munmap" => self.munmap(process, operation),
            "mremap" => self.mremap(process, operation),
            "brk" => self.brk(process, operation),
            "mincore" => self.mincore(process, operation),
            "read" => {
                let byte = process.read(self.host, operation.address);
                self.access(process, operation.address, 1, byte.map(|byte| format!("{byte:#x}")));
            }
            "write" => {
                let done = process.write(self.host, operation.address, operation.byte);
                self.access(process, operation.address, 1, done.map(|()| "ok".to_owned()));
            }
            "exec" => self.exec(process, operation),
            "sum" | "fill" => self.sweep(process, operation),
            "copy_in" | "copy_out" => self.copy(process, operation),
            _ => self.range_call(process, operation),
        }
        self.text.push('\n');
    }

    fn faults(&mut self, process: &mut Process, exact: bool) {
        process.take_software_faults(self.host);
        match exact {
            true => self.print(format_args!(" faults {}", process.faults)),
            false => self.text.push_str(" faults -"),
        }
        process.faults = 0;
    }

    // ------------------------------------------------------- system calls

    fn mmap(&mut self, process: &mut Process, operation: &Operation) {
        let memory = &self.host.memory;
        let request = MapRequest {
            address: GuestVirt(operation.address),
            length: operation.length,
            protection: protection_of(operation),
            flags: MapFlags::from_bits_retain(operation.flags),
            source: MapSource::Anonymous,
        };
        let shared = operation.flags & 0xf != MapFlags::PRIVATE.bits();
        let result = process.space.mmap(memory, &request);
        match result {
            Ok(mapped) => {
                if mapped.populate {
                    let end = GuestVirt(mapped.start.0 + mapped.length);
                    // Its failure is not the mapping's.
                    let _ =
                        process.space.populate(memory, mapped.start, end, Populate::Mapping, false);
                }
                process.windows.mark_inexact(mapped.start.0, operation.length, shared);
                self.print(format_args!("{}", process.windows.name(mapped.start.0)));
            }
            Err(error) => self.text.push_str(errno_name(error)),
        }
        self.faults(process, result.is_err() || !shared);
    }

    fn munmap(&mut self, process: &mut Process, operation: &Operation) {
        let (start, length) = (operation.address, operation.length);
        let result = process.space.munmap(&self.host.memory, GuestVirt(start), length);
        self.text.push_str(status(result));
        self.faults(process, true);
        if result.is_ok() {
            process.windows.mark_inexact(start, length, false);
        }
    }

    fn mremap(&mut self, process: &mut Process, operation: &Operation) {
        let memory = &self.host.memory;
        let (source, length) = (operation.address, operation.length);
        // With a length of 0 it is the page that counts.
        let counted = if length == 0 { PAGE_SIZE } else { length };
        let inexact = process.windows.is_inexact(source, counted);
        // Where a range with holes moves to, what was there stays behind the holes.
        let fixed = operation.flags & RemapFlags::FIXED.bits() != 0;
        let target = (operation.new_address, operation.new_length);
        let target_inexact = inexact || fixed && process.windows.is_inexact(target.0, target.1);
        let request = RemapRequest {
            address: GuestVirt(source),
            old_length: length,
            new_length: operation.new_length,
            flags: RemapFlags::from_bits_retain(operation.flags),
            new_address: GuestVirt(operation.new_address),
        };
        match process.space.mremap(memory, &request) {
            Ok(mapped) => {
                if let Some((start, end)) = mapped.populate {
                    // Its failure is not the call's.
                    let _ = process.space.populate(memory, start, end, Populate::Mapping, false);
                }
                let moved = mapped.start.0 != source;
                if moved && !request.flags.contains(RemapFlags::DONT_UNMAP) {
                    process.windows.mark_inexact(source, length, false);
                }
                process.windows.mark_inexact(mapped.start.0, operation.new_length, target_inexact);
                self.print(format_args!("{}", process.windows.name(mapped.start.0)));
            }
            Err(error) => self.text.push_str(errno_name(error)),
        }
        self.faults(process, !inexact);
    }

    /// Takes out of every process's memory the pages that advice will remove.
    fn unmap_removed(&mut self, process: &mut Process, operation: &Operation) {
        let (memory, start) = (&self.host.memory, GuestVirt(operation.address));
        let parts: Vec<_> =
            process.space.removed_by_advice(memory, start, operation.length).collect();
        for (object, pages) in parts {
            for other in self.waiting.iter_mut().chain([&mut *process]) {
                other.space.unmap_object(memory, object, (pages.start, pages.end), Copies::Stay);
            }
        }
    }

    /// The calls that take a range and return nothing.
    fn range_call(&mut self, process: &mut Process, operation: &Operation) {
        if operation.kind() == "madvise" && operation.flags == ADVICE_REMOVE {
            self.unmap_removed(process, operation);
        }
        let (memory, space) = (&self.host.memory, &mut process.space);
        let (start, length) = (GuestVirt(operation.address), operation.length);
        let result = match operation.kind() {
            "mprotect" => space.mprotect(memory, start, length, operation.protection),
            "madvise" => space.madvise(memory, start, length, operation.flags),
            "msync" => {
                let flags = SyncFlags::from_bits_retain(operation.flags);
                space.msync(memory, start, length, flags, |_, _, _| Ok(()))
            }
            "mlock" => space.mlock(memory, start, length, false),
            "mlock_onfault" => space.mlock(memory, start, length, true),
            "munlock" => space.munlock(memory, start, length),
            kind => {
                self.print(format_args!("difftest-mm cannot do {kind}"));
                return;
            }
        };
        self.text.push_str(status(result));
        let exact = !process.windows.is_inexact(start.0, length);
        self.faults(process, exact);
    }

    fn mincore(&mut self, process: &Process, operation: &Operation) {
        let (start, mut resident) = (GuestVirt(operation.address), String::new());
        let result =
            process.space.mincore(&self.host.memory, start, operation.length, |_, page| {
                resident.push(if page { '1' } else { '0' });
            });
        self.text.push_str(status(result));
        if result.is_ok() {
            self.print(format_args!(" {resident}"));
        }
    }

    fn brk(&mut self, process: &mut Process, operation: &Operation) {
        let end = process.space.brk(&self.host.memory, GuestVirt(operation.address));
        self.print(format_args!("{}", process.windows.name(end.0)));
        self.faults(process, true);
    }

    // ----------------------------------------------------------- accesses

    fn outcome(&mut self, process: &Process, result: Result<String, Signal>) {
        match result {
            Ok(text) => self.text.push_str(&text),
            Err(signal) => self.print(format_args!(
                "{} code {} at {}",
                signal.name,
                signal.code,
                process.windows.name(signal.address)
            )),
        }
    }

    fn access(
        &mut self,
        process: &mut Process,
        start: u64,
        length: u64,
        result: Result<String, Signal>,
    ) {
        self.outcome(process, result);
        let exact = !process.windows.is_inexact(start, length);
        self.faults(process, exact);
    }

    fn exec(&mut self, process: &mut Process, operation: &Operation) {
        let address = GuestVirt(operation.address).page_start().0 + CODE_OFFSET;
        if operation.byte & 1 == 1 {
            let written = process.write(self.host, address, CODE_RET);
            self.outcome(process, written.map(|()| "written".to_owned()));
            self.text.push_str(", ");
        }
        let result = match process.read(self.host, address) {
            Ok(byte) if byte != CODE_RET => Ok("no code".to_owned()),
            _ => process.execute(self.host, address).map(|()| "ok".to_owned()),
        };
        self.access(process, address, 1, result);
    }

    fn sweep(&mut self, process: &mut Process, operation: &Operation) {
        let start = GuestVirt(operation.address).page_start().0;
        let length = operation.length.next_multiple_of(PAGE_SIZE);
        let mut sum = 0u64;
        let mut one_page = |page: u64| -> Result<(), Signal> {
            if operation.kind() == "fill" {
                return process.write(self.host, page, operation.byte);
            }
            for offset in [0, 8, 0x7f8, 0xfff] {
                let byte = process.read(self.host, page + offset)?;
                sum = sum.wrapping_mul(31).wrapping_add(u64::from(byte));
            }
            Ok(())
        };
        let done = (0..length / PAGE_SIZE).try_for_each(|page| one_page(start + page * PAGE_SIZE));
        let text = match operation.kind() {
            "fill" => "ok".to_owned(),
            _ => format!("{:#x}", sum & 0xffff_ffff),
        };
        self.access(process, start, length, done.map(|()| text));
    }

    /// The kernel copies from or to the program's memory.
    fn copy(&mut self, process: &mut Process, operation: &Operation) {
        let (memory, address) = (&self.host.memory, GuestVirt(operation.address));
        let mut bytes = [0u8; 16];
        let length = usize::try_from(operation.length).unwrap_or(usize::MAX).min(bytes.len());
        let mut sum = 0u64;
        let result = if operation.kind() == "copy_in" {
            let result = process.space.read_user(memory, address, &mut bytes[..length]);
            for &byte in &bytes[..length] {
                sum = sum.wrapping_mul(31).wrapping_add(u64::from(byte));
            }
            result
        } else {
            for (byte, value) in bytes.iter_mut().zip(operation.byte..=u8::MAX) {
                *byte = value;
            }
            let wrapped = usize::from(u8::MAX - operation.byte) + 1;
            for (byte, value) in bytes.iter_mut().skip(wrapped).zip(0..) {
                *byte = value;
            }
            process.space.write_user(memory, address, &bytes[..length])
        };
        match result {
            Ok(()) => self.print(format_args!("{length} sum {:#x}", sum & 0xffff_ffff)),
            Err(_) => self.text.push_str("EFAULT"),
        }
        let exact = !process.windows.is_inexact(operation.address, 1);
        self.faults(process, exact);
    }
}

fn protection_of(operation: &Operation) -> Protection {
    Protection::from_bits_truncate(operation.protection.to_le_bytes()[0])
}

fn status(result: Result<(), MmError>) -> &'static str {
    result.map_or_else(errno_name, |()| "ok")
}

fn errno_name(error: MmError) -> &'static str {
    match error.errno() {
        1 => "EPERM",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        22 => "EINVAL",
        95 => "EOPNOTSUPP",
        _ => "an unexpected errno",
    }
}
