//! A server that answers anything at all.

mod common;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use common::{Answer, Carrier, Memory, PAGE};
use pagelab_fuse::entries::Entries;
use pagelab_fuse::protocol::{InHeader, InitOut, OutHeader, SetAttrIn};
use pagelab_fuse::{Connection, Error};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

/// Greets properly, then answers with what it was told to.
struct Liar {
    /// Length in the header, error, unique is right, body, bytes that are missing
    /// or too many.
    answer: (i64, i32, bool, Vec<u8>),
    greeted: bool,
}

impl Answer for Liar {
    fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let (header, _) = InHeader::read_from_prefix(request).unwrap();
        let (off, error, right, body) = if self.greeted {
            self.answer.clone()
        } else {
            let reply = InitOut { major: 7, minor: 31, max_write: 1 << 16, ..InitOut::default() };
            (0, 0, true, reply.as_bytes().to_vec())
        };
        self.greeted = true;
        let length = i64::try_from(16 + body.len()).unwrap() + off;
        let length = u32::try_from(length.max(0)).unwrap();
        let unique = if right { header.unique } else { header.unique + 1 };
        let mut out = OutHeader { length, error, unique }.as_bytes().to_vec();
        out.extend(body);
        out
    }
}

fn connect(answer: (i64, i32, bool, Vec<u8>)) -> (Connection, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let server = Arc::new(Mutex::new(Liar { answer, greeted: false }));
    let requests = Arc::new(AtomicUsize::new(0));
    let carrier = Carrier { memory: memory.clone(), server, requests };
    (Connection::open(Box::new(carrier)).unwrap(), memory)
}

/// Every operation, whose results are within bounds if there are any.
fn ask_everything(connection: &Connection, memory: &Memory) -> Vec<Option<Error>> {
    let frames = [memory.alloc(), memory.alloc()];
    let mut listing = vec![0; 1000];
    let listed = connection.list(5, 0, 0, true, &mut listing);
    if let Ok(length) = listed {
        for plus in [false, true] {
            for entry in Entries::new(&listing[..length], plus).flatten() {
                assert!(!entry.name.is_empty() && !entry.name.contains(&b'/'));
            }
        }
    }
    let read = connection.read(5, 0, 0, &frames, PAGE + 1);
    assert!(read.is_err() || read.is_ok_and(|read| read <= PAGE + 1));
    let written = connection.write(5, 0, 0, &frames, PAGE + 1);
    assert!(written.is_err() || written.is_ok_and(|written| written <= PAGE + 1));
    if let Ok(text) = connection.read_link(5, 30) {
        assert!(!text.is_empty() && !text.contains(&0));
    }
    if let Ok(offset) = connection.seek(5, 0, 10, 3) {
        assert!(offset >= 10);
    }
    vec![
        listed.err(),
        read.err(),
        written.err(),
        connection.lookup(1, b"name").err(),
        connection.get_attributes(5).err(),
        connection.set_attributes(5, &SetAttrIn::default()).err(),
        connection.make_symlink(1, b"name", b"text").err(),
        connection.make_node(1, b"name", 0o10_644, 0).err(),
        connection.make_directory(1, b"name", 0o755).err(),
        connection.unlink(1, b"name").err(),
        connection.remove_directory(1, b"name").err(),
        connection.rename(1, b"name", 1, b"other", 0).err(),
        connection.link(5, 1, b"name").err(),
        connection.open_file(5, 0).err(),
        connection.create(1, b"name", 0o644).err(),
        connection.statistics().err(),
        connection.sync_file(5, 0, false).err(),
        connection.allocate(5, 0, 0, 10, 0).err(),
    ]
}

proptest! {
    #[test]
    fn no_answer_leads_out_of_bounds(
        off in prop_oneof![4 => Just(0_i64), 1 => -20_i64..20, 1 => Just(i64::from(u32::MAX) - 20_000)],
        error in prop_oneof![4 => Just(0), 1 => any::<i32>()],
        right in prop::bool::weighted(0.9),
        body in prop::collection::vec(any::<u8>(), 0..9000),
    ) {
        let (connection, memory) = connect((off, error, right, body));
        ask_everything(&connection, &memory);
        connection.flush_forgets();
    }

    #[test]
    fn listings_are_taken_apart_within_bounds(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..600),
        plus: bool,
    ) {
        for entry in Entries::new(&bytes, plus).flatten() {
            prop_assert!(!entry.name.is_empty() && entry.name.len() <= 255);
            prop_assert!(!entry.name.contains(&b'/') && !entry.name.contains(&0));
        }
    }
}

#[test]
fn a_wrong_header_is_an_error_of_every_operation() {
    let body = vec![1; 200];
    for answer in [(1, 0, true, body.clone()), (0, 0, false, body.clone()), (-1, 0, true, body)] {
        let (connection, memory) = connect(answer);
        for error in ask_everything(&connection, &memory) {
            assert!(matches!(error, Some(Error::Protocol(_))), "{error:?}");
        }
    }
}

#[test]
fn errors_are_those_that_exist() {
    let refused = |error| connect((0, error, true, Vec::new())).0.unlink(1, b"name");
    assert_eq!(refused(-2), Err(Error::Server(pagelab_vfs::Errno::ENOENT)));
    for error in [2, -512, -4096, i32::MIN, i32::MAX] {
        assert!(matches!(refused(error), Err(Error::Protocol(_))), "{error}");
    }
}

#[test]
fn replies_that_are_too_short_are_none() {
    let (connection, _) = connect((0, 0, true, vec![0; 100]));
    assert!(matches!(connection.lookup(1, b"name"), Err(Error::Protocol(_))));
    assert!(matches!(connection.get_attributes(1), Err(Error::Protocol(_))));
}

#[test]
fn names_that_do_not_fit_are_refused_here() {
    let (connection, _) = connect((0, 0, true, Vec::new()));
    let long = vec![b'x'; 10_000];
    assert_eq!(connection.unlink(1, &long), Err(Error::Server(pagelab_vfs::Errno::ENAMETOOLONG)));
}
