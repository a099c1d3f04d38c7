//! Loading: kernels that are refused, and what memory holds afterwards.
