//! Symbols of small programs that the system's C compiler makes here.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use proptest::sample::Index;

use super::*;

const SOURCE: &str = "\
static inline __attribute__((always_inline)) int inlined(int x) {
    return __builtin_popcount(x) / x;
}
__attribute__((noinline)) int inner(int x) {
    return inlined(x);
}
int outer(int x) {
    return inner(x) + 1;
}
void _start(void) { for (;;) outer(2); }
";

fn compile(options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("small.c");
    let program = folder.path().join("small");
    fs::write(&source, SOURCE).unwrap();
    let status = Command::new("cc")
        .args(["-O1", "-mpopcnt", "-nostdlib", "-static", "-no-pie", "-fno-pie"])
        .args(options)
        .arg("-o")
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(program).unwrap()
}

/// Start and size of a function, from the symbol table itself.
fn function(bytes: &[u8], name: &str) -> (u64, u64) {
    let file = ElfBytes::<LittleEndian>::minimal_parse(bytes).unwrap();
    let (symbols, names) = file.symbol_table().unwrap().unwrap();
    let is_it = |index: u32| names.get(index as usize).is_ok_and(|found| found == name);
    let symbol = symbols.iter().find(|symbol| is_it(symbol.st_name)).unwrap();
    (symbol.st_value, symbol.st_size)
}

#[test]
fn functions_and_lines_come_from_dwarf() {
    let bytes = compile(&["-g"]);
    let symbols = Symbols::new(&bytes);
    let (outer, _) = function(&bytes, "outer");
    let symbol = symbols.lookup(GuestVirt(outer)).unwrap();
    assert_eq!(symbol.places.len(), 1);
    assert_eq!(symbol.places[0].function, "outer");
    let line = symbol.places[0].line.as_ref().unwrap();
    assert!(line.ends_with("small.c:7") || line.ends_with("small.c:8"), "{symbol}");
    assert_eq!((symbol.start, symbol.offset), (Some(GuestVirt(outer)), Some(0)));
}

#[test]
fn inlined_functions_are_all_named() {
    let bytes = compile(&["-g"]);
    let symbols = Symbols::new(&bytes);
    let (inner, size) = function(&bytes, "inner");
    let inlined = (inner..inner + size)
        .filter_map(|address| symbols.lookup(GuestVirt(address)))
        .find(|symbol| symbol.places.len() == 2)
        .unwrap();
    assert_eq!(inlined.places[0].function, "inlined");
    assert_eq!(inlined.places[1].function, "inner");
    let text = inlined.to_string();
    assert!(text.contains("small.c:2), inlined into inner+0x"), "{text}");
}

#[test]
fn without_dwarf_the_symbol_table_must_do() {
    let bytes = compile(&["-g0"]);
    let symbols = Symbols::new(&bytes);
    let (inner, size) = function(&bytes, "inner");
    let symbol = symbols.lookup(GuestVirt(inner + 1)).unwrap();
    assert_eq!(symbol.to_string(), "inner+0x1");
    let after_call = symbols.lookup_caller(GuestVirt(inner + size)).unwrap();
    assert_eq!(after_call.to_string(), format!("inner+{size:#x}"));
    assert_eq!(symbols.lookup(GuestVirt(inner - 0x1000)), None);
    assert_eq!(symbols.lookup(GuestVirt(u64::MAX)), None);
    assert_eq!(symbols.lookup_caller(GuestVirt(0)), None);
}

#[test]
fn a_damaged_elf_only_gives_fewer_answers() {
    let bytes = compile(&["-g"]);
    let (outer, _) = function(&bytes, "outer");
    for cut in (0..bytes.len()).step_by(97) {
        let _ = Symbols::new(&bytes[..cut]).lookup(GuestVirt(outer));
    }
    let mut damaged = bytes.clone();
    for at in (64..bytes.len()).step_by(13) {
        damaged[at] ^= 0x5a;
        if at % 7 == 0 {
            let _ = Symbols::new(&damaged).lookup(GuestVirt(outer));
        }
    }
    assert_eq!(Symbols::new(&[]).lookup(GuestVirt(outer)), None);
}

#[test]
fn nothing_is_read_before_the_first_question() {
    let bytes = compile(&["-g0"]);
    let symbols = Symbols::new(&bytes);
    assert!(format!("{symbols:?}").contains("loaded: false"));
    assert_eq!(symbols.lookup(GuestVirt(0)), None);
    assert!(format!("{symbols:?}").contains("loaded: true"));
}

#[test]
fn names_and_paths_are_shortened() {
    assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
    assert_eq!(without_hash("a::help"), "a::help");
    assert_eq!(short_path("/x/y/guest/kernel/src/main.rs"), "guest/kernel/src/main.rs");
    assert_eq!(short_path("main.rs"), "main.rs");
}

/// The reports depend on it: names and lines for the kernel that is built in.
#[test]
fn the_built_in_kernel_has_functions_and_lines() {
    let kernel = crate::embedded::KERNEL;
    let file = ElfBytes::<LittleEndian>::minimal_parse(kernel).unwrap();
    let symbols = Symbols::new(kernel);
    let (table, _) = file.symbol_table().unwrap().unwrap();
    let functions: Vec<_> = table
        .iter()
        .filter(|symbol| symbol.st_symtype() == STT_FUNC && symbol.st_size > 16)
        .collect();
    assert!(functions.len() > 50, "{}", functions.len());
    let with_lines = functions
        .iter()
        .filter_map(|function| symbols.lookup(GuestVirt(function.st_value + 8)))
        .filter(|symbol| symbol.places.iter().all(|place| place.line.is_some()))
        .count();
    assert!(with_lines * 10 > functions.len() * 9, "{with_lines} of {}", functions.len());
}

proptest! {
    #[test]
    fn damage_at_random_never_panics(damage in vec((any::<Index>(), any::<u8>()), 1..24)) {
        static INTACT: OnceLock<Vec<u8>> = OnceLock::new();
        let intact = INTACT.get_or_init(|| compile(&["-g"]));
        let (outer, _) = function(intact, "outer");
        let mut bytes = intact.clone();
        for (place, value) in damage {
            // Behind the headers, where symbols and DWARF are.
            let contents = &mut bytes[0x1000..];
            contents[place.index(contents.len())] = value;
        }
        let symbols = Symbols::new(&bytes);
        for address in [outer, outer + 5, outer - 16, 0, u64::MAX - 1] {
            let _ = symbols.lookup(GuestVirt(address)).map(|symbol| symbol.to_string());
        }
    }
}
