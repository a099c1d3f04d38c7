//! A request taken apart, and the shape of answers.

use std::ffi::CStr;

use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::abi::InHeader;
use super::confine::Component;
use crate::memory::scatter::Scatter;

/// Longest body that is copied: as many nodes to forget as fit, or two names.
/// The content of a WRITE is not part of it.
const MAX_BODY: usize = 64 << 10;

/// What a request says behind its header.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    position: usize,
}

/// What an operation answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nothing at all, as the protocol has it for this operation.
    Silence,
    /// These bytes behind the header.
    Bytes(Vec<u8>),
    /// So many bytes, which are behind the header already.
    InPlace(usize),
}

impl Answer {
    /// Success without more to say.
    pub(super) const fn done() -> Self {
        Self::Bytes(Vec::new())
    }

    /// A structure.
    pub(super) fn structure(value: &(impl IntoBytes + zerocopy::Immutable)) -> Self {
        Self::Bytes(value.as_bytes().to_vec())
    }
}

/// Takes the header off a request and limits the rest to the length it says.
///
/// # Errors
///
/// EINVAL, and what of the header there is.
pub(super) fn take_header(request: &mut Scatter<'_>) -> Result<InHeader, (InHeader, Errno)> {
    let mut bytes = [0; size_of::<InHeader>()];
    let count = request.take_front(bytes.len()).copy_to(&mut bytes);
    let header = InHeader::read_from_bytes(&bytes).unwrap_or_default();
    if count < bytes.len() {
        return Err((InHeader::default(), Errno::INVAL));
    }
    let length = usize::try_from(header.len).ok().and_then(|len| len.checked_sub(bytes.len()));
    match length {
        Some(length) if length <= request.len() => {
            *request = request.take_front(length);
            Ok(header)
        }
        _ => Err((header, Errno::INVAL)),
    }
}

impl Body {
    /// Copies the body, at most `limit` bytes of it.
    pub(super) fn take(request: &mut Scatter<'_>, limit: usize) -> Self {
        let mut bytes = vec![0; request.len().min(limit)];
        let count = request.take_front(bytes.len()).copy_to(&mut bytes);
        bytes.truncate(count);
        Self { bytes, position: 0 }
    }

    /// Copies all of the body.
    ///
    /// # Errors
    ///
    /// EINVAL if it is longer than any can be.
    pub(super) fn take_all(request: &mut Scatter<'_>) -> Result<Self, Errno> {
        if request.len() > MAX_BODY {
            return Err(Errno::INVAL);
        }
        Ok(Self::take(request, MAX_BODY))
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// The next structure.
    ///
    /// # Errors
    ///
    /// EINVAL if there are too few bytes.
    pub(super) fn structure<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, _) = T::read_from_prefix(self.rest()).map_err(|_| Errno::INVAL)?;
        self.position += size_of::<T>();
        Ok(value)
    }

    /// Where the next string is; it is passed over.
    ///
    /// # Errors
    ///
    /// EINVAL if it has no end.
    pub(super) fn string(&mut self) -> Result<std::ops::Range<usize>, Errno> {
        let length = CStr::from_bytes_until_nul(self.rest()).map_err(|_| Errno::INVAL)?;
        let start = self.position;
        self.position += length.to_bytes_with_nul().len();
        Ok(start..self.position)
    }

    /// The string that [`Self::string`] found.
    ///
    /// # Errors
    ///
    /// EINVAL if none was found there.
    pub(super) fn text(&self, place: std::ops::Range<usize>) -> Result<&CStr, Errno> {
        let bytes = self.bytes.get(place).ok_or(Errno::INVAL)?;
        CStr::from_bytes_with_nul(bytes).map_err(|_| Errno::INVAL)
    }

    /// The name that [`Self::string`] found.
    ///
    /// # Errors
    ///
    /// What a name must not be.
    pub(super) fn component(&self, place: std::ops::Range<usize>) -> Result<Component<'_>, Errno> {
        Component::new(self.text(place)?)
    }

    /// The next string as a name, where nothing follows it.
    ///
    /// # Errors
    ///
    /// What a name must not be.
    pub(super) fn last_name(&mut self) -> Result<Component<'_>, Errno> {
        let place = self.string()?;
        self.component(place)
    }
}

impl Body {
    /// The first name of a request that has one, for failures on purpose; the
    /// position does not change.
    pub(super) fn name_of(&self, operation: super::abi::Operation) -> Option<Vec<u8>> {
        use super::abi::{CreateIn, LinkIn, MkdirIn, MknodIn, Operation, Rename2In, RenameIn};
        let before = match operation {
            Operation::Lookup | Operation::Unlink | Operation::Rmdir | Operation::Symlink => 0,
            Operation::Mknod => size_of::<MknodIn>(),
            Operation::Mkdir => size_of::<MkdirIn>(),
            Operation::Create => size_of::<CreateIn>(),
            Operation::Link => size_of::<LinkIn>(),
            Operation::Rename => size_of::<RenameIn>(),
            Operation::Rename2 => size_of::<Rename2In>(),
            _ => return None,
        };
        let name = CStr::from_bytes_until_nul(self.rest().get(before..)?).ok()?;
        Some(name.to_bytes().to_vec())
    }
}
