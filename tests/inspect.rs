//! A running guest, seen from another process: what the library reads from the
//! guest's memory is what the guest says of itself.
//!
//! The guest's memory is a memfd of the lab's process, which this process opens;
//! nothing asks the lab for anything, and the guest is never stopped.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Lab, Running, programs};
use pagelab::inspect::PhysicalMemory;
use pagelab::inspect::kernel::{FrameUse, Kernel, Process, ProcessState};
use pagelab::inspect::maps::{maps, smaps};
use pagelab::inspect::pages::{DumpRequest, Range, Shape, dump};
use pagelab::inspect::value::Consistency;
use pagelab_abi::addr::{GuestPhys, GuestVirt};
use pagelab_abi::directory::{USE_ANONYMOUS, USE_CACHE, USE_SPECIAL};
use pagelab_abi::fault::FaultKind;
use pagelab_abi::lab::{Header, LAB_MAGIC};
use pagelab_paging::walk::{Outcome, walk};
use pagelab_paging::{Entry, TableMemory};

/// A guest's memory in another process. Small enough that there is no hole.
#[derive(Debug)]
struct Foreign {
    file: File,
    size: u64,
}

impl Foreign {
    /// The memory of a lab that has begun.
    fn of(lab: &Running) -> Self {
        let folder = PathBuf::from(format!("/proc/{}/fd", lab.child.id()));
        let descriptors = fs::read_dir(folder).expect("a process of this user");
        let is_ram = |path: &PathBuf| {
            let target = fs::read_link(path);
            target.is_ok_and(|target| target.to_string_lossy().contains("memfd:pagelab-ram"))
        };
        let path = descriptors
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(is_ram)
            .expect("a lab has memory");
        let file = File::open(path).expect("the memory of a process of this user");
        let size = file.metadata().expect("a file").len();
        Self { file, size }
    }

    /// Where the kernel's directory is: named in the shared header page.
    fn directory(&self) -> Option<GuestPhys> {
        let field = |page: u64, offset: usize| {
            self.read_entry(GuestPhys(page + offset as u64)).map_or(0, |word| word.0)
        };
        (0..self.size)
            .step_by(4096)
            .find(|&page| {
                field(page, std::mem::offset_of!(Header, magic)) == LAB_MAGIC
                    && field(page, std::mem::offset_of!(Header, directory)) != 0
            })
            .map(|page| GuestPhys(field(page, std::mem::offset_of!(Header, directory))))
    }
}

impl TableMemory for Foreign {
    fn read_entry(&self, address: GuestPhys) -> Option<Entry> {
        let mut bytes = [0; 8];
        let read = address.0.is_multiple_of(8) && self.read_physical(address, &mut bytes);
        read.then(|| Entry(u64::from_le_bytes(bytes)))
    }
}

impl PhysicalMemory for Foreign {
    fn read_physical(&self, address: GuestPhys, buffer: &mut [u8]) -> bool {
        self.file.read_exact_at(buffer, address.0).is_ok()
    }
}

/// Runs a program until it has written `end`; returns what it wrote before.
fn run_until(program: &[u8], end: &str) -> (Running, String) {
    let mut lab = Lab::new(&["run", "--mem", "64M", "--timeout", "50", "--"]);
    let path = lab.file("program", program);
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    }
    lab.command.arg(path);
    let mut running = lab.start();
    let mut pipe = running.child.stdout.take().expect("standard output");
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while !said.ends_with(end.as_bytes()) {
        let length = pipe.read(&mut piece).expect("a pipe");
        if length == 0 {
            let outcome = running.finish();
            panic!("it ended too early: {}", outcome.stderr);
        }
        said.extend_from_slice(&piece[..length]);
    }
    let said = String::from_utf8(said).expect("text");
    (running, said.strip_suffix(end).expect("its end").to_owned())
}

fn stop(mut lab: Running) {
    lab.child.kill().expect("a child");
    lab.child.wait().expect("a child");
}

fn first(processes: &[Process], wanted: impl Fn(&Process) -> bool) -> &Process {
    let found = processes.iter().find(|process| wanted(process));
    found.unwrap_or_else(|| panic!("{processes:#?}"))
}

/// Waits until both processes wait, so that nothing changes any more.
fn settle(memory: &Foreign) -> Kernel<'_, Foreign> {
    let began = Instant::now();
    loop {
        let kernel = Kernel::new(memory, memory.directory()).expect("a kernel");
        let list = kernel.processes().expect("processes");
        let asleep = list.processes.iter().all(|process| process.state == ProcessState::Sleeping);
        if asleep && list.processes.len() == 3 {
            return kernel;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{list}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_running_guest_is_seen_as_it_sees_itself() {
    let (lab, said) = run_until(&programs::shows_its_areas(), "done\n");
    let memory = Foreign::of(&lab);
    let kernel = settle(&memory);
    let list = kernel.processes().expect("processes");
    assert_eq!(list.consistency, Consistency::Consistent);
    let parent = first(&list.processes, |process| process.parent == 1);
    let child = first(&list.processes, |process| process.parent == parent.pid);
    assert_eq!((parent.name.as_str(), child.name.as_str()), ("program", "program"));

    // The guest's own texts, byte by byte.
    let (own_maps, own_smaps) = said.split_at(said.len() - smaps_length(&said));
    let from_outside = maps(&kernel, parent).expect("maps");
    assert_eq!(from_outside.consistency, Consistency::Consistent);
    assert_eq!(from_outside.text(), own_maps);
    let from_outside = smaps(&kernel, parent).expect("smaps");
    assert_eq!(from_outside.consistency, Consistency::Consistent);
    assert_eq!(from_outside.text(), own_smaps);

    check_pages(&kernel, parent);
    check_frames(&kernel, parent, child);
    stop(lab);
}

/// How long the second of the two texts is: it begins with the first line again.
fn smaps_length(said: &str) -> usize {
    let line = said.lines().next().expect("a line");
    let second = said[line.len()..].find(line).expect("it comes twice");
    said.len() - line.len() - second
}

/// Every entry of the dump is what a walk finds, and areas have what they say.
fn check_pages(kernel: &Kernel<'_, Foreign>, process: &Process) {
    let root = process.root().expect("it lives");
    let request =
        DumpRequest { shape: Shape::Entries, ranges: vec![Range::USER], ..DumpRequest::default() };
    let (dump, unchanged) =
        kernel.while_unchanged(process, || dump(kernel.memory(), root, &request));
    assert_eq!(unchanged, Consistency::Consistent);
    assert!(dump.problems.is_empty() && dump.rows.len() > 64, "{dump}");
    for row in &dump.rows {
        let found = walk(kernel.memory(), root, GuestVirt(row.first.0)).outcome;
        let Outcome::Mapped { physical, .. } = found else { panic!("{row:?}: {found:?}") };
        assert_eq!(physical.0, row.physical.0);
    }
    // The zero page is there and does not count.
    let space = process.space.expect("it lives");
    assert_eq!(dump.rows.len() as u64, space.resident_pages() + 1);
    assert_eq!(dump.cost.tables, space.tables);
    // The kernel's half is the same in every process.
    let kernel_half = DumpRequest { ranges: vec![Range::KERNEL], ..request };
    let of_process = dump_of(kernel, root, &kernel_half);
    let own = dump_of(kernel, kernel.root(), &kernel_half);
    assert_eq!(of_process.rows, own.rows);
    assert!(own.pages.large > 0 && own.problems.is_empty());
}

fn dump_of(
    kernel: &Kernel<'_, Foreign>,
    root: GuestPhys,
    request: &DumpRequest,
) -> pagelab::inspect::pages::Dump {
    dump(kernel.memory(), root, request)
}

/// The counts agree with the tables, and a frame that fork shared has two
/// mappers.
fn check_frames(kernel: &Kernel<'_, Foreign>, parent: &Process, child: &Process) {
    let report = kernel.frames().expect("frames");
    assert_eq!(report.consistency, Consistency::Consistent, "{report}");
    let used = report.tables + report.kernel + report.anonymous + report.cache + report.zero;
    assert_eq!(report.free + used, report.total);
    let table = kernel.frame_table().expect("the table of frames");
    let mut shared = 0;
    for (frame, mapped) in kernel.mapping_counts().expect("page tables") {
        let record = table.get(frame).expect("a frame");
        // A page of a file may have more owners than its file and its mappings:
        // whoever reads it right now, or the memory it was handed over in.
        let agrees = match record.usage {
            USE_ANONYMOUS => record.mappings() == mapped,
            USE_CACHE => record.mappings() >= mapped,
            usage => usage == USE_SPECIAL,
        };
        assert!(agrees, "frame {frame:#x} has {record:?} and {mapped} mappings");
        if record.usage == USE_ANONYMOUS && mapped == 2 {
            let mappers = kernel.mappers(frame, false).expect("mappers");
            let pids: Vec<_> = mappers.mappers.iter().map(|mapper| mapper.pid).collect();
            assert_eq!(pids, [parent.pid, child.pid]);
            assert_eq!((mappers.usage, mappers.references), (FrameUse::Anonymous, 2));
            shared += 1;
        }
    }
    assert!(shared > 0, "fork shares what nobody wrote afterwards");
    let zero_reads = parent.faults.count[FaultKind::ZeroPageRead as usize];
    assert_eq!(zero_reads, 1, "{:?}", parent.faults);
}
