//! The shared pages, their rings, and guests that lie in them.

use pagelab_abi::event::{EVENT_SLOTS, Event};
use pagelab_abi::lab::{EVENTS_OFFSET, FLAG_EVENTS, FLAG_LOSSLESS, INPUT_BYTES, INPUT_OFFSET};
use proptest::prelude::*;

use super::events::{EventReader, EventSink, Guest};
use super::input::InputWriter;
use super::*;
use crate::memory::MemorySize;

const SLOTS: u64 = EVENT_SLOTS as u64;
const FIRST: Frame = Frame(0x300);

/// Guest memory with pages that a well-meaning guest has prepared.
fn prepared(flags: u32) -> (Arc<GuestRam>, Arc<SharedPages>) {
    let ram = Arc::new(GuestRam::new(MemorySize::new(16 << 20).unwrap()).unwrap());
    put(&ram, offset_of!(Header, magic), LAB_MAGIC);
    put(&ram, offset_of!(Header, version), pagelab_abi::VERSION);
    put(&ram, offset_of!(Header, pages), SHARED_PAGES);
    let shared = Arc::new(SharedPages::new(Arc::clone(&ram), flags));
    (ram, shared)
}

fn registered(flags: u32) -> (Arc<GuestRam>, Arc<SharedPages>) {
    let (ram, shared) = prepared(flags);
    shared.register(FIRST).unwrap();
    (ram, shared)
}

/// Writes a field of the pages as the guest does.
fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(ram: &GuestRam, offset: usize, value: T) {
    let at = GuestPhys(FIRST.start().0 + offset as u64);
    ram.write(at, value.as_bytes()).unwrap();
}

fn get(ram: &GuestRam, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    ram.read(GuestPhys(FIRST.start().0 + offset as u64), &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Writes event `number` as the guest does.
fn write_event(ram: &GuestRam, number: u64) {
    let (sequence, address) = (number.wrapping_add(1), number.wrapping_mul(16));
    let event = Event { sequence, address, ..Event::default() };
    let slot = usize::try_from(number % SLOTS).unwrap();
    put(ram, EVENTS_OFFSET + slot * size_of::<Event>(), event);
    put(ram, offset_of!(Header, events_written), sequence);
}

/// Takes a number of events.
#[derive(Default)]
struct Taken {
    sequences: Vec<u64>,
    room: Option<usize>,
}

impl EventSink for Taken {
    fn is_ready(&mut self, _guest: Guest) -> bool {
        self.room.is_none_or(|room| self.sequences.len() < room)
    }

    fn take(&mut self, event: &Event) {
        self.sequences.push(event.sequence);
        assert_eq!(event.address, (event.sequence - 1).wrapping_mul(16), "whole");
    }
}

/// Takes whatever a lying guest calls an event.
#[derive(Default)]
struct Unchecked(Vec<u64>);

impl EventSink for Unchecked {
    fn is_ready(&mut self, _guest: Guest) -> bool {
        true
    }

    fn take(&mut self, event: &Event) {
        self.0.push(event.sequence);
    }
}

fn drain(reader: &mut EventReader, shared: &SharedPages, guest: Guest) -> Vec<u64> {
    let mut taken = Taken::default();
    reader.drain(shared, guest, &mut taken);
    taken.sequences.iter().map(|sequence| sequence - 1).collect()
}

#[test]
fn registration_checks_everything() {
    let attempt = |offset: usize, value: u32| {
        let (ram, shared) = prepared(0);
        put(&ram, offset, value);
        shared.register(FIRST).unwrap_err()
    };
    assert!(matches!(attempt(offset_of!(Header, magic), 5), RegisterError::Magic(_)));
    let version = attempt(offset_of!(Header, version), 999);
    assert!(matches!(version, RegisterError::Version { found: 999 }));
    assert!(matches!(attempt(offset_of!(Header, pages), 1), RegisterError::Pages(1)));
    let (_ram, shared) = prepared(0);
    assert!(matches!(shared.register(Frame(0)), Err(RegisterError::Null)));
    for frame in [0xfff, 0x1000, 0xc_0000, u32::MAX] {
        assert!(matches!(shared.register(Frame(frame)), Err(RegisterError::OutsideRam(_))));
    }
    assert!(!shared.is_registered() && shared.snapshot().is_none());
    shared.register(FIRST).unwrap();
    assert!(matches!(shared.register(FIRST), Err(RegisterError::Twice)));
    assert_eq!(shared.start(), Some(FIRST.start()));
}

#[test]
fn flags_and_terminal_size_reach_the_guest_whenever_they_are_set() {
    let (ram, shared) = prepared(FLAG_EVENTS);
    shared.set_terminal_size(25, 80);
    shared.register(FIRST).unwrap();
    let at = offset_of!(Header, host_flags);
    assert_eq!(get(&ram, at) & 0xffff_ffff, u64::from(FLAG_EVENTS));
    let size = offset_of!(Header, input_ended);
    assert_eq!(get(&ram, size) >> 32, 25 << 16 | 80);
    shared.set_terminal_size(50, 132);
    shared.set_flags(0);
    assert_eq!(get(&ram, size) >> 32, 50 << 16 | 132);
    assert_eq!(get(&ram, at) & 0xffff_ffff, 0);
}

#[test]
fn a_snapshot_has_every_counter() {
    let (ram, shared) = registered(0);
    let mut faults = FaultCounters::default();
    for (index, (count, cost)) in faults.count.iter_mut().zip(&mut faults.cost).enumerate() {
        (*count, *cost) = (index as u64, index as u64 * 100);
    }
    let frames = FrameCounters { total: 9, free_expected: 8, ..FrameCounters::default() };
    let milestones = Milestones { kernel_entry: 1, power_off: 4, ..Milestones::default() };
    put(&ram, offset_of!(Header, faults), faults);
    put(&ram, offset_of!(Header, frames), frames);
    put(&ram, offset_of!(Header, milestones), milestones);
    put(&ram, offset_of!(Header, events_written), 77u64);
    let expected = Snapshot { faults, frames, milestones, events_written: 77 };
    assert_eq!(shared.snapshot(), Some(expected));
}

#[test]
fn events_come_in_order_and_once() {
    let (ram, shared) = registered(0);
    let mut reader = EventReader::default();
    assert!(drain(&mut reader, &shared, Guest::Running).is_empty());
    (0..10).for_each(|number| write_event(&ram, number));
    assert_eq!(drain(&mut reader, &shared, Guest::Running), (0..10).collect::<Vec<_>>());
    assert_eq!(get(&ram, offset_of!(Header, events_read)), 10);
    write_event(&ram, 10);
    assert_eq!(drain(&mut reader, &shared, Guest::Running), [10]);
    assert_eq!((reader.delivered(), reader.lost()), (11, 0));
}

#[test]
fn a_sink_that_has_no_room_gets_the_rest_later() {
    let (ram, shared) = registered(FLAG_LOSSLESS);
    let mut reader = EventReader::default();
    (0..10).for_each(|number| write_event(&ram, number));
    let mut taken = Taken { room: Some(4), ..Taken::default() };
    reader.drain(&shared, Guest::Running, &mut taken);
    assert_eq!(taken.sequences, [1, 2, 3, 4]);
    assert_eq!(get(&ram, offset_of!(Header, events_read)), 4);
    assert_eq!(drain(&mut reader, &shared, Guest::Running), (4..10).collect::<Vec<_>>());
    assert_eq!((reader.delivered(), reader.lost()), (10, 0));
}

#[test]
fn a_full_ring_of_a_waiting_guest_loses_nothing() {
    let (ram, shared) = registered(FLAG_EVENTS | FLAG_LOSSLESS);
    let mut reader = EventReader::default();
    for round in 0..3 {
        let numbers = round * SLOTS..(round + 1) * SLOTS;
        numbers.clone().for_each(|number| write_event(&ram, number));
        assert_eq!(drain(&mut reader, &shared, Guest::Waiting), numbers.collect::<Vec<_>>());
    }
    assert_eq!((reader.delivered(), reader.lost()), (3 * SLOTS, 0));
}

#[test]
fn overwritten_events_are_counted_exactly() {
    let (ram, shared) = registered(0);
    let mut reader = EventReader::default();
    (0..SLOTS + 100).for_each(|number| write_event(&ram, number));
    // The oldest slot may be the one that the guest is writing to right now.
    let first = drain(&mut reader, &shared, Guest::Running);
    assert_eq!(first, (101..SLOTS + 100).collect::<Vec<_>>());
    assert_eq!((reader.delivered(), reader.lost()), (SLOTS - 1, 101));
    (SLOTS + 100..3 * SLOTS).for_each(|number| write_event(&ram, number));
    let rest = drain(&mut reader, &shared, Guest::Waiting);
    assert_eq!(rest, (2 * SLOTS..3 * SLOTS).collect::<Vec<_>>());
    assert_eq!(reader.delivered() + reader.lost(), 3 * SLOTS);
}

#[test]
fn a_slot_that_does_not_hold_its_event_is_lost() {
    let (ram, shared) = registered(0);
    let mut reader = EventReader::default();
    (0..5).for_each(|number| write_event(&ram, number));
    put(&ram, EVENTS_OFFSET + 2 * size_of::<Event>(), 999u64);
    put(&ram, EVENTS_OFFSET + 3 * size_of::<Event>(), 0u64);
    assert_eq!(drain(&mut reader, &shared, Guest::Running), [0, 1, 4]);
    assert_eq!((reader.delivered(), reader.lost()), (3, 2));
}

#[test]
fn a_lying_count_costs_no_more_than_a_ring() {
    let (ram, shared) = registered(0);
    let mut reader = EventReader::default();
    let written = offset_of!(Header, events_written);
    (0..10).for_each(|number| write_event(&ram, number));
    drain(&mut reader, &shared, Guest::Running);
    put(&ram, written, 3u64);
    assert!(drain(&mut reader, &shared, Guest::Running).is_empty(), "it went backwards");
    put(&ram, written, 1u64 << 63);
    assert!(drain(&mut reader, &shared, Guest::Running).is_empty());
    assert_eq!(reader.delivered() + reader.lost(), 1 << 63);
    put(&ram, written, u64::MAX);
    assert!(drain(&mut reader, &shared, Guest::Waiting).is_empty());
    put(&ram, written, 5u64);
    assert!(drain(&mut reader, &shared, Guest::Waiting).is_empty());
    assert_eq!((reader.delivered(), reader.lost()), (10, u64::MAX - 10));
}

#[test]
fn input_fills_the_ring_and_no_more() {
    let (ram, shared) = prepared(0);
    let mut writer = InputWriter::default();
    assert_eq!(writer.write(&shared, b"too early"), 0);
    shared.register(FIRST).unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(INPUT_BYTES + 9).collect();
    assert_eq!(writer.write(&shared, &bytes), INPUT_BYTES);
    assert_eq!((writer.room(&shared), writer.write(&shared, b"x")), (0, 0));
    put(&ram, offset_of!(Header, input_read), 10u64);
    assert_eq!(writer.room(&shared), 10);
    assert_eq!(writer.write(&shared, b"0123456789ab"), 10);
    assert_eq!(get(&ram, offset_of!(Header, input_written)), INPUT_BYTES as u64 + 10);
    let mut start = [0; 11];
    ram.read(GuestPhys(FIRST.start().0 + INPUT_OFFSET as u64), &mut start).unwrap();
    assert_eq!(&start, b"0123456789\x0a");
    writer.end(&shared);
    assert_eq!(get(&ram, offset_of!(Header, input_ended)) & 0xffff_ffff, 1);
}

#[test]
fn input_wraps_at_the_end_of_the_ring() {
    let (ram, shared) = registered(0);
    let mut writer = InputWriter::default();
    writer.write(&shared, &[b'.'; INPUT_BYTES - 2]);
    put(&ram, offset_of!(Header, input_read), INPUT_BYTES as u64 - 2);
    assert_eq!(writer.write(&shared, b"wrap"), 4);
    let mut end = [0; 2];
    let ring = FIRST.start().0 + INPUT_OFFSET as u64;
    ram.read(GuestPhys(ring + INPUT_BYTES as u64 - 2), &mut end).unwrap();
    assert_eq!(&end, b"wr");
    ram.read(GuestPhys(ring), &mut end).unwrap();
    assert_eq!(&end, b"ap");
}

#[test]
fn a_guest_that_took_more_than_there_was_gets_nothing() {
    let (ram, shared) = registered(0);
    let mut writer = InputWriter::default();
    writer.write(&shared, b"abc");
    for lie in [4, 1 << 63, u64::MAX] {
        put(&ram, offset_of!(Header, input_read), lie);
        assert_eq!(writer.write(&shared, b"more"), 0, "{lie:#x}");
    }
    put(&ram, offset_of!(Header, input_read), 3u64);
    assert_eq!(writer.write(&shared, b"more"), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the guest writes into the pages, every event that it claims is
    /// delivered or lost, none twice, and nothing panics.
    #[test]
    fn claimed_events_are_delivered_or_lost(
        steps in prop::collection::vec((any::<u64>(), 0u8..6, any::<bool>()), 1..40),
    ) {
        let (ram, shared) = registered(0);
        let mut reader = EventReader::default();
        let mut claimed = 0u64;
        for (value, kind, waiting) in steps {
            let written = offset_of!(Header, events_written);
            match kind {
                0 => put(&ram, written, value),
                1 => put(&ram, written, value % 10_000),
                2 => write_event(&ram, value % 10_000),
                3 => write_event(&ram, claimed),
                4 => put(&ram, EVENTS_OFFSET + usize::try_from(value % (64 * SLOTS)).unwrap() / 8 * 8, value),
                _ => {}
            }
            let before = reader;
            let guest = if waiting { Guest::Waiting } else { Guest::Running };
            let mut taken = Unchecked::default();
            reader.drain(&shared, guest, &mut taken);
            prop_assert!(taken.0.is_sorted_by(|a, b| a < b), "in order");
            claimed = claimed.max(get(&ram, written));
            prop_assert_eq!(reader.delivered() + reader.lost(), claimed);
            prop_assert!(reader.delivered() - before.delivered() <= SLOTS);
        }
    }
}
