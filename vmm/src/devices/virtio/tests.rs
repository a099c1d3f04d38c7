//! Devices driven by the book and against it, without a virtual machine.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use pagelab_abi::addr::GuestPhys;
use proptest::prelude::*;

use super::block::Block;
use super::fs::FileSystem;
use super::testing::{DATA, Desc, Driver, INDIRECT, NEXT, WRITE};
use super::worker::{Served, Worker};
use super::{Backend, Chain, Profile};
use crate::devices::bus::BusDevice;
use crate::share::server::{Server, ServerOptions};

const NEEDS_RESET: u32 = 64;

/// Answers with what it was given, as far as there is room.
struct Echo;

impl Backend for Echo {
    fn profile(&self) -> Profile {
        Profile {
            kind: 42,
            features: 1 << 5,
            config: b"0123456789".to_vec(),
            queue_sizes: &[256, 64],
        }
    }

    fn serve(&mut self, _queue: usize, chain: Chain<'_>) -> u32 {
        let mut bytes = vec![0; chain.readable.len().min(1 << 20)];
        chain.readable.copy_to(&mut bytes);
        u32::try_from(chain.writable.copy_from(&bytes)).unwrap()
    }

    fn reset(&mut self) {}
}

fn disk(size: u64) -> Box<Block> {
    Box::new(Block::create(size, &std::env::temp_dir()).unwrap())
}

#[test]
fn registers_say_what_the_device_is() {
    let mut driver = Driver::new(Box::new(Echo));
    assert_eq!(driver.read(0x00), 0x7472_6976);
    assert_eq!((driver.read(0x04), driver.read(0x08)), (2, 42));
    assert_eq!(driver.read(0x10), 1 << 5 | 1 << 28);
    driver.write(0x14, 1);
    assert_eq!(driver.read(0x10), 1);
    driver.write(0x14, 2);
    assert_eq!(driver.read(0x10), 0);
    for (queue, size) in [(0, 256), (1, 64), (2, 0), (u32::MAX, 0)] {
        driver.write(0x30, queue);
        assert_eq!(driver.read(0x34), size);
    }
    assert_eq!((driver.read(0xb0), driver.read(0xb4)), (u32::MAX, u32::MAX));
    let mut config = [9; 4];
    driver.registers.read(0x108, &mut config);
    assert_eq!(&config, b"89\0\0");
    driver.registers.read(u64::MAX, &mut config);
    assert_eq!(config, [0; 4]);
}

#[test]
fn accesses_of_other_widths_do_nothing() {
    let mut driver = Driver::new(Box::new(Echo));
    for width in [1, 2, 3, 8, 16] {
        let mut bytes = vec![7; width];
        driver.registers.read(0, &mut bytes);
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert!(driver.registers.write(0x70, &vec![1; width]).is_continue());
    }
    assert!(driver.registers.write(0x71, &[1, 0, 0, 0]).is_continue());
    assert_eq!(driver.read(0x70), 0);
}

#[test]
fn features_that_are_not_offered_are_not_accepted() {
    for (low, high, good) in
        [(0, 1, true), (1 << 28, 1, true), (0, 0, false), (1, 1, false), (0, 3, false)]
    {
        let mut driver = Driver::new(Box::new(Echo));
        driver.write(0x70, 3);
        for (select, word) in [(0, low), (1, high), (2, u32::MAX)] {
            driver.write(0x24, select);
            driver.write(0x20, word);
        }
        driver.write(0x70, 11);
        assert_eq!(driver.read(0x70) & 8 != 0, good, "{low:#x} {high:#x}");
        driver.write(0x70, 15);
        assert_eq!(driver.read(0x70) & 4 != 0, good);
    }
}

#[test]
fn requests_are_answered_and_announced() {
    let mut driver = Driver::ready(Box::new(Echo), 16);
    for round in 0..100u32 {
        let text = format!("request {round}");
        let answer = driver.request(0, &[text.as_bytes(), b"!"], &[3, 40]);
        assert_eq!(answer, format!("{text}!").as_bytes());
        assert_eq!(driver.read(0x60), 1);
        assert!(driver.link.interrupt().read().is_ok());
        driver.write(0x64, 1);
        assert_eq!(driver.read(0x60), 0);
    }
}

#[test]
fn an_interrupt_that_is_not_wanted_does_not_come() {
    let mut driver = Driver::ready(Box::new(Echo), 16);
    driver.put_u16(driver.queue_base(0) + 0x8000, 1);
    assert_eq!(driver.request(0, &[b"x"], &[1]), b"x");
    assert_eq!(driver.read(0x60), 0);
}

#[test]
fn a_reset_begins_anew_and_is_seen_only_when_it_is_over() {
    let mut driver = Driver::ready(Box::new(Echo), 16);
    driver.request(0, &[b"x"], &[1]);
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 15);
    // Until then nothing else is taken.
    driver.write(0x70, 1);
    assert_eq!(driver.read(0x70), 15);
    driver.let_device_work();
    assert_eq!((driver.read(0x70), driver.read(0x44), driver.read(0x60)), (0, 0, 0));
    driver.start(64);
    assert_eq!(driver.request(0, &[b"again"], &[8]), b"again");
}

#[test]
fn a_device_that_was_never_started_is_reset_at_once() {
    let mut driver = Driver::new(Box::new(Echo));
    driver.write(0x70, 3);
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 0);
}

#[test]
fn registers_of_a_running_queue_do_not_change() {
    let mut driver = Driver::ready(Box::new(Echo), 16);
    driver.write(0x30, 0);
    driver.write(0x80, 0xdead_0000);
    driver.write(0x44, 0);
    assert_eq!(driver.read(0x44), 1);
    assert_eq!(driver.request(0, &[b"x"], &[1]), b"x");
}

/// Starts a device whose queue 0 is at `registers`.
fn started_with(registers: &[(u64, u32)]) -> Driver {
    let mut driver = Driver::new(Box::new(Echo));
    for status in [1, 3] {
        driver.write(0x70, status);
    }
    driver.write(0x24, 1);
    driver.write(0x20, 1);
    driver.write(0x70, 11);
    for (register, value) in [(0x38, 16), (0x80, 0x10_0000), (0x90, 0x11_0000), (0xa0, 0x12_0000)] {
        driver.write(register, value);
    }
    for &(register, value) in registers {
        driver.write(register, value);
    }
    driver.write(0x44, 1);
    driver.write(0x70, 15);
    driver.let_device_work();
    driver
}

#[test]
fn queues_that_cannot_be_need_a_reset() {
    assert_eq!(started_with(&[]).read(0x70), 15);
    let wrong: [(u64, u32); 12] = [
        (0x38, 0),
        (0x38, 15),
        (0x38, 512),
        (0x38, u32::MAX),
        (0x80, 0),
        (0x80, 0x10_0008),
        (0x80, 0xff_fff0),
        (0x84, 1),
        (0x90, 0x11_0001),
        (0x90, 0x100_0000),
        (0xa0, 0x12_0002),
        (0xa4, u32::MAX),
    ];
    for change in wrong {
        let mut driver = started_with(&[change]);
        assert_eq!(driver.read(0x70), 15 | NEEDS_RESET, "{change:x?}");
        assert_eq!(driver.read(0x60), 2);
        // It answers to nothing but a reset, and then works.
        driver.write(0x50, 0);
        driver.let_device_work();
        driver.start(16);
        assert_eq!(driver.request(0, &[b"x"], &[1]), b"x");
    }
}

#[test]
fn chains_that_break_the_rules_need_a_reset() {
    let desc = |address, length, flags, next| Desc { address, length, flags, next };
    let cases: [(&str, u16, Vec<Desc>); 10] = [
        ("no such descriptor", 16, vec![]),
        ("a loop", 0, vec![desc(DATA, 1, NEXT, 0)]),
        ("a longer loop", 0, vec![desc(DATA, 1, NEXT, 1), desc(DATA, 1, NEXT | WRITE, 0)]),
        ("a next one that is not there", 0, vec![desc(DATA, 1, NEXT, 99)]),
        ("outside RAM", 0, vec![desc(0xd000_0000, 16, 0, 0)]),
        ("beyond the end of RAM", 0, vec![desc((16 << 20) - 8, 16, 0, 0)]),
        ("beyond all addresses", 0, vec![desc(u64::MAX - 3, 16, WRITE, 0)]),
        ("writable before readable", 0, vec![desc(DATA, 1, NEXT | WRITE, 1), desc(DATA, 1, 0, 0)]),
        ("a table that is not whole", 0, vec![desc(DATA, 15, INDIRECT, 0)]),
        ("a table outside RAM", 0, vec![desc(0xd000_0000, 32, INDIRECT, 0)]),
    ];
    for (what, head, table) in cases {
        let mut driver = Driver::ready(Box::new(Echo), 16);
        for (index, desc) in (0..).zip(table) {
            driver.put_descriptor(driver.queue_base(0), index, desc);
        }
        driver.give(0, head);
        assert_eq!(driver.read(0x70), 15 | NEEDS_RESET, "{what}");
        assert_eq!(driver.used(0).0, 0, "{what}");
        driver.start(16);
        assert_eq!(driver.request(0, &[b"x"], &[1]), b"x", "{what}");
    }
}

#[test]
fn an_index_that_leaps_needs_a_reset() {
    let mut driver = Driver::ready(Box::new(Echo), 16);
    driver.set_available_index(0, 17);
    driver.let_device_work();
    assert_eq!(driver.read(0x70), 15 | NEEDS_RESET);
}

#[test]
fn indirect_tables_work_and_have_limits() {
    let table = 0x70_0000;
    let indirect = |count: u32| {
        let mut driver = Driver::ready(Box::new(Echo), 16);
        driver.ram.write(GuestPhys(DATA), b"abcdef").unwrap();
        for index in 0..count {
            let last = index + 1 == count;
            let next = u16::try_from(index + 1).unwrap();
            let flags = if last { WRITE } else { NEXT };
            let address = if last { DATA + 64 } else { DATA + u64::from(index) };
            let desc = Desc { address, length: if last { 64 } else { 1 }, flags, next };
            driver.put_descriptor(table, u16::try_from(index).unwrap(), desc);
        }
        let desc = Desc { address: table, length: count * 16, flags: INDIRECT, next: 0 };
        driver.put_descriptor(driver.queue_base(0), 0, desc);
        driver.give(0, 0);
        driver
    };
    let driver = indirect(5);
    assert_eq!(driver.used(0), (1, 0, 4));
    let mut bytes = [0; 4];
    driver.ram.read(GuestPhys(DATA + 64), &mut bytes).unwrap();
    assert_eq!(&bytes, b"abcd");
    // No longer than the queue, however large the table is.
    assert_eq!(indirect(16).used(0).0, 1);
    assert_eq!(indirect(17).read(0x70), 15 | NEEDS_RESET);
    assert_eq!(indirect(60_000).read(0x70), 15 | NEEDS_RESET);
    // A table in a table.
    let mut driver = Driver::ready(Box::new(Echo), 16);
    let nested = Desc { address: table, length: 32, flags: INDIRECT, next: 0 };
    driver.put_descriptor(table, 0, nested);
    driver.put_descriptor(driver.queue_base(0), 0, nested);
    driver.give(0, 0);
    assert_eq!(driver.read(0x70), 15 | NEEDS_RESET);
}

fn block_header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

#[test]
fn a_disk_keeps_what_is_written_to_it() {
    let mut driver = Driver::ready(disk(1 << 20), 16);
    let mut capacity = [0; 8];
    driver.registers.read(0x100, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 2048);
    let page: Vec<u8> = (0..4096u32).map(|n| n.to_le_bytes()[0]).collect();
    assert_eq!(driver.request(0, &[&block_header(1, 8), &page[..1000], &page[1000..]], &[1]), [0]);
    let read = driver.request(0, &[&block_header(0, 8)], &[2048, 2048, 1]);
    assert!(read[..4096] == page && read[4096] == 0);
    // What was never written is zero.
    let read = driver.request(0, &[&block_header(0, 2040)], &[4096, 1]);
    assert!(read.len() == 4097 && read.iter().all(|&byte| byte == 0));
    assert_eq!(driver.request(0, &[&block_header(4, 0)], &[1]), [0]);
    let name = driver.request(0, &[&block_header(8, 0)], &[20, 1]);
    assert!(name.starts_with(b"pagelab-swap\0"));
}

#[test]
fn a_disk_refuses_what_it_cannot_do() {
    let mut driver = Driver::ready(disk(1 << 20), 16);
    let page = [0; 4096];
    let header = |kind, sector| block_header(kind, sector);
    // The status byte lies behind the room of a read.
    let status = |driver: &mut Driver, read: &[&[u8]], room: &[u32]| {
        let at = {
            driver.request(0, read, room);
            let pieces =
                read.iter().map(|bytes| bytes.len() as u64).chain(room.iter().map(|&n| n.into()));
            let all: Vec<u64> = pieces.collect();
            DATA + all[..all.len() - 1].iter().map(|n| n.next_multiple_of(16)).sum::<u64>()
        };
        let mut byte = [0xff];
        driver.ram.read(GuestPhys(at), &mut byte).unwrap();
        byte[0]
    };
    for sector in [2041, 2048, u64::MAX, u64::MAX / 512] {
        assert_eq!(status(&mut driver, &[&header(1, sector), &page], &[1]), 1, "write {sector}");
        assert_eq!(status(&mut driver, &[&header(0, sector)], &[4096, 1]), 1, "read {sector}");
    }
    assert_eq!(status(&mut driver, &[&header(1, 0), &page[..100]], &[1]), 1);
    assert_eq!(status(&mut driver, &[&header(0, 0)], &[100, 1]), 1);
    assert_eq!(status(&mut driver, &[&header(11, 0), &page], &[1]), 2);
    assert_eq!(status(&mut driver, &[&header(0, 0)[..7]], &[1]), 1);
    // No room for a status: nothing can be said.
    assert_eq!(driver.request(0, &[&header(1, 0), &page], &[]), b"");
    assert_eq!(driver.read(0x70), 15);
}

#[test]
fn swap_needs_a_folder_to_be_in() {
    let error = Block::create(4096, std::path::Path::new("/nonexistent/folder")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/folder"), "{error}");
}

/// Waits inside a request until it is told to go on.
struct Slow(mpsc::Sender<()>, mpsc::Receiver<()>);

impl Backend for Slow {
    fn profile(&self) -> Profile {
        Echo.profile()
    }

    fn serve(&mut self, _queue: usize, _chain: Chain<'_>) -> u32 {
        self.0.send(()).unwrap();
        let _ = self.1.recv();
        0
    }

    fn reset(&mut self) {}
}

/// A driver whose device is served by a real worker.
fn with_worker(backend: Box<dyn Backend>) -> (Driver, Worker) {
    let mut driver = Driver::ready(backend, 16);
    driver.put_descriptor(
        driver.queue_base(0),
        0,
        Desc { address: DATA, length: 1, flags: 0, next: 0 },
    );
    let idle = Served::new(driver.ram.clone(), driver.link.clone(), Box::new(Echo));
    let served = std::mem::replace(&mut driver.served, idle);
    (driver, Worker::start(vec![served]).unwrap())
}

#[test]
fn a_worker_serves_and_stops() {
    let (mut driver, worker) = with_worker(Box::new(Echo));
    for round in 1..=200 {
        driver.put_u16(driver.queue_base(0) + 0x8002, round);
        driver.write(0x50, 0);
        let began = Instant::now();
        while driver.used(0).0 != round {
            assert!(began.elapsed() < Duration::from_secs(10), "request {round} is not served");
            std::thread::yield_now();
        }
    }
    driver.write(0x70, 0);
    let began = Instant::now();
    while driver.read(0x70) != 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the reset does not end");
    }
    worker.stop();
}

#[test]
fn a_request_that_takes_long_holds_up_neither_registers_nor_the_end() {
    let (begun, wait_begun) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let (mut driver, worker) = with_worker(Box::new(Slow(begun, wait)));
    driver.put_u16(driver.queue_base(0) + 0x8002, 1);
    driver.write(0x50, 0);
    wait_begun.recv_timeout(Duration::from_secs(10)).unwrap();
    let began = Instant::now();
    driver.write(0x70, 0);
    assert_eq!(driver.read(0x70), 15);
    worker.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(go_on);
}

fn share() -> (tempfile::TempDir, Box<FileSystem>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"content").unwrap();
    let options = ServerOptions { descriptors: 100, ..ServerOptions::default() };
    let server = Server::new(folder.path(), options).unwrap();
    (folder, Box::new(FileSystem::new("share0".to_owned(), server)))
}

#[test]
fn a_share_is_a_file_system_device() {
    let (_folder, device) = share();
    let mut driver = Driver::ready(device, 64);
    assert_eq!(driver.read(0x08), 26);
    let mut config = [0; 40];
    driver.registers.read(0x100, &mut config);
    assert_eq!(&config[..8], b"share0\0\0");
    assert_eq!(config[36..], 1u32.to_le_bytes());
    // LOOKUP of "file" in the root.
    let mut request = vec![45, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1];
    request.resize(40, 0);
    request.extend(b"file\0");
    let answer = driver.request(1, &[&request], &[16, 128]);
    assert_eq!(answer.len(), 144);
    assert_eq!(answer[..16], [144, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(u64::from_le_bytes(answer[64..72].try_into().unwrap()), 7);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever lies in the queues: no panic, no hang, and a reset helps.
    #[test]
    fn random_queues_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0x300),
        flags in prop::collection::vec(0u16..8, 16),
        lengths in prop::collection::vec(prop_oneof![0u32..5000, any::<u32>()], 16),
        addresses in prop::collection::vec(prop_oneof![DATA - 64..DATA + 4096, any::<u64>()], 16),
        nexts in prop::collection::vec(0u16..20, 16),
        heads in prop::collection::vec(0u16..18, 1..16),
        kind in 0..3,
    ) {
        let (_folder, share) = share();
        let backend: Box<dyn Backend> = match kind {
            0 => Box::new(Echo),
            1 => disk(1 << 20),
            _ => share,
        };
        let mut driver = Driver::ready(backend, 16);
        driver.ram.write(GuestPhys(DATA), &bytes).unwrap();
        for index in 0..16u16 {
            let at = usize::from(index);
            let desc = Desc {
                address: addresses[at],
                length: lengths[at],
                flags: flags[at],
                next: nexts[at],
            };
            for queue in 0..2 {
                driver.put_descriptor(driver.queue_base(queue), index, desc);
            }
        }
        for head in heads {
            for queue in 0..2 {
                driver.give(queue, head);
            }
        }
        driver.start(16);
        prop_assert_eq!(driver.read(0x70), 15);
    }

    /// Whatever is written to the registers: no panic, and a reset helps.
    #[test]
    fn random_register_writes_do_no_harm(
        writes in prop::collection::vec((0u64..0x110, prop_oneof![0u32..20, any::<u32>()]), 0..200),
    ) {
        let mut driver = Driver::new(Box::new(Echo));
        for (register, value) in writes {
            driver.write(register & !3, value);
            driver.read(register);
            driver.let_device_work();
        }
        driver.start(16);
        prop_assert_eq!(driver.request(0, &[b"x"], &[1]), b"x");
    }
}
