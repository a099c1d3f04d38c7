//! Listening: Unix sockets that only their owner can reach, and loopback ports
//! with a token.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::address::DebugAddress;

/// Why nothing listens there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another lab does.
    #[error("somebody else listens at {}", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("{} is there already and is no socket", .0.display())]
    NotASocket(PathBuf),
    /// The host refused.
    #[error("cannot listen at {address}: {source}")]
    Refused {
        /// Where.
        address: String,
        /// What the host said.
        source: io::Error,
    },
}

/// A socket that clients connect to. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    token: Option<String>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener, SocketFile),
    Loopback(TcpListener),
}

/// The file of a socket, known by its numbers: another one that has taken its
/// place is not removed.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some()
            && identity(&self.path) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

impl Listener {
    /// Listens at `address`. A socket that a lab left behind is replaced.
    ///
    /// # Errors
    ///
    /// If that is not possible.
    pub fn new(address: &DebugAddress) -> Result<Self, ListenError> {
        let refused =
            |source: io::Error| ListenError::Refused { address: address.to_string(), source };
        match address {
            DebugAddress::Unix(path) => {
                make_room(path)?;
                let listener = bind_private(path).map_err(refused)?;
                let file = SocketFile { path: path.clone(), identity: identity(path) };
                Ok(Self { socket: Socket::Unix(listener, file), token: None })
            }
            DebugAddress::Loopback(address) => {
                let listener = TcpListener::bind(address).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                let token = Some(new_token().map_err(refused)?);
                Ok(Self { socket: Socket::Loopback(listener), token })
            }
        }
    }

    /// What clients must say first, if they must.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Where it really is: a port of 0 has become another.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.socket {
            Socket::Unix(_, file) => file.path.display().to_string(),
            Socket::Loopback(listener) => listener
                .local_addr()
                .map_or_else(|error| error.to_string(), |address| address.to_string()),
        }
    }

    /// The next client; the error is `WouldBlock` if there is none.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn accept(&self) -> io::Result<Stream> {
        let stream = match &self.socket {
            Socket::Unix(listener, _) => Stream::Unix(listener.accept()?.0),
            Socket::Loopback(listener) => {
                let stream = listener.accept()?.0;
                // Answers are written whole: waiting for more only costs time.
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
        };
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(listener, _) => listener.as_fd(),
            Socket::Loopback(listener) => listener.as_fd(),
        }
    }
}

/// Removes a socket at which nobody listens.
fn make_room(path: &Path) -> Result<(), ListenError> {
    let Ok(data) = fs::symlink_metadata(path) else { return Ok(()) };
    if !data.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| ListenError::Refused { address: path.display().to_string(), source }),
        _ => Err(ListenError::InUse(path.to_owned())),
    }
}

/// A socket with mode 0600 from its first moment on.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file that bind makes gets the mode of the socket itself.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// 128 random bits.
fn new_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Of a Unix socket.
    Unix(UnixStream),
    /// Of a loopback port.
    Tcp(TcpStream),
}

impl Stream {
    /// Connects to a lab.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn connect(address: &DebugAddress) -> io::Result<Self> {
        Ok(match address {
            DebugAddress::Unix(path) => Self::Unix(UnixStream::connect(path)?),
            DebugAddress::Loopback(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
        })
    }

    /// Whether reads and writes return at once.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn set_nonblocking(&self, set: bool) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(set),
            Self::Tcp(stream) => stream.set_nonblocking(set),
        }
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}
