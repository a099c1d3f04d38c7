//! Stands in for the guest's build: the embedded kernel and program are empty,
//! so a kernel must be given with `--kernel`.

fn main() -> std::io::Result<()> {
    let folder = std::env::var_os("OUT_DIR").map(std::path::PathBuf::from).unwrap_or_default();
    let empty = folder.join("empty.elf");
    std::fs::write(&empty, b"")?;
    println!("cargo:rustc-env=PAGELAB_KERNEL_ELF={}", empty.display());
    println!("cargo:rustc-env=PAGELAB_FIRST_ELF={}", empty.display());
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
