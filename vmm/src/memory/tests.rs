//! Sizes that can and cannot work, and RAM at its edges.

use super::*;
use crate::layout::{MAX_MEMORY, MIN_MEMORY};

fn parse(text: &str) -> Result<u64, SizeError> {
    text.parse::<MemorySize>().map(MemorySize::bytes)
}

#[test]
fn sizes_take_units_in_either_case() {
    assert_eq!(parse("128M"), Ok(128 << 20));
    assert_eq!(parse("128m"), Ok(128 << 20));
    assert_eq!(parse("16384K"), Ok(16 << 20));
    assert_eq!(parse("4G"), Ok(4 << 30));
    assert_eq!(parse("16777216"), Ok(16 << 20));
}

#[test]
fn sizes_that_cannot_work_say_why() {
    for text in ["", "M", "abc", "-1", "+5M", "1.5G", "1 G", "0x10M", "12MB", "１６M", "𝟙G"] {
        assert_eq!(parse(text), Err(SizeError::NotANumber(text.to_owned())), "{text}");
    }
    for text in ["18446744073709551616", "99999999999999999999999G", "17179869184G"] {
        assert_eq!(parse(text), Err(SizeError::Overflow(text.to_owned())), "{text}");
    }
    assert_eq!(parse("0"), Err(SizeError::Zero));
    assert_eq!(parse("0G"), Err(SizeError::Zero));
    assert_eq!(parse("4K"), Err(SizeError::TooSmall(4096)));
    assert_eq!(parse("16777217"), Err(SizeError::NotPages(16_777_217)));
    assert_eq!(parse("17592186044416"), Err(SizeError::TooLarge(1 << 44)));
    assert!(parse(&MIN_MEMORY.to_string()).is_ok());
    assert!(parse(&(MIN_MEMORY - 4096).to_string()).is_err());
    assert!(parse(&MAX_MEMORY.to_string()).is_ok());
    assert!(parse(&(MAX_MEMORY + 4096).to_string()).is_err());
}

#[test]
fn more_than_the_host_has_is_refused() {
    let size = MemorySize::new(64 << 20).unwrap();
    assert_eq!(size.check_host(64 << 20), Ok(()));
    let error = size.check_host(32 << 20).unwrap_err();
    assert!(error.to_string().contains("64 MiB is more than this host's memory of 32 MiB"));
    assert!(size::host_memory() > 16 << 20);
}

#[test]
fn sizes_read_well() {
    use size::Bytes;
    assert_eq!(Bytes(5).to_string(), "5 bytes");
    assert_eq!(Bytes(128 << 20).to_string(), "128 MiB");
    assert_eq!(Bytes((1 << 30) + (1 << 29)).to_string(), "1.5 GiB");
}

#[test]
fn ram_is_cut_at_the_hole() {
    let small = split(1 << 30);
    assert_eq!(small.len(), 1);
    let exact = split(HOLE_START.0);
    assert_eq!(exact.len(), 1);
    let large = split(HOLE_START.0 + 4096);
    assert_eq!(large[1], RamPart { start: HOLE_END, length: 4096, file_offset: HOLE_START.0 });
}

#[test]
fn accesses_end_where_ram_ends() {
    let ram = GuestRam::new(MemorySize::new(HOLE_START.0 + (1 << 20)).unwrap()).unwrap();
    let mut byte = [0];
    ram.write(GuestPhys(HOLE_START.0 - 1), &[7]).unwrap();
    ram.read(GuestPhys(HOLE_START.0 - 1), &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert!(ram.read(HOLE_START, &mut byte).is_err());
    assert!(ram.read(GuestPhys(HOLE_START.0 - 1), &mut [0; 2]).is_err());
    assert!(ram.read(GuestPhys(HOLE_END.0 - 1), &mut byte).is_err());
    ram.write(GuestPhys(HOLE_END.0 + (1 << 20) - 1), &[9]).unwrap();
    assert!(ram.read(GuestPhys(HOLE_END.0 + (1 << 20)), &mut byte).is_err());
    assert!(!ram.contains(GuestPhys(u64::MAX), 2));
    assert!(!ram.contains(GuestPhys(16), u64::MAX));
}

#[test]
fn the_memfd_shows_the_same_bytes() {
    use std::os::unix::fs::FileExt;
    let ram = GuestRam::new(MemorySize::default()).unwrap();
    ram.write(GuestPhys(0x1234), b"seen").unwrap();
    let mut bytes = [0; 4];
    ram.file().read_exact_at(&mut bytes, 0x1234).unwrap();
    assert_eq!(&bytes, b"seen");
}

#[test]
fn table_entries_outside_memory_are_none() {
    let ram = GuestRam::new(MemorySize::default()).unwrap();
    let mut memory = &ram;
    assert!(memory.write_entry(GuestPhys(0x1000), Entry(5)));
    assert_eq!(memory.read_entry(GuestPhys(0x1000)), Some(Entry(5)));
    assert!(!memory.write_entry(ram.low_end(), Entry(5)));
    assert_eq!(memory.read_entry(GuestPhys(0x1001)), None, "not aligned");
}
