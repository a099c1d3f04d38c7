//! The machine as a whole: memory, processor, time.

use alloc::string::String;
use alloc::vec::Vec;

use pagelab_hal::{cpu, lab, time};
use pagelab_mm::Overcommit;
use pagelab_vfs::procfs::{CpuInfo, CpuTimes, MemoryInfo, SystemCounts};

use crate::files::{cache, write_back};
use crate::memory::memory;
use crate::process::thread::RunState;
use crate::process::{self, Process, State, exit, reclaim, scheduler, usage};
use crate::swap;

/// Nanoseconds in a tick of 1/100 s.
const TICK: u64 = 10_000_000;

/// Pages that are mapped by programs, by what they are: anonymous, files,
/// shared memory.
fn mapped() -> [u64; 3] {
    let mut sum = [0; 3];
    for process in process::all().iter().filter(|process| process.state() == State::Alive) {
        let resident = process.space().lock().resident();
        sum[0] += resident.anonymous;
        sum[1] += resident.file;
        sum[2] += resident.shared_memory;
    }
    sum
}

/// `/proc/meminfo`.
pub fn memory_info() -> MemoryInfo {
    let frames = memory().frames.counters();
    let commit = &memory().commit;
    let swap = memory().swap_use();
    let [_, file, shared] = mapped();
    // What has a host behind it can be had again.
    let in_memory = cache().pages_in_memory();
    let backed = frames.cache - in_memory;
    MemoryInfo {
        total: frames.total,
        free: frames.free,
        available: frames.free + backed,
        cached: frames.cache,
        active_anonymous: frames.anonymous + in_memory,
        active_file: backed,
        dirty: write_back::dirty_pages(),
        swap_total: swap.total,
        swap_free: swap.free,
        swap_cached: swap.cached,
        anonymous: frames.anonymous - swap.cached,
        mapped: file + shared,
        shared_memory: in_memory,
        slab_unreclaimable: frames.kernel,
        page_tables: frames.tables,
        commit_limit: commit.limit(),
        committed: commit.promised(),
        ..MemoryInfo::default()
    }
}

/// `/proc/vmstat`.
pub fn memory_counters(show: &mut dyn FnMut(&str, u64)) {
    let frames = memory().frames.counters();
    let [_, file, shared] = mapped();
    let (minor, major) = usage::minor_and_major(&lab::faults());
    show("nr_free_pages", frames.free);
    show("nr_anon_pages", frames.anonymous);
    show("nr_mapped", file + shared);
    show("nr_file_pages", frames.cache);
    show("nr_shmem", cache().pages_in_memory());
    show("nr_dirty", write_back::dirty_pages());
    show("nr_page_table_pages", frames.tables);
    show("pgfault", minor + major);
    show("pgmajfault", major);
    let (pages_in, pages_out) = swap::pages_in_and_out();
    let (scanned, freed) = reclaim::scanned_and_freed();
    show("pswpin", pages_in);
    show("pswpout", pages_out);
    show("pgscan_direct", scanned);
    show("pgsteal_direct", freed);
    show("overcommit_always", u64::from(memory().commit.policy() == Overcommit::Always));
}

/// Hundredths of a second since the start, and idle (which nobody measures).
pub fn uptime() -> (u64, u64) {
    (time::since_start() / TICK, scheduler::idle_time() / TICK)
}

/// `/proc/stat` without the processor's times.
pub fn counts() -> SystemCounts {
    const SECOND: u64 = 1_000_000_000;
    let all = process::all();
    let count = |wanted: fn(RunState) -> bool| -> u64 {
        let of_process = |process: &alloc::sync::Arc<Process>| {
            process.threads.lock().iter().filter(|thread| wanted(thread.run_state())).count()
        };
        all.iter().map(of_process).sum::<usize>() as u64
    };
    SystemCounts {
        boot_time: (time::wall_clock() - time::since_start()) / SECOND,
        running: count(|state| state == RunState::Ready),
        threads: count(|_| true),
        last_pid: all.last().map_or(0, |process| process.pid),
        ..SystemCounts::default()
    }
}

/// Names of CPUID's feature bits: leaf, register (2: ECX, 3: EDX, 1: EBX), bit.
const FLAGS: [(u32, u8, u8, &str); 40] = [
    (1, 3, 0, "fpu"),
    (1, 3, 3, "pse"),
    (1, 3, 4, "tsc"),
    (1, 3, 5, "msr"),
    (1, 3, 6, "pae"),
    (1, 3, 8, "cx8"),
    (1, 3, 9, "apic"),
    (1, 3, 11, "sep"),
    (1, 3, 13, "pge"),
    (1, 3, 15, "cmov"),
    (1, 3, 16, "pat"),
    (1, 3, 19, "clflush"),
    (1, 3, 23, "mmx"),
    (1, 3, 24, "fxsr"),
    (1, 3, 25, "sse"),
    (1, 3, 26, "sse2"),
    (1, 3, 28, "ht"),
    (0x8000_0001, 3, 11, "syscall"),
    (0x8000_0001, 3, 20, "nx"),
    (0x8000_0001, 3, 26, "pdpe1gb"),
    (0x8000_0001, 3, 27, "rdtscp"),
    (0x8000_0001, 3, 29, "lm"),
    (1, 2, 0, "pni"),
    (1, 2, 9, "ssse3"),
    (1, 2, 12, "fma"),
    (1, 2, 13, "cx16"),
    (1, 2, 17, "pcid"),
    (1, 2, 19, "sse4_1"),
    (1, 2, 20, "sse4_2"),
    (1, 2, 21, "x2apic"),
    (1, 2, 23, "popcnt"),
    (1, 2, 25, "aes"),
    (1, 2, 26, "xsave"),
    (1, 2, 28, "avx"),
    (1, 2, 30, "rdrand"),
    (1, 2, 31, "hypervisor"),
    (7, 1, 0, "fsgsbase"),
    (7, 1, 5, "avx2"),
    (7, 1, 7, "smep"),
    (7, 1, 20, "smap"),
];

fn flags() -> Vec<&'static str> {
    let has = |&(leaf, register, bit, name): &(u32, u8, u8, &'static str)| {
        let found = cpu::cpuid(leaf, 0);
        let value = match register {
            1 => found.ebx,
            2 => found.ecx,
            _ => found.edx,
        };
        (value >> bit & 1 != 0).then_some(name)
    };
    FLAGS.iter().filter_map(has).collect()
}

/// Text in registers.
fn text(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().into()
}

/// The one processor.
pub fn processors(show: &mut dyn FnMut(&CpuInfo<'_>, &CpuTimes)) {
    const MILLISECOND: u64 = 1_000_000;
    let first = cpu::cpuid(0, 0);
    let vendor = text(&[first.ebx, first.edx, first.ecx]);
    let mut name = Vec::new();
    if cpu::cpuid(0x8000_0000, 0).eax >= 0x8000_0004 {
        for leaf in 0x8000_0002..=0x8000_0004 {
            let found = cpu::cpuid(leaf, 0);
            name.extend([found.eax, found.ebx, found.ecx, found.edx]);
        }
    }
    let signature = cpu::cpuid(1, 0);
    let (base_family, base_model) = (signature.eax >> 8 & 0xf, signature.eax >> 4 & 0xf);
    let extended = base_family == 6 || base_family == 15;
    let sizes = cpu::cpuid(0x8000_0008, 0).eax;
    let mut times = CpuTimes { idle: scheduler::idle_time() / TICK, ..CpuTimes::default() };
    for process in process::all() {
        let used = exit::current_usage(&process);
        times.user += used.time.user / TICK;
        times.system += used.time.system / TICK;
    }
    let info = CpuInfo {
        vendor: &vendor,
        family: base_family + if base_family == 15 { signature.eax >> 20 & 0xff } else { 0 },
        model: base_model + if extended { (signature.eax >> 16 & 0xf) << 4 } else { 0 },
        model_name: &text(&name),
        stepping: signature.eax & 0xf,
        kilohertz: time::to_timestamp(MILLISECOND) - time::to_timestamp(0),
        cache_kib: cpu::cpuid(0x8000_0006, 0).ecx >> 16,
        apic: signature.ebx >> 24,
        cpuid_level: first.eax,
        flags: &flags(),
        clflush_size: (signature.ebx >> 8 & 0xff) * 8,
        physical_bits: sizes & 0xff,
        virtual_bits: sizes >> 8 & 0xff,
    };
    show(&info, &times);
}
