//! The settings of a terminal, laid out as Linux does.

use linux_raw_sys::general as linux;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Number of control characters.
pub(super) const CONTROL_CHARACTERS: usize = 19;

/// `struct termios2`; its beginning is the `struct termios` of `TCGETS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Termios {
    /// What happens to typed bytes.
    pub input: u32,
    /// What happens to written bytes.
    pub output: u32,
    /// The line: here only shown.
    pub control: u32,
    /// Editing, echo, signals.
    pub local: u32,
    /// Number of the line discipline; always 0.
    pub line: u8,
    /// The control characters, by `VINTR` and so on.
    pub characters: [u8; CONTROL_CHARACTERS],
    /// Speed of input.
    pub input_speed: u32,
    /// Speed of output.
    pub output_speed: u32,
}

/// Size of the old structure, without the speeds.
pub(super) const OLD_SIZE: usize = size_of::<Termios>() - 8;

impl Default for Termios {
    /// As a fresh Linux terminal.
    fn default() -> Self {
        let mut characters = [0; CONTROL_CHARACTERS];
        let defaults = [
            (linux::VINTR, 0o003),
            (linux::VQUIT, 0o034),
            (linux::VERASE, 0o177),
            (linux::VKILL, 0o025),
            (linux::VEOF, 0o004),
            (linux::VMIN, 1),
            (linux::VSTART, 0o021),
            (linux::VSTOP, 0o023),
            (linux::VSUSP, 0o032),
            (linux::VREPRINT, 0o022),
            (linux::VDISCARD, 0o017),
            (linux::VWERASE, 0o027),
            (linux::VLNEXT, 0o026),
        ];
        for (index, character) in defaults {
            characters[index as usize] = character;
        }
        Self {
            input: linux::ICRNL | linux::IXON,
            output: linux::OPOST | linux::ONLCR,
            control: linux::B38400 | linux::CS8 | linux::CREAD | linux::HUPCL,
            local: linux::ISIG
                | linux::ICANON
                | linux::ECHO
                | linux::ECHOE
                | linux::ECHOK
                | linux::ECHOCTL
                | linux::ECHOKE
                | linux::IEXTEN,
            line: 0,
            characters,
            input_speed: 38_400,
            output_speed: 38_400,
        }
    }
}

impl Termios {
    pub(super) const fn has_local(&self, flag: u32) -> bool {
        self.local & flag != 0
    }

    pub(super) const fn has_input(&self, flag: u32) -> bool {
        self.input & flag != 0
    }

    pub(super) const fn has_output(&self, flag: u32) -> bool {
        self.output & flag != 0
    }

    /// Whether lines are edited before they can be read.
    pub(super) const fn is_canonical(&self) -> bool {
        self.has_local(linux::ICANON)
    }

    /// Whether `byte` is the control character `index`; 0 disables one.
    pub(super) fn is(&self, index: u32, byte: u8) -> bool {
        byte != 0 && self.characters[index as usize] == byte
    }
}

/// `struct winsize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Width in pixels, if known.
    pub x_pixels: u16,
    /// Height in pixels, if known.
    pub y_pixels: u16,
}

const _: () = assert!(OLD_SIZE == 36);
const _: () = assert!(size_of::<Termios>() == size_of::<linux::termios2>());
const _: () = assert!(size_of::<WindowSize>() == size_of::<linux::winsize>());
