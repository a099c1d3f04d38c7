//! `/proc` as a tree: names, links, reading in pieces, writing.

mod common;

use std::sync::{Arc, Mutex, Weak};

use common::Lab;
use pagelab_vfs::abi::{O_CREAT, O_RDONLY, O_RDWR, O_WRONLY};
use pagelab_vfs::buffer::{SliceSink, SliceSource};
use pagelab_vfs::devfs;
use pagelab_vfs::inode::DeviceNumber;
use pagelab_vfs::mount::Mount;
use pagelab_vfs::procfs::{
    Area, AreaFlags, AreaUsage, CpuInfo, CpuTimes, LIMITS, Limit, LoadAverage, MemoryInfo, ProcFs,
    ProcSource, ProcessStatus, Setting, SignalSets, SystemCounts, SystemIdentity,
};
use pagelab_vfs::{
    Errno, FdTable, FsContext, Lookup, OpenFile, OpenHow, PathNode, Result, Vfs, Whence,
};

/// A kernel with the processes 1 and 42; 42 has the threads 42 and 43.
#[derive(Default)]
struct Kernel {
    vfs: Mutex<Weak<Vfs>>,
    context: Mutex<Option<FsContext>>,
    files: Mutex<FdTable>,
    adjustment: Mutex<i32>,
    cleared: Mutex<Vec<u32>>,
    settings: Mutex<Vec<(Setting, u64)>>,
    areas_asked: Mutex<u32>,
}

impl ProcSource for Kernel {
    fn current_process(&self) -> u32 {
        42
    }
    fn current_thread(&self) -> u32 {
        43
    }
    fn next_process(&self, first: u32) -> Option<u32> {
        [1, 42].into_iter().find(|process| *process >= first)
    }
    fn next_thread(&self, process: u32, first: u32) -> Option<u32> {
        let threads: &[u32] = match process {
            1 => &[1],
            42 => &[42, 43],
            _ => &[],
        };
        threads.iter().copied().find(|thread| *thread >= first)
    }
    fn status(&self, process: u32, thread: u32) -> Result<ProcessStatus> {
        self.next_process(process).filter(|found| *found == process).ok_or(Errno::ESRCH)?;
        Ok(ProcessStatus {
            name: *b"a program\0\0\0\0\0\0\0",
            state: b'R',
            process,
            thread,
            parent: 1,
            group: 42,
            session: 42,
            terminal: DeviceNumber::new(5, 1),
            foreground: 42,
            flags: 0,
            umask: 0o022,
            descriptors: 64,
            threads: 2,
            started: 5,
            ticks: [0; 4],
            faults: [7, 0, 1, 0],
            signals: SignalSets::default(),
            exit_signal: 17,
            exit_code: 0,
            voluntary_switches: 0,
            involuntary_switches: 0,
            processor: 0,
            processors: 1,
            memory: None,
        })
    }
    fn areas(
        &self,
        _process: u32,
        from: u64,
        show: &mut dyn FnMut(&Area<'_>) -> bool,
    ) -> Result<()> {
        // Different each time it is asked for the start.
        let mut asked = self.areas_asked.lock().unwrap();
        *asked += u32::from(from == 0);
        for index in 0..200_u64 {
            let end = index * 0x2000 + 0x1000;
            let area = Area {
                start: index * 0x2000,
                end,
                flags: AreaFlags::READ,
                offset: u64::from(*asked) << 12,
                device: DeviceNumber(0),
                inode: 0,
                name: b"[area]",
            };
            if end > from && !show(&area) {
                break;
            }
        }
        Ok(())
    }
    fn area_usage(
        &self,
        process: u32,
        from: u64,
        show: &mut dyn FnMut(&Area<'_>, &AreaUsage) -> bool,
    ) -> Result<()> {
        let usage = AreaUsage { resident: 4096, ..AreaUsage::default() };
        self.areas(process, from, &mut |area| show(area, &usage))
    }
    fn page_map(&self, _process: u32, first_page: u64, entries: &mut [u64]) -> Result<usize> {
        let end = 1 << 35;
        let count = entries.len().min(usize::try_from(end - first_page.min(end)).unwrap());
        for (entry, page) in entries[..count].iter_mut().zip(first_page..) {
            *entry = page * 3;
        }
        Ok(count)
    }
    fn command_line(&self, _process: u32, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(b"program\0argument\0");
        Ok(())
    }
    fn environment(&self, _process: u32, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
    fn auxiliary_vector(&self, _process: u32, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
    fn executable(&self, process: u32) -> Result<PathNode> {
        let vfs = self.vfs.lock().unwrap().upgrade().ok_or(Errno::ENOENT)?;
        vfs.resolve(&self.context(process)?, None, b"/program", Lookup::FOLLOW)
    }
    fn context(&self, _process: u32) -> Result<FsContext> {
        self.context.lock().unwrap().clone().ok_or(Errno::ESRCH)
    }
    fn file(&self, _process: u32, descriptor: i32) -> Result<Arc<OpenFile>> {
        self.files.lock().unwrap().get(descriptor).cloned()
    }
    fn next_descriptor(&self, _process: u32, first: i32) -> Option<i32> {
        let files = self.files.lock().unwrap();
        files.iter().map(|(number, _)| number).find(|number| *number >= first)
    }
    fn limits(&self, _process: u32) -> Result<[Limit; LIMITS]> {
        Ok([Limit { soft: 1, hard: u64::MAX }; LIMITS])
    }
    fn oom_score(&self, _process: u32) -> Result<u32> {
        Ok(666)
    }
    fn oom_score_adjustment(&self, _process: u32) -> Result<i32> {
        Ok(*self.adjustment.lock().unwrap())
    }
    fn set_oom_score_adjustment(&self, _process: u32, value: i32) -> Result<()> {
        *self.adjustment.lock().unwrap() = value;
        Ok(())
    }
    fn set_name(&self, _process: u32, _thread: u32, _name: &[u8]) -> Result<()> {
        Ok(())
    }
    fn clear_references(&self, _process: u32, which: u32) -> Result<()> {
        self.cleared.lock().unwrap().push(which);
        Ok(())
    }
    fn memory_info(&self) -> MemoryInfo {
        MemoryInfo { total: 1024, ..MemoryInfo::default() }
    }
    fn memory_counters(&self, show: &mut dyn FnMut(&str, u64)) {
        show("pgfault", 12);
        show("pgmajfault", 3);
    }
    fn uptime(&self) -> (u64, u64) {
        (12_345, 6)
    }
    fn processors(&self, show: &mut dyn FnMut(&CpuInfo<'_>, &CpuTimes)) {
        let info = CpuInfo {
            vendor: "Lab",
            family: 6,
            model: 1,
            model_name: "A processor",
            stepping: 2,
            kilohertz: 2_596_122,
            cache_kib: 1024,
            apic: 0,
            cpuid_level: 13,
            flags: &["fpu", "sse"],
            clflush_size: 64,
            physical_bits: 46,
            virtual_bits: 48,
        };
        show(&info, &CpuTimes { user: 5, ..CpuTimes::default() });
    }
    fn counts(&self) -> SystemCounts {
        SystemCounts { boot_time: 1000, ..SystemCounts::default() }
    }
    fn load_average(&self) -> LoadAverage {
        LoadAverage([105, 20, 3])
    }
    fn identity(&self) -> SystemIdentity {
        SystemIdentity {
            system: "Linux",
            release: "6.1.0",
            version: "#1",
            host: "lab",
            builder: "(us)",
        }
    }
    fn mounts(&self) -> Vec<Arc<Mount>> {
        self.vfs.lock().unwrap().upgrade().map(|vfs| vfs.mounts()).unwrap_or_default()
    }
    fn boot_command_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"quiet");
    }
    fn setting(&self, setting: Setting) -> u64 {
        setting as u64
    }
    fn set_setting(&self, setting: Setting, value: u64) -> Result<()> {
        self.settings.lock().unwrap().push((setting, value));
        Ok(())
    }
}

struct Machine {
    vfs: Arc<Vfs>,
    context: FsContext,
    kernel: Arc<Kernel>,
}

impl Machine {
    fn new() -> Self {
        let lab = Lab::new();
        let (vfs, context) = (Arc::new(lab.vfs), lab.context);
        for name in [&b"proc"[..], b"dev"] {
            devfs::make_mount_point(&*lab.root_fs, name, 0o755).unwrap();
        }
        let at = |name: &[u8]| vfs.resolve(&context, None, name, Lookup::FOLLOW).unwrap();
        let platform: Arc<dyn pagelab_vfs::Platform> = lab.platform.clone();
        devfs::mount(&vfs, at(b"/dev"), &lab.store, &platform, 1000).unwrap();
        let kernel = Arc::new(Kernel::default());
        let proc = Arc::new(ProcFs::new(kernel.clone()));
        vfs.mount(at(b"/proc"), "proc", proc, false).unwrap();
        *kernel.vfs.lock().unwrap() = Arc::downgrade(&vfs);
        *kernel.context.lock().unwrap() = Some(context.clone());
        let machine = Self { vfs, context, kernel };
        let how = OpenHow { flags: O_RDWR | O_CREAT, mode: 0o755 };
        let program = machine.vfs.open(&machine.context, None, b"/program", how).unwrap();
        machine.kernel.files.lock().unwrap().insert(program, false, 0, 100).unwrap();
        machine
    }

    fn open(&self, path: &str, flags: u32) -> Result<Arc<OpenFile>> {
        self.vfs.open(&self.context, None, path.as_bytes(), OpenHow { flags, mode: 0o644 })
    }

    fn text(&self, path: &str) -> Result<String> {
        let file = self.open(path, O_RDONLY)?;
        let mut text = Vec::new();
        loop {
            let mut bytes = [0; 37];
            match file.read(&mut SliceSink::new(&mut bytes))? {
                0 => return Ok(String::from_utf8(text).unwrap()),
                count => text.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn link(&self, path: &str) -> Result<String> {
        let how = Lookup::NO_FOLLOW;
        let node = self.vfs.resolve(&self.context, None, path.as_bytes(), how)?;
        Ok(String::from_utf8(node.read_link()?).unwrap())
    }

    fn names(&self, path: &str, size: usize) -> Vec<String> {
        let directory = self.open(path, O_RDONLY).unwrap();
        let mut names = Vec::new();
        loop {
            let mut bytes = vec![0; size];
            let count = directory.list(&mut SliceSink::new(&mut bytes)).unwrap();
            if count == 0 {
                return names;
            }
            let mut rest = &bytes[..count];
            while !rest.is_empty() {
                let length = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
                let name = rest[19..length].split(|byte| *byte == 0).next().unwrap();
                names.push(String::from_utf8(name.to_vec()).unwrap());
                rest = &rest[length..];
            }
        }
    }

    fn write(&self, path: &str, text: &str) -> Result<usize> {
        self.open(path, O_WRONLY)?.write(&mut SliceSource::new(text.as_bytes()))
    }
}

#[test]
fn every_name_that_is_listed_is_found_and_has_its_own_number() {
    let machine = Machine::new();
    let mut seen = std::collections::BTreeMap::new();
    let mut queue = vec!["/proc".to_owned()];
    while let Some(path) = queue.pop() {
        for name in machine.names(&path, 40) {
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{path}/{name}");
            let how = Lookup::NO_FOLLOW;
            let node = machine.vfs.resolve(&machine.context, None, path.as_bytes(), how);
            let stat = node.unwrap_or_else(|error| panic!("{path}: {error}")).stat().unwrap();
            if let Some(other) = seen.insert(stat.ino, path.clone()) {
                panic!("{path} and {other} have the same number");
            }
            match stat.mode & 0o170_000 {
                0o040_000 => queue.push(path),
                0o120_000 => drop(machine.link(&path).unwrap()),
                _ if path.ends_with("clear_refs") || path.ends_with("pagemap") => {}
                _ => drop(machine.text(&path).unwrap_or_else(|error| panic!("{path}: {error}"))),
            }
        }
    }
    assert!(seen.len() > 80, "{}", seen.len());
    assert!(seen.values().any(|path| path == "/proc/42/task/43/status"));
    assert!(!seen.values().any(|path| path == "/proc/42/task/43/task"));
}

#[test]
fn names_that_are_not_there_are_not_found() {
    let machine = Machine::new();
    for path in [
        "/proc/2",
        "/proc/042",
        "/proc/+42",
        "/proc/42/task/1",
        "/proc/42/fd/9",
        "/proc/42/fd/x",
        "/proc/sys/vm/nothing",
        "/proc/99999999999999999999",
    ] {
        assert_eq!(machine.open(path, O_RDONLY).err(), Some(Errno::ENOENT), "{path}");
    }
    assert_eq!(machine.open("/proc/new", O_RDWR | O_CREAT).err(), Some(Errno::EACCES));
    let made = machine.vfs.make_directory(&machine.context, None, b"/proc/d", 0o755);
    assert_eq!(made, Err(Errno::EPERM));
    assert_eq!(machine.vfs.unlink(&machine.context, None, b"/proc/version"), Err(Errno::EPERM));
}

#[test]
fn links_lead_to_what_they_name() {
    let machine = Machine::new();
    assert_eq!(machine.link("/proc/self").unwrap(), "42");
    assert_eq!(machine.link("/proc/thread-self").unwrap(), "42/task/43");
    assert_eq!(machine.link("/proc/self/exe").unwrap(), "/program");
    assert_eq!(machine.link("/proc/self/cwd").unwrap(), "/");
    assert_eq!(machine.link("/dev/stdin").unwrap(), "/proc/self/fd/0");
    let (reader, _writer) = machine.vfs.pipe(0).unwrap();
    let ino = reader.node().stat().unwrap().ino;
    let number = machine.kernel.files.lock().unwrap().insert(reader, false, 0, 100).unwrap();
    assert_eq!(machine.link(&format!("/proc/self/fd/{number}")).unwrap(), format!("pipe:[{ino}]"));

    // Opening a descriptor's link opens the file itself once more, also
    // without a name.
    machine.write("/program", "text").unwrap();
    machine.vfs.unlink(&machine.context, None, b"/program").unwrap();
    assert_eq!(machine.link("/dev/fd/0").unwrap(), "/program (deleted)");
    assert_eq!(machine.text("/dev/stdin").unwrap(), "text");
}

#[test]
fn areas_read_in_pieces_are_all_there_once() {
    let machine = Machine::new();
    let whole = machine.text("/proc/self/maps").unwrap();
    assert_eq!(whole.lines().count(), 200);
    for (index, line) in whole.lines().enumerate() {
        assert!(line.starts_with(&format!("{:08x}-", index * 0x2000)), "{line}");
        assert!(line.contains(" 00001000 "), "asked for the start only once: {line}");
    }
    let usage = machine.text("/proc/self/smaps").unwrap();
    assert_eq!(usage.lines().filter(|line| line.starts_with("Rss:")).count(), 200);
    assert!(
        machine.text("/proc/self/smaps_rollup").unwrap().contains("Rss:                 800 kB")
    );

    let file = machine.open("/proc/self/maps", O_RDONLY).unwrap();
    let at = |offset: usize, size: usize| {
        let mut bytes = vec![0; size];
        let mut sink = SliceSink::new(&mut bytes);
        let count = file.read_at(i64::try_from(offset).unwrap(), &mut sink).unwrap();
        bytes.truncate(count);
        bytes
    };
    let changed = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    assert!(changed(&at(0, 50)).contains(" 00004000 "));
    assert!(changed(&at(0, 50)).contains(" 00005000 "), "from the start: a new picture");
    // Forwards, backwards, beyond.
    for offset in [10, 9000, 4095, 4096, 100, whole.len() - 5] {
        assert_eq!(at(offset, 5).len(), 5);
        let line = whole.as_bytes()[offset];
        assert!(at(offset, 1)[0] == line || line.is_ascii_digit(), "{offset}");
    }
    assert_eq!(at(whole.len(), 5), b"");
    assert_eq!(at(1_000_000, 5), b"");
}

#[test]
fn a_text_read_in_pieces_is_one_picture() {
    let machine = Machine::new();
    let file = machine.open("/proc/self/oom_score_adj", O_RDONLY).unwrap();
    let mut byte = [0; 1];
    assert_eq!(file.read(&mut SliceSink::new(&mut byte)), Ok(1));
    machine.write("/proc/self/oom_score_adj", "77").unwrap();
    assert_eq!(file.read(&mut SliceSink::new(&mut byte)), Ok(1));
    assert_eq!(byte, *b"\n", "still the text \"0\\n\"");
    file.seek(0, Whence::Set).unwrap();
    let mut bytes = [0; 10];
    assert_eq!(file.read(&mut SliceSink::new(&mut bytes)), Ok(3));
    assert_eq!(&bytes[..3], b"77\n");
}

#[test]
fn writing_changes_what_can_be_changed() {
    let machine = Machine::new();
    assert_eq!(machine.write("/proc/self/oom_score_adj", "-500\n"), Ok(5));
    assert_eq!(machine.text("/proc/self/oom_score_adj").unwrap(), "-500\n");
    for wrong in ["1001", "-1001", "", "x", "1 2", "--1"] {
        let result = machine.write("/proc/self/oom_score_adj", wrong);
        assert_eq!(result, Err(Errno::EINVAL), "{wrong:?}");
    }
    assert_eq!(machine.write("/proc/self/clear_refs", "4"), Ok(1));
    assert_eq!(machine.write("/proc/self/clear_refs", "6"), Err(Errno::EINVAL));
    assert_eq!(*machine.kernel.cleared.lock().unwrap(), [4]);
    assert_eq!(machine.write("/proc/sys/vm/overcommit_memory", "2\n"), Ok(2));
    assert_eq!(machine.write("/proc/sys/vm/overcommit_memory", "3\n"), Err(Errno::EINVAL));
    assert_eq!(machine.write("/proc/sys/vm/drop_caches", "3"), Ok(1));
    assert_eq!(
        *machine.kernel.settings.lock().unwrap(),
        [(Setting::OvercommitMemory, 2), (Setting::DropCaches, 3)]
    );
    assert_eq!(machine.write("/proc/sys/kernel/pid_max", "3"), Err(Errno::EINVAL));
    assert_eq!(machine.write("/proc/sys/kernel/tainted", "1"), Err(Errno::EINVAL));
    let tainted = machine.kernel.setting(Setting::Tainted);
    assert_eq!(machine.text("/proc/sys/kernel/tainted").unwrap(), format!("{tainted}\n"));
    assert_eq!(machine.write("/proc/version", "x"), Err(Errno::EINVAL));
}

#[test]
fn pagemap_is_read_by_the_page() {
    let machine = Machine::new();
    let file = machine.open("/proc/self/pagemap", O_RDONLY).unwrap();
    let mut bytes = [0; 8 * 100];
    let read = file.read_at(8 * 1000, &mut SliceSink::new(&mut bytes));
    assert_eq!(read, Ok(800));
    for (index, entry) in bytes.chunks(8).enumerate() {
        let entry = u64::from_le_bytes(entry.try_into().unwrap());
        assert_eq!(entry, (1000 + index as u64) * 3);
    }
    assert_eq!(file.read_at(4, &mut SliceSink::new(&mut bytes)), Err(Errno::EINVAL));
    assert_eq!(file.read_at(0, &mut SliceSink::new(&mut bytes[..7])), Err(Errno::EINVAL));
    let end = (8_i64 << 35) - 16;
    assert_eq!(file.read_at(end, &mut SliceSink::new(&mut bytes)), Ok(16));
    assert_eq!(file.read_at(end + 16, &mut SliceSink::new(&mut bytes)), Ok(0));
}

#[test]
fn the_files_of_the_system_say_what_the_kernel_knows() {
    let machine = Machine::new();
    assert_eq!(machine.text("/proc/uptime").unwrap(), "123.45 0.06\n");
    assert_eq!(machine.text("/proc/loadavg").unwrap(), "1.05 0.20 0.03 0/0 0\n");
    assert_eq!(machine.text("/proc/version").unwrap(), "Linux version 6.1.0 (us) #1\n");
    assert_eq!(machine.text("/proc/vmstat").unwrap(), "pgfault 12\npgmajfault 3\n");
    assert_eq!(machine.text("/proc/sys/kernel/osrelease").unwrap(), "6.1.0\n");
    assert_eq!(machine.text("/proc/cmdline").unwrap(), "quiet\n");
    assert!(machine.text("/proc/stat").unwrap().starts_with("cpu  5 0 0 0 0 0 0 0 0 0\ncpu0 5 "));
    assert!(machine.text("/proc/meminfo").unwrap().starts_with("MemTotal:           4096 kB\n"));
    assert!(machine.text("/proc/cpuinfo").unwrap().contains("bogomips\t: 5192.24\n"));
    assert!(machine.text("/proc/cpuinfo").unwrap().contains("cpu MHz\t\t: 2596.122\n"));
    assert_eq!(
        machine.text("/proc/mounts").unwrap(),
        "tmpfs / tmpfs rw,relatime 0 0\n\
         devtmpfs /dev devtmpfs rw,relatime 0 0\n\
         tmpfs /dev/shm tmpfs rw,relatime 0 0\n\
         proc /proc proc rw,relatime 0 0\n"
    );
    let info = machine.text("/proc/self/mountinfo").unwrap();
    assert_eq!(info.lines().nth(2).unwrap(), "4 3 0:4 / /dev/shm rw,relatime - tmpfs tmpfs rw");
    assert_eq!(
        machine.text("/proc/self/fdinfo/0").unwrap().lines().take(2).collect::<Vec<_>>(),
        ["pos:\t0", "flags:\t0100002"]
    );
}
