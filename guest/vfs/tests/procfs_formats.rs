//! The texts of `/proc` against those of the host's Linux: its numbers are
//! read, written again in our format, and have to give the same bytes.

use std::collections::BTreeMap;
use std::fs::read_to_string;

use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::procfs::{
    Area, AreaFlags, AreaUsage, LIMITS, Limit, MemoryInfo, ProcessMemory, ProcessStatus,
    SignalSets, write_area, write_area_usage, write_limits, write_memory_info, write_rollup,
    write_stat, write_statm, write_status, write_swaps,
};

/// The area that a line of `maps` describes.
fn area_of(line: &str) -> Area<'_> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next().unwrap().split_once('-').unwrap();
    let rights = fields.next().unwrap().as_bytes();
    let offset = fields.next().unwrap();
    let (major, minor) = fields.next().unwrap().split_once(':').unwrap();
    let inode = fields.next().unwrap();
    let hex = |text| u64::from_str_radix(text, 16).unwrap();
    let mut flags = AreaFlags::empty();
    flags.set(AreaFlags::READ, rights[0] == b'r');
    flags.set(AreaFlags::WRITE, rights[1] == b'w');
    flags.set(AreaFlags::EXECUTE, rights[2] == b'x');
    flags.set(AreaFlags::MAY_SHARE, rights[3] == b's');
    Area {
        start: hex(start),
        end: hex(end),
        flags,
        offset: hex(offset),
        device: DeviceNumber::new(
            u32::from_str_radix(major, 16).unwrap(),
            u32::from_str_radix(minor, 16).unwrap(),
        ),
        inode: inode.parse().unwrap(),
        name: fields.next().unwrap_or("").trim_start().as_bytes(),
    }
}

#[test]
fn maps_is_linuxs_to_the_letter() {
    for process in ["self", "1"] {
        let Ok(maps) = read_to_string(format!("/proc/{process}/maps")) else { continue };
        let mut ours = Vec::new();
        for line in maps.lines() {
            write_area(&mut ours, &area_of(line));
        }
        assert_eq!(String::from_utf8(ours).unwrap(), maps);
    }
}

const FLAG_NAMES: [(&str, AreaFlags); 28] = [
    ("rd", AreaFlags::READ),
    ("wr", AreaFlags::WRITE),
    ("ex", AreaFlags::EXECUTE),
    ("sh", AreaFlags::SHARED),
    ("mr", AreaFlags::MAY_READ),
    ("mw", AreaFlags::MAY_WRITE),
    ("me", AreaFlags::MAY_EXECUTE),
    ("ms", AreaFlags::MAY_SHARE),
    ("gd", AreaFlags::GROWS_DOWN),
    ("pf", AreaFlags::FRAMES),
    ("lo", AreaFlags::LOCKED),
    ("io", AreaFlags::IO),
    ("sr", AreaFlags::SEQUENTIAL),
    ("rr", AreaFlags::RANDOM),
    ("dc", AreaFlags::DONT_COPY),
    ("de", AreaFlags::DONT_EXPAND),
    ("lf", AreaFlags::LOCK_ON_FAULT),
    ("ac", AreaFlags::ACCOUNTED),
    ("nr", AreaFlags::NO_RESERVE),
    ("ht", AreaFlags::HUGETLB),
    ("sf", AreaFlags::SYNCHRONOUS),
    ("wf", AreaFlags::WIPE_ON_FORK),
    ("dd", AreaFlags::DONT_DUMP),
    ("sd", AreaFlags::SOFT_DIRTY),
    ("mm", AreaFlags::MIXED),
    ("hg", AreaFlags::HUGE_PAGES),
    ("nh", AreaFlags::NO_HUGE_PAGES),
    ("mg", AreaFlags::MERGEABLE),
];

/// The lines `Label:  number kB` below an area, by label.
type Fields<'a> = BTreeMap<&'a str, &'a str>;

fn usage_of(fields: &Fields<'_>) -> AreaUsage {
    let bytes = |label| {
        let text = fields.get(label).map_or("0", |rest| rest.trim_end_matches(" kB"));
        text.trim().parse::<u64>().unwrap() * 1024
    };
    AreaUsage {
        resident: bytes("Rss"),
        proportional: bytes("Pss") << 12,
        proportional_dirty: bytes("Pss_Dirty") << 12,
        proportional_anonymous: bytes("Pss_Anon") << 12,
        proportional_file: bytes("Pss_File") << 12,
        proportional_shared_memory: bytes("Pss_Shmem") << 12,
        shared_clean: bytes("Shared_Clean"),
        shared_dirty: bytes("Shared_Dirty"),
        private_clean: bytes("Private_Clean"),
        private_dirty: bytes("Private_Dirty"),
        referenced: bytes("Referenced"),
        anonymous: bytes("Anonymous"),
        lazily_freed: bytes("LazyFree"),
        huge: bytes("AnonHugePages"),
        swap: bytes("Swap"),
        proportional_swap: bytes("SwapPss") << 12,
        proportional_locked: bytes("Locked") << 12,
        huge_eligible: bytes("THPeligible") > 0,
    }
}

/// Splits `smaps` into the line of each area and the lines below it.
fn areas_of(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut areas: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        let is_field = line.split(' ').next().is_some_and(|word| word.ends_with(':'));
        match areas.last_mut() {
            Some((_, fields)) if is_field => fields.push(line),
            _ => areas.push((line, Vec::new())),
        }
    }
    areas
}

/// Their lines have to be among ours, in the same order; a Linux of another
/// version may lack some.
fn assert_lines_within(theirs: &[&str], ours: &str) {
    let mut rest = ours.lines();
    for line in theirs {
        // New in Linux at times, or of hardware that the lab does not have.
        if ["ProtectionKey:"].iter().any(|label| line.starts_with(label)) {
            continue;
        }
        // Its number was not always put into a column.
        let same = |own: &str| {
            own == *line
                || (line.starts_with("THPeligible:")
                    && own.split_whitespace().eq(line.split_whitespace()))
        };
        assert!(rest.any(same), "{line:?} is not where it belongs in\n{ours}");
    }
}

#[test]
fn smaps_is_linuxs_to_the_letter() {
    for process in ["self"] {
        let Ok(text) = read_to_string(format!("/proc/{process}/smaps")) else { continue };
        for (line, lines) in areas_of(&text) {
            let fields: Fields<'_> = lines.iter().filter_map(|line| line.split_once(':')).collect();
            let mut area = area_of(line);
            for word in fields["VmFlags"].split_whitespace() {
                match FLAG_NAMES.iter().find(|(name, _)| *name == word) {
                    Some((_, flag)) => area.flags |= *flag,
                    // Newer than the lab, or of other hardware.
                    None => assert!(
                        ["um", "uw", "ui", "ss", "sl", "gu", "dp", "bt"].contains(&word),
                        "{word}"
                    ),
                }
            }
            let mut ours = Vec::new();
            write_area_usage(&mut ours, &area, &usage_of(&fields));
            let ours = String::from_utf8(ours).unwrap();
            assert_eq!(ours.lines().next(), Some(line));
            assert_lines_within(&lines, &ours);
        }
    }
}

#[test]
fn smaps_rollup_is_linuxs_to_the_letter() {
    let text = read_to_string("/proc/self/smaps_rollup").unwrap();
    let (line, lines) = areas_of(&text).remove(0);
    let fields: Fields<'_> = lines.iter().filter_map(|line| line.split_once(':')).collect();
    let area = area_of(line);
    let mut ours = Vec::new();
    write_rollup(&mut ours, area.start, area.end, &usage_of(&fields));
    let ours = String::from_utf8(ours).unwrap();
    assert_eq!(ours.lines().next(), Some(line));
    assert_lines_within(&lines, &ours);
}

fn status_from_stat(text: &str) -> ProcessStatus {
    let (number, rest) = text.split_once(" (").unwrap();
    let (name, rest) = rest.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    assert_eq!(fields.len(), 50);
    // Numbered as in the manual, which counts from 1 and with the name.
    let field = |index: usize| fields[index - 3].parse::<u64>().unwrap();
    let small = |index: usize| u32::try_from(field(index)).unwrap();
    let mut status = ProcessStatus {
        name: [0; 16],
        state: fields[0].as_bytes()[0],
        process: number.parse().unwrap(),
        thread: number.parse().unwrap(),
        parent: small(4),
        group: small(5),
        session: small(6),
        terminal: DeviceNumber(field(7)),
        foreground: fields[5].parse().unwrap(),
        flags: small(9),
        umask: 0o22,
        descriptors: 256,
        threads: small(20),
        started: field(22),
        ticks: [field(14), field(15), field(16), field(17)],
        faults: [field(10), field(11), field(12), field(13)],
        signals: SignalSets {
            pending: field(31),
            blocked: field(32),
            ignored: field(33),
            caught: field(34),
            ..SignalSets::default()
        },
        exit_signal: small(38),
        exit_code: small(52),
        voluntary_switches: 0,
        involuntary_switches: 0,
        processor: small(39),
        processors: 2,
        memory: Some(ProcessMemory {
            size: field(23) / 4096,
            anonymous: field(24),
            resident_limit: field(25),
            code: (field(26), field(27)),
            start_stack: field(28),
            initialised: (field(45), field(46)),
            start_brk: field(47),
            arguments: (field(48), field(49)),
            environment: (field(50), field(51)),
            ..ProcessMemory::default()
        }),
    };
    status.name[..name.len()].copy_from_slice(name.as_bytes());
    status
}

#[test]
fn stat_is_linuxs_to_the_letter() {
    let text = read_to_string("/proc/self/stat").unwrap();
    let mut ours = Vec::new();
    write_stat(&mut ours, &status_from_stat(&text));
    let ours = String::from_utf8(ours).unwrap();
    // Priorities, policies and waiting that the lab does not have: the tests
    // may run with another priority.
    let own_fields: Vec<&str> = ours.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (head, tail) = text.rsplit_once(") ").unwrap();
    let mut fields: Vec<&str> = tail.split(' ').collect();
    for field in [18, 19, 40, 41, 42] {
        fields[field - 3] = own_fields[field - 3];
    }
    assert_eq!(ours, format!("{head}) {}", fields.join(" ")));
}

#[test]
fn a_zombie_has_no_memory() {
    let text = read_to_string("/proc/self/stat").unwrap();
    let mut status = status_from_stat(&text);
    status.memory = None;
    status.state = b'Z';
    let mut ours = Vec::new();
    write_stat(&mut ours, &status);
    assert_eq!(String::from_utf8(ours).unwrap().split(' ').count(), 52);
    let mut ours = Vec::new();
    write_status(&mut ours, &status);
    let ours = String::from_utf8(ours).unwrap();
    assert!(ours.contains("State:\tZ (zombie)\n") && !ours.contains("Vm"), "{ours}");
}

#[test]
fn statm_is_linuxs_to_the_letter() {
    let text = read_to_string("/proc/self/statm").unwrap();
    let fields: Vec<u64> = text.split_whitespace().map(|field| field.parse().unwrap()).collect();
    let memory = ProcessMemory {
        size: fields[0],
        anonymous: fields[1] - fields[2],
        file: fields[2],
        text: fields[3],
        data: fields[5],
        ..ProcessMemory::default()
    };
    let mut ours = Vec::new();
    write_statm(&mut ours, &memory);
    assert_eq!(String::from_utf8(ours).unwrap(), text);
}

#[test]
fn status_has_linuxs_lines_in_linuxs_order() {
    let theirs = read_to_string("/proc/self/status").unwrap();
    let stat = read_to_string("/proc/self/stat").unwrap();
    let mut status = status_from_stat(&stat);
    let their_fields: Fields<'_> = theirs.lines().filter_map(|l| l.split_once(":\t")).collect();
    let pages = |label| {
        let text: &str = their_fields[label];
        text.trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 4
    };
    let set = |label| u64::from_str_radix(their_fields[label], 16).unwrap();
    status.umask = u16::from_str_radix(their_fields["Umask"], 8).unwrap();
    // Other tests' threads come and go between the two files.
    status.threads = their_fields["Threads"].parse().unwrap();
    status.signals.blocked = set("SigBlk");
    status.signals.ignored = set("SigIgn");
    status.signals.caught = set("SigCgt");
    let memory = status.memory.as_mut().unwrap();
    *memory = ProcessMemory {
        size: pages("VmSize"),
        peak_size: pages("VmPeak"),
        peak_resident: pages("VmHWM"),
        anonymous: pages("RssAnon"),
        file: pages("RssFile"),
        shared_memory: pages("RssShmem"),
        data: pages("VmData"),
        stack: pages("VmStk"),
        text: pages("VmExe"),
        library: pages("VmLib"),
        page_table_bytes: pages("VmPTE") * 4096,
        ..*memory
    };
    let mut ours = Vec::new();
    write_status(&mut ours, &status);
    let ours = String::from_utf8(ours).unwrap();
    let mut position = 0;
    let their_labels: Vec<&str> =
        theirs.lines().filter_map(|line| Some(line.split_once(":\t")?.0)).collect();
    for line in ours.lines() {
        let (label, value) = line.split_once(":\t").unwrap();
        let Some(found) = their_labels[position..].iter().position(|their| *their == label) else {
            assert!(
                ["Kthread", "NSsid", "untag_mask", "Seccomp_filters"].contains(&label),
                "{label}"
            );
            continue;
        };
        position += found + 1;
        let comparable = label.starts_with("Vm")
            || label.starts_with("Rss")
            || label.starts_with("Sig")
            || label.starts_with("NS");
        let differs = ["State", "SigQ", "VmPeak", "VmHWM", "VmSize"].contains(&label);
        let own_identity = ["Name", "Umask", "Tgid", "Pid", "PPid", "Ngid", "TracerPid", "Threads"];
        if (comparable && !differs) || own_identity.contains(&label) {
            assert_eq!(value, their_fields[label], "{label}");
        }
    }
}

#[test]
fn limits_is_linuxs_to_the_letter() {
    let text = read_to_string("/proc/self/limits").unwrap();
    let value = |text: &str| match text.trim() {
        "unlimited" => u64::MAX,
        number => number.parse().unwrap(),
    };
    let mut limits = [Limit { soft: 0, hard: 0 }; LIMITS];
    for (line, limit) in text.lines().skip(1).zip(&mut limits) {
        *limit = Limit { soft: value(&line[26..47]), hard: value(&line[47..67]) };
    }
    let mut ours = Vec::new();
    write_limits(&mut ours, &limits);
    assert_eq!(String::from_utf8(ours).unwrap(), text);
}

#[test]
fn swaps_is_a_table() {
    let text = |info: &MemoryInfo| {
        let mut text = Vec::new();
        write_swaps(&mut text, info);
        String::from_utf8(text).unwrap()
    };
    let theirs = read_to_string("/proc/swaps").unwrap();
    let head = text(&MemoryInfo::default());
    assert_eq!(Some(head.as_str()), theirs.split_inclusive('\n').next());
    let some = MemoryInfo { swap_total: 16_383, swap_free: 16_380, ..MemoryInfo::default() };
    let line = format!("{:40}partition\t65532\t\t12\t\t-2\n", "/dev/vda");
    assert_eq!(text(&some), head + &line);
}

#[test]
fn meminfo_has_linuxs_lines_in_linuxs_order() {
    let theirs = read_to_string("/proc/meminfo").unwrap();
    let pages = |label: &str| {
        let line = theirs.lines().find(|line| line.split(':').next() == Some(label)).unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() / 4
    };
    let info = MemoryInfo {
        total: pages("MemTotal"),
        free: pages("MemFree"),
        swap_total: pages("SwapTotal"),
        active_anonymous: pages("Active(anon)"),
        inactive_file: pages("Inactive(file)"),
        committed: pages("Committed_AS"),
        ..MemoryInfo::default()
    };
    let mut ours = Vec::new();
    write_memory_info(&mut ours, &info);
    let ours = String::from_utf8(ours).unwrap();
    let mut rest = theirs.lines();
    for line in ours.lines() {
        let label = line.split(':').next().unwrap();
        let Some(their_line) = rest.find(|their| their.split(':').next() == Some(label)) else {
            // Not in every version.
            rest = theirs.lines();
            assert!(["SecPageTables"].contains(&label), "{label} is not where it belongs");
            continue;
        };
        let digits = |line: &str| line.split_whitespace().nth(1).unwrap().len();
        if digits(their_line) <= 8 {
            assert_eq!(line.len(), their_line.len(), "{line}");
        }
        if ["MemTotal", "SwapTotal", "VmallocTotal", "Hugepagesize"].contains(&label) {
            assert_eq!(line, their_line);
        }
    }
}
