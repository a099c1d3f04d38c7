//! The line discipline against the one of the host's Linux, through a
//! pseudo-terminal: the same echo, the same lines.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use linux_raw_sys::general as linux;
use pagelab_vfs::Errno;
use pagelab_vfs::buffer::SliceSink;
use pagelab_vfs::tty::{LineDiscipline, Termios};
use proptest::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, tcgetattr, tcsetattr,
};

struct Pty {
    keyboard: OwnedFd,
    program: OwnedFd,
}

impl Pty {
    fn new() -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
        let program = rustix::fs::open(name, flags, Mode::empty()).unwrap();
        rustix::fs::fcntl_setfl(&keyboard, OFlags::NONBLOCK).unwrap();
        Self { keyboard, program }
    }

    fn set(&self, settings: &Termios) {
        let mut theirs = tcgetattr(&self.program).unwrap();
        theirs.input_modes = InputModes::from_bits_retain(settings.input);
        theirs.output_modes = OutputModes::from_bits_retain(settings.output);
        theirs.local_modes = LocalModes::from_bits_retain(settings.local);
        tcsetattr(&self.program, OptionalActions::Now, &theirs).unwrap();
    }

    /// Everything there is to read, one piece for each successful `read`.
    fn drain(file: &OwnedFd, pieces: &mut Vec<Vec<u8>>) {
        let mut bytes = [0; 256];
        while let Ok(count) = rustix::io::read(file, &mut bytes) {
            pieces.push(bytes[..count].to_vec());
            if count == 0 && pieces.len() > 100 {
                return;
            }
        }
    }
}

#[test]
fn the_defaults_are_linuxs() {
    let theirs = tcgetattr(&Pty::new().program).unwrap();
    let ours = Termios::default();
    assert_eq!(theirs.input_modes.bits(), ours.input);
    assert_eq!(theirs.output_modes.bits(), ours.output);
    assert_eq!(theirs.local_modes.bits(), ours.local);
    for (code, index) in [
        (SpecialCodeIndex::VINTR, linux::VINTR),
        (SpecialCodeIndex::VQUIT, linux::VQUIT),
        (SpecialCodeIndex::VERASE, linux::VERASE),
        (SpecialCodeIndex::VKILL, linux::VKILL),
        (SpecialCodeIndex::VEOF, linux::VEOF),
        (SpecialCodeIndex::VTIME, linux::VTIME),
        (SpecialCodeIndex::VMIN, linux::VMIN),
        (SpecialCodeIndex::VSTART, linux::VSTART),
        (SpecialCodeIndex::VSTOP, linux::VSTOP),
        (SpecialCodeIndex::VSUSP, linux::VSUSP),
        (SpecialCodeIndex::VREPRINT, linux::VREPRINT),
        (SpecialCodeIndex::VDISCARD, linux::VDISCARD),
        (SpecialCodeIndex::VWERASE, linux::VWERASE),
        (SpecialCodeIndex::VLNEXT, linux::VLNEXT),
    ] {
        assert_eq!(theirs.special_codes[code], ours.characters[index as usize], "{code:?}");
    }
}

fn toggled(base: u32, flags: Vec<(u32, bool)>) -> u32 {
    flags.into_iter().fold(base, |bits, (flag, on)| if on { bits ^ flag } else { bits })
}

fn settings() -> impl Strategy<Value = Termios> {
    let choose = |flags: &[(u32, f64)]| -> BoxedStrategy<Vec<(u32, bool)>> {
        let each: Vec<_> = flags
            .iter()
            .map(|(flag, chance)| (Just(*flag), prop::bool::weighted(*chance)))
            .collect();
        each.boxed()
    };
    let local = choose(&[
        (linux::ICANON, 0.2),
        (linux::ECHO, 0.2),
        (linux::ECHOE, 0.2),
        (linux::ECHOK, 0.2),
        (linux::ECHOKE, 0.2),
        (linux::ECHOCTL, 0.3),
        (linux::ECHONL, 0.2),
        (linux::IEXTEN, 0.2),
        (linux::ISIG, 0.3),
    ]);
    let input = choose(&[
        (linux::ICRNL, 0.2),
        (linux::INLCR, 0.2),
        (linux::IGNCR, 0.2),
        (linux::ISTRIP, 0.1),
        (linux::IUTF8, 0.5),
    ]);
    let output = choose(&[(linux::OPOST, 0.2), (linux::ONLCR, 0.2)]);
    (local, input, output).prop_map(|(local, input, output)| {
        let defaults = Termios::default();
        Termios {
            // Without signals nothing is thrown away at a moment we cannot see.
            local: toggled(defaults.local, local) | linux::NOFLSH,
            input: toggled(defaults.input, input) & !linux::IXON,
            output: toggled(defaults.output, output),
            ..defaults
        }
    })
}

fn typed() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        10 => proptest::sample::select(vec!["a", "bc", "_", " ", ".", "d e", "\u{e9}", "\u{20ac}"]),
        6 => proptest::sample::select(vec!["\n", "\r", "\t", "\x7f", "\x7f\x7f", "\x15", "\x17"]),
        2 => proptest::sample::select(vec!["\x04", "\x16\x03", "\x16\x7f", "\x12", "\x01", "\x03"]),
    ];
    prop::collection::vec(key, 1..30).prop_map(|keys| keys.concat().into_bytes())
}

/// Waits for the host's worker to have typed everything: until there is as
/// much as expected, and a moment longer for what is not.
fn collect(pty: &Pty, expected_echo: usize, expected_lines: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut echo = Vec::new();
    let deadline = Instant::now() + Duration::from_millis(200);
    while echo.iter().map(Vec::len).sum::<usize>() < expected_echo && Instant::now() < deadline {
        Pty::drain(&pty.keyboard, &mut echo);
    }
    let mut lines = Vec::new();
    while lines.len() < expected_lines && Instant::now() < deadline {
        Pty::drain(&pty.program, &mut lines);
    }
    std::thread::sleep(Duration::from_millis(3));
    Pty::drain(&pty.keyboard, &mut echo);
    Pty::drain(&pty.program, &mut lines);
    (echo.concat(), lines)
}

fn read_all(discipline: &mut LineDiscipline) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    loop {
        let mut bytes = [0; 256];
        match discipline.read(&mut SliceSink::new(&mut bytes)) {
            Ok(count) => lines.push(bytes[..count].to_vec()),
            Err(error) => {
                assert_eq!(error, Errno::EAGAIN);
                return lines;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn typing_ends_as_on_linux(settings in settings(), keys in typed()) {
        let pty = Pty::new();
        pty.set(&settings);
        let mut discipline = LineDiscipline::default();
        discipline.set_termios(settings);
        let mut echo = Vec::new();
        for byte in &keys {
            discipline.input(*byte, &mut echo);
        }
        rustix::io::write(&pty.keyboard, &keys).unwrap();
        let lines = read_all(&mut discipline);
        let (their_echo, their_lines) = collect(&pty, echo.len(), lines.len());
        prop_assert_eq!(
            String::from_utf8_lossy(&echo),
            String::from_utf8_lossy(&their_echo),
            "echo of {:?}", String::from_utf8_lossy(&keys)
        );
        prop_assert_eq!(lines, their_lines, "lines of {:?}", keys);
    }
}
