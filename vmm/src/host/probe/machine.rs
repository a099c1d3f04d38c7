//! The tiny guest that probes run in: one vCPU, sixteen pages, 64-bit mode.
//!
//! Page tables, GDT, TSS and IDT are built here; the vCPU is put straight into
//! 64-bit mode by `KVM_SET_SREGS`. Every exception vector leads to a stub that
//! writes to the I/O port with the vector's number, so an exception arrives
//! here as an exit, with all registers untouched and the exception frame on
//! the ring-0 stack.
//!
//! ```text
//! 0_f000  not present: touching it is a page fault
//! 0_e000  buffer                      user
//! 0_d000  ring-3 stack                user
//! 0_c000  ring-3 code                 user
//! 0_b000  ring-0 stack
//! 0_a000  where SYSCALL enters
//! 0_9000  ring-0 code
//! 0_8000  exception stubs, `iretq`, a fault handler of the probe's
//! 0_7000  IDT
//! 0_6000  TSS
//! 0_5000  GDT
//! 0_1000  page tables, one page a level
//! ```

#![allow(unsafe_code, reason = "KVM is given the address of guest memory")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{
    CpuId, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_dtable, kvm_guest_debug,
    kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_paging::{Entry, EntryFlags};
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::code;
use crate::host::cpu;
use crate::kvm_stats::{KvmStats, Snapshot};
use crate::vstate::guest_debug::{Breakpoints, Condition};

const ROOT_TABLE: u64 = 0x1000;
const TABLE_LEVEL_3: u64 = 0x2000;
const TABLE_LEVEL_2: u64 = 0x3000;
const TABLE_LEVEL_1: u64 = 0x4000;
const GDT: u64 = 0x5000;
const TSS: u64 = 0x6000;
const IDT: u64 = 0x7000;
const STUBS: u64 = 0x8000;
/// Where an `iretq` lies.
const RETURN: u64 = 0x8800;
/// The page-fault handler that some probes bring along.
const FAULT_HANDLER: u64 = 0x8900;
pub(super) const RING_0_CODE: u64 = 0x9000;
/// Where SYSCALL enters: a page that ring 3 cannot reach.
pub(super) const SYSCALL_ENTRY: u64 = 0xa000;
const RING_0_STACK_END: u64 = 0xc000;
pub(super) const RING_3_CODE: u64 = 0xc000;
const RING_3_STACK_END: u64 = 0xe000;
pub(super) const BUFFER: u64 = 0xe000;
/// A page that is not present.
pub(super) const NOT_PRESENT: u64 = 0xf000;
const MEMORY_BYTES: usize = 0x1_0000;

const CODE_RING_0: u16 = 0x08;
const DATA_RING_0: u16 = 0x10;
const DATA_RING_3: u16 = 0x20 | 3;
const CODE_RING_3: u16 = 0x28 | 3;
const TASK: u16 = 0x30;

const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;

/// PE, MP, ET, NE, WP, PG.
const CR0: u64 = 0x8001_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;
const CR4_OSXSAVE: u64 = 1 << 18;
/// SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
/// The bit that is always set, and interrupts off.
const RFLAGS: u64 = 2;

/// Vectors of exceptions.
pub(super) const BREAKPOINT: u16 = 3;
pub(super) const INVALID_OPCODE: u16 = 6;
pub(super) const GENERAL_PROTECTION: u16 = 13;
pub(super) const PAGE_FAULT: u16 = 14;
const EXCEPTIONS: u16 = 32;

/// Why a probe has no result.
#[derive(Debug, Error)]
pub(super) enum ProbeError {
    #[error("{0} failed")]
    Kvm(&'static str, #[source] kvm_ioctls::Error),
    #[error("the probe's memory cannot be made")]
    Memory,
    #[error("the probe took too long")]
    TimedOut,
    #[error("unexpected: {0}")]
    Unexpected(String),
    #[error("no thread for the probe")]
    Thread(#[source] std::io::Error),
    #[error("no signal to stop the probe with")]
    Signal(#[source] vmm_sys_util::errno::Error),
}

impl ProbeError {
    fn kvm(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm(call, error)
    }
}

/// How a piece of guest code ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It wrote to a port: an exception's vector or a number of the probe's.
    Port { port: u16, bytes: usize },
    /// It died of an exception in an exception.
    TripleFault,
    /// KVM could not go on.
    InternalError,
    /// It executed `hlt`.
    Halt,
    /// Debug registers stopped it: DR6's bits. Without any, an `int3` did.
    Debug { hit: u64 },
    /// Anything else.
    Other(String),
}

/// In which ring to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    Zero,
    Three,
}

/// What the processor pushed at an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) error_code: Option<u64>,
    pub(super) rip: u64,
    pub(super) cs: u64,
}

impl Frame {
    /// The ring that the exception interrupted.
    pub(super) const fn ring(&self) -> u64 {
        self.cs & 3
    }
}

/// The tiny guest.
pub(super) struct Machine {
    vcpu: VcpuFd,
    // Before the memory, so that KVM forgets the memory first.
    _vm: VmFd,
    memory: GuestMemoryMmap,
    stats: Option<KvmStats>,
    base_sregs: kvm_sregs,
    stop_wanted: Arc<AtomicBool>,
}

impl Machine {
    /// Makes the guest. Once `stop_wanted` is set and a signal has interrupted
    /// the thread, it runs no more.
    pub(super) fn new(kvm: &Kvm, stop_wanted: Arc<AtomicBool>) -> Result<Self, ProbeError> {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)])
            .map_err(|_| ProbeError::Memory)?;
        fill(&memory)?;
        let vm = kvm.create_vm().map_err(ProbeError::kvm("KVM_CREATE_VM"))?;
        register(&vm, &memory)?;
        let vcpu = vm.create_vcpu(0).map_err(ProbeError::kvm("KVM_CREATE_VCPU"))?;
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(ProbeError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        vcpu.set_cpuid2(&cpuid).map_err(ProbeError::kvm("KVM_SET_CPUID2"))?;
        set_msrs(&vcpu)?;
        let mut base_sregs = vcpu.get_sregs().map_err(ProbeError::kvm("KVM_GET_SREGS"))?;
        enter_long_mode(&mut base_sregs, &cpuid);
        let stats = KvmStats::open(&vcpu).ok();
        Ok(Self { vcpu, _vm: vm, memory, stats, base_sregs, stop_wanted })
    }

    /// Puts `code` into the guest and sets the vCPU before it, in `ring`.
    /// `registers` is asked for further register values.
    pub(super) fn load(
        &mut self,
        ring: Ring,
        code: &[u8],
        registers: impl FnOnce(&mut kvm_regs),
    ) -> Result<(), ProbeError> {
        let at = if ring == Ring::Zero { RING_0_CODE } else { RING_3_CODE };
        write(&self.memory, at, code)?;
        let mut regs =
            kvm_regs { rip: at, rsp: RING_0_STACK_END, rflags: RFLAGS, ..Default::default() };
        registers(&mut regs);
        if ring == Ring::Three {
            let frame = [at, CODE_RING_3.into(), RFLAGS, RING_3_STACK_END, DATA_RING_3.into()];
            regs.rsp = RING_0_STACK_END - 40;
            regs.rip = RETURN;
            write(&self.memory, regs.rsp, frame.map(u64::to_le_bytes).as_flattened())?;
        }
        self.vcpu.set_sregs(&self.base_sregs).map_err(ProbeError::kvm("KVM_SET_SREGS"))?;
        self.vcpu.set_regs(&regs).map_err(ProbeError::kvm("KVM_SET_REGS"))
    }

    /// Puts `code` where SYSCALL enters.
    pub(super) fn set_syscall_entry(&self, code: &[u8]) -> Result<(), ProbeError> {
        write(&self.memory, SYSCALL_ENTRY, code)
    }

    /// Makes page faults go to `code` instead of to their stub.
    pub(super) fn set_fault_handler(&self, code: &[u8]) -> Result<(), ProbeError> {
        write(&self.memory, FAULT_HANDLER, code)?;
        write(&self.memory, IDT + u64::from(PAGE_FAULT) * 16, &gate(FAULT_HANDLER))
    }

    /// Has KVM stop the guest by a debug register.
    pub(super) fn arm(&self, breakpoint: (u64, Condition)) -> Result<(), ProbeError> {
        let mut breakpoints = Breakpoints::default();
        breakpoints.hardware[0] = Some(breakpoint);
        let mut debug = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
            ..kvm_guest_debug::default()
        };
        debug.arch.debugreg = breakpoints.registers();
        self.vcpu.set_guest_debug(&debug).map_err(ProbeError::kvm("KVM_SET_GUEST_DEBUG"))
    }

    /// Has KVM stop the guest at `int3`.
    pub(super) fn stop_at_int3(&self) -> Result<(), ProbeError> {
        self.debug(KVM_GUESTDBG_USE_SW_BP)
    }

    /// Has KVM stop the guest behind the next instruction.
    pub(super) fn step(&self) -> Result<(), ProbeError> {
        self.debug(KVM_GUESTDBG_SINGLESTEP)
    }

    fn debug(&self, how: u32) -> Result<(), ProbeError> {
        let control = KVM_GUESTDBG_ENABLE | how;
        let debug = kvm_guest_debug { control, ..kvm_guest_debug::default() };
        self.vcpu.set_guest_debug(&debug).map_err(ProbeError::kvm("KVM_SET_GUEST_DEBUG"))
    }

    /// Runs until the guest stops.
    pub(super) fn run(&mut self) -> Result<Stop, ProbeError> {
        loop {
            if self.stop_wanted.load(Ordering::Relaxed) {
                return Err(ProbeError::TimedOut);
            }
            let stop = match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, data)) => Stop::Port { port, bytes: data.len() },
                Ok(VcpuExit::Shutdown) => Stop::TripleFault,
                Ok(VcpuExit::InternalError) => Stop::InternalError,
                Ok(VcpuExit::Hlt) => Stop::Halt,
                Ok(VcpuExit::Debug(debug)) => Stop::Debug { hit: debug.dr6 & 0xf },
                Ok(VcpuExit::Intr) => continue,
                Ok(other) => Stop::Other(format!("{other:?}")),
                Err(error) if error.errno() == libc::EINTR => continue,
                Err(error) if error.errno() == libc::EAGAIN => continue,
                Err(error) => return Err(ProbeError::Kvm("KVM_RUN", error)),
            };
            return Ok(stop);
        }
    }

    /// Runs until the guest writes to `port`, or says what happened instead.
    pub(super) fn run_to_port(&mut self, port: u16) -> Result<(), ProbeError> {
        match self.run()? {
            Stop::Port { port: found, .. } if found == port => Ok(()),
            stop => Err(ProbeError::Unexpected(self.describe(&stop))),
        }
    }

    /// The general registers.
    pub(super) fn regs(&self) -> Result<kvm_regs, ProbeError> {
        self.vcpu.get_regs().map_err(ProbeError::kvm("KVM_GET_REGS"))
    }

    /// The ring that the vCPU is in.
    pub(super) fn ring(&self) -> Result<u16, ProbeError> {
        let sregs = self.vcpu.get_sregs().map_err(ProbeError::kvm("KVM_GET_SREGS"))?;
        Ok(sregs.cs.selector & 3)
    }

    /// The address of the last page fault.
    pub(super) fn cr2(&self) -> Result<u64, ProbeError> {
        Ok(self.vcpu.get_sregs().map_err(ProbeError::kvm("KVM_GET_SREGS"))?.cr2)
    }

    /// What the processor pushed for the exception `vector` whose stub just
    /// wrote to its port.
    pub(super) fn frame(&self, vector: u16) -> Result<Frame, ProbeError> {
        let mut at = self.regs()?.rsp;
        let mut next = || {
            let value: u64 =
                self.memory.read_obj(GuestAddress(at)).map_err(|_| ProbeError::Memory)?;
            at += 8;
            Ok::<_, ProbeError>(value)
        };
        let error_code = if pushes_error_code(vector) { Some(next()?) } else { None };
        Ok(Frame { error_code, rip: next()?, cs: next()? })
    }

    /// A stop that was not expected, in words.
    pub(super) fn describe(&self, stop: &Stop) -> String {
        match stop {
            Stop::Port { port, .. } if *port < EXCEPTIONS => match self.frame(*port) {
                Ok(frame) => format!(
                    "exception {port} (error code {:#x}) in ring {} at {:#x}",
                    frame.error_code.unwrap_or(0),
                    frame.ring(),
                    frame.rip
                ),
                Err(_) => format!("exception {port}"),
            },
            Stop::Port { port, .. } => format!("a write to port {port:#x}"),
            Stop::TripleFault => "a triple fault".to_owned(),
            Stop::InternalError => "KVM gave up (internal error)".to_owned(),
            Stop::Halt => "the guest halted".to_owned(),
            Stop::Debug { hit: 0 } => "an int3 stopped it".to_owned(),
            Stop::Debug { hit } => format!("debug registers {hit:#x} stopped it"),
            Stop::Other(exit) => format!("exit {exit}"),
        }
    }

    /// KVM's statistics of the vCPU, where this kernel has them.
    pub(super) fn statistics(&self) -> Option<Snapshot> {
        self.stats.as_ref()?.read().ok()
    }

    /// Frequency of the guest's time-stamp counter in kHz.
    pub(super) fn tsc_khz(&self) -> Option<u32> {
        self.vcpu.get_tsc_khz().ok().filter(|&khz| khz != 0)
    }
}

fn write(memory: &GuestMemoryMmap, at: u64, bytes: &[u8]) -> Result<(), ProbeError> {
    memory.write_slice(bytes, GuestAddress(at)).map_err(|_| ProbeError::Memory)
}

fn register(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), ProbeError> {
    let host = memory.get_host_address(GuestAddress(0)).map_err(|_| ProbeError::Memory)?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: host.expose_provenance() as u64,
    };
    // SAFETY: the region is exactly the mapping of `memory`, which `Machine`
    // keeps for longer than the VM and reaches only through `vm-memory`'s
    // volatile accesses.
    unsafe { vm.set_user_memory_region(region) }
        .map_err(ProbeError::kvm("KVM_SET_USER_MEMORY_REGION"))
}

/// Writes page tables, descriptor tables and code.
fn fill(memory: &GuestMemoryMmap) -> Result<(), ProbeError> {
    let entry =
        |at: u64, index: u64, entry: Entry| write(memory, at + index * 8, &entry.0.to_le_bytes());
    let open = EntryFlags::PRESENT | EntryFlags::WRITABLE;
    let table = open | EntryFlags::USER;
    entry(ROOT_TABLE, 0, Entry::new(GuestPhys(TABLE_LEVEL_3), table))?;
    entry(TABLE_LEVEL_3, 0, Entry::new(GuestPhys(TABLE_LEVEL_2), table))?;
    entry(TABLE_LEVEL_2, 0, Entry::new(GuestPhys(TABLE_LEVEL_1), table))?;
    for page in 0..NOT_PRESENT / PAGE_SIZE {
        let start = page * PAGE_SIZE;
        let flags = if start >= RING_3_CODE { table } else { open };
        entry(TABLE_LEVEL_1, page, Entry::new(GuestPhys(start), flags))?;
    }
    write(memory, GDT, gdt().map(u64::to_le_bytes).as_flattened())?;
    // TSS: RSP0 at offset 4; the I/O bitmap lies beyond the limit, so ring 3
    // has no ports.
    write(memory, TSS + 4, &RING_0_STACK_END.to_le_bytes())?;
    write(memory, TSS + 102, &104_u16.to_le_bytes())?;
    for vector in 0..EXCEPTIONS {
        let stub = STUBS + u64::from(vector) * code::STUB_BYTES;
        write(memory, IDT + u64::from(vector) * 16, &gate(stub))?;
        write(memory, stub, &code::stub(vector))?;
    }
    write(memory, RETURN, &code::INTERRUPT_RETURN)
}

/// In the order that STAR wants: ring-0 code and data; ring-3 32-bit code, data
/// and 64-bit code; then the TSS in two entries.
fn gdt() -> [u64; 8] {
    [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x0000_8b00_0000_0067 | (TSS << 16),
        0,
    ]
}

/// An interrupt gate of ring 0, on the same stack, at an address below 64 KiB.
fn gate(handler: u64) -> [u8; 16] {
    let low = (handler & 0xffff) | u64::from(CODE_RING_0) << 16 | 0x8e00 << 32;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes
}

/// Which exceptions push an error code.
const fn pushes_error_code(vector: u16) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

fn set_msrs(vcpu: &VcpuFd) -> Result<(), ProbeError> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let star = u64::from(CODE_RING_0) << 32 | u64::from(0x18_u16 | 3) << 48;
    let entries = [entry(MSR_STAR, star), entry(MSR_LSTAR, SYSCALL_ENTRY), entry(MSR_FMASK, 0x200)];
    let msrs = Msrs::from_entries(&entries)
        .map_err(|_| ProbeError::Unexpected("too many MSRs".to_owned()))?;
    match vcpu.set_msrs(&msrs).map_err(ProbeError::kvm("KVM_SET_MSRS"))? {
        3 => Ok(()),
        count => Err(ProbeError::Unexpected(format!("only {count} of 3 MSRs could be set"))),
    }
}

fn enter_long_mode(sregs: &mut kvm_sregs, cpuid: &CpuId) {
    let data = segment(DATA_RING_0, 3);
    sregs.cs = kvm_segment { l: 1, db: 0, ..segment(CODE_RING_0, 11) };
    (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
    sregs.tr = kvm_segment { base: TSS, limit: 0x67, s: 0, g: 0, db: 0, ..segment(TASK, 11) };
    sregs.gdt = kvm_dtable { base: GDT, limit: 8 * 8 - 1, ..Default::default() };
    sregs.idt = kvm_dtable { base: IDT, limit: 16 * EXCEPTIONS - 1, ..Default::default() };
    sregs.cr0 = CR0;
    sregs.cr3 = ROOT_TABLE;
    sregs.cr4 = if cpu::has_xsave(cpuid) { CR4 | CR4_OSXSAVE } else { CR4 };
    sregs.efer = EFER;
}

fn segment(selector: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        db: 1,
        ..Default::default()
    }
}
