//! `meminfo`, `stat`, `cpuinfo`, `mounts` and the other files of the system.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::data::{CpuInfo, CpuTimes, LoadAverage, MemoryInfo, SystemCounts, SystemIdentity};
use crate::mount::Mount;
use crate::path::PathNode;
use crate::text::{push_decimal, push_padded};

/// Appends hundredths as `12.34`.
pub(super) fn push_hundredths(out: &mut Vec<u8>, value: u64) {
    push_decimal(out, value / 100);
    out.push(b'.');
    push_padded(out, value % 100, 2, b'0');
}

fn kib_line(out: &mut Vec<u8>, label: &str, kib: u64) {
    let start = out.len();
    out.extend_from_slice(label.as_bytes());
    out.resize(start + 16, b' ');
    push_padded(out, kib, 8, b' ');
    out.extend_from_slice(b" kB\n");
}

/// What `vmalloc` could give on Linux; programs only print it.
const VMALLOC_TOTAL_KIB: u64 = 34_359_738_367;

/// Appends `meminfo`.
pub fn write_memory_info(out: &mut Vec<u8>, info: &MemoryInfo) {
    let slab = info.slab_reclaimable + info.slab_unreclaimable;
    for (label, pages) in [
        ("MemTotal:", info.total),
        ("MemFree:", info.free),
        ("MemAvailable:", info.available),
        ("Buffers:", info.buffers),
        ("Cached:", info.cached),
        ("SwapCached:", info.swap_cached),
        ("Active:", info.active_anonymous + info.active_file),
        ("Inactive:", info.inactive_anonymous + info.inactive_file),
        ("Active(anon):", info.active_anonymous),
        ("Inactive(anon):", info.inactive_anonymous),
        ("Active(file):", info.active_file),
        ("Inactive(file):", info.inactive_file),
        ("Unevictable:", info.unevictable),
        ("Mlocked:", info.locked),
        ("SwapTotal:", info.swap_total),
        ("SwapFree:", info.swap_free),
        ("Dirty:", info.dirty),
        ("Writeback:", info.write_back),
        ("AnonPages:", info.anonymous),
        ("Mapped:", info.mapped),
        ("Shmem:", info.shared_memory),
        ("KReclaimable:", info.slab_reclaimable),
        ("Slab:", slab),
        ("SReclaimable:", info.slab_reclaimable),
        ("SUnreclaim:", info.slab_unreclaimable),
        ("KernelStack:", info.kernel_stacks),
        ("PageTables:", info.page_tables),
        ("SecPageTables:", 0),
        ("NFS_Unstable:", 0),
        ("Bounce:", 0),
        ("WritebackTmp:", 0),
        ("CommitLimit:", info.commit_limit),
        ("Committed_AS:", info.committed),
    ] {
        kib_line(out, label, pages * 4);
    }
    kib_line(out, "VmallocTotal:", VMALLOC_TOTAL_KIB);
    for label in ["VmallocUsed:", "VmallocChunk:", "Percpu:"] {
        kib_line(out, label, 0);
    }
    for label in ["AnonHugePages:", "ShmemHugePages:", "ShmemPmdMapped:", "FileHugePages:"] {
        kib_line(out, label, 0);
    }
    kib_line(out, "FilePmdMapped:", 0);
    for label in ["HugePages_Total:", "HugePages_Free: ", "HugePages_Rsvd: ", "HugePages_Surp: "] {
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(b"       0\n");
    }
    kib_line(out, "Hugepagesize:", 2048);
    kib_line(out, "Hugetlb:", 0);
}

/// Appends `swaps`: one disk, if there is swap.
pub fn write_swaps(out: &mut Vec<u8>, info: &MemoryInfo) {
    out.extend_from_slice(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    if info.swap_total == 0 {
        return;
    }
    const WIDTH: usize = 40;
    let start = out.len();
    out.extend_from_slice(b"/dev/vda");
    out.resize(start + WIDTH, b' ');
    out.extend_from_slice(b"partition\t");
    for pages in [info.swap_total, info.swap_total - info.swap_free] {
        let kib = pages * 4;
        push_decimal(out, kib);
        out.extend_from_slice(if kib < 10_000_000 { b"\t\t" } else { b"\t" });
    }
    out.extend_from_slice(b"-2\n");
}

fn write_times(out: &mut Vec<u8>, label: &[u8], times: &CpuTimes) {
    out.extend_from_slice(label);
    // User, nice, system, idle, waiting, interrupts, and what is left.
    for value in [times.user, 0, times.system, times.idle, times.io_wait, times.interrupts] {
        out.push(b' ');
        push_decimal(out, value);
    }
    out.extend_from_slice(b" 0 0 0 0\n");
}

/// Appends `/proc/stat`.
pub fn write_counts(out: &mut Vec<u8>, processors: &[CpuTimes], counts: &SystemCounts) {
    let mut sum = CpuTimes::default();
    for times in processors {
        sum.user += times.user;
        sum.system += times.system;
        sum.idle += times.idle;
        sum.io_wait += times.io_wait;
        sum.interrupts += times.interrupts;
    }
    write_times(out, b"cpu ", &sum);
    for (index, times) in processors.iter().enumerate() {
        let mut label = b"cpu".to_vec();
        push_decimal(&mut label, index as u64);
        write_times(out, &label, times);
    }
    for (label, value) in [
        (&b"intr "[..], counts.interrupts),
        (b"ctxt ", counts.switches),
        (b"btime ", counts.boot_time),
        (b"processes ", counts.forks),
        (b"procs_running ", counts.running),
        (b"procs_blocked ", counts.blocked),
    ] {
        out.extend_from_slice(label);
        push_decimal(out, value);
        out.push(b'\n');
    }
    out.extend_from_slice(b"softirq 0 0 0 0 0 0 0 0 0 0 0\n");
}

/// Appends `loadavg`.
pub fn write_load_average(out: &mut Vec<u8>, load: &LoadAverage, counts: &SystemCounts) {
    for hundredths in load.0 {
        push_hundredths(out, hundredths);
        out.push(b' ');
    }
    push_decimal(out, counts.running);
    out.push(b'/');
    push_decimal(out, counts.threads);
    out.push(b' ');
    push_decimal(out, counts.last_pid.into());
    out.push(b'\n');
}

/// Appends what `cpuinfo` says about processor number `index` of `count`.
pub fn write_cpu_info(out: &mut Vec<u8>, cpu: &CpuInfo<'_>, index: u64, count: u64) {
    let number = |out: &mut Vec<u8>, label: &str, value: u64| {
        out.extend_from_slice(label.as_bytes());
        push_decimal(out, value);
        out.push(b'\n');
    };
    let text = |out: &mut Vec<u8>, label: &str, value: &str| {
        out.extend_from_slice(label.as_bytes());
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    };
    let thousandths = |out: &mut Vec<u8>, label: &str, value: u64| {
        out.extend_from_slice(label.as_bytes());
        push_decimal(out, value / 1000);
        out.push(b'.');
        push_padded(out, value % 1000, 3, b'0');
        out.push(b'\n');
    };
    number(out, "processor\t: ", index);
    text(out, "vendor_id\t: ", cpu.vendor);
    number(out, "cpu family\t: ", cpu.family.into());
    number(out, "model\t\t: ", cpu.model.into());
    text(out, "model name\t: ", cpu.model_name);
    number(out, "stepping\t: ", cpu.stepping.into());
    thousandths(out, "cpu MHz\t\t: ", cpu.kilohertz);
    out.extend_from_slice(b"cache size\t: ");
    push_decimal(out, cpu.cache_kib.into());
    out.extend_from_slice(b" KB\n");
    number(out, "physical id\t: ", 0);
    number(out, "siblings\t: ", count);
    number(out, "core id\t\t: ", index);
    number(out, "cpu cores\t: ", count);
    number(out, "apicid\t\t: ", cpu.apic.into());
    number(out, "initial apicid\t: ", cpu.apic.into());
    out.extend_from_slice(b"fpu\t\t: yes\nfpu_exception\t: yes\n");
    number(out, "cpuid level\t: ", cpu.cpuid_level.into());
    out.extend_from_slice(b"wp\t\t: yes\nflags\t\t:");
    for flag in cpu.flags {
        out.push(b' ');
        out.extend_from_slice(flag.as_bytes());
    }
    out.extend_from_slice(b"\nbugs\t\t:\nbogomips\t: ");
    push_hundredths(out, cpu.kilohertz / 5);
    number(out, "\nclflush size\t: ", cpu.clflush_size.into());
    number(out, "cache_alignment\t: ", cpu.clflush_size.into());
    out.extend_from_slice(b"address sizes\t: ");
    push_decimal(out, cpu.physical_bits.into());
    out.extend_from_slice(b" bits physical, ");
    push_decimal(out, cpu.virtual_bits.into());
    out.extend_from_slice(b" bits virtual\npower management:\n\n");
}

/// Appends `version`.
pub(super) fn write_version(out: &mut Vec<u8>, identity: &SystemIdentity) {
    for (index, part) in
        [identity.system, "version", identity.release, identity.builder, identity.version]
            .iter()
            .enumerate()
    {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'\n');
}

/// Appends a path or source with blanks and the like escaped in octal.
fn push_mangled(out: &mut Vec<u8>, text: &[u8]) {
    for byte in text {
        match byte {
            b' ' => out.extend_from_slice(b"\\040"),
            b'\t' => out.extend_from_slice(b"\\011"),
            b'\n' => out.extend_from_slice(b"\\012"),
            b'\\' => out.extend_from_slice(b"\\134"),
            b'#' => out.extend_from_slice(b"\\043"),
            _ => out.push(*byte),
        }
    }
}

/// Where a mount is seen from `root`.
/// Where a mount is, seen from `root`; `None` if it cannot be reached from there,
/// or is hidden by the one that `root` is the root of.
fn mount_point(mount: &Arc<Mount>, root: &PathNode) -> Option<Vec<u8>> {
    mount.root().path_below(root)
}

fn options(mount: &Mount) -> &'static [u8] {
    if mount.is_read_only() { b"ro,relatime" } else { b"rw,relatime" }
}

/// Appends `mounts`.
pub(super) fn write_mounts(out: &mut Vec<u8>, mounts: &[Arc<Mount>], root: &PathNode) {
    for mount in mounts {
        let Some(place) = mount_point(mount, root) else { continue };
        push_mangled(out, mount.source.as_bytes());
        out.push(b' ');
        push_mangled(out, &place);
        out.push(b' ');
        out.extend_from_slice(mount.file_system.name().as_bytes());
        out.push(b' ');
        out.extend_from_slice(options(mount));
        out.extend_from_slice(b" 0 0\n");
    }
}

/// Appends `mountinfo`.
pub(super) fn write_mount_info(out: &mut Vec<u8>, mounts: &[Arc<Mount>], root: &PathNode) {
    for mount in mounts {
        let Some(place) = mount_point(mount, root) else { continue };
        push_decimal(out, mount.id.into());
        out.push(b' ');
        // The root is mounted on nothing, which is number 0.
        let parent = mount.mount_point().map_or(0, |at| at.mount().id);
        push_decimal(out, parent.into());
        out.push(b' ');
        push_decimal(out, mount.device.major().into());
        out.push(b':');
        push_decimal(out, mount.device.minor().into());
        out.extend_from_slice(b" / ");
        push_mangled(out, &place);
        out.push(b' ');
        out.extend_from_slice(options(mount));
        out.extend_from_slice(b" - ");
        out.extend_from_slice(mount.file_system.name().as_bytes());
        out.push(b' ');
        push_mangled(out, mount.source.as_bytes());
        out.extend_from_slice(if mount.is_read_only() { b" ro\n" } else { b" rw\n" });
    }
}
