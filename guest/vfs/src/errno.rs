//! Linux's error numbers.
//!
//! Every operation of this crate fails with what Linux would hand to the
//! program, so that the system-call layer has nothing to translate.

use core::fmt;
use core::num::NonZeroU16;

/// Result of an operation that fails with an error number.
pub type Result<T> = core::result::Result<T, Errno>;

/// An error number as a program sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(NonZeroU16);

macro_rules! errnos {
    ($($name:ident $text:literal,)*) => {
        #[allow(clippy::cast_possible_truncation, reason = "Linux's numbers end at 133")]
        impl Errno {
            $(
                #[doc = $text]
                pub const $name: Self =
                    Self(NonZeroU16::new(linux_raw_sys::errno::$name as u16).unwrap());
            )*
        }

        impl Errno {
            /// The symbolic name, such as `ENOENT`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    _ => "unknown error",
                }
            }
        }
    };
}

errnos! {
    EPERM "Operation not permitted",
    ENOENT "No such file or directory",
    ESRCH "No such process",
    EINTR "Interrupted system call",
    EIO "Input/output error",
    ENXIO "No such device or address",
    E2BIG "Argument list too long",
    ENOEXEC "Exec format error",
    EBADF "Bad file descriptor",
    ECHILD "No child processes",
    EAGAIN "Resource temporarily unavailable",
    ENOMEM "Cannot allocate memory",
    EACCES "Permission denied",
    EFAULT "Bad address",
    ENOTBLK "Block device required",
    EBUSY "Device or resource busy",
    EEXIST "File exists",
    EXDEV "Invalid cross-device link",
    ENODEV "No such device",
    ENOTDIR "Not a directory",
    EISDIR "Is a directory",
    EINVAL "Invalid argument",
    ENFILE "Too many open files in system",
    EMFILE "Too many open files",
    ENOTTY "Inappropriate ioctl for device",
    ETXTBSY "Text file busy",
    EFBIG "File too large",
    ENOSPC "No space left on device",
    ESPIPE "Illegal seek",
    EROFS "Read-only file system",
    EMLINK "Too many links",
    EPIPE "Broken pipe",
    EDOM "Numerical argument out of domain",
    ERANGE "Numerical result out of range",
    EDEADLK "Resource deadlock avoided",
    ENAMETOOLONG "File name too long",
    ENOLCK "No locks available",
    ENOSYS "Function not implemented",
    ENOTEMPTY "Directory not empty",
    ELOOP "Too many levels of symbolic links",
    ENODATA "No data available",
    EOVERFLOW "Value too large for defined data type",
    ENOTSOCK "Socket operation on non-socket",
    EOPNOTSUPP "Operation not supported",
    ETIMEDOUT "Connection timed out",
    ELIBBAD "Accessing a corrupted shared library",
    ESTALE "Stale file handle",
}

impl Errno {
    /// The number itself, positive.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0.get()
    }

    /// What a system call leaves in RAX for this error.
    #[must_use]
    pub const fn as_return_value(self) -> i64 {
        -(self.0.get() as i64)
    }

    /// The error with this number, as a host or a peer reported it; `None` if
    /// no such number can exist.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(value) if number < 4096 => Some(Self(value)),
            _ => None,
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.number())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn numbers_are_those_of_this_hosts_linux() {
        for (ours, linux) in [
            (Errno::ENOENT, libc::ENOENT),
            (Errno::EAGAIN, libc::EWOULDBLOCK),
            (Errno::ENOTEMPTY, libc::ENOTEMPTY),
            (Errno::ELOOP, libc::ELOOP),
            (Errno::ESTALE, libc::ESTALE),
        ] {
            assert_eq!(i32::from(ours.number()), linux);
            assert_eq!(ours.as_return_value(), -i64::from(linux));
        }
    }

    #[test]
    fn names_and_numbers_convert_both_ways() {
        assert_eq!(Errno::from_number(2), Some(Errno::ENOENT));
        assert_eq!(Errno::ENOENT.name(), "ENOENT");
        assert_eq!(Errno::from_number(0), None);
        assert_eq!(Errno::from_number(4096), None);
    }
}
