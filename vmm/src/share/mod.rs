//! Folders of the host for the guest: a FUSE server.
//!
//! The server never sees a path: a request names a node that the guest found
//! before, and at most one component below it. It follows no symbolic link; the
//! guest reads a link's text and walks by itself. So nothing that the guest says,
//! and nothing that is renamed or replaced on the host meanwhile, leads out of
//! the folder.
//!
//! * [`abi`]: the protocol's structures and numbers
//! * [`server`]: a session: a request taken apart, carried out, answered
//! * [`nodes`]: what the guest has found, each held by a descriptor
//! * [`handles`]: what the guest has opened
//! * [`confine`]: the only places where names and descriptors become descriptors
//! * `lookup`, `attributes`, `create`, `remove`, `file`, `directory`: the
//!   requests, by group
//! * [`fault`]: failures on purpose, for tests
//! * [`config`]: what a user wrote after `--share`
//!
//! Why a server of our own: the published passthrough server
//! (`fuse-backend-rs`) opens with plain `openat`, changes the thread's user by
//! what a request says, cannot be made to fail on purpose, and brings thirty
//! thousand lines and an older `vm-memory` with it. What the guest's kernel needs
//! is small.
//!
//! | a guest may… | and the server… |
//! | --- | --- |
//! | send names with `/`, `.`, `..`, or none | answers EINVAL |
//! | name nodes and handles that it never got | answers ENOENT and EBADF |
//! | look up without end | answers ENFILE when its share of descriptors is used up |
//! | cut requests short, give no room for answers | answers EINVAL before anything is done |
//! | ask for huge lengths | answers EINVAL above [`MAX_TRANSFER`] |
//! | open what is not a file (a device, a pipe) | answers EINVAL without opening it |
//! | make set-user-ID programs, device nodes, other owners | drops the bits, answers EPERM |

pub mod abi;
mod attributes;
pub mod config;
pub mod confine;
mod create;
mod directory;
pub mod fault;
mod file;
pub mod handles;
mod lookup;
pub mod nodes;
mod remove;
mod request;
pub mod server;
pub mod statistics;

#[cfg(test)]
mod tests;

/// Most bytes that one READ or WRITE moves.
pub const MAX_TRANSFER: u32 = 2 << 20;
