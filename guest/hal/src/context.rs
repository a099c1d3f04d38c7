//! Kernel threads and the switch between them.
//!
//! A [`Context`] is a kernel stack and, while it does not run, where on it the
//! registers are. Exactly one context is running; the first to be started
//! replaces the boot stack for good. A switch has two steps, so that its caller
//! holds nothing while it is away: [`Context::prepare`] and [`Switch::go`].

use alloc::boxed::Box;
use core::arch::naked_asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::stack::Stack;
use crate::trap::{self, TrapFrame};

/// A kernel thread's stack and saved stack pointer.
pub struct Context {
    inner: Box<Inner>,
}

struct Inner {
    stack: Stack,
    /// Where the thread's registers are saved; `RUNNING` while they are not.
    saved: Cell<u64>,
}

// SAFETY: one processor, ring 0 is not preempted: the cell is never used twice
// at a time.
unsafe impl Sync for Context {}
// SAFETY: as above.
unsafe impl Send for Context {}

const RUNNING: u64 = 0;

/// The context that runs, null on the boot stack.
static CURRENT: AtomicPtr<Inner> = AtomicPtr::new(core::ptr::null_mut());
/// Top of the stack that runs.
static CURRENT_TOP: AtomicU64 = AtomicU64::new(0);

/// What `switch_stacks` saves and restores, lowest address first.
#[repr(C)]
struct SavedRegisters {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbx: u64,
    rbp: u64,
    rip: u64,
}

impl Context {
    /// A thread that will begin with `entry`, or `None` if memory has run out.
    #[must_use]
    pub fn new(entry: fn() -> !) -> Option<Self> {
        let stack = Stack::new()?;
        // The top is kept free for the frame of `enter_program`. The word above
        // the saved registers plays the return address that a
        // call would have pushed, so that the stack is aligned as after a call.
        let kept = (size_of::<TrapFrame>() + 16 + size_of::<SavedRegisters>()) as u64;
        let place = stack.top() - kept;
        let registers = SavedRegisters {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbx: entry as usize as u64,
            rbp: 0,
            rip: thread_start as *const () as u64,
        };
        // SAFETY: inside the new stack, which nobody uses yet.
        unsafe { (place as *mut SavedRegisters).write(registers) };
        Some(Self { inner: Box::new(Inner { stack, saved: Cell::new(place) }) })
    }

    /// The end of its stack, below which the frame of ring 3 lies.
    #[must_use]
    pub fn stack_top(&self) -> u64 {
        self.inner.stack.top()
    }

    /// Claims the thread for running; [`Switch::go`] must follow.
    ///
    /// # Panics
    ///
    /// If the thread is running already.
    #[must_use = "the thread is claimed and has to be switched to"]
    pub fn prepare(&self) -> Switch {
        let target = self.inner.saved.replace(RUNNING);
        assert!(target != RUNNING, "a thread runs once at a time");
        Switch { target, next: &raw const *self.inner }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        assert!(self.inner.saved.get() != RUNNING, "a thread is not freed while it runs");
    }
}

/// A thread that is about to run.
pub struct Switch {
    target: u64,
    next: *const Inner,
}

impl Switch {
    /// Stops running the current thread and runs this one; returns when
    /// something switches back. What is on the boot stack never runs again.
    pub fn go(self) {
        // SAFETY: the claimed context cannot be freed: `drop` would panic.
        let top = unsafe { (*self.next).stack.top() };
        CURRENT_TOP.store(top, Ordering::Relaxed);
        trap::set_kernel_stack(top);
        let from = CURRENT.swap(self.next.cast_mut(), Ordering::Relaxed);
        let abandoned = Cell::new(0);
        let save = if from.is_null() {
            abandoned.as_ptr()
        } else {
            // SAFETY: the running context cannot have been freed, as above.
            unsafe { (*from).saved.as_ptr() }
        };
        // SAFETY: `target` was saved by `new` or by this function.
        unsafe { switch_stacks(save, self.target) };
    }
}

/// Leaves for ring 3 with `frame` as the running thread, whose kernel stack
/// starts afresh: what the callers hold is never dropped.
///
/// # Panics
///
/// If no thread has been started.
pub fn enter_program(frame: &TrapFrame) -> ! {
    let top = CURRENT_TOP.load(Ordering::Relaxed);
    assert!(top != 0, "only a thread enters a program");
    trap::start_program(frame, top)
}

/// Saves the callee-saved registers, stores the stack pointer through RDI,
/// takes RSI for the new one, and restores.
#[unsafe(naked)]
unsafe extern "C" fn switch_stacks(save: *mut u64, target: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    );
}

/// First code of a new thread: RBX is its function.
#[unsafe(naked)]
extern "C" fn thread_start() {
    naked_asm!("xor ebp, ebp", "call rbx", "ud2");
}
