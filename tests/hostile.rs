//! Guests and kernels of bad will, in a real virtual machine: each ends in a
//! clear message within its time limit.

mod common;

use std::process::Stdio;

use common::elf::{BASE, CODE, DATA, Elf, IMAGE, Segment};
use common::{Lab, guests};
use pagelab_abi::lab::Segment as LabSegment;

fn run(kernel: &[u8], options: &[&str]) -> common::Outcome {
    Lab::with_kernel(kernel, options).run()
}

#[test]
fn a_guest_that_powers_off_gives_its_status() {
    let outcome = run(&guests::kernel(guests::power_off()), &[]);
    outcome.expect(7, &[]);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_triple_fault_is_called_that() {
    let outcome = run(&guests::kernel(guests::triple_fault()), &[]);
    outcome.expect(125, &["triple fault"]);
    // Some hosts reset the registers before anybody can read them; that is said.
    let registers = outcome.stderr.contains("rip ffffffff80200000");
    assert!(registers || outcome.stderr.contains("reset"), "{}", outcome.stderr);
}

#[test]
fn a_guest_that_hangs_is_stopped_at_its_time_limit() {
    for guest in [guests::hang(), guests::halt()] {
        let outcome = run(&guests::kernel(guest), &["--timeout", "0.3"]);
        outcome.expect(124, &["the time limit of 0.3 s is over"]);
        outcome.within(10);
    }
}

#[test]
fn a_flood_on_the_serial_console_is_stopped() {
    let outcome = run(&guests::kernel(guests::serial_flood()), &["--timeout", "0.5"]);
    outcome.expect(124, &["time limit"]);
    outcome.within(20);
    assert!(outcome.stdout.len() > 10 && outcome.stdout.iter().all(|&byte| byte == b'A'));
}

/// A guest that writes 64 KiB of its memory to its output, again and again.
fn flooding() -> Vec<u8> {
    let segments = [LabSegment { start: 0x20_0000, length: 64 << 10 }];
    guests::with_shared_pages(guests::write_flood(), &segments, &[])
}

#[test]
fn a_flood_through_the_doorbell_is_stopped() {
    let outcome = run(&flooding(), &["--timeout", "0.5"]);
    outcome.expect(124, &["time limit"]);
    outcome.within(20);
    assert!(outcome.stdout.len() >= 64 << 10);
}

#[test]
fn a_flood_that_nobody_reads_is_stopped_too() {
    let lab = Lab::with_kernel(&flooding(), &["--timeout", "0.5"]);
    let outcome = lab.start().finish_unread();
    outcome.expect(124, &["time limit"]);
    outcome.within(20);
}

#[test]
fn a_closed_output_ends_the_lab_as_it_ends_any_program() {
    for kernel in [flooding(), guests::kernel(guests::serial_flood())] {
        let mut running = Lab::with_kernel(&kernel, &["--timeout", "20"]).start();
        drop(running.child.stdout.take());
        let outcome = running.finish();
        outcome.expect(141, &[]);
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn a_full_disk_is_reported_to_the_guest_and_does_not_end_the_lab() {
    let mut lab = Lab::with_kernel(&flooding(), &["--timeout", "0.3", "--log", "off"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    lab.command.stdout(Stdio::from(full));
    lab.run().expect(124, &["time limit"]);
}

#[test]
fn garbage_to_every_port_does_no_harm() {
    run(&guests::kernel(guests::every_port()), &["--timeout", "50"]).expect(0, &[]);
}

#[test]
fn garbage_to_every_address_does_no_harm() {
    let kernel = guests::with_identity_tables(guests::every_address());
    run(&kernel, &["--mem", "16M", "--timeout", "50"]).expect(0, &[]);
}

#[test]
fn a_jump_to_where_no_memory_is_ends_in_a_message() {
    let kernel = guests::with_identity_tables(guests::jump_into_nothing());
    let outcome = run(&kernel, &["--timeout", "20"]);
    outcome.expect(125, &["pagelab: ", "d0000000"]);
}

#[test]
fn a_panic_is_shown_with_its_message_and_registers() {
    let outcome = run(&guests::panicking("no frame left", 0xffff_ffff_8020_1234), &[]);
    outcome.expect(125, &["panicked: no frame left", "ffffffff80201234"]);
}

#[test]
fn no_event_is_lost_when_all_are_wanted() {
    let kernel = guests::with_shared_pages(guests::events(), &[], &[]);
    let outcome = run(&kernel, &["--events", "--json", "-"]);
    outcome.expect(0, &[]);
    let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
    assert_eq!(report["events_delivered"], guests::EVENTS);
    assert_eq!(report["events_lost"], 0);
    let lines = outcome.stderr.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), guests::EVENTS);
    for (number, line) in lines.into_iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], ["event", &(number + 1).to_string()]);
        assert!(line.contains(&format!("at {number:#014x} ")), "{line}");
    }
}

#[test]
fn events_that_nobody_reads_keep_nobody_from_stopping_the_lab() {
    let kernel = guests::with_shared_pages(guests::events(), &[], &[]);
    // The lines fill the pipe long before the end.
    let lab = Lab::with_kernel(&kernel, &["--events", "--timeout", "0.5"]);
    let outcome = lab.start().finish_unread();
    assert_eq!(outcome.status, 124, "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("event      1 "));
    outcome.within(20);
}

#[test]
fn input_arrives_whole_from_files_and_pipes() {
    let kernel = guests::with_shared_pages(guests::cat(), &[], &[]);
    let bytes: Vec<u8> = (0..100_003u32).flat_map(u32::to_le_bytes).collect();
    let options = ["--timeout", "50"];
    for input in [&b""[..], b"a line\n", &bytes[..4096], &bytes[..4097], &bytes] {
        let from_file = Lab::with_kernel(&kernel, &options).with_input_file(input).run();
        from_file.expect(0, &[]);
        assert!(from_file.stdout == input, "{} bytes from a file", input.len());
        let piped = Lab::with_kernel(&kernel, &options).with_input(input).run();
        piped.expect(0, &[]);
        assert!(piped.stdout == input, "{} bytes from a pipe", input.len());
    }
    run(&kernel, &options).expect(0, &[]);
}

fn two_segments() -> Elf {
    Elf::of_segments(vec![
        Segment::new(IMAGE, CODE, guests::power_off()),
        Segment::new(IMAGE + 0x1000, DATA, &[1; 64]),
    ])
}

#[test]
fn malformed_kernels_are_refused_with_the_reason() {
    let refused = |file: &[u8], reason: &str| {
        let outcome = run(file, &["--mem", "16M"]);
        outcome.expect(125, &["pagelab: the kernel cannot be loaded: ", reason]);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    };
    let changed = |change: fn(&mut Elf)| {
        let mut elf = two_segments();
        change(&mut elf);
        elf.build()
    };
    let whole = two_segments().build();
    run(&whole, &["--mem", "16M"]).expect(7, &[]);
    refused(b"", "the file is empty");
    refused(b"MZ\x90\x00", "not an ELF file");
    refused(&whole[..100], "cut short");
    refused(&whole[..0x1004], "segment 0's bytes lie beyond the end");
    refused(&changed(|elf| elf.machine = 183), "for 64-bit Arm (AArch64), not for x86-64");
    refused(&changed(|elf| elf.class = 1), "32-bit ELF");
    refused(&changed(|elf| elf.kind = 1), "not an executable");
    refused(&changed(|elf| elf.segments.clear()), "no loadable segment");
    refused(&changed(|elf| elf.entry = 0x1000), "entry point 0x1000");
    refused(&changed(|elf| elf.segments[1].flags = 7), "writable and executable");
    refused(&changed(|elf| elf.segments[1].virt = IMAGE), "wants physical address");
    let outside = changed(|elf| {
        elf.segments[1] = Segment::new(BASE + (16 << 20), DATA, &[1; 64]);
    });
    refused(&outside, "RAM ends at 0x1000000");
    refused(&changed(|elf| elf.segments[1].memory_size = 1 << 30), "RAM ends at");
    let overlapping = changed(|elf| elf.segments[1] = Segment::new(IMAGE, DATA, &[1; 64]));
    refused(&overlapping, "overlap");
    let low = changed(|elf| elf.segments[1] = Segment::new(BASE + 0x6000, DATA, &[1; 64]));
    refused(&low, "below");
}
