//! The debug port, from outside: every command against a program whose memory is
//! known, exact counts, and clients that behave badly.

mod common;

#[path = "debug/client.rs"]
mod client;
#[path = "debug/gdb.rs"]
mod gdb;
#[path = "debug/hostile.rs"]
mod hostile;
#[path = "debug/inspecting.rs"]
mod inspecting;
#[path = "debug/stopping.rs"]
mod stopping;
#[path = "debug/talking.rs"]
mod talking;
