//! The processor's state, copied out of KVM into plain [`Registers`].

use kvm_ioctls::VcpuFd;

use crate::stop::Registers;

/// Reads what can be read; what KVM refuses stays zero, since this runs when
/// something has gone wrong already and half the facts are better than none.
#[must_use]
pub fn read(vcpu: &VcpuFd) -> Registers {
    let mut state = Registers::default();
    match vcpu.get_regs() {
        Ok(r) => {
            state.general = [
                r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11,
                r.r12, r.r13, r.r14, r.r15,
            ];
            state.rip = r.rip;
            state.rflags = r.rflags;
        }
        Err(error) => log::warn!("cannot read the general registers: {error}"),
    }
    match vcpu.get_sregs() {
        Ok(s) => {
            (state.cr0, state.cr2, state.cr3, state.cr4) = (s.cr0, s.cr2, s.cr3, s.cr4);
            state.efer = s.efer;
            (state.cs, state.ss) = (s.cs.selector, s.ss.selector);
            (state.fs_base, state.gs_base) = (s.fs.base, s.gs.base);
            state.idt = (s.idt.base, s.idt.limit);
            state.gdt = (s.gdt.base, s.gdt.limit);
            state.tr = (s.tr.selector, s.tr.base);
        }
        Err(error) => log::warn!("cannot read the special registers: {error}"),
    }
    if let Ok(events) = vcpu.get_vcpu_events() {
        let exception = events.exception;
        if exception.injected != 0 || exception.pending != 0 {
            let code = (exception.has_error_code != 0).then_some(exception.error_code);
            state.exception = Some((exception.nr, code));
        }
    }
    state
}
