//! Folders of the host: a client of the FUSE protocol, and the file system over
//! it.
//!
//! Every operation is one request and one reply, carried by a [`Transport`]
//! (virtio-fs in the kernel, an in-process server in tests). The server is as
//! untrusted as a host can be: whatever it answers, operations end with a value
//! that is within bounds or with an error, never with a panic.
//!
//! | module | content |
//! | --- | --- |
//! | [`protocol`] | the structures and numbers of the protocol |
//! | [`transport`] | how requests and replies are carried |
//! | [`connection`] | requests, replies, their checks, what is forgotten |
//! | [`operations`] | one method for each operation |
//! | [`entries`] | listings of directories |
//! | [`node`] | a file of the server as long as it is known: handles, attributes, pages |
//! | [`sharefs`] | the file system |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod connection;
pub mod entries;
pub mod error;
pub mod node;
pub mod operations;
pub mod protocol;
pub mod sharefs;
pub mod transport;

pub use connection::Connection;
pub use error::Error;
pub use sharefs::ShareFs;
pub use transport::{Readable, Transport, TransportError, Writable};
