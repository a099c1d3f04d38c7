//! The debug port.
