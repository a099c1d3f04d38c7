//! The server driven by the book and against it.
