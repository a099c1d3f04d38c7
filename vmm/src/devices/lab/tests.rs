//! The lab device against guests of good and of bad will.
