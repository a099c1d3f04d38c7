//! Shared folders, the page cache and write-back, seen from both sides: a program
//! in the lab does what it is told ([`actor.c`](../guest/programs/files/actor.c)),
//! and the host looks at the folder, changes it, or kills the lab.
//!
//! `scripts/programs` builds the programs before.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::actor::{Actor, folder, program};
use common::{Lab, binary, programs_folder};

#[test]
fn what_is_written_is_on_the_host() {
    let folder = folder();
    let file = folder.path().join("a");
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a +c -> 0
         write 0 0 5000 a -> 5000
         write 0 20000 3 z -> 3
         fsync 0 -> 0",
    );
    let mut expected = vec![b'a'; 5000];
    expected.resize(20_000, 0);
    expected.extend(b"zzz");
    assert!(fs::read(&file).expect("the file") == expected);
    actor.play(
        "map 0 0 8192 s w -> 0
         load 0 4999 -> a
         load 0 5000 -> 0
         store 0 6000 m -> m
         msync 0 -> 0",
    );
    expected[6000] = b'm';
    assert!(fs::read(&file).expect("the file") == expected);
    actor.play(
        "store 0 1 n -> n
         write 0 2 1 w -> 1
         load 0 2 -> w
         close 0 -> 0",
    );
    expected[1] = b'n';
    expected[2] = b'w';
    assert!(fs::read(&file).expect("closing writes") == expected);
    actor.play("store 0 3 e -> e");
    actor.end();
    expected[3] = b'e';
    assert!(fs::read(&file).expect("the end writes") == expected);
}

#[test]
fn the_last_mapping_writes_when_it_goes() {
    let folder = folder();
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a +c -> 0
         cut 0 8192 -> 0
         map 0 0 8192 s w -> 0
         close 0 -> 0
         fork store 0 5000 c -> c
         load 0 5000 -> c
         store 0 1 p -> p
         unmap 0 -> 0
         sync -> 0",
    );
    let bytes = fs::read(folder.path().join("a")).expect("the file");
    assert_eq!((bytes.len(), bytes[1], bytes[5000]), (8192, b'p', b'c'));
    actor.end();
}

/// What is stored behind the end, in the last page, is nobody's.
#[test]
fn the_rest_of_the_last_page_is_cleared_when_it_is_written() {
    let folder = folder();
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a +c -> 0
         cut 0 5000 -> 0
         map 0 0 8192 s w -> 0
         store 0 4999 x -> x
         store 0 5000 y -> y
         load 0 5000 -> y
         msync 0 -> 0
         load 0 4999 -> x
         load 0 5000 -> 0
         store 0 5000 z -> z
         cut 0 6000 -> 0
         read 0 4998 3 -> 0 x 0",
    );
    let bytes = fs::read(folder.path().join("a")).expect("the file");
    assert_eq!((bytes.len(), bytes[4999], bytes[5000]), (6000, b'x', 0));
    actor.end();
}

#[test]
fn private_mappings_write_nothing() {
    let folder = folder();
    fs::write(folder.path().join("a"), vec![b'h'; 9000]).expect("a file");
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a + -> 0
         map 0 4096 8192 p w -> 0
         load 0 0 -> h
         store 0 0 x -> x
         store 0 4900 y -> y
         msync 0 -> 0
         read 0 4096 2 -> hx2
         load 0 0 -> x
         advise 0 4 -> 0
         load 0 0 -> h
         load 0 4904 -> 0",
    );
    actor.end();
    assert!(fs::read(folder.path().join("a")).expect("the file") == vec![b'h'; 9000]);
}

#[test]
fn synchronous_files_write_at_once() {
    let folder = folder();
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a +cs -> 0
         write 0 0 10 s -> 10",
    );
    assert_eq!(fs::read(folder.path().join("a")).expect("the file"), b"ssssssssss");
    actor.kill();
}

#[test]
fn dirty_pages_are_written_after_a_while() {
    let folder = folder();
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a +c -> 0
         cut 0 4096 -> 0
         map 0 0 4096 s w -> 0
         store 0 7 o -> o",
    );
    let file = folder.path().join("a");
    let began = Instant::now();
    while fs::read(&file).expect("the file")[7] != b'o' {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody writes");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(began.elapsed() > Duration::from_secs(3), "too early to be by age");
    actor.kill();
}

#[test]
fn a_read_only_folder_stays_as_it_is() {
    let folder = folder();
    fs::write(folder.path().join("a"), "text").expect("a file");
    let mut actor = Actor::with_access(folder.path(), ":ro", &[]);
    actor.play(
        "open 0 /s/a + -> EROFS
         open 0 /s/a wt -> EROFS
         open 0 /s/new wc -> EROFS
         remove /s/a -> EROFS
         move /s/a /s/b -> EROFS
         make /s/folder -> EROFS
         open 0 /s/a r -> 0
         write 0 0 1 x -> EBADF
         map 0 0 4096 s w -> EACCES
         map 0 0 4096 p w -> 0
         load 0 0 -> t
         store 0 0 p -> p
         read 0 0 4 -> t e x t",
    );
    actor.end();
    assert_eq!(fs::read(folder.path().join("a")).expect("the file"), b"text");
}

#[test]
fn a_file_that_the_host_cuts_while_it_is_mapped() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, vec![b'l'; 40_000]).expect("a file");
    let mut actor = Actor::start(folder.path(), &["--readahead", "1", "--fault-around", "1"]);
    actor.play(
        "open 0 /s/a + -> 0
         map 0 0 40000 s r -> 0
         load 0 100 -> l
         load 0 20000 -> l",
    );
    fs::OpenOptions::new().write(true).open(&path).expect("the file").set_len(5000).expect("cut");
    // What is in memory stays until somebody asks the host again.
    actor.play(
        "load 0 20000 -> l
         load 0 30000 -> SIGBUS
         load 0 20000 -> SIGBUS
         load 0 4500 -> l
         load 0 5100 -> 0
         size 0 -> 5000
         read 0 4999 100 -> l",
    );
    actor.end();
    assert!(fs::read(&path).expect("the file") == vec![b'l'; 5000]);
}

#[test]
fn a_file_that_the_host_deletes_while_it_is_mapped() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, vec![b'd'; 20_000]).expect("a file");
    let kept = fs::File::open(&path).expect("the file");
    let mut actor = Actor::start(folder.path(), &["--readahead", "1"]);
    actor.play(
        "open 0 /s/a + -> 0
         map 0 0 20000 s w -> 0
         load 0 0 -> d",
    );
    fs::remove_file(&path).expect("the file goes");
    actor.play(
        "load 0 10000 -> d
         store 0 15000 x -> x
         msync 0 -> 0
         open 1 /s/a r -> ENOENT",
    );
    let mut byte = [0];
    kept.read_exact_at(&mut byte, 15_000).expect("the file without a name");
    assert_eq!(&byte, b"x");
    actor.end();
}

#[test]
fn what_the_host_changes_is_seen_by_who_opens_next() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, vec![b'1'; 10_000]).expect("a file");
    let mut actor = Actor::start(folder.path(), &[]);
    actor.play(
        "open 0 /s/a r -> 0
         map 0 0 8192 s r -> 0
         load 0 0 -> 1
         read 0 9000 2 -> 1x2
         close 0 -> 0",
    );
    thread::sleep(Duration::from_millis(30));
    fs::write(&path, vec![b'2'; 12_000]).expect("the file");
    actor.play(
        "open 1 /s/a r -> 0
         size 1 -> 12000
         read 1 9000 2 -> 2x2
         read 1 11998 9 -> 2x2
         load 0 0 -> 2",
    );
    actor.end();
}

#[test]
fn a_page_that_cannot_be_read() {
    let folder = folder();
    fs::write(folder.path().join("a"), vec![b'r'; 20_000]).expect("a file");
    let mut actor = Actor::start(folder.path(), &["--share-fault", "read:a:EIO"]);
    actor.play(
        "open 0 /s/a r -> 0
         read 0 0 10 -> EIO
         map 0 0 20000 s r -> 0
         load 0 5000 -> SIGBUS",
    );
    actor.end();
}

#[test]
fn pages_that_cannot_be_written_are_told_to_everybody_once() {
    let folder = folder();
    let fault = ["--share-fault", "write:a:ENOSPC"];
    let mut actor = Actor::start(folder.path(), &fault);
    actor.play(
        "open 0 /s/a +c -> 0
         open 1 /s/a + -> 0
         write 0 0 100 w -> 100
         fsync 0 -> ENOSPC
         fsync 1 -> ENOSPC
         read 0 0 1 -> w
         map 0 0 4096 s w -> 0
         store 0 0 x -> x
         msync 0 -> ENOSPC
         close 0 -> ENOSPC",
    );
    // What could not be written is reported at the end as well.
    actor.kill();
    assert_eq!(fs::read(folder.path().join("a")).expect("the file"), b"");
}

#[test]
fn windows_grow_while_a_file_is_read_in_order() {
    let folder = folder();
    fs::write(folder.path().join("a"), vec![b'w'; 128 * 4096]).expect("a file");
    let mut actor = Actor::start(folder.path(), &["--readahead", "32", "--fault-around", "1"]);
    actor.play(
        "open 0 /s/a r -> 0
         map 0 0 524288 s r -> 0",
    );
    actor.ask("faults");
    actor.play("touch 0 128 1 -> 15232");
    // 4, 8, 16, 32, 32, 32 and the last 4 pages; every page is a fault.
    let faults = actor.ask("faults");
    let (minor, major) = faults.split_once(' ').expect("two numbers");
    assert_eq!(major, "7", "{minor} minor ones");
    actor.end();

    let mut actor = Actor::start(folder.path(), &["--readahead", "32", "--fault-around", "1"]);
    actor.play(
        "open 0 /s/a r -> 0
         map 0 0 524288 s r -> 0
         advise 0 1 -> 0",
    );
    actor.ask("faults");
    actor.play("touch 0 128 1 -> 15232");
    assert!(actor.ask("faults").ends_with(" 128"), "MADV_RANDOM reads single pages");
    actor.end();
}

/// The experiments about files, with their files on the host.
#[test]
fn experiments_on_a_shared_folder() {
    const NAMES: [&str; 6] =
        ["file_untouched", "file_shared", "file_empty", "file_kinds", "file_ipc", "file_two_ways"];
    for library in ["musl", "gnu"] {
        let folder = folder();
        for name in NAMES {
            let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "50", "--share"]);
            lab.command.arg(format!("{}:/s", folder.path().display()));
            lab.command.arg("--").arg(programs_folder().join(library).join(name)).arg("/s");
            let outcome = lab.run();
            let said = String::from_utf8_lossy(&outcome.stdout);
            let ok = outcome.status == 0 && said.lines().any(|line| line == "ok");
            assert!(ok, "{library} {name}: {}\n{said}\n{}", outcome.status, outcome.stderr);
            if name == "file_shared" {
                let file = fs::read(folder.path().join("testmmap.bin")).expect("the file");
                assert!(file == [0xff; 0x1000], "the host's file holds 4096 bytes 0xff");
            }
        }
        let ipc = fs::read(folder.path().join("ipc.bin")).expect("the file");
        assert!(ipc.starts_with(b"from the child\0"));
    }
}

/// Runs a program with little memory on the file `/s/a` of a folder.
fn with_little_memory(folder: &Path, arguments: &[&str]) -> String {
    with_little_memory_and(folder, &[], arguments)
}

/// The same with more options.
fn with_little_memory_and(folder: &Path, options: &[&str], arguments: &[&str]) -> String {
    let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "58", "--mem", "16M"]);
    lab.command.args(options);
    lab.command.args(["--share", &format!("{}:/s", folder.display()), "--"]);
    lab.command.arg(program("files").join(arguments[0])).arg("/s/a").args(&arguments[1..]);
    let outcome = lab.run();
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned();
    assert_eq!(outcome.status, 0, "{arguments:?}: {said}\n{}", outcome.stderr);
    said
}

/// The number behind `key: ` in what a program says.
fn number(said: &str, key: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    line.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no ‘{key}’ in: {said}"))
}

/// Pages that say which they are, at their start and their end.
fn numbered_pages(count: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(count).expect("few pages") * 4096];
    for (page, number) in bytes.chunks_exact_mut(4096).zip(0u64..) {
        page[..8].copy_from_slice(&(number + 1).to_le_bytes());
        page[4088..].copy_from_slice(&(2 * number + 1).to_le_bytes());
    }
    bytes
}

/// What 16 MiB hold less than, in pages.
const MORE_THAN_MEMORY: u64 = 3584;

#[test]
fn a_file_larger_than_memory_is_read_through_a_mapping() {
    let folder = folder();
    fs::write(folder.path().join("a"), numbered_pages(MORE_THAN_MEMORY)).expect("a file");
    let said = with_little_memory(folder.path(), &["sequential", "read"]);
    let pages = MORE_THAN_MEMORY;
    assert_eq!(number(&said, "sum"), 3 * pages * (pages - 1) / 2 + 2 * pages);
    // Windows of 4, 8, 16 and then 32 pages.
    assert_eq!(number(&said, "major faults"), 3 + (pages - 28).div_ceil(32));
}

#[test]
fn a_file_larger_than_memory_is_written_through_a_mapping() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, vec![0; numbered_pages(MORE_THAN_MEMORY).len()]).expect("a file");
    with_little_memory(folder.path(), &["sequential", "write"]);
    assert!(fs::read(&path).expect("the file") == numbered_pages(MORE_THAN_MEMORY));
}

#[test]
fn a_full_disk_ends_nobody_who_writes_through_a_mapping() {
    let folder = folder();
    let path = folder.path().join("a");
    fs::write(&path, vec![0; numbered_pages(MORE_THAN_MEMORY).len()]).expect("a file");
    // Some requests go well.
    let full = ["--share-fault", "write:a:ENOSPC:3"];
    with_little_memory_and(folder.path(), &full, &["sequential", "fail"]);
    let (written, wanted) = (fs::read(&path).expect("the file"), numbered_pages(MORE_THAN_MEMORY));
    let pages = || written.chunks(4096).zip(wanted.chunks(4096));
    let kept = pages().filter(|(written, wanted)| written == wanted).count();
    assert!(pages().all(|(written, wanted)| written == wanted || written == [0; 4096]));
    assert!(kept >= 3 && kept < wanted.len() / 4096, "{kept} pages were written");
}

#[test]
fn only_what_is_touched_is_loaded() {
    let folder = folder();
    fs::write(folder.path().join("a"), numbered_pages(MORE_THAN_MEMORY)).expect("a file");
    with_little_memory(folder.path(), &["lazy"]);
}

#[test]
fn columns_cost_more_faults_than_rows() {
    let folder = folder();
    fs::write(folder.path().join("a"), numbered_pages(450)).expect("a file");
    let said = with_little_memory(folder.path(), &["matrix"]);
    assert_eq!(number(&said, "by rows: major faults"), 450);
}

/// Programs that test files, on a shared folder instead of one in memory.
#[test]
fn kernel_tests_on_a_shared_folder() {
    let names = [
        "files-mapping",
        "files-data",
        "files-limits",
        "files-exec",
        "files-storage",
        "files-names",
        "files-mounts",
        "files-pipes",
        "files-locks",
        "files-events",
        "files-processes",
    ];
    for name in names {
        let folder = folder();
        let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "50", "--share"]);
        lab.command.arg(format!("{}:/tmp", folder.path().display()));
        lab.command.arg("--").arg(program("tests").join(name));
        if name == "files-names" {
            // What is different there, it has to know.
            lab.command.arg("shared");
        }
        let outcome = lab.run();
        let said = String::from_utf8_lossy(&outcome.stdout);
        assert_eq!((said.trim(), outcome.status), ("ok", 0), "{name}: {}", outcome.stderr);
    }
}

/// The program has the same path in the lab as on the host, unless that is in a
/// folder of the host: there, it would take the place of somebody's file.
#[test]
fn the_program_is_not_planted_in_a_shared_folder() {
    let program = fs::canonicalize(program("where")).expect("a path");
    let above = program.parent().expect("a folder").display().to_string();
    let folder = folder();
    let same_name = folder.path().join("where");
    fs::write(&same_name, "mine").expect("a file");
    for access in ["", ":ro"] {
        let mut lab = Lab::new(&["run", "--log", "error", "--timeout", "50", "--share"]);
        lab.command.arg(format!("{}:{above}{access}", folder.path().display()));
        lab.command.arg("--").arg(&program);
        lab.run().expect(0, &[]);
        assert_eq!(fs::read_to_string(&same_name).expect("the file"), "mine");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

/// Numbers of records that a lab which is killed had said to be safe, checked.
fn kill_and_check(round: u64, how: &str) -> u64 {
    let folder = folder();
    let path = folder.path().join("records");
    let mut command = Command::new(binary());
    command.args(["run", "--log", "error", "--timeout", "50", "--share"]);
    command.arg(format!("{}:/s", folder.path().display())).arg("--");
    command.arg(program("files/records")).args(["/s/records", "100000", how]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect("pagelab starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let (first, began) = mpsc::channel();
    let reader = thread::spawn(move || {
        let numbers = output.lines().map_while(Result::ok);
        let numbers = numbers.filter_map(|line| line.parse::<u64>().ok());
        let mut last = None;
        for number in numbers {
            last = Some(number);
            // Who listens does so for the first one only.
            let _ = first.send(());
        }
        last
    });
    // Another moment each time; now and then before the first record.
    let mixed = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    if !round.is_multiple_of(8) {
        began.recv_timeout(Duration::from_secs(40)).expect("a record");
    }
    thread::sleep(Duration::from_micros(mixed % 150_000));
    child.kill().expect("a child");
    child.wait().expect("a child");
    let Some(last) = reader.join().expect("the numbers") else { return 0 };
    let bytes = fs::read(&path).expect("the records");
    for number in 0..=last {
        assert!(is_whole(&bytes, number), "round {round}: record {number} of {last} is torn");
    }
    last + 1
}

/// Whether a record is there as `records.c` writes it.
fn is_whole(bytes: &[u8], number: u64) -> bool {
    const LENGTH: usize = 1000;
    let start = usize::try_from(number).expect("few records") * LENGTH;
    let Some(record) = bytes.get(start..start + LENGTH) else { return false };
    let words: Vec<u64> = record
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .collect();
    let sum = words[1..words.len() - 1]
        .iter()
        .fold(number, |sum, word| sum.wrapping_mul(31).wrapping_add(*word));
    let first = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    words[0] == number && words[1] == first && words[words.len() - 1] == sum
}

/// `PAGELAB_KILLS` says how often (40 otherwise).
#[test]
fn what_was_said_to_be_safe_survives_a_kill() {
    let rounds = std::env::var("PAGELAB_KILLS").ok().and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(40);
    let mut records = 0;
    for round in 0..rounds {
        records += kill_and_check(round, if round % 4 == 3 { "fsync" } else { "msync" });
    }
    println!("{rounds} kills, {records} records that were said to be safe");
    assert!(records > rounds, "hardly anything was written before the kills");
}
