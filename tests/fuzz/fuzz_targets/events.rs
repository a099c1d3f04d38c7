//! A guest that lies in its event ring.
//!
//! The input writes words into the shared pages and has the ring read in between.
//! Every event up to the reader's place was delivered or lost, no call takes more
//! events than the ring holds, and places only grow.

#![no_main]

use std::cell::RefCell;
use std::mem::offset_of;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pagelab::devices::shared::SharedPages;
use pagelab::devices::shared::events::{EventReader, EventSink, Guest, latest};
use pagelab::memory::{GuestRam, MemorySize};
use pagelab_abi::addr::{Frame, GuestPhys};
use pagelab_abi::event::{EVENT_SLOTS, Event};
use pagelab_abi::lab::{
    EVENTS_OFFSET, FLAG_EVENTS, FLAG_LOSSLESS, Header, LAB_MAGIC, SHARED_PAGES, SHARED_SIZE,
};
use pagelab_fuzz::Input;

/// The first of the shared pages.
const FIRST: Frame = Frame(0x300);

thread_local! {
    static RAM: Arc<GuestRam> =
        Arc::new(GuestRam::new(MemorySize::new(16 << 20).expect("a size")).expect("memory"));
    /// What the input before wrote, to be cleared.
    static WRITTEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Takes so many events.
struct Sink {
    room: usize,
    last: u64,
}

impl EventSink for Sink {
    fn is_ready(&mut self, _guest: Guest) -> bool {
        self.room > 0
    }

    fn take(&mut self, event: &Event) {
        assert!(event.sequence > self.last, "in order");
        (self.room, self.last) = (self.room - 1, event.sequence);
    }
}

fuzz_target!(|data: &[u8]| {
    RAM.with(|ram| WRITTEN.with_borrow_mut(|written| run(ram, written, &mut Input::new(data))));
});

fn put<T: zerocopy::IntoBytes + zerocopy::Immutable>(ram: &GuestRam, offset: u64, value: T) {
    ram.write(GuestPhys(FIRST.start().0 + offset), value.as_bytes()).expect("RAM");
}

fn run(ram: &Arc<GuestRam>, written: &mut Vec<u64>, input: &mut Input<'_>) {
    ram.write(FIRST.start(), &[0; size_of::<Header>()]).expect("RAM");
    for offset in written.drain(..) {
        put(ram, offset, 0_u64);
    }
    put(ram, offset_of!(Header, magic) as u64, LAB_MAGIC);
    put(ram, offset_of!(Header, version) as u64, pagelab_abi::VERSION);
    put(ram, offset_of!(Header, pages) as u64, SHARED_PAGES);
    let flags = FLAG_EVENTS | if input.byte() & 1 == 0 { 0 } else { FLAG_LOSSLESS };
    let shared = SharedPages::new(Arc::clone(ram), flags);
    shared.register(FIRST).expect("valid pages");
    let mut reader = EventReader::default();
    let mut last = 0;
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => read(&shared, &mut reader, &mut last, Guest::Running, input),
            1 => read(&shared, &mut reader, &mut last, Guest::Waiting, input),
            2 => {
                let _ = (latest(&shared), shared.snapshot(), shared.request(), shared.directory());
            }
            3 => lie(ram, written, offset_of!(Header, events_written) as u64, input),
            // Some events, as an honest guest writes them.
            4 => {
                let first = input.number(2) % (2 * EVENT_SLOTS as u64);
                for number in first..first + u64::from(input.byte() % 16) {
                    let slot = EVENTS_OFFSET as u64
                        + number % EVENT_SLOTS as u64 * size_of::<Event>() as u64;
                    written.extend((slot..slot + size_of::<Event>() as u64).step_by(8));
                    put(ram, slot, Event { sequence: number + 1, ..Event::default() });
                    put(ram, offset_of!(Header, events_written) as u64, number + 1);
                }
            }
            5 => {
                let offset = input.number(3) * 8 % SHARED_SIZE as u64;
                lie(ram, written, offset, input);
            }
            6 => {
                let slot = input.number(2) % EVENT_SLOTS as u64 * size_of::<Event>() as u64;
                let offset = EVENTS_OFFSET as u64 + slot + offset_of!(Event, sequence) as u64;
                lie(ram, written, offset, input);
            }
            _ => shared.set_flags(u32::from(input.byte())),
        }
    }
}

fn lie(ram: &GuestRam, written: &mut Vec<u64>, offset: u64, input: &mut Input<'_>) {
    written.push(offset);
    let value = if input.byte() & 1 == 0 { input.number(2) } else { input.number(8) };
    put(ram, offset, value);
}

fn read(
    shared: &SharedPages,
    reader: &mut EventReader,
    last: &mut u64,
    guest: Guest,
    input: &mut Input<'_>,
) {
    let before = reader.delivered() + reader.lost();
    let mut sink = Sink { room: usize::from(input.byte()) * 64, last: *last };
    let room = sink.room;
    reader.drain(shared, guest, &mut sink);
    *last = sink.last;
    let after = reader.delivered() + reader.lost();
    assert!(after >= before, "places only grow");
    assert!(room - sink.room <= EVENT_SLOTS, "no more than the ring holds");
}
