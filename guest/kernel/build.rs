//! Hands the linker script to the linker when the kernel is built for the guest.

fn main() {
    println!("cargo::rerun-if-changed=kernel.ld");
    println!("cargo::rerun-if-changed=build.rs");
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{root}/kernel.ld");
        println!("cargo::rustc-link-arg-bins=--no-dynamic-linker");
    }
}
