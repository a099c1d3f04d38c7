//! Failures on purpose: a test aid, so that what a guest does on errors of the
//! host can be seen without a broken disk.
//!
//! `OPERATION:NAME:ERRNO[:AFTER]`: requests of that kind (`read`, `write`,
//! `fsync`, … as in the JSON report) about the node that was last found as NAME
//! (`*` is any) fail with that error, after AFTER of them have gone well.

use std::str::FromStr;

use rustix::io::Errno;

use super::abi::Operation;

/// A failure that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    operation: Operation,
    /// Any if there is none.
    name: Option<Vec<u8>>,
    errno: Errno,
    /// How many go well before.
    after: u64,
}

/// Errors that can be asked for.
const ERRORS: [(&str, Errno); 10] = [
    ("EIO", Errno::IO),
    ("ENOSPC", Errno::NOSPC),
    ("EDQUOT", Errno::DQUOT),
    ("EACCES", Errno::ACCESS),
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EROFS", Errno::ROFS),
    ("EFBIG", Errno::FBIG),
    ("ENOMEM", Errno::NOMEM),
    ("ESTALE", Errno::STALE),
];

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [operation, name, errno, after @ ..] = parts.as_slice() else {
            return Err("write OPERATION:NAME:ERRNO[:AFTER]".to_owned());
        };
        let after = match after {
            [] => 0,
            [count] => count.parse().map_err(|_| format!("‘{count}’ is not a number"))?,
            _ => return Err("write OPERATION:NAME:ERRNO[:AFTER]".to_owned()),
        };
        let errno = ERRORS
            .iter()
            .find_map(|(name, value)| (name == errno).then_some(*value))
            .or_else(|| Some(Errno::from_raw_os_error(errno.parse().ok().filter(is_errno)?)))
            .ok_or_else(|| format!("‘{errno}’ is no error that is known here, nor its number"))?;
        Ok(Self {
            operation: Operation::from_name(operation)
                .ok_or_else(|| format!("there is no operation ‘{operation}’"))?,
            name: (*name != "*").then(|| name.as_bytes().to_vec()),
            errno,
            after,
        })
    }
}

/// Whether a number can be an error's.
const fn is_errno(number: &i32) -> bool {
    *number > 0 && *number < 4096
}

impl Fault {
    /// Whether this request fails, counting it.
    ///
    /// # Errors
    ///
    /// The wanted one.
    pub(super) fn strike(&mut self, operation: Operation, name: &[u8]) -> Result<(), Errno> {
        let meant = self.name.as_deref().is_none_or(|wanted| wanted == name);
        if operation != self.operation || !meant {
            return Ok(());
        }
        match self.after.checked_sub(1) {
            Some(rest) => self.after = rest,
            None => return Err(self.errno),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_what_it_names_after_its_count() {
        let mut fault: Fault = "write:data:ENOSPC:2".parse().unwrap();
        assert_eq!(fault.strike(Operation::Write, b"other"), Ok(()));
        assert_eq!(fault.strike(Operation::Read, b"data"), Ok(()));
        assert_eq!(fault.strike(Operation::Write, b"data"), Ok(()));
        assert_eq!(fault.strike(Operation::Write, b"data"), Ok(()));
        assert_eq!(fault.strike(Operation::Write, b"data"), Err(Errno::NOSPC));
        assert_eq!(fault.strike(Operation::Write, b"data"), Err(Errno::NOSPC));
        let mut any: Fault = "fsync:*:5".parse().unwrap();
        assert_eq!(any.strike(Operation::Fsync, b"x"), Err(Errno::IO));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in [
            "",
            "read",
            "read:x",
            "paint:x:EIO",
            "read:x:EWHAT",
            "read:x:0",
            "read:x:EIO:y",
            "read:x:EIO:1:2",
        ] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
