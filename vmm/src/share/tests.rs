//! The server driven by the book and against it.

mod client;
mod escapes;
mod files;
mod hostile;
mod nodes;
