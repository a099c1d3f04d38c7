//! Whole trees of page tables: dumped, compared, searched.
//!
//! | file | question |
//! | --- | --- |
//! | [`scan`] | what is in the tree at all? (everything else is built on it) |
//! | [`filter`] | which pages are wanted? |
//! | [`mod@dump`] | what does the tree look like? |
//! | [`render`] | ... as text, CSV or a graph (JSON comes from `serde`) |
//! | [`alias`] | at which addresses does this frame show? |
//! | [`mod@search`] | where are these bytes? |
//! | [`mod@diff`] | what changed between two moments, and by which fault? |
//!
//! All of it takes any [`PhysicalMemory`](super::PhysicalMemory) and a root, so
//! it is tested on tables made by hand, and on memory that holds anything.

pub mod alias;
pub mod diff;
pub mod dump;
pub mod filter;
pub mod render;
pub mod scan;
pub mod search;
#[cfg(test)]
mod tests;

pub use alias::{Alias, aliases};
pub use diff::{Change, Difference, Snapshot, diff};
pub use dump::{Dump, DumpRequest, Row, RowKind, Shape, dump};
pub use filter::{CacheType, Filter};
pub use scan::{Problem, ProblemKind, Range};
pub use search::{Found, Pattern, SearchRequest, search, search_physical};
