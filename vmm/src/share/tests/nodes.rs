//! Nodes and handles: their numbers, their limits, what the host does meanwhile.

use std::fs;

use libc::{O_RDONLY, O_RDWR};
use rustix::io::Errno;

use super::client::Client;
use crate::share::abi::{Operation, ROOT};
use crate::share::server::{ServerOptions, descriptors_per_share};

fn forget(client: &mut Client, node: u64, count: u64) {
    client.tell(Operation::Forget, node, &count.to_le_bytes());
}

#[test]
fn a_node_lives_as_long_as_it_was_found_more_often_than_forgotten() {
    let mut client = Client::new();
    fs::write(client.path().join("f"), b"").unwrap();
    let node = client.find(ROOT, "f").unwrap();
    assert_eq!(client.find(ROOT, "f"), Ok(node));
    forget(&mut client, node, 1);
    assert!(client.attributes(node).is_ok());
    forget(&mut client, node, 1);
    assert_eq!(client.attributes(node), Err(Errno::NOENT));
    // Never the same number again.
    assert!(client.find(ROOT, "f").unwrap() > node);
    for (node, count) in [(ROOT, u64::MAX), (0, 1), (u64::MAX, 1), (node, 1)] {
        forget(&mut client, node, count);
    }
    assert!(client.attributes(ROOT).is_ok());
}

#[test]
fn many_are_forgotten_at_once() {
    let mut client = Client::new();
    let nodes: Vec<u64> = (0..20)
        .map(|number| {
            fs::write(client.path().join(number.to_string()), b"").unwrap();
            client.find(ROOT, &number.to_string()).unwrap()
        })
        .collect();
    let mut body = 1000u64.to_le_bytes().to_vec();
    for node in &nodes {
        body.extend(node.to_le_bytes());
        body.extend(1u64.to_le_bytes());
    }
    client.tell(Operation::BatchForget, 0, &body);
    assert_eq!(client.server.nodes.len(), 1);
}

#[test]
fn a_node_stays_itself_whatever_the_host_does_with_names() {
    let mut client = Client::new();
    let path = client.path().join("f");
    fs::write(&path, b"first").unwrap();
    let first = client.find(ROOT, "f").unwrap();
    let fh = client.open(first, O_RDONLY).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"second").unwrap();
    let second = client.find(ROOT, "f").unwrap();
    assert_ne!(first, second);
    assert_eq!(client.read(fh, 0, 10).unwrap(), b"first");
    assert_eq!(client.attributes(first).unwrap().nlink, 0);
    let again = client.open(first, O_RDWR).unwrap();
    assert_eq!(client.read(again, 0, 10).unwrap(), b"first");
    fs::rename(&path, client.path().join("g")).unwrap();
    assert_eq!(client.find(ROOT, "g"), Ok(second));
}

#[test]
fn descriptors_run_out_as_an_error_and_come_back() {
    let mut client = Client::with(ServerOptions { descriptors: 20, ..ServerOptions::default() });
    for number in 0..30 {
        fs::write(client.path().join(number.to_string()), b"").unwrap();
    }
    let mut nodes = Vec::new();
    let error = loop {
        match client.find(ROOT, &nodes.len().to_string()) {
            Ok(node) => nodes.push(node),
            Err(error) => break error,
        }
    };
    assert_eq!((error, nodes.len()), (Errno::NFILE, 9));
    // Nothing is made that could not be told of.
    assert_eq!(client.create(ROOT, "new", O_RDWR), Err(Errno::NFILE));
    assert!(!client.path().join("new").exists());
    // A listing still has all names.
    let listed = client.list(ROOT, 32 << 10, true).unwrap();
    assert_eq!(listed.len(), 32);
    assert_eq!(listed.iter().filter(|entry| entry.node != 0).count(), 9);
    for node in nodes {
        forget(&mut client, node, 2);
    }
    let node = client.find(ROOT, "29").unwrap();
    let mut open = Vec::new();
    let error = loop {
        match client.open(node, O_RDONLY) {
            Ok(fh) => open.push(fh),
            Err(error) => break error,
        }
    };
    assert_eq!((error, open.len()), (Errno::NFILE, 10));
    client.release(open[0]).unwrap();
    assert!(client.open(node, O_RDONLY).is_ok());
}

#[test]
fn there_are_descriptors_for_shares() {
    assert!(descriptors_per_share(1) > 100);
    assert!(descriptors_per_share(8) <= descriptors_per_share(1));
}
