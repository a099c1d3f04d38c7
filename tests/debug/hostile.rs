//! Clients that behave badly, beside one that does not.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use crate::client::{Client, Debugged, PATIENCE};
use crate::common::programs;

/// The longest that a good client may wait while bad ones do their worst.
const SOON: Duration = Duration::from_secs(5);

/// Kilobytes of its own memory that the lab has: not the guest's.
fn own_memory(lab: &Debugged) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn answers_soon(client: &mut Client) {
    let asked = Instant::now();
    client.call("version", json!({}));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
}

#[test]
fn megabytes_without_a_line_end_the_connection() {
    let lab = Debugged::start(&programs::spin(), &[]);
    let mut good = lab.client();
    answers_soon(&mut good);
    let before = own_memory(&lab);
    for first in [b'x', b'{', b'[', 0xff] {
        let mut stream = lab.connect();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let megabyte = vec![first; 1 << 20];
        let refused = (0..32).find_map(|_| stream.write_all(&megabyte).err());
        let refused = refused.expect("32 MiB were taken").kind();
        assert!(matches!(refused, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{refused}");
        answers_soon(&mut good);
    }
    // A line that is just too long is answered.
    let mut client = lab.client();
    client.send(&[b'x'; (16 << 10) + 1]);
    assert!(client.line().contains("at most 16384 bytes"));
    assert!(own_memory(&lab) < before + 4096, "{} after {before}", own_memory(&lab));
}

#[test]
fn whoever_does_not_read_waits_alone() {
    let (lab, mut good) = Debugged::with_known_faults();
    let before = own_memory(&lab);
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = lab.connect();
        stream.set_nonblocking(true).unwrap();
        // Far more answers than sockets hold.
        let line = b"help\nevents\nmemory 0x1000000 16777216 physical\n";
        while stream.write(line).is_ok_and(|count| count == line.len()) {}
        slow.push(stream);
    }
    for _ in 0..20 {
        answers_soon(&mut good);
    }
    assert!(own_memory(&lab) < before + 16 * 1024, "{} after {before}", own_memory(&lab));
    // In the middle of their answers, they go.
    for mut stream in slow {
        let mut some = [0; 100];
        let _ = stream.read(&mut some);
    }
    answers_soon(&mut good);
}

#[test]
fn thousands_of_connections_do_not_matter() {
    let lab = Debugged::start(&programs::spin(), &[]);
    let mut good = lab.client();
    answers_soon(&mut good);
    let before = own_memory(&lab);
    for round in 0..10 {
        // Silent ones that stay, as many as this process may have.
        let crowd: Vec<_> =
            (0..300).filter_map(|_| UnixStream::connect(&lab.socket).ok()).collect();
        assert!(crowd.len() > 200);
        answers_soon(&mut good);
        // And a new one that has something to ask gets in.
        answers_soon(&mut lab.client());
        if round % 2 == 0 {
            for mut stream in &crowd {
                let _ = stream.write_all(b"hel");
            }
        }
    }
    answers_soon(&mut good);
    assert!(own_memory(&lab) < before + 8 * 1024, "{} after {before}", own_memory(&lab));
    let status = good.call("status", json!({}));
    assert!(status["clients"].as_u64().unwrap() <= 256, "{status}");
}

#[test]
fn the_guest_goes_on_while_clients_come_and_go() {
    let (lab, mut good) = Debugged::with_known_faults();
    let stop = Instant::now() + Duration::from_secs(2);
    let socket = &lab.socket;
    thread::scope(|scope| {
        for number in 0..4u64 {
            scope.spawn(move || {
                let lines: [&[u8]; 5] =
                    [b"faults\n", b"snapshot\n", b"pt 2 shape entries", b"\x00\xff\n", b"watch\n"];
                let mut round = number;
                while Instant::now() < stop {
                    if let Ok(mut stream) = UnixStream::connect(socket) {
                        let line = lines[usize::try_from(round % 5).unwrap()];
                        let _ = stream.write_all(line);
                    }
                    round += 1;
                }
            });
        }
        while Instant::now() < stop {
            answers_soon(&mut good);
        }
    });
    assert_eq!(good.call("status", json!({}))["state"], "running");
    drop(good);
    assert_eq!(lab.stop("-TERM"), 143);
}

#[test]
fn any_bytes_get_an_answer_or_the_end() {
    let lab = Debugged::start(&programs::spin(), &[]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let lines = prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[a-z]{1,8}( [a-z0-9=]{1,6}){0,3}".prop_map(String::into_bytes),
            "\\{\"jsonrpc\":\"2.0\",\"id\":[0-9],\"method\":\"[a-z]{1,8}\"\\}"
                .prop_map(String::into_bytes),
        ],
        1..10,
    );
    let result = runner.run(&lines, |lines| {
        let mut client = lab.client();
        for line in &lines {
            client.send(line);
            client.send(b"\n");
        }
        let shut = client.reader.get_ref().shutdown(std::net::Shutdown::Write);
        prop_assert!(shut.is_ok());
        client.rest();
        // It is still there for others.
        prop_assert_eq!(&lab.client().plain("version").1[..5], "-- ok");
        Ok(())
    });
    result.unwrap();
}
