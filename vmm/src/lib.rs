//! The VMM of pagelab, as a library.
//!
//! | module | content |
//! | --- | --- |
//! | [`cli`] | the command line, one file per command |
//! | [`machine`] | a lab from its parts |
//! | [`memory`] | guest RAM |
//! | [`loader`] | kernel, page tables, modules and boot information into memory |
//! | [`vstate`] | KVM: the virtual machine and its processor |
//! | [`devices`] | what the guest finds on its buses; knows nothing of KVM |
//! | [`share`] | folders of the host for the guest: a FUSE server |
//! | [`event_loop`] | signals, timers, terminal, input |
//! | [`stop`] | why a lab ended |
//! | [`debug`] | the debug port: what a running guest's memory looks like |
//! | [`death`] | why a guest died, explained |
//! | [`inspect`] | looking into a guest: walks, instructions, symbols |
//! | [`host`] | what this host's KVM is and can do |
//! | [`kvm_stats`] | KVM's own statistics |
//! | [`mod@bench`] | measuring labs from outside, beside QEMU |
//! | [`timings`] | what a lab notes for whoever measures it |
//! | [`resident`] | resident memory of a process |
//! | [`layout`] | addresses that only the host decides |
//! | [`embedded`] | the kernel and the first program inside the binary |

#![deny(unsafe_code)]

pub mod bench;
pub mod cli;
pub mod death;
pub mod debug;
pub mod devices;
pub mod embedded;
pub mod event_loop;
pub mod host;
pub mod inspect;
pub mod kvm_stats;
pub mod layout;
pub mod loader;
pub mod machine;
pub mod memory;
pub mod resident;
pub mod share;
pub mod stop;
pub mod timings;
pub mod vstate;
