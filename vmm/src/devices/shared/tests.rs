//! The shared pages, their rings, and guests that lie in them.
