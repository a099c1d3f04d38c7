//! What pagelab's host and guest agree on.
//!
//! Both sides compile this crate, so a field or an address can only ever have
//! one meaning. Everything that crosses the border has a fixed layout
//! (`repr(C)`, fixed-width integers, no padding, sizes asserted), and whatever
//! the guest writes is bytes to the host until it has been checked.
//!
//! | module | content |
//! | --- | --- |
//! | [`addr`] | address newtypes that never mix |
//! | [`layout`] | every fixed address and port, with drawn maps |
//! | [`boot`] | what the host hands over at the kernel's entry |
//! | [`lab`] | the lab's device: doorbell, requests, the shared pages |
//! | [`fault`] | the kinds of page fault |
//! | [`event`] | the event ring |
//! | [`directory`] | where the kernel's own structures are |

#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod boot;
pub mod directory;
pub mod event;
pub mod fault;
pub mod lab;
pub mod layout;

/// Version of everything in this crate. A kernel and a VMM that disagree refuse
/// to work together instead of misreading each other.
pub const VERSION: u32 = 3;
