//! Requests that no kernel would send.

use std::fs;

use libc::O_RDWR;
use proptest::prelude::*;
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::client::Client;
use crate::share::MAX_TRANSFER;
use crate::share::abi::{InHeader, OPERATIONS, Operation, OutHeader, ROOT, TransferIn};

fn error_of(answer: &[u8]) -> i32 {
    -OutHeader::read_from_bytes(answer).unwrap().error
}

#[test]
fn requests_that_are_cut_short_are_invalid() {
    let mut client = Client::new();
    let (node, _) = client.create(ROOT, "f", O_RDWR).unwrap();
    let silent = [Operation::Forget, Operation::BatchForget, Operation::Interrupt];
    for operation in Operation::ALL.iter().copied().filter(|one| !silent.contains(one)) {
        let whole = Client::encode(operation, node, &[]);
        for length in 0..40 {
            assert_eq!(error_of(&client.raw(&whole[..length], 4096)), libc::EINVAL);
        }
    }
    // Structures and names without their end.
    for operation in [Operation::Open, Operation::Write, Operation::SetAttr, Operation::Mkdir] {
        for length in 0..8 {
            let body = vec![b'x'; length];
            assert_eq!(client.call(operation, node, &body), Err(Errno::INVAL), "{operation:?}");
        }
    }
    assert_eq!(client.call(Operation::Lookup, ROOT, b"f"), Err(Errno::INVAL));
    assert_eq!(client.call(Operation::Symlink, ROOT, b"name\0target"), Err(Errno::INVAL));
}

#[test]
fn a_length_that_is_not_the_requests_is_invalid() {
    let mut client = Client::new();
    for len in [0, 39, 42, u32::MAX] {
        let header = InHeader { len, opcode: 3, nodeid: ROOT, ..InHeader::default() };
        let mut request = header.as_bytes().to_vec();
        request.push(0);
        assert_eq!(error_of(&client.raw(&request, 4096)), libc::EINVAL, "{len}");
    }
}

#[test]
fn without_room_for_the_answer_nothing_is_done() {
    let mut client = Client::new();
    let head = crate::share::abi::MkdirIn { mode: 0o700, umask: 0 };
    let request = Client::encode(Operation::Mkdir, ROOT, &super::client::body(&head, &["d"]));
    for room in 0..16 {
        assert_eq!(client.raw(&request, room), b"");
    }
    for room in 16..144 {
        assert_eq!(error_of(&client.raw(&request, room)), libc::EINVAL);
    }
    assert!(!client.path().join("d").exists());
    assert_eq!(client.raw(&request, 144).len(), 144);
    assert!(client.path().join("d").exists());
}

#[test]
fn lengths_beyond_the_limit_are_invalid() {
    let mut client = Client::new();
    let (_, fh) = client.create(ROOT, "f", O_RDWR).unwrap();
    for size in [MAX_TRANSFER + 1, u32::MAX] {
        assert_eq!(client.read(fh, 0, size), Err(Errno::INVAL));
        let head = TransferIn { fh, size, ..TransferIn::default() };
        assert_eq!(client.call(Operation::Write, ROOT, head.as_bytes()), Err(Errno::INVAL));
    }
    // More than there is room for, or more than was sent.
    assert_eq!(client.read(fh, 0, 1 << 20), Err(Errno::INVAL));
    let head = TransferIn { fh, size: 2, ..TransferIn::default() };
    let one = [head.as_bytes(), b"x"].concat();
    assert_eq!(client.call(Operation::Write, ROOT, &one), Err(Errno::INVAL));
    for offset in [i64::MAX.cast_unsigned(), u64::MAX] {
        assert!(client.write(fh, offset, b"x").is_err());
        assert!(client.read(fh, offset, 100).is_err() || offset == i64::MAX.cast_unsigned());
    }
    // A body that no request has.
    let long = vec![b'x'; (64 << 10) + 1];
    assert_eq!(client.call(Operation::Lookup, ROOT, &long), Err(Errno::INVAL));
    assert_eq!(fs::metadata(client.path().join("f")).unwrap().len(), 0);
}

#[test]
fn unknown_requests_nodes_and_handles_are_errors() {
    let mut client = Client::new();
    for opcode in [0, 7, 19, 21, 22, 39, 40, 1000, u32::MAX] {
        let header = InHeader { len: 40, opcode, nodeid: ROOT, ..InHeader::default() };
        assert_eq!(error_of(&client.raw(header.as_bytes(), 64)), libc::ENOSYS, "{opcode}");
    }
    for node in [0, 2, u64::MAX] {
        assert_eq!(client.attributes(node), Err(Errno::NOENT));
        assert_eq!(client.find(node, "x"), Err(Errno::NOENT));
        assert_eq!(client.open(node, O_RDWR), Err(Errno::NOENT));
    }
    for fh in [0, 1, u64::MAX] {
        assert_eq!(client.read(fh, 0, 1), Err(Errno::BADF));
        assert_eq!(client.fsync(fh, 0), Err(Errno::BADF));
    }
    // A handle of the other kind.
    let folder = client.call(Operation::OpenDir, ROOT, &[0; 8]).unwrap();
    let fh = u64::from_le_bytes(folder[..8].try_into().unwrap());
    assert_eq!(client.read(fh, 0, 1), Err(Errno::BADF));
    assert_eq!(client.release(fh), Err(Errno::BADF));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever is sent: an answer in the room there is, and nothing outside the
    /// folder or piling up.
    #[test]
    fn random_requests_do_no_harm(
        requests in prop::collection::vec(
            (
                0..OPERATIONS.len() + 2,
                prop_oneof![0u64..6, any::<u64>()],
                prop::collection::vec(prop_oneof![0u8..4, any::<u8>(), Just(b'/'), Just(b'.')], 0..140),
                prop_oneof![0usize..300, Just(8192usize)],
            ),
            1..12,
        ),
    ) {
        let mut client = Client::new();
        fs::write(client.path().join("f"), b"content").unwrap();
        let file = client.find(ROOT, "f").unwrap();
        client.open(file, O_RDWR).unwrap();
        for (operation, node, body, room) in requests {
            let opcode = OPERATIONS.get(operation).map_or(99, |info| info.number);
            let len = u32::try_from(40 + body.len()).unwrap();
            let header = InHeader { len, opcode, unique: 5, nodeid: node, ..InHeader::default() };
            let answer = client.raw(&[header.as_bytes(), &body].concat(), room);
            if let Ok((head, _)) = OutHeader::read_from_prefix(&answer) {
                prop_assert_eq!(head.len as usize, answer.len());
                prop_assert!(head.error <= 0);
            } else {
                prop_assert!(answer.is_empty());
            }
        }
        prop_assert!(client.server.nodes.len() <= 20 && client.server.handles.len() <= 20);
    }
}
