//! The VMM of pagelab, as a library. See the modules.
