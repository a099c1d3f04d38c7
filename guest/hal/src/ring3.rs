//! Instructions that only ring 3 has.
//!
//! Where ring 0 is emulated, the emulator knows no `xsave`, and ring 3, which
//! runs on the processor itself, does. So a few instructions of the kernel's own
//! run in ring 3 there, called like a function: [`call`] leaves for ring 3 from
//! wherever the kernel is and returns when they end in `int3`.
//!
//! ```text
//!   kernel ── call ── iretq ──► ring 3: xsave, xrstor, int3
//!     ▲                                               │
//!     └── the caller's stack ◄── leave ◄── enter ◄────┘
//! ```
//!
//! They run in an address space that no program ever sees. Below the upper half
//! that all spaces share it has the code, the initial state, and the pages that
//! vector registers are saved to: a program can neither jump there nor read what
//! another one has in its registers. Interrupts stay off.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use pagelab_abi::addr::{Frame, GuestPhys, GuestVirt, PAGE_SIZE};
use pagelab_mm::Machine;
use pagelab_mm::frames::Use;
use pagelab_mm::numbers::Numbers;
use pagelab_paging::entry::{ENTRIES, Entry, EntryFlags, Level};

use crate::descriptors::{self, USER_CODE, USER_DATA};
use crate::memory::{self, Physical, frames, new_table, physical_address};
use crate::sync::{Lock, Once};
use crate::time;
use crate::trap::{TrapFrame, vector};

/// Where the code is.
const CODE: GuestVirt = GuestVirt(0x1000_0000);
/// Where the state is that programs start with. The page behind it is mapped as
/// well: `xrstor` looks at all of a state's length, whatever of it is used.
const INITIAL: GuestVirt = GuestVirt(0x1000_1000);
/// Where pages for saved state are, by number.
const PAGES: GuestVirt = GuestVirt(0x1_0000_0000);

global_asm!(
    ".section .text.ring3, \"ax\"",
    ".balign 64",
    ".global pagelab_ring3",
    "pagelab_ring3:",
    // RDI and RSI: where to save to and restore from, or 0. EDX:EAX: what.
    ".global pagelab_ring3_exchange",
    "pagelab_ring3_exchange:",
    "test rdi, rdi",
    "jz 2f",
    "xsave64 [rdi]",
    "2:",
    "test rsi, rsi",
    "jz 3f",
    "xrstor64 [rsi]",
    "3:",
    "int3",
    ".global pagelab_ring3_xgetbv",
    "pagelab_ring3_xgetbv:",
    "xgetbv",
    "int3",
    ".global pagelab_ring3_cpuid",
    "pagelab_ring3_cpuid:",
    "cpuid",
    "int3",
    // RDI: where to put the stack pointer; RSI: where to put it for the way
    // back; RDX: the registers to go with.
    ".global pagelab_ring3_call",
    "pagelab_ring3_call:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "mov [rdi], rsp",
    "mov [rsi], rsp",
    "push {user_data}",
    "push 0",
    "push {flags}",
    "push {user_code}",
    "push [rdx]",
    "mov rdi, [rdx + 8]",
    "mov rsi, [rdx + 16]",
    "mov rax, [rdx + 24]",
    "mov rcx, [rdx + 32]",
    "xor edx, edx",
    "iretq",
    ".global pagelab_ring3_leave",
    "pagelab_ring3_leave:",
    "mov rsp, rdi",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    // Bit 1 is always set; interrupts are off.
    flags = const 2,
);

unsafe extern "C" {
    fn pagelab_ring3();
    fn pagelab_ring3_exchange();
    fn pagelab_ring3_xgetbv();
    fn pagelab_ring3_cpuid();
    fn pagelab_ring3_call(stack: *mut u64, ring0_stack: *mut u64, registers: *const Registers);
    fn pagelab_ring3_leave(stack: u64) -> !;
}

/// What the code starts with.
#[repr(C)]
struct Registers {
    rip: u64,
    rdi: u64,
    rsi: u64,
    rax: u64,
    rcx: u64,
}

/// What it ended with.
#[derive(Clone, Copy, Debug, Default)]
struct Results {
    vector: u64,
    rax: u64,
    rbx: u64,
}

/// The code ended with an exception of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// The exception's vector.
    pub(crate) vector: u64,
}

/// The address space.
struct Space {
    root: Frame,
    /// Offset of the initial state in its page.
    initial: u64,
    numbers: Lock<Numbers>,
}

static SPACE: Once<Space> = Once::new();
/// The stack to return to; 0 while nothing runs.
static CALLER: AtomicU64 = AtomicU64::new(0);

struct ResultsCell(UnsafeCell<Results>);

// SAFETY: written by `leave` and read by `call` after that, on one processor
// with interrupts off.
unsafe impl Sync for ResultsCell {}

static RESULTS: ResultsCell = ResultsCell(UnsafeCell::new(Results { vector: 0, rax: 0, rbx: 0 }));

/// Makes the address space. `initial` is the state that programs start with.
/// `false` if there is no memory.
pub(crate) fn init<T>(initial: &'static T) -> bool {
    let initial = physical_address(initial);
    let code = physical_address(pagelab_ring3 as *const u8);
    let Some(root) = new_table() else { return false };
    for index in ENTRIES / 2..ENTRIES {
        let entry = Machine::read_entry(&Physical, memory::kernel_root(), index);
        if entry.is_present() {
            Physical.write_entry(root, index, entry);
        }
    }
    let read_only = EntryFlags::NO_EXECUTE;
    let done = map(root, CODE, page_of(code), EntryFlags::empty())
        && map(root, INITIAL, page_of(initial), read_only)
        && map(root, GuestVirt(INITIAL.0 + PAGE_SIZE), Frame(page_of(initial).0 + 1), read_only);
    if done {
        let numbers = Lock::new(Numbers::new());
        SPACE.set(Space { root, initial: initial.0 % PAGE_SIZE, numbers });
    }
    done
}

fn page_of(address: GuestPhys) -> Frame {
    Frame((address.0 / PAGE_SIZE) as u32)
}

/// Maps a page for ring 3; `false` if there is no memory for a table.
fn map(root: Frame, page: GuestVirt, frame: Frame, flags: EntryFlags) -> bool {
    let user = EntryFlags::PRESENT | EntryFlags::USER | EntryFlags::ACCESSED;
    let mut table = root;
    for level in [Level::Four, Level::Three, Level::Two] {
        let entry = Machine::read_entry(&Physical, table, level.index(page));
        table = if entry.is_present() {
            entry.frame()
        } else {
            let Some(below) = new_table() else { return false };
            let entry = Entry::for_frame(below, user | EntryFlags::WRITABLE);
            Physical.write_entry(table, level.index(page), entry);
            below
        };
    }
    Physical.write_entry(table, Level::One.index(page), Entry::for_frame(frame, user | flags));
    Physical.flush_page(root, page);
    true
}

/// A page that ring 3 saves vector registers to.
#[derive(Debug)]
pub(crate) struct Page {
    number: u64,
    frame: Frame,
}

impl Page {
    /// A page full of zeros; `None` without memory.
    pub(crate) fn new() -> Option<Self> {
        let frame = frames().alloc_zeroed(&Physical, Use::Kernel)?;
        let space = SPACE.get();
        let Some(number) = space.numbers.lock().lend() else {
            frames().release(&Physical, frame);
            return None;
        };
        let page = Self { number, frame };
        let flags = EntryFlags::WRITABLE | EntryFlags::NO_EXECUTE | EntryFlags::DIRTY;
        map(space.root, page.place(), frame, flags).then_some(page)
    }

    /// Where ring 3 sees it.
    const fn place(&self) -> GuestVirt {
        GuestVirt(PAGES.0 + self.number * PAGE_SIZE)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8; PAGE_SIZE as usize] {
        // SAFETY: the frame is this page's alone; ring 3 writes it during `call`
        // only, to which nobody holds a reference.
        unsafe { &*memory::frame_pointer(self.frame).cast() }
    }

    /// Its bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE as usize] {
        // SAFETY: as above.
        unsafe { &mut *memory::frame_pointer(self.frame).cast() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Its number's next page replaces the entry, which is flushed then;
        // nothing uses it before.
        frames().release(&Physical, self.frame);
        SPACE.get().numbers.lock().give_back(self.number);
    }
}

/// What vector registers get.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// What they have.
    Unchanged,
    /// What programs start with.
    Initial,
    /// What was saved.
    Saved(&'a Page),
}

/// Saves the `components` of the vector registers, then gives them others.
pub(crate) fn exchange(
    save: Option<&mut Page>,
    load: Source<'_>,
    components: u32,
) -> Result<(), Failed> {
    let from = match load {
        Source::Unchanged => 0,
        Source::Initial => INITIAL.0 + SPACE.get().initial,
        Source::Saved(page) => page.place().0,
    };
    let to = save.map_or(0, |page| page.place().0);
    call(pagelab_ring3_exchange, [to, from, components.into(), 0]).map(drop)
}

/// Which components the processor has enabled.
pub(crate) fn xgetbv() -> Result<u32, Failed> {
    Ok(call(pagelab_ring3_xgetbv, [0; 4])?.rax as u32)
}

/// Size and offset of a component's part of the saved state.
pub(crate) fn extent(component: u32) -> Result<(u32, u32), Failed> {
    const STATE: u64 = 0xd;
    let results = call(pagelab_ring3_cpuid, [0, 0, STATE, component.into()])?;
    Ok((results.rax as u32, results.rbx as u32))
}

/// Runs code in ring 3 with RDI, RSI, RAX and RCX.
fn call(code: unsafe extern "C" fn(), [rdi, rsi, rax, rcx]: [u64; 4]) -> Result<Results, Failed> {
    let offset = code as usize as u64 - pagelab_ring3 as *const () as u64;
    let start = physical_address(pagelab_ring3 as *const u8).0 % PAGE_SIZE;
    let registers = Registers { rip: CODE.0 + start + offset, rdi, rsi, rax, rcx };
    let before = memory::enter(SPACE.get().root);
    let ring0_stack = descriptors::ring0_stack();
    // SAFETY: inside a static; interrupts are off, one processor.
    let top = unsafe { ring0_stack.read_unaligned() };
    // SAFETY: leaves for code that comes back through `leave`, on this stack,
    // with the registers that a function keeps.
    unsafe { pagelab_ring3_call(CALLER.as_ptr(), ring0_stack, &raw const registers) };
    // SAFETY: as above; what the other thread's entries use again.
    unsafe { ring0_stack.write_unaligned(top) };
    memory::enter(before);
    // SAFETY: written by `leave`, which has ended.
    let results = unsafe { *RESULTS.0.get() };
    if results.vector == u64::from(vector::BREAKPOINT) {
        Ok(results)
    } else {
        Err(Failed { vector: results.vector })
    }
}

/// Ends the code that runs, if some does: called for exceptions in ring 3.
pub(crate) fn leave_if_called(frame: &TrapFrame) {
    let caller = CALLER.swap(0, Ordering::Relaxed);
    if caller == 0 {
        return;
    }
    // All this was the kernel's time.
    time::end_kernel_time();
    // SAFETY: `call` reads it after this only.
    unsafe {
        *RESULTS.0.get() = Results { vector: frame.vector, rax: frame.rax, rbx: frame.rbx };
    }
    // SAFETY: the stack of the `call` that waits; what is below it is this
    // entry's, which holds nothing.
    unsafe { pagelab_ring3_leave(caller) }
}
