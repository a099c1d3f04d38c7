//! Pipes, named pipes and event counters, as programs and poll see them.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::Lab;
use pagelab_vfs::abi::{O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};
use pagelab_vfs::buffer::{Sink, SliceSink, SliceSource, Source};
use pagelab_vfs::inode::{DeviceNumber, FileKind};
use pagelab_vfs::open_file::copy;
use pagelab_vfs::{Errno, OpenFile, OpenHow, Readiness, Result};

fn write(file: &OpenFile, bytes: &[u8]) -> Result<usize> {
    file.write(&mut SliceSource::new(bytes))
}

fn read(file: &OpenFile, size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let count = file.read(&mut SliceSink::new(&mut bytes))?;
    bytes.truncate(count);
    Ok(bytes)
}

/// A buffer in user memory that faults after some bytes.
struct Faulting {
    left: usize,
    until_fault: usize,
}

impl Source for Faulting {
    fn remaining(&self) -> usize {
        self.left
    }

    fn take(&mut self, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.left).min(self.until_fault);
        bytes[..count].fill(b'f');
        self.left -= count;
        self.until_fault -= count;
        count
    }

    fn skip(&mut self, count: usize) -> usize {
        count.min(self.left)
    }
}

impl Sink for Faulting {
    fn remaining(&self) -> usize {
        self.left
    }

    fn put(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.left).min(self.until_fault);
        self.left -= count;
        self.until_fault -= count;
        count
    }
}

#[test]
fn bytes_come_out_in_order_across_pages() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    let mut sent = 0_u32;
    let mut received = 0_u32;
    for round in 1..400_usize {
        let bytes: Vec<u8> = (0..round * 7)
            .map(|_| {
                sent += 1;
                (sent % 251) as u8
            })
            .collect();
        assert_eq!(write(&writer, &bytes), Ok(bytes.len()));
        for byte in read(&reader, 60_000).unwrap() {
            received += 1;
            assert_eq!(u32::from(byte), received % 251);
        }
    }
    assert_eq!(sent, received);
    assert_eq!(read(&reader, 1), Err(Errno::EAGAIN));
}

#[test]
fn a_full_pipe_takes_short_writes_whole_or_not_at_all() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(O_NONBLOCK).unwrap();
    assert_eq!(write(&writer, &[1; 65_536 - 100]), Ok(65_436));
    assert_eq!(writer.poll(), Readiness::empty());
    assert_eq!(write(&writer, &[2; 101]), Err(Errno::EAGAIN));
    assert_eq!(write(&writer, &[2; 4097]), Ok(100), "longer than PIPE_BUF: what fits");
    assert_eq!(write(&writer, b"x"), Err(Errno::EAGAIN));
    assert_eq!(reader.pipe().unwrap().length(), 65_536);
    assert_eq!(read(&reader, 4096).unwrap().len(), 4096);
    assert_eq!(writer.poll(), Readiness::WRITE);
    assert_eq!(write(&writer, &[3; 4096]), Ok(4096));
}

#[test]
fn the_capacity_can_be_changed() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    let pipe = writer.pipe().unwrap();
    assert_eq!(pipe.set_capacity(5000), Ok(8192));
    assert_eq!(write(&writer, &[0; 9000]), Ok(8192));
    assert_eq!(pipe.set_capacity(1), Err(Errno::EBUSY));
    assert_eq!(pipe.set_capacity(2 << 20), Err(Errno::EPERM));
    assert_eq!(pipe.set_capacity(1 << 40), Err(Errno::EINVAL));
    read(&reader, 8000).unwrap();
    assert_eq!(pipe.set_capacity(1), Ok(4096));
}

#[test]
fn a_side_that_goes_ends_the_other() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    write(&writer, b"last").unwrap();
    let woken = lab.platform.wakes.load(Ordering::Relaxed);
    drop(writer);
    assert!(lab.platform.wakes.load(Ordering::Relaxed) > woken, "readers hear of it");
    assert_eq!(reader.poll(), Readiness::READ | Readiness::HANG_UP);
    assert_eq!(read(&reader, 10).unwrap(), b"last");
    assert_eq!(read(&reader, 10).unwrap(), b"");
    assert_eq!(reader.poll(), Readiness::HANG_UP);

    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    drop(reader);
    assert_eq!(writer.poll(), Readiness::WRITE | Readiness::ERROR);
    assert_eq!(write(&writer, b"x"), Err(Errno::EPIPE));
    assert_eq!(write(&writer, b""), Ok(0));
}

#[test]
fn ends_cannot_be_used_the_wrong_way() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    assert_eq!(write(&reader, b"x"), Err(Errno::EBADF));
    assert_eq!(read(&writer, 1), Err(Errno::EBADF));
    assert_eq!(writer.write_at(0, &mut SliceSource::new(b"x")), Err(Errno::ESPIPE));
    assert_eq!(lab.vfs.pipe(O_RDWR).err(), Some(Errno::EINVAL));
    assert_eq!(reader.flags(), O_RDONLY);
    assert_eq!(writer.flags(), O_WRONLY);
    let name = String::from_utf8(reader.node().display(&lab.vfs.root())).unwrap();
    assert_eq!(name, format!("pipe:[{}]", reader.node().stat().unwrap().ino));
}

#[test]
fn a_fault_in_the_middle_keeps_what_was_moved() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    assert_eq!(writer.write(&mut Faulting { left: 9000, until_fault: 5000 }), Ok(5000));
    assert_eq!(writer.write(&mut Faulting { left: 9000, until_fault: 0 }), Err(Errno::EFAULT));
    assert_eq!(reader.read(&mut Faulting { left: 100, until_fault: 0 }), Err(Errno::EFAULT));
    assert_eq!(reader.read(&mut Faulting { left: 6000, until_fault: 4500 }), Ok(4500));
    assert_eq!(read(&reader, 1000).unwrap(), [b'f'; 500]);
    assert_eq!(reader.poll(), Readiness::empty());
}

#[test]
fn a_long_write_sleeps_until_all_is_taken() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|index| (index % 253) as u8).collect();
    let mut received = Vec::new();
    let mut sleeps = 0;
    let done = writer.write_all(&mut SliceSource::new(&bytes), &mut |_, ready| {
        assert_eq!(ready, Readiness::WRITE);
        sleeps += 1;
        received.extend(read(&reader, 10_000).unwrap());
        Ok(())
    });
    assert_eq!(done, Ok(bytes.len()));
    while let Ok(more) = read(&reader, 100_000) {
        received.extend(more);
    }
    assert!(received == bytes);
    assert!(sleeps > 20);

    let interrupted =
        writer.write_all(&mut SliceSource::new(&bytes), &mut |_, _| Err(Errno::EINTR));
    assert_eq!(interrupted, Ok(65_536), "a signal ends it with what was written");
    let at_once = writer.write_all(&mut SliceSource::new(&bytes), &mut |_, _| Err(Errno::EINTR));
    assert_eq!(at_once, Err(Errno::EINTR));
    writer.set_flags(O_NONBLOCK).unwrap();
    let at_once = writer.write_all(&mut SliceSource::new(&bytes), &mut |_, _| unreachable!());
    assert_eq!(at_once, Err(Errno::EAGAIN));
}

#[test]
fn a_read_sleeps_until_there_is_something() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    let mut bytes = [0; 10];
    let mut sleeps = 0;
    let count = reader.read_some(&mut SliceSink::new(&mut bytes), &mut |channel, time| {
        assert_eq!((Some(channel), time), (writer.wait_channel(), None));
        sleeps += 1;
        // Woken for nothing at first.
        if sleeps == 2 {
            write(&writer, b"data")?;
        }
        Ok(true)
    });
    assert_eq!((count, sleeps), (Ok(4), 2));
    let mut sink = SliceSink::new(&mut bytes);
    let interrupted = reader.read_some(&mut sink, &mut |_, _| Err(Errno::EINTR));
    assert_eq!(interrupted, Err(Errno::EINTR));
    reader.set_flags(O_NONBLOCK).unwrap();
    let at_once = reader.read_some(&mut sink, &mut |_, _| unreachable!());
    assert_eq!(at_once, Err(Errno::EAGAIN));
}

#[test]
fn named_pipes_wait_for_their_other_side() {
    let lab = Lab::new();
    let mode = FileKind::Fifo.mode_bits() | 0o600;
    lab.vfs.make_node(&lab.context, None, b"fifo", mode, DeviceNumber::default()).unwrap();
    let open = |flags| lab.vfs.open(&lab.context, None, b"fifo", OpenHow { flags, mode: 0 });
    assert_eq!(open(O_WRONLY | O_NONBLOCK).err(), Some(Errno::ENXIO));
    let reader = open(O_RDONLY).unwrap();
    assert!(reader.peer_missing().is_some());
    let early = open(O_RDONLY | O_NONBLOCK).unwrap();
    assert!(early.peer_missing().is_none(), "it does not want to wait");
    assert_eq!(early.poll(), Readiness::empty(), "nobody has written yet: no hang-up");
    let writer = open(O_WRONLY).unwrap();
    assert!(reader.peer_missing().is_none() && writer.peer_missing().is_none());
    write(&writer, b"through").unwrap();
    drop(writer);
    assert!(reader.peer_missing().is_none(), "one came and went: waiting is over");
    assert_eq!(read(&reader, 10).unwrap(), b"through");
    assert_eq!(read(&reader, 10).unwrap(), b"");
    drop((reader, early));
    let both = open(O_RDWR).unwrap();
    assert!(both.peer_missing().is_none());
    assert_eq!(write(&both, b"x"), Ok(1));
    assert_eq!(read(&both, 10).unwrap(), b"x", "a new pipe: the old bytes are gone");
}

#[test]
fn pipes_without_names_are_opened_again_without_waiting() {
    let lab = Lab::new();
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    write(&writer, b"left behind").unwrap();
    drop(writer);
    // As `/proc/self/fd/3` does, which shells name `<(…)` by.
    let again = lab.vfs.open_node(reader.node().clone(), O_RDONLY).unwrap();
    assert!(again.peer_missing().is_none());
    assert_eq!(read(&again, 20).unwrap(), b"left behind");
    assert_eq!(read(&again, 20).unwrap(), b"");
    drop((reader, again));
    let (reader, writer) = lab.vfs.pipe(0).unwrap();
    drop(reader);
    let again = lab.vfs.open_node(writer.node().clone(), O_WRONLY | O_NONBLOCK).unwrap();
    assert_eq!(again.poll(), Readiness::WRITE | Readiness::ERROR);
}

#[test]
fn event_counters_add_up() {
    let lab = Lab::new();
    let counter = lab.vfs.event_counter(2, 0).unwrap();
    assert_eq!(counter.poll(), Readiness::READ | Readiness::WRITE);
    assert_eq!(write(&counter, &5_u64.to_le_bytes()), Ok(8));
    assert_eq!(read(&counter, 8).unwrap(), 7_u64.to_le_bytes());
    assert_eq!(read(&counter, 8), Err(Errno::EAGAIN));
    assert_eq!(read(&counter, 7), Err(Errno::EINVAL));
    assert_eq!(write(&counter, &[0; 7]), Err(Errno::EINVAL));
    assert_eq!(write(&counter, &u64::MAX.to_le_bytes()), Err(Errno::EINVAL));
    assert_eq!(write(&counter, &(u64::MAX - 1).to_le_bytes()), Ok(8));
    assert_eq!(counter.poll(), Readiness::READ);
    assert_eq!(write(&counter, &1_u64.to_le_bytes()), Err(Errno::EAGAIN));

    let semaphore = lab.vfs.event_counter(2, pagelab_vfs::event::EFD_SEMAPHORE).unwrap();
    assert_eq!(read(&semaphore, 8).unwrap(), 1_u64.to_le_bytes());
    assert_eq!(read(&semaphore, 8).unwrap(), 1_u64.to_le_bytes());
    assert_eq!(read(&semaphore, 8), Err(Errno::EAGAIN));
    assert_eq!(lab.vfs.event_counter(0, 2).err(), Some(Errno::EINVAL));
    // No kind at all in its mode, as on Linux.
    assert_eq!(semaphore.node().stat().unwrap().mode, 0o600);
}

#[test]
fn a_file_is_copied_into_a_pipe_as_far_as_it_fits() {
    let lab = Lab::new();
    let how = OpenHow { flags: O_RDWR | pagelab_vfs::abi::O_CREAT, mode: 0o600 };
    let file = lab.vfs.open(&lab.context, None, b"data", how).unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).map(|index| (index % 249) as u8).collect();
    write(&file, &bytes).unwrap();
    let (reader, writer): (Arc<OpenFile>, _) = lab.vfs.pipe(0).unwrap();
    let mut offset = 10;
    assert_eq!(copy(&file, Some(&mut offset), &writer, None, 200_000), Ok(65_536));
    assert_eq!(offset, 65_546);
    assert!(read(&reader, 100_000).unwrap() == bytes[10..65_546]);
    assert_eq!(copy(&file, Some(&mut offset), &writer, None, 200_000), Ok(100_000 - 65_546));
    assert_eq!(copy(&file, Some(&mut offset), &writer, None, 200_000), Ok(0));
    assert_eq!(copy(&reader, None, &file, None, 10), Err(Errno::EINVAL));
}
