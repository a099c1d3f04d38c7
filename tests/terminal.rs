//! The terminal: its mode while a guest has it, its size, and that it is put back
//! on every way out. Needs pseudo-terminals, as any interactive host has.

mod common;

use common::terminal::Terminal;
use common::{Lab, guests};
use rustix::termios::{LocalModes, Termios};

fn assert_same(before: &Termios, after: &Termios) {
    assert_eq!(before.local_modes, after.local_modes);
    assert_eq!(before.input_modes, after.input_modes);
    assert_eq!(before.output_modes, after.output_modes);
    assert_eq!(format!("{:?}", before.special_codes), format!("{:?}", after.special_codes));
}

#[test]
fn control_c_ends_an_interactive_lab_and_the_mode_comes_back() {
    let terminal = Terminal::new();
    let before = terminal.mode();
    let lab = Lab::with_kernel(&guests::kernel(guests::hang()), &["--interactive"]);
    let running = terminal.start(lab);
    terminal.wait_for_keys_mode();
    assert!(!terminal.mode().local_modes.contains(LocalModes::ECHO));
    terminal.type_in(b"\x03");
    running.finish().expect(130, &["SIGINT (Ctrl-C)"]);
    assert_same(&before, &terminal.mode());
}

#[test]
fn the_mode_comes_back_after_a_death_and_after_the_time_limit() {
    for (guest, options, status) in [
        (guests::triple_fault(), &["--interactive"][..], 125),
        (guests::hang(), &["--interactive", "--timeout", "0.3"], 124),
        (guests::power_off(), &["--interactive"], 7),
    ] {
        let terminal = Terminal::new();
        let before = terminal.mode();
        let lab = Lab::with_kernel(&guests::kernel(guest), options);
        terminal.start(lab).finish().expect(status, &[]);
        assert_same(&before, &terminal.mode());
    }
}

#[test]
fn keys_arrive_one_by_one_and_only_when_asked_for() {
    let terminal = Terminal::new();
    let kernel = guests::with_shared_pages(guests::cat(), &[], &[]);
    let lab = Lab::with_kernel(&kernel, &["--interactive", "--timeout", "50"]);
    let running = terminal.start(lab);
    terminal.wait_for_keys_mode();
    // Neither edited nor echoed: what comes back is what the guest wrote.
    terminal.type_in(b"a\x7fb");
    assert_eq!(terminal.read(3), b"a\x7fb");
    terminal.type_in(b"\x03");
    running.finish().expect(130, &[]);
}

#[test]
fn without_interactive_the_terminal_keeps_its_line_editing() {
    let terminal = Terminal::new();
    let kernel = guests::with_shared_pages(guests::cat(), &[], &[]);
    let running = terminal.start(Lab::with_kernel(&kernel, &["--timeout", "50"]));
    terminal.type_in(b"ab\x7fc\n");
    let echoed = terminal.read(b"ab\x08 \x08c\r\nac\r\n".len());
    assert_eq!(String::from_utf8_lossy(&echoed), "ab\x08 \x08c\r\nac\r\n");
    assert!(terminal.edits_lines());
    terminal.type_in(b"\x04");
    running.finish().expect(0, &[]);
}
