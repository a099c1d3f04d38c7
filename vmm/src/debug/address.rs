//! Where the port is: a Unix socket or a loopback address, and nothing else.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DebugAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of this machine that only it can reach.
    Loopback(SocketAddr),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing.
    #[error("an address is needed: the path of a socket, or 127.0.0.1:PORT")]
    Empty,
    /// Others could reach it.
    #[error(
        "{0} is not a loopback address: the port shows and changes everything, so only this machine may reach it"
    )]
    NotLoopback(SocketAddr),
    /// Looks like a port.
    #[error("‘{0}’ is neither a path nor 127.0.0.1:PORT or [::1]:PORT")]
    NotAnAddress(String),
}

impl FromStr for DebugAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(address) => Err(AddressError::NotLoopback(address)),
            // `localhost:1234` is more likely a mistake than a file's name.
            Err(_) if text.contains(':') && !text.contains('/') => {
                Err(AddressError::NotAnAddress(text.to_owned()))
            }
            Err(_) => Ok(Self::Unix(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for DebugAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Loopback(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_be_meant() {
        let parse = |text: &str| text.parse::<DebugAddress>();
        assert_eq!(parse("lab.sock"), Ok(DebugAddress::Unix("lab.sock".into())));
        assert_eq!(parse("/tmp/a:1"), Ok(DebugAddress::Unix("/tmp/a:1".into())));
        assert!(matches!(parse("127.0.0.1:0"), Ok(DebugAddress::Loopback(_))));
        assert!(matches!(parse("[::1]:80"), Ok(DebugAddress::Loopback(_))));
        assert!(matches!(parse("0.0.0.0:80"), Err(AddressError::NotLoopback(_))));
        assert!(matches!(parse("[::]:80"), Err(AddressError::NotLoopback(_))));
        assert!(matches!(parse("localhost:80"), Err(AddressError::NotAnAddress(_))));
        assert_eq!(parse(""), Err(AddressError::Empty));
    }
}
