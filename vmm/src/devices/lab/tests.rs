//! The lab device against guests of good and of bad will.

use std::io;
use std::mem::offset_of;
use std::sync::Mutex;

use pagelab_abi::addr::{GuestPhys, PAGE_SIZE};
use pagelab_abi::lab::{
    Header, LAB_MAGIC, MAX_REQUEST_BYTES, MAX_SEGMENTS, OP_COPY, OP_COPY_FRAME, OP_DRAIN_EVENTS,
    OP_INPUT_TAKEN, OP_LOG, OP_PANIC, OP_POWER_OFF, OP_WRITE, OP_ZERO_FRAME, PanicState, Request,
    SHARED_PAGES, STATUS_IO_ERROR, STREAM_ERROR, STREAM_OUTPUT, Segment,
};
use pagelab_abi::layout::LAB_PORT_COUNT;
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::devices::output::Recorded;
use crate::memory::{GuestRam, MemorySize};
use crate::stop::PanicReport;

const RAM: u64 = 16 << 20;
const FIRST: u32 = 0x300;

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl LabObserver for Seen {
    fn registered(&mut self) {
        self.note("registered");
    }

    fn input_taken(&mut self) {
        self.note("input");
    }

    fn drain_events(&mut self) {
        self.note("drain");
    }

    fn event_written(&mut self) {
        self.note("event");
    }

    fn log(&mut self, level: log::Level, text: &str) {
        self.note(format!("{level} {text}"));
    }
}

/// A guest and the device that it talks to.
struct Guest {
    ram: Arc<GuestRam>,
    device: LabDevice<Recorded, Seen>,
    output: Recorded,
    seen: Seen,
}

impl Guest {
    fn unregistered(output: Recorded) -> Self {
        let ram = Arc::new(GuestRam::new(MemorySize::new(RAM).unwrap()).unwrap());
        let shared = Arc::new(SharedPages::new(Arc::clone(&ram), 0));
        let seen = Seen::default();
        let device = LabDevice::new(shared, output.clone(), seen.clone());
        Self { ram, device, output, seen }
    }

    fn new() -> Self {
        Self::with_output(Recorded::default())
    }

    fn with_output(output: Recorded) -> Self {
        let mut guest = Self::unregistered(output);
        let mut header = Header::new_zeroed();
        header.magic = LAB_MAGIC;
        header.version = pagelab_abi::VERSION;
        header.pages = SHARED_PAGES;
        guest.ram.write(Frame(FIRST).start(), header.as_bytes()).unwrap();
        assert!(guest.out(PORT_REGISTER, FIRST).is_continue());
        assert_eq!(guest.status(), STATUS_OK);
        guest
    }

    fn out(&mut self, port: u16, value: u32) -> ControlFlow<Ending> {
        self.device.write(port.into(), &value.to_le_bytes())
    }

    fn input(&mut self, port: u16) -> u32 {
        let mut bytes = [0; 4];
        self.device.read(port.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn status(&mut self) -> u32 {
        self.input(PORT_DOORBELL)
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Segment {
        self.ram.write(GuestPhys(at), bytes).unwrap();
        Segment { start: at, length: bytes.len() as u64 }
    }

    fn ring(&mut self, operation: u32, request: &Request) -> ControlFlow<Ending> {
        let at = Frame(FIRST).start().0 + offset_of!(Header, request) as u64;
        self.ram.write(GuestPhys(at), request.as_bytes()).unwrap();
        self.out(PORT_DOORBELL, operation)
    }

    /// A request that does not end the lab; says its status.
    fn ask(&mut self, operation: u32, argument: u32, segments: &[Segment]) -> u32 {
        assert!(self.ring(operation, &request(argument, segments)).is_continue());
        self.status()
    }

    fn written(&self) -> Vec<u8> {
        self.output.output.lock().unwrap().clone()
    }
}

fn request(argument: u32, segments: &[Segment]) -> Request {
    let mut request = Request::new_zeroed();
    request.argument = argument;
    request.segment_count = u32::try_from(segments.len()).unwrap();
    request.segments[..segments.len()].copy_from_slice(segments);
    request
}

#[test]
fn the_device_says_what_it_is() {
    let mut guest = Guest::unregistered(Recorded::default());
    assert_eq!(guest.input(PORT_REGISTER), DEVICE_ID);
    assert_eq!(guest.input(PORT_POWER), pagelab_abi::VERSION);
    assert_eq!(guest.input(1), u32::MAX);
    let mut byte = [0];
    guest.device.read(0, &mut byte);
    assert_eq!(&byte, b"P");
}

#[test]
fn without_shared_pages_only_power_off_works() {
    let mut guest = Guest::unregistered(Recorded::default());
    assert!(guest.out(PORT_DOORBELL, OP_POWER_OFF).is_continue());
    assert_eq!(guest.status(), STATUS_UNKNOWN);
    assert!(guest.out(PORT_POWER, 3).is_continue(), "a stray write is none");
    let ending = guest.out(PORT_POWER, POWER_OFF | 3);
    assert!(matches!(ending, ControlFlow::Break(Ending::PoweredOff(3))));
}

#[test]
fn pages_are_registered_once() {
    let mut guest = Guest::new();
    assert!(guest.out(PORT_REGISTER, FIRST).is_continue());
    assert_eq!(guest.status(), STATUS_BAD_SEGMENT);
    assert_eq!(guest.seen.all(), ["registered"]);
    assert_eq!(guest.ask(OP_INPUT_TAKEN, 0, &[]), STATUS_OK, "the first ones stay");
}

#[test]
fn segments_are_written_in_order() {
    let mut guest = Guest::new();
    let segments = [guest.put(0x1000, b"hello, "), guest.put(RAM - 5, b"world")];
    assert_eq!(guest.ask(OP_WRITE, STREAM_OUTPUT, &segments), STATUS_OK);
    assert_eq!(guest.written(), b"hello, world");
    assert_eq!(guest.ask(OP_WRITE, STREAM_ERROR, &segments[..1]), STATUS_OK);
    assert_eq!(*guest.output.error.lock().unwrap(), b"hello, ");
    assert_eq!(guest.ask(OP_WRITE, 7, &segments), STATUS_UNKNOWN);
    assert_eq!(guest.ask(OP_WRITE, STREAM_OUTPUT, &[]), STATUS_OK);
    let empty = Segment { start: u64::MAX, length: 0 };
    assert_eq!(guest.ask(OP_WRITE, STREAM_OUTPUT, &[empty]), STATUS_OK);
}

#[test]
fn one_bad_segment_stops_all_of_them() {
    let mut guest = Guest::new();
    let good = guest.put(0x1000, b"good");
    let bad = [
        (RAM - 1, 2),
        (RAM, 1),
        (u64::MAX, 1),
        (0xc000_0000, 4),
        (1 << 40, 4),
        (0, MAX_REQUEST_BYTES + 1),
        (16, u64::MAX),
        (u64::MAX - 3, 4),
    ];
    for (start, length) in bad {
        let segments = [good, Segment { start, length }];
        let status = guest.ask(OP_WRITE, STREAM_OUTPUT, &segments);
        assert_eq!(status, STATUS_BAD_SEGMENT, "{length} bytes at {start:#x}");
    }
    let half = Segment { start: 0, length: MAX_REQUEST_BYTES / 2 + 1 };
    assert_eq!(guest.ask(OP_WRITE, STREAM_OUTPUT, &[half, half]), STATUS_BAD_SEGMENT);
    let overflow = [Segment { start: 0, length: u64::MAX }, Segment { start: 0, length: 2 }];
    assert_eq!(guest.ask(OP_WRITE, STREAM_OUTPUT, &overflow), STATUS_BAD_SEGMENT);
    let mut many = request(STREAM_OUTPUT, &[good]);
    many.segment_count = 1 + u32::try_from(MAX_SEGMENTS).unwrap();
    assert!(guest.ring(OP_WRITE, &many).is_continue());
    assert_eq!(guest.status(), STATUS_BAD_SEGMENT);
    many.segment_count = u32::MAX;
    assert!(guest.ring(OP_WRITE, &many).is_continue());
    assert_eq!(guest.status(), STATUS_BAD_SEGMENT);
    assert!(guest.written().is_empty());
}

#[test]
fn a_closed_output_ends_the_lab_and_another_error_does_not() {
    let failing = |kind| {
        let guest = Guest::with_output(Recorded { fails_with: Some(kind), ..Recorded::default() });
        let segments = [guest.put(0x1000, b"x")];
        (guest, request(STREAM_OUTPUT, &segments))
    };
    let (mut guest, write) = failing(io::ErrorKind::BrokenPipe);
    let ending = guest.ring(OP_WRITE, &write);
    assert!(matches!(ending, ControlFlow::Break(Ending::OutputClosed)));
    let (mut guest, write) = failing(io::ErrorKind::StorageFull);
    assert!(guest.ring(OP_WRITE, &write).is_continue());
    assert_eq!(guest.status(), STATUS_IO_ERROR);
}

#[test]
fn log_records_arrive_with_their_level_and_without_control_characters() {
    let mut guest = Guest::new();
    let text = [guest.put(0x1000, b"two \x1b[31mlines\nof it\xff\n")];
    assert_eq!(guest.ask(OP_LOG, 2, &text), STATUS_OK);
    assert_eq!(guest.ask(OP_LOG, 0, &text), STATUS_UNKNOWN);
    assert_eq!(guest.ask(OP_LOG, 6, &text), STATUS_UNKNOWN);
    let long = [Segment { start: 0x10_0000, length: MAX_REQUEST_BYTES }];
    assert_eq!(guest.ask(OP_LOG, 5, &long), STATUS_OK);
    let seen = guest.seen.all();
    assert_eq!(seen[1], "WARN two \\u{1b}[31mlines\nof it\u{fffd}");
    assert!(seen[2].len() < 64 << 10);
}

#[test]
fn doorbells_without_segments_reach_the_observer() {
    let mut guest = Guest::new();
    assert_eq!(guest.ask(OP_DRAIN_EVENTS, 0, &[]), STATUS_OK);
    assert_eq!(guest.ask(OP_INPUT_TAKEN, 0, &[]), STATUS_OK);
    assert_eq!(guest.seen.all(), ["registered", "drain", "input"]);
    let ending = guest.ring(OP_POWER_OFF, &request(42, &[]));
    assert!(matches!(ending, ControlFlow::Break(Ending::PoweredOff(42))));
}

fn panicked(guest: &mut Guest, segments: &[Segment]) -> PanicReport {
    match guest.ring(OP_PANIC, &request(0, segments)) {
        ControlFlow::Break(Ending::Panicked(report)) => *report,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_is_reported_with_its_state() {
    let mut guest = Guest::new();
    let state = PanicState { rip: 0x1234, depth: u64::MAX, ..PanicState::default() };
    let text = guest.put(0x1000, b"out of ");
    let more = guest.put(0x2000, b"frames");
    let registers = guest.put(0x3000, state.as_bytes());
    let report = panicked(&mut guest, &[text, more, registers]);
    assert_eq!(report, PanicReport { message: "out of frames".to_owned(), state: Some(state) });
}

#[test]
fn a_panic_with_a_broken_report_is_still_one() {
    let mut guest = Guest::new();
    let text = guest.put(0x1000, b"only text");
    let report = panicked(&mut guest, &[text]);
    assert_eq!((report.message.as_str(), report.state), ("only text", None));
    assert_eq!(panicked(&mut guest, &[]).message, "");
    let bad = panicked(&mut guest, &[Segment { start: u64::MAX, length: 9 }]);
    assert!(bad.message.contains("cannot be read"), "{}", bad.message);
}

#[test]
fn frames_are_copied_and_cleared_whole() {
    let mut guest = Guest::new();
    let frame = |at| Segment { start: at, length: PAGE_SIZE };
    guest.put(0x1000, &[5; 4096]);
    assert_eq!(guest.ask(OP_COPY_FRAME, 0, &[frame(0x1000), frame(0x2000)]), STATUS_OK);
    assert_eq!(guest.ask(OP_ZERO_FRAME, 0, &[frame(0x1000)]), STATUS_OK);
    assert_eq!(guest.ask(OP_COPY_FRAME, 0, &[frame(0x2000), frame(0x2000)]), STATUS_OK);
    let mut bytes = [1; 4096];
    guest.ram.read(GuestPhys(0x1000), &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4096]);
    guest.ram.read(GuestPhys(0x2000), &mut bytes).unwrap();
    assert_eq!(bytes, [5; 4096]);
    let wrong: [&[Segment]; 6] = [
        &[],
        &[frame(0x1000)],
        &[frame(0x1000), frame(0x2001)],
        &[frame(0x1000), Segment { start: 0x2000, length: 8 }],
        &[frame(0x1000), frame(RAM)],
        &[frame(0x1000), frame(0x2000), frame(0x3000)],
    ];
    for segments in wrong {
        assert_eq!(guest.ask(OP_COPY_FRAME, 0, segments), STATUS_BAD_SEGMENT);
    }
    assert_eq!(guest.ask(OP_ZERO_FRAME, 0, &[]), STATUS_BAD_SEGMENT);
}

#[test]
fn bytes_are_copied_wherever_they_lie() {
    let mut guest = Guest::new();
    let part = |start, length| Segment { start, length };
    guest.put(0x1ffe, b"over the edge");
    assert_eq!(guest.ask(OP_COPY, 0, &[part(0x1ffe, 13), part(0x5003, 13)]), STATUS_OK);
    let mut bytes = [b'.'; 15];
    guest.ram.read(GuestPhys(0x5002), &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0over the edge\0");
    let wrong: [&[Segment]; 6] = [
        &[],
        &[part(0x1000, 8)],
        &[part(0x1000, 8), part(0x2000, 9)],
        &[part(0x1000, 8), part(RAM - 4, 8)],
        &[part(u64::MAX, 8), part(0x1000, 8)],
        &[part(0x1000, 8), part(0x2000, 8), part(0x3000, 8)],
    ];
    for segments in wrong {
        assert_eq!(guest.ask(OP_COPY, 0, segments), STATUS_BAD_SEGMENT);
    }
}

#[test]
fn garbage_in_every_port_and_width_does_no_harm() {
    let mut guest = Guest::unregistered(Recorded::default());
    for value in [0, 1, 2, 4, 6, 0x7f, 0xff] {
        for port in 0..LAB_PORT_COUNT + 8 {
            for width in [0, 1, 2, 4, 8, 3, 100, 4096] {
                let mut data = vec![value; width];
                assert!(guest.device.write(port.into(), &data).is_continue());
                guest.device.read(port.into(), &mut data);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any request at all: it is carried out or refused.
    #[test]
    fn random_requests_do_no_harm(
        operation in 0u32..12,
        argument in 0u32..8,
        count in 0u32..40,
        ends in prop::collection::vec((any::<u64>(), any::<u64>(), 0u32..64), 4),
    ) {
        let mut guest = Guest::new();
        let mut request = request(argument, &[]);
        request.segment_count = count;
        for (segment, (start, length, shift)) in request.segments.iter_mut().zip(ends) {
            *segment = Segment { start: start >> shift, length: length >> shift };
        }
        let ended = guest.ring(operation, &request).is_break();
        prop_assert_eq!(ended, operation == OP_POWER_OFF || operation == OP_PANIC);
        if !ended {
            prop_assert!(guest.status() <= STATUS_IO_ERROR);
        }
    }
}
