//! Making the processor stop where the debugger wants: `KVM_SET_GUEST_DEBUG`,
//! `int3` bytes in memory, and what hosts without virtualization hardware need.
//!
//! Such a host executes ring 3 natively and lets its debug exceptions
//! through to the guest, while ring 0 is emulated and stops as it should. So a
//! step in ring 3 ends at the guest's handler of the debug exception, and an
//! `int3` at that of breakpoints, where a hardware breakpoint waits for it. In
//! both cases [`Debugging::take_back`] undoes the exception, of which nothing has
//! been executed: the processor is in ring 3 again as if KVM had stopped it there.
//! The other way, an `iretq` to ring 3 would run on; when it is to be stepped, it
//! is done here.
//!
//! Watchpoints that no debug register keeps ([`Breakpoints::stepped`]) have each
//! instruction stepped: before it, what it will access is found out ([`Foreseen`]).

use std::sync::Arc;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug, kvm_regs, kvm_segment, kvm_sregs,
};
use kvm_ioctls::VcpuFd;
use pagelab_abi::addr::{GuestPhys, GuestVirt};

use super::foresight::{self, Foreseen};
use super::guest_debug::{Breakpoints, Condition, HARDWARE_BREAKPOINTS, SoftwareBreakpoint};
use crate::host::debugging::DebugHost;
use crate::inspect::AddressSpace;
use crate::memory::GuestRam;

/// Vector of the debug exception.
const DEBUG: u64 = 1;
/// Vector of `int3`.
pub(super) const BREAKPOINT: u64 = 3;
/// The byte of `int3`.
const INT3: u8 = 0xcc;
/// The bytes of `iretq`.
const IRETQ: [u8; 2] = [0x48, 0xcf];
/// The trap flag: an exception after the next instruction.
const TRAP_FLAG: u64 = 1 << 8;

/// What the debugger wants and what KVM was told of it.
#[derive(Debug)]
pub(super) struct Debugging {
    ram: Arc<GuestRam>,
    block_interrupts: bool,
    host: Arc<DebugHost>,
    told: (Breakpoints, bool),
    /// Bytes that were replaced by `int3`.
    patched: Vec<(SoftwareBreakpoint, u8)>,
    /// What there is besides, once an instruction at a breakpoint was stepped.
    stepping_over: Option<Breakpoints>,
    /// What the instruction that is stepped does to watched memory.
    foreseen: Option<Foreseen>,
    /// Steps since an interrupt could come; 0: now one can.
    steps_without: u32,
}

impl Debugging {
    /// Nothing is wanted. `block_interrupts`: KVM can hold back interrupts while
    /// it steps.
    pub(super) fn new(ram: Arc<GuestRam>, block_interrupts: bool, host: Arc<DebugHost>) -> Self {
        Self {
            ram,
            block_interrupts,
            host,
            told: (Breakpoints::default(), false),
            patched: Vec::new(),
            stepping_over: None,
            foreseen: None,
            steps_without: 0,
        }
    }

    /// Whether debug exceptions of ring 3 go to the guest: see the module's
    /// documentation.
    fn lets_through(&self) -> bool {
        self.host.lets_programs_exceptions_through()
    }

    /// The guest pauses: memory is again what the guest put there.
    pub(super) fn pause(&mut self) {
        self.stepping_over = None;
        self.foreseen = None;
        for (breakpoint, original) in std::mem::take(&mut self.patched) {
            // What is no `int3` any more is not ours.
            if self.byte(breakpoint.physical) == Some(INT3) {
                self.set_byte(breakpoint.physical, original);
            }
        }
    }

    /// The guest goes on. A breakpoint where it stands must not stop it again, so
    /// that instruction is stepped first. `true`: the step has been done already.
    pub(super) fn go_on(&mut self, vcpu: &VcpuFd, breakpoints: &Breakpoints, step: bool) -> bool {
        let idle = breakpoints == &Breakpoints::default() && !step;
        if idle && self.told == (Breakpoints::default(), false) {
            return false;
        }
        let watches = !breakpoints.stepped.is_empty();
        if (step || watches) && self.lets_through() && self.return_to_user(vcpu) {
            return true;
        }
        if watches {
            self.foresee(vcpu, breakpoints);
        }
        let pc = vcpu.get_regs().map_or(0, |regs| regs.rip);
        let all = self.with_handler(vcpu, breakpoints);
        let others = all.without(pc);
        let over = others != all;
        self.stepping_over = over.then_some(all);
        self.tell(vcpu, others, step || over);
        false
    }

    /// Looks at the instruction that is stepped next, and decides whether an
    /// interrupt may come first.
    ///
    /// While each instruction is stepped, the time between two of the guest's
    /// timer interrupts is not enough to handle one: it would do nothing else. So
    /// they are held back for a while, but for a processor that has nothing to do.
    fn foresee(&mut self, vcpu: &VcpuFd, breakpoints: &Breakpoints) {
        const STEPS_WITHOUT: u32 = 4096;
        let (foreseen, halts) = foresight::look(vcpu, &self.ram, &breakpoints.stepped);
        self.foreseen = foreseen;
        self.steps_without = if halts { 0 } else { (self.steps_without + 1) % STEPS_WITHOUT };
    }

    /// Whether the instruction that was just stepped, and led to `pc`, accessed
    /// watched memory.
    pub(super) fn watched(&mut self, pc: u64) -> Option<(u64, Condition)> {
        self.foreseen.take().and_then(|foreseen| foreseen.came_true(pc))
    }

    /// A step is done. If it was one over a breakpoint, the guest goes on with
    /// all of them; whether it was.
    pub(super) fn stepped_over(&mut self, vcpu: &VcpuFd, step: bool) -> bool {
        match self.stepping_over.take() {
            Some(all) => {
                self.tell(vcpu, all, step);
                true
            }
            None => false,
        }
    }

    /// All breakpoints, that at the guest's handler of `int3` among them where
    /// KVM does not stop there.
    fn with_handler(&self, vcpu: &VcpuFd, breakpoints: &Breakpoints) -> Breakpoints {
        let mut all = breakpoints.clone();
        if self.lets_through() && !all.software.is_empty() {
            // The last register, which other breakpoints get last.
            all.hardware[HARDWARE_BREAKPOINTS - 1] =
                handler(vcpu, &self.ram, BREAKPOINT).map(|handler| (handler, Condition::Execute));
        }
        all
    }

    fn tell(&mut self, vcpu: &VcpuFd, breakpoints: Breakpoints, step: bool) {
        for breakpoint in &breakpoints.software {
            self.patch(*breakpoint);
        }
        let mut control = 0;
        if step || !breakpoints.stepped.is_empty() {
            control |= KVM_GUESTDBG_SINGLESTEP;
            if self.block_interrupts && (step || self.steps_without > 0) {
                control |= KVM_GUESTDBG_BLOCKIRQ;
            }
        }
        if breakpoints.any_hardware() {
            control |= KVM_GUESTDBG_USE_HW_BP;
        }
        if !breakpoints.software.is_empty() {
            control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if control != 0 {
            control |= KVM_GUESTDBG_ENABLE;
        }
        let mut debug = kvm_guest_debug { control, ..kvm_guest_debug::default() };
        debug.arch.debugreg = breakpoints.registers();
        match vcpu.set_guest_debug(&debug) {
            Ok(()) => self.told = (breakpoints, step),
            Err(error) => log::warn!("KVM refuses to debug the guest: {error}"),
        }
    }

    fn patch(&mut self, breakpoint: SoftwareBreakpoint) {
        if self.patched.iter().any(|(other, _)| *other == breakpoint) {
            return;
        }
        if let Some(original) = self.byte(breakpoint.physical) {
            self.set_byte(breakpoint.physical, INT3);
            self.patched.push((breakpoint, original));
        }
    }

    fn byte(&self, physical: GuestPhys) -> Option<u8> {
        let mut byte = [0];
        self.ram.read(physical, &mut byte).ok().map(|()| byte[0])
    }

    fn set_byte(&self, physical: GuestPhys, byte: u8) {
        if let Err(error) = self.ram.write(physical, &[byte]) {
            log::debug!("a breakpoint's byte: {error}");
        }
    }

    /// Whether the processor stands where `int3` instructions of the guest's own
    /// are handled.
    pub(super) fn is_guests_own(&self, vcpu: &VcpuFd, pc: u64) -> bool {
        self.lets_through() && handler(vcpu, &self.ram, BREAKPOINT) == Some(pc)
    }

    /// Where the processor stands at the first or second instruction of the
    /// handler of one of ring 3's debug exceptions that the debugger caused, puts
    /// it back into ring 3; gives the exception's vector.
    pub(super) fn take_back(&self, vcpu: &VcpuFd) -> Option<(u64, u64)> {
        if !self.lets_through() {
            return None;
        }
        let (mut regs, mut sregs) = (vcpu.get_regs().ok()?, vcpu.get_sregs().ok()?);
        let space = AddressSpace::new(&*self.ram, sregs.cr3);
        let at = |vector| self.frame_at_handler(&space, &regs, &sregs, vector);
        if let Some(frame) = at(DEBUG)
            && frame.rflags & TRAP_FLAG != 0
            && (self.told.1 || !self.told.0.stepped.is_empty())
        {
            frame.leave_to(&mut regs, &mut sregs);
            regs.rflags &= !TRAP_FLAG;
            return set(vcpu, &regs, &sregs).then_some((DEBUG, regs.rip));
        }
        let frame = at(BREAKPOINT)?;
        let int3 = frame.rip.checked_sub(1)?;
        if !self.patched.iter().any(|(breakpoint, _)| breakpoint.address == int3) {
            return None;
        }
        frame.leave_to(&mut regs, &mut sregs);
        regs.rip = int3;
        set(vcpu, &regs, &sregs).then_some((BREAKPOINT, regs.rip))
    }

    fn frame_at_handler(
        &self,
        space: &AddressSpace<'_, GuestRam>,
        regs: &kvm_regs,
        sregs: &kvm_sregs,
        vector: u64,
    ) -> Option<Frame> {
        /// `push 0`, in place of an error code: the handlers' first instruction.
        const PUSH: u64 = 2;
        let handler = gate(space, sregs.idt.base, vector)?;
        let pushed = match regs.rip.checked_sub(handler)? {
            0 => 0,
            PUSH if space.read(GuestVirt(handler), 2) == [0x6a, 0] => 8,
            _ => return None,
        };
        Frame::read(space, regs.rsp.checked_add(pushed)?)
    }

    /// Carries out an `iretq` to ring 3, if that is what comes next.
    fn return_to_user(&self, vcpu: &VcpuFd) -> bool {
        let (Ok(mut regs), Ok(mut sregs)) = (vcpu.get_regs(), vcpu.get_sregs()) else {
            return false;
        };
        let space = AddressSpace::new(&*self.ram, sregs.cr3);
        if sregs.cs.dpl != 0 || space.read(GuestVirt(regs.rip), 2) != IRETQ {
            return false;
        }
        let Some(frame) = Frame::read(&space, regs.rsp) else { return false };
        frame.leave_to(&mut regs, &mut sregs);
        set(vcpu, &regs, &sregs)
    }
}

/// The state of ring 3 that an exception saved.
struct Frame {
    rip: u64,
    cs: u16,
    rflags: u64,
    rsp: u64,
    ss: u16,
}

impl Frame {
    /// The frame at `address`, if it leads to ring 3.
    fn read(space: &AddressSpace<'_, GuestRam>, address: u64) -> Option<Self> {
        let word = |index: u64| space.read_u64(GuestVirt(address.checked_add(index * 8)?));
        let selector = |index| word(index).and_then(|word| u16::try_from(word).ok());
        let frame = Self {
            rip: word(0)?,
            cs: selector(1)?,
            rflags: word(2)?,
            rsp: word(3)?,
            ss: selector(4)?,
        };
        (frame.cs & 3 == 3 && frame.ss & 3 == 3).then_some(frame)
    }

    /// As `iretq` does it.
    fn leave_to(&self, regs: &mut kvm_regs, sregs: &mut kvm_sregs) {
        (regs.rip, regs.rflags, regs.rsp) = (self.rip, self.rflags, self.rsp);
        let flat = kvm_segment {
            limit: u32::MAX,
            present: 1,
            dpl: 3,
            s: 1,
            g: 1,
            ..kvm_segment::default()
        };
        // Code: readable, 64-bit. Data: writable, 32-bit, as such segments are.
        sregs.cs = kvm_segment { selector: self.cs, type_: 0xb, l: 1, ..flat };
        sregs.ss = kvm_segment { selector: self.ss, type_: 0x3, db: 1, ..flat };
    }
}

fn set(vcpu: &VcpuFd, regs: &kvm_regs, sregs: &kvm_sregs) -> bool {
    let result = vcpu.set_sregs(sregs).and_then(|()| vcpu.set_regs(regs));
    if let Err(error) = &result {
        log::warn!("KVM refuses the registers of ring 3: {error}");
    }
    result.is_ok()
}

/// Where the guest handles an exception.
fn handler(vcpu: &VcpuFd, ram: &GuestRam, vector: u64) -> Option<u64> {
    let sregs = vcpu.get_sregs().ok()?;
    gate(&AddressSpace::new(ram, sregs.cr3), sregs.idt.base, vector)
}

/// The address in a gate of the interrupt descriptor table.
fn gate(space: &AddressSpace<'_, GuestRam>, table: u64, vector: u64) -> Option<u64> {
    /// Bytes of a gate.
    const GATE: u64 = 16;
    let address = table.checked_add(vector * GATE)?;
    let low = space.read_u64(GuestVirt(address))?;
    let high = space.read_u64(GuestVirt(address.checked_add(8)?))?;
    Some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32)
}
