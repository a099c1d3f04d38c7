//! What the kernel tells about processes and itself, as plain numbers.

use bitflags::bitflags;

use crate::inode::DeviceNumber;

/// What `status` and `stat` say about a process or thread.
#[derive(Clone, Copy, Debug)]
pub struct ProcessStatus {
    /// The command's name: bytes up to the first NUL.
    pub name: [u8; 16],
    /// `R`, `S`, `D`, `T`, `t`, `Z` or `X`.
    pub state: u8,
    /// The process (thread group).
    pub process: u32,
    /// The thread.
    pub thread: u32,
    /// The parent's process.
    pub parent: u32,
    /// The process group.
    pub group: u32,
    /// The session.
    pub session: u32,
    /// The controlling terminal, if any.
    pub terminal: DeviceNumber,
    /// The terminal's foreground group; -1 without a terminal.
    pub foreground: i32,
    /// `PF_*` of the task.
    pub flags: u32,
    /// Permission bits that new files do not get.
    pub umask: u16,
    /// Room in the descriptor table.
    pub descriptors: u32,
    /// Number of threads.
    pub threads: u32,
    /// When it started, in ticks (1/100 s) since boot.
    pub started: u64,
    /// Ticks in user mode, in the kernel, and both of waited-for children.
    pub ticks: [u64; 4],
    /// Minor faults, those of waited-for children, major faults, and theirs.
    pub faults: [u64; 4],
    /// Its signals.
    pub signals: SignalSets,
    /// The signal its parent gets when it exits.
    pub exit_signal: u32,
    /// As `wait` shows it.
    pub exit_code: u32,
    /// How often it gave up the processor.
    pub voluntary_switches: u64,
    /// How often it lost it.
    pub involuntary_switches: u64,
    /// The processor it ran on last, and how many there are.
    pub processor: u32,
    /// How many processors there are.
    pub processors: u32,
    /// Its memory; a zombie has none.
    pub memory: Option<ProcessMemory>,
}

/// Signal sets, bit 0 for signal 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignalSets {
    /// Pending for the thread.
    pub pending: u64,
    /// Pending for the process.
    pub shared_pending: u64,
    /// Blocked.
    pub blocked: u64,
    /// Ignored.
    pub ignored: u64,
    /// Handled.
    pub caught: u64,
    /// How many are queued, and how many may be.
    pub queued: (u64, u64),
}

/// The memory of a process, in pages unless said otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessMemory {
    /// Mapped.
    pub size: u64,
    /// Most ever mapped.
    pub peak_size: u64,
    /// Most ever resident.
    pub peak_resident: u64,
    /// Resident and anonymous.
    pub anonymous: u64,
    /// Resident and of a file.
    pub file: u64,
    /// Resident and shared anonymous memory or of a tmpfs.
    pub shared_memory: u64,
    /// Locked.
    pub locked: u64,
    /// Private and writable, without the stack.
    pub data: u64,
    /// Stack.
    pub stack: u64,
    /// Code of the program itself.
    pub text: u64,
    /// Code of libraries.
    pub library: u64,
    /// Swapped out.
    pub swap: u64,
    /// Bytes in page tables.
    pub page_table_bytes: u64,
    /// `RLIMIT_RSS` in bytes.
    pub resident_limit: u64,
    /// First and last address of the code.
    pub code: (u64, u64),
    /// First and last address of the initialised data.
    pub initialised: (u64, u64),
    /// Where `brk` began.
    pub start_brk: u64,
    /// Where the stack began.
    pub start_stack: u64,
    /// Where the arguments are.
    pub arguments: (u64, u64),
    /// Where the environment is.
    pub environment: (u64, u64),
}

impl ProcessMemory {
    /// Pages in frames.
    #[must_use]
    pub const fn resident(&self) -> u64 {
        self.anonymous + self.file + self.shared_memory
    }
}

bitflags! {
    /// The flags of an area, with Linux's numbers for them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AreaFlags: u32 {
        /// Can be read.
        const READ = 1;
        /// Can be written.
        const WRITE = 1 << 1;
        /// Can be executed.
        const EXECUTE = 1 << 2;
        /// Writes reach others.
        const SHARED = 1 << 3;
        /// Could be made readable.
        const MAY_READ = 1 << 4;
        /// Could be made writable.
        const MAY_WRITE = 1 << 5;
        /// Could be made executable.
        const MAY_EXECUTE = 1 << 6;
        /// Mapped `MAP_SHARED`: shown as `s` even where nobody can write.
        const MAY_SHARE = 1 << 7;
        /// Grows downwards.
        const GROWS_DOWN = 1 << 8;
        /// Bare frames.
        const FRAMES = 1 << 10;
        /// Locked.
        const LOCKED = 1 << 13;
        /// Of a device.
        const IO = 1 << 14;
        /// Will be read in order.
        const SEQUENTIAL = 1 << 15;
        /// Will be read in no order.
        const RANDOM = 1 << 16;
        /// fork leaves it out.
        const DONT_COPY = 1 << 17;
        /// Cannot be enlarged.
        const DONT_EXPAND = 1 << 18;
        /// Locked once touched.
        const LOCK_ON_FAULT = 1 << 19;
        /// Counts as committed.
        const ACCOUNTED = 1 << 20;
        /// Does not count as committed.
        const NO_RESERVE = 1 << 21;
        /// Huge pages of hugetlbfs.
        const HUGETLB = 1 << 22;
        /// Synchronous faults.
        const SYNCHRONOUS = 1 << 23;
        /// fork clears it.
        const WIPE_ON_FORK = 1 << 25;
        /// Not in core dumps.
        const DONT_DUMP = 1 << 26;
        /// New or changed since `clear_refs`.
        const SOFT_DIRTY = 1 << 27;
        /// May contain bare frames.
        const MIXED = 1 << 28;
        /// Wants huge pages.
        const HUGE_PAGES = 1 << 29;
        /// Wants no huge pages.
        const NO_HUGE_PAGES = 1 << 30;
        /// May be merged with equal pages.
        const MERGEABLE = 1 << 31;
    }
}

/// One area of an address space.
#[derive(Clone, Copy, Debug)]
pub struct Area<'a> {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Flags.
    pub flags: AreaFlags,
    /// Offset in the file; 0 for anonymous memory.
    pub offset: u64,
    /// The file system's device number.
    pub device: DeviceNumber,
    /// The file's number; 0 for anonymous memory.
    pub inode: u64,
    /// The file's path, or a name in brackets, or nothing.
    pub name: &'a [u8],
}

/// What of an area is resident and how, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AreaUsage {
    /// In frames.
    pub resident: u64,
    /// Each frame divided by the number of its mappings, in 1/4096 bytes.
    pub proportional: u64,
    /// The dirty part of that.
    pub proportional_dirty: u64,
    /// The anonymous part of it.
    pub proportional_anonymous: u64,
    /// The part of it that belongs to files.
    pub proportional_file: u64,
    /// The part of it that is shared memory.
    pub proportional_shared_memory: u64,
    /// Mapped more than once and clean.
    pub shared_clean: u64,
    /// Mapped more than once and dirty.
    pub shared_dirty: u64,
    /// Mapped once and clean.
    pub private_clean: u64,
    /// Mapped once and dirty.
    pub private_dirty: u64,
    /// Accessed since `clear_refs`.
    pub referenced: u64,
    /// Anonymous.
    pub anonymous: u64,
    /// Freed by `MADV_FREE` and not yet taken.
    pub lazily_freed: u64,
    /// Anonymous huge pages.
    pub huge: u64,
    /// Swapped out.
    pub swap: u64,
    /// Each swap entry divided by the number of its users, in 1/4096 bytes.
    pub proportional_swap: u64,
    /// Locked, proportionally, in 1/4096 bytes.
    pub proportional_locked: u64,
    /// Whether it could have transparent huge pages.
    pub huge_eligible: bool,
}

impl AreaUsage {
    /// Adds another area's usage.
    pub fn add(&mut self, other: &Self) {
        self.resident += other.resident;
        self.proportional += other.proportional;
        self.proportional_dirty += other.proportional_dirty;
        self.proportional_anonymous += other.proportional_anonymous;
        self.proportional_file += other.proportional_file;
        self.proportional_shared_memory += other.proportional_shared_memory;
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.lazily_freed += other.lazily_freed;
        self.huge += other.huge;
        self.swap += other.swap;
        self.proportional_swap += other.proportional_swap;
        self.proportional_locked += other.proportional_locked;
    }
}

/// How many limits a process has.
pub const LIMITS: usize = 16;

/// A limit: what counts, and what it can be raised to; `u64::MAX` is none.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// How far it can be raised.
    pub hard: u64,
}

/// The memory of the machine, in pages.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "named after the lines of /proc/meminfo")]
pub struct MemoryInfo {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub buffers: u64,
    pub cached: u64,
    pub swap_cached: u64,
    pub active_anonymous: u64,
    pub inactive_anonymous: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub unevictable: u64,
    pub locked: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    pub dirty: u64,
    pub write_back: u64,
    pub anonymous: u64,
    pub mapped: u64,
    pub shared_memory: u64,
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
    pub kernel_stacks: u64,
    pub page_tables: u64,
    pub commit_limit: u64,
    pub committed: u64,
}

/// What a processor spent its time with, in ticks (1/100 s).
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "named after the columns of /proc/stat")]
pub struct CpuTimes {
    pub user: u64,
    pub system: u64,
    pub idle: u64,
    pub io_wait: u64,
    pub interrupts: u64,
}

/// Counts since boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemCounts {
    /// Interrupts taken.
    pub interrupts: u64,
    /// Switches between threads.
    pub switches: u64,
    /// When the machine booted, in seconds since 1970.
    pub boot_time: u64,
    /// Processes and threads made.
    pub forks: u64,
    /// Threads that run or could.
    pub running: u64,
    /// Threads that wait for a device.
    pub blocked: u64,
    /// Threads there are.
    pub threads: u64,
    /// The process made last.
    pub last_pid: u32,
}

/// `/proc/loadavg`: hundredths, over one, five and fifteen minutes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadAverage(pub [u64; 3]);

/// What a processor is.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "named after the lines of /proc/cpuinfo")]
pub struct CpuInfo<'a> {
    pub vendor: &'a str,
    pub family: u32,
    pub model: u32,
    pub model_name: &'a str,
    pub stepping: u32,
    pub kilohertz: u64,
    pub cache_kib: u32,
    pub apic: u32,
    pub cpuid_level: u32,
    pub flags: &'a [&'a str],
    pub clflush_size: u32,
    pub physical_bits: u32,
    pub virtual_bits: u32,
}

/// What `uname` says.
#[derive(Clone, Copy, Debug)]
pub struct SystemIdentity {
    /// `Linux`: what programs expect.
    pub system: &'static str,
    /// Release, such as `6.1.0`.
    pub release: &'static str,
    /// Version, such as `#1 SMP`.
    pub version: &'static str,
    /// Name of the machine.
    pub host: &'static str,
    /// Who built it and with what, in parentheses as in `/proc/version`.
    pub builder: &'static str,
}
