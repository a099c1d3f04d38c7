//! The guest's kernel and first program, which the build script builds and this
//! file puts into the binary.

/// The kernel's ELF.
pub static KERNEL: &[u8] = include_bytes!(env!("PAGELAB_KERNEL_ELF"));

/// The first program's ELF.
pub static FIRST_PROGRAM: &[u8] = include_bytes!(env!("PAGELAB_FIRST_ELF"));
