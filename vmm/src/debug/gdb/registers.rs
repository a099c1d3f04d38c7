//! The processor's registers in the debugger's order, and back.

use gdbstub_arch::x86::reg::X86_64CoreRegs;
use pagelab_abi::directory::UserFrame;

use crate::vstate::control::ProcessorState;

/// The registers as the debugger knows them.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "flags have 22 bits, the others are masked")]
pub fn to_debugger(state: &ProcessorState) -> X86_64CoreRegs {
    let (general, special, fpu) = (&state.general, &state.special, &state.fpu);
    let mut regs = X86_64CoreRegs {
        regs: [
            general.rax,
            general.rbx,
            general.rcx,
            general.rdx,
            general.rsi,
            general.rdi,
            general.rbp,
            general.rsp,
            general.r8,
            general.r9,
            general.r10,
            general.r11,
            general.r12,
            general.r13,
            general.r14,
            general.r15,
        ],
        eflags: general.rflags as u32,
        rip: general.rip,
        mxcsr: fpu.mxcsr,
        ..X86_64CoreRegs::default()
    };
    regs.segments.cs = special.cs.selector.into();
    regs.segments.ss = special.ss.selector.into();
    regs.segments.ds = special.ds.selector.into();
    regs.segments.es = special.es.selector.into();
    regs.segments.fs = special.fs.selector.into();
    regs.segments.gs = special.gs.selector.into();
    for (to, from) in regs.st.iter_mut().zip(&fpu.fpr) {
        to.copy_from_slice(&from[..10]);
    }
    for (to, from) in regs.xmm.iter_mut().zip(&fpu.xmm) {
        *to = u128::from_le_bytes(*from);
    }
    regs.fpu.fctrl = fpu.fcw.into();
    regs.fpu.fstat = fpu.fsw.into();
    regs.fpu.ftag = fpu.ftwx.into();
    regs
}

/// A program's registers as the guest's kernel saved them, without vectors.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "flags have 22 bits, selectors 16")]
pub fn saved(frame: &UserFrame) -> X86_64CoreRegs {
    let general = [
        frame.rax, frame.rbx, frame.rcx, frame.rdx, frame.rsi, frame.rdi, frame.rbp, frame.rsp,
        frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15,
    ];
    let mut regs = X86_64CoreRegs {
        regs: general,
        eflags: frame.rflags as u32,
        rip: frame.rip,
        ..X86_64CoreRegs::default()
    };
    regs.segments.cs = frame.cs as u32;
    regs.segments.ss = frame.ss as u32;
    regs
}

/// Puts what the debugger may change into the processor's state: general
/// registers, flags, vectors. Segments stay.
pub fn from_debugger(regs: &X86_64CoreRegs, state: &mut ProcessorState) {
    let general = &mut state.general;
    let places = [
        &mut general.rax,
        &mut general.rbx,
        &mut general.rcx,
        &mut general.rdx,
        &mut general.rsi,
        &mut general.rdi,
        &mut general.rbp,
        &mut general.rsp,
        &mut general.r8,
        &mut general.r9,
        &mut general.r10,
        &mut general.r11,
        &mut general.r12,
        &mut general.r13,
        &mut general.r14,
        &mut general.r15,
    ];
    for (place, value) in places.into_iter().zip(regs.regs) {
        *place = value;
    }
    general.rip = regs.rip;
    general.rflags = regs.eflags.into();
    for (to, from) in state.fpu.xmm.iter_mut().zip(&regs.xmm) {
        *to = from.to_le_bytes();
    }
    for (to, from) in state.fpu.fpr.iter_mut().zip(&regs.st) {
        to[..10].copy_from_slice(from);
    }
    state.fpu.mxcsr = regs.mxcsr;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let mut state = ProcessorState::default();
        (state.general.rax, state.general.r15, state.general.rip) = (1, 2, 3);
        state.fpu.xmm[7] = [9; 16];
        let regs = to_debugger(&state);
        assert_eq!((regs.regs[0], regs.regs[15], regs.rip), (1, 2, 3));
        let mut back = ProcessorState::default();
        from_debugger(&regs, &mut back);
        assert_eq!(back.general, state.general);
        assert_eq!(back.fpu.xmm, state.fpu.xmm);
    }
}
