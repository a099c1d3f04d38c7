//! KVM's own statistics of a virtual machine or vCPU (`KVM_GET_STATS_FD`).
//!
//! The kernel describes them itself: a header, descriptors with names and
//! units, and an array of 64-bit numbers. Which numbers there are differs from
//! host to host, so they are found by name and may be missing. The description
//! is read once; [`KvmStats::read`] afterwards is one `pread`.
//!
//! What the lab reads: `insn_emulation` (guest instructions that KVM carried
//! out itself), `pf_taken`, `pf_fixed`, `pf_guest` (page faults that reached
//! KVM, were its own to repair, or were handed on to the guest), `exits`.

#![allow(unsafe_code, reason = "no crate wraps KVM_GET_STATS_FD")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use thiserror::Error;
use vmm_sys_util::ioctl::ioctl;

/// `_IO(KVMIO, 0xce)`, the same request for a VM and for a vCPU.
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;
/// Size of the kernel's `struct kvm_stats_header`.
const HEADER_BYTES: usize = 24;
/// Size of the fixed part of the kernel's `struct kvm_stats_desc`.
const DESCRIPTOR_BYTES: usize = 16;
/// More than any kernel has; a description that claims more is not believed.
const MAX_FIELDS: usize = 4096;
/// Likewise for the length of a name.
const MAX_NAME_BYTES: usize = 1024;
/// Likewise for the numbers of one statistic.
const MAX_DATA_BYTES: usize = 1 << 20;

/// Why statistics cannot be had.
#[derive(Debug, Error)]
pub enum KvmStatsError {
    /// The kernel has none (before Linux 5.14), or refused.
    #[error("this kernel gives out no KVM statistics (KVM_GET_STATS_FD)")]
    Unavailable(#[source] io::Error),
    /// They could not be read.
    #[error("KVM's statistics cannot be read")]
    Read(#[source] io::Error),
    /// Their description contradicts itself.
    #[error("KVM's description of its statistics makes no sense: {0}")]
    Malformed(&'static str),
}

/// One statistic, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: String,
    /// Where its first number lies in the data.
    offset: usize,
    /// How many numbers it has: 1, more for histograms.
    numbers: usize,
}

/// The statistics of one VM or vCPU.
#[derive(Debug)]
pub struct KvmStats {
    file: File,
    data_offset: u64,
    data_bytes: usize,
    fields: Vec<Field>,
}

/// All statistics at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    values: Vec<(String, u64)>,
}

impl Snapshot {
    /// The value of a statistic, if this kernel has it. For a histogram, the
    /// sum of its buckets.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.values.iter().find(|(candidate, _)| candidate == name).map(|&(_, value)| value)
    }

    /// How much a statistic grew since `earlier`.
    #[must_use]
    pub fn growth(&self, earlier: &Self, name: &str) -> Option<u64> {
        Some(self.get(name)?.saturating_sub(earlier.get(name)?))
    }

    /// Nothing was counted, or nothing was given out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Names and values, in the kernel's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl<'a> FromIterator<(&'a str, u64)> for Snapshot {
    fn from_iter<T: IntoIterator<Item = (&'a str, u64)>>(values: T) -> Self {
        Self { values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }
}

impl KvmStats {
    /// Opens the statistics of `owner`, a `VmFd` or a `VcpuFd`.
    ///
    /// # Errors
    ///
    /// If the kernel has no statistics or describes them in a way that
    /// contradicts itself.
    pub fn open(owner: &impl AsRawFd) -> Result<Self, KvmStatsError> {
        // SAFETY: this request takes no argument and touches no memory of this
        // process, whatever kind of descriptor `owner` is.
        let descriptor = unsafe { ioctl(owner, KVM_GET_STATS_FD) };
        if descriptor < 0 {
            return Err(KvmStatsError::Unavailable(io::Error::last_os_error()));
        }
        // SAFETY: the kernel just made this descriptor for us; nobody else
        // knows or closes it.
        let file = unsafe { File::from_raw_fd(descriptor) };
        Self::describe(file)
    }

    fn describe(file: File) -> Result<Self, KvmStatsError> {
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0).map_err(KvmStatsError::Read)?;
        let header = Header::parse(&header)?;
        let mut descriptors = vec![0; header.descriptor_stride() * header.count];
        file.read_exact_at(&mut descriptors, header.descriptors).map_err(KvmStatsError::Read)?;
        let fields = parse_fields(&header, &descriptors)?;
        let data_bytes = fields.iter().map(Field::end).max().unwrap_or(0);
        Ok(Self { file, data_offset: header.data, data_bytes, fields })
    }

    /// Reads all statistics now.
    ///
    /// # Errors
    ///
    /// If the kernel gives out fewer numbers than it described.
    pub fn read(&self) -> Result<Snapshot, KvmStatsError> {
        let mut data = vec![0; self.data_bytes];
        self.file.read_exact_at(&mut data, self.data_offset).map_err(KvmStatsError::Read)?;
        let values = self.fields.iter().map(|field| (field.name.clone(), field.sum(&data)));
        Ok(Snapshot { values: values.collect() })
    }

    /// Reads one statistic now; `None` if this kernel does not have it or
    /// cannot give it.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<u64> {
        self.read().ok()?.get(name)
    }
}

impl Field {
    fn end(&self) -> usize {
        self.offset + self.numbers * size_of::<u64>()
    }

    fn sum(&self, data: &[u8]) -> u64 {
        let (numbers, _) = data[self.offset..self.end()].as_chunks::<8>();
        numbers.iter().fold(0, |sum, &number| sum.wrapping_add(u64::from_ne_bytes(number)))
    }
}

struct Header {
    name_bytes: usize,
    count: usize,
    descriptors: u64,
    data: u64,
}

impl Header {
    /// Fields of `struct kvm_stats_header`: flags, name_size, num_desc,
    /// id_offset, desc_offset, data_offset.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, KvmStatsError> {
        let (fields, _) = bytes.as_chunks::<4>();
        let field = |index: usize| u32::from_ne_bytes(fields[index]);
        let header = Self {
            name_bytes: field(1) as usize,
            count: field(2) as usize,
            descriptors: field(4).into(),
            data: field(5).into(),
        };
        if header.name_bytes == 0 || header.name_bytes > MAX_NAME_BYTES {
            return Err(KvmStatsError::Malformed("names of impossible length"));
        }
        if header.count > MAX_FIELDS {
            return Err(KvmStatsError::Malformed("an impossible number of them"));
        }
        Ok(header)
    }

    fn descriptor_stride(&self) -> usize {
        DESCRIPTOR_BYTES + self.name_bytes
    }
}

/// Fields of `struct kvm_stats_desc`: flags (u32), exponent (i16), size (u16),
/// offset (u32), bucket_size (u32), name.
fn parse_fields(header: &Header, descriptors: &[u8]) -> Result<Vec<Field>, KvmStatsError> {
    let mut fields = Vec::with_capacity(header.count);
    for descriptor in descriptors.chunks_exact(header.descriptor_stride()) {
        let (fixed, name) = descriptor.split_at(DESCRIPTOR_BYTES);
        let numbers = usize::from(u16::from_ne_bytes([fixed[6], fixed[7]]));
        let offset = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) as usize;
        let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        let name = str::from_utf8(&name[..end])
            .map_err(|_| KvmStatsError::Malformed("a name that is not text"))?;
        let field = Field { name: name.to_owned(), offset, numbers };
        if field.end() > MAX_DATA_BYTES {
            return Err(KvmStatsError::Malformed("numbers far outside the data"));
        }
        fields.push(field);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A statistics file as the kernel lays it out: `fields` are name, offset
    /// and count of numbers.
    fn file(name_bytes: u32, fields: &[(&str, u32, u16)], data: &[u64]) -> File {
        let count = u32::try_from(fields.len()).unwrap();
        let data_offset = 24 + count * (16 + name_bytes);
        let mut bytes = Vec::new();
        for field in [0, name_bytes, count, 0, 24, data_offset] {
            bytes.extend(field.to_ne_bytes());
        }
        for &(name, offset, numbers) in fields {
            bytes.extend([0; 6]);
            bytes.extend(numbers.to_ne_bytes());
            bytes.extend(offset.to_ne_bytes());
            bytes.extend([0; 4]);
            let mut padded = name.as_bytes().to_vec();
            padded.resize(name_bytes as usize, 0);
            bytes.extend(padded);
        }
        bytes.extend(data.iter().flat_map(|number| number.to_ne_bytes()));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    #[test]
    fn numbers_are_found_by_name() {
        let fields = [("exits", 8, 1), ("pf_taken", 0, 1), ("histogram", 16, 3)];
        let stats = KvmStats::describe(file(48, &fields, &[7, 42, 1, 2, 3])).unwrap();
        let snapshot = stats.read().unwrap();
        assert_eq!(snapshot.get("exits"), Some(42));
        assert_eq!(snapshot.get("pf_taken"), Some(7));
        assert_eq!(snapshot.get("histogram"), Some(6));
        assert_eq!(snapshot.get("nothing"), None);
        let names: Vec<_> = snapshot.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["exits", "pf_taken", "histogram"]);
        assert_eq!(stats.value("exits"), Some(42));
    }

    #[test]
    fn growth_needs_both_moments() {
        let snapshot = |value| Snapshot { values: vec![("exits".to_owned(), value)] };
        assert_eq!(snapshot(9).growth(&snapshot(4), "exits"), Some(5));
        assert_eq!(snapshot(4).growth(&snapshot(9), "exits"), Some(0));
        assert_eq!(snapshot(9).growth(&Snapshot::default(), "exits"), None);
    }

    #[test]
    fn descriptions_that_lie_are_refused() {
        let error = |file| KvmStats::describe(file).unwrap_err();
        let offset = u32::MAX - 7;
        let far = error(file(16, &[("far", offset, 1)], &[]));
        assert!(matches!(far, KvmStatsError::Malformed(_)));
        assert!(matches!(error(file(0, &[], &[])), KvmStatsError::Malformed(_)));
        assert!(matches!(error(tempfile::tempfile().unwrap()), KvmStatsError::Read(_)));
        let truncated = KvmStats::describe(file(16, &[("late", 64, 1)], &[1])).unwrap();
        assert!(matches!(truncated.read(), Err(KvmStatsError::Read(_))));
    }

    #[test]
    fn a_file_that_is_no_vm_has_none() {
        let error = KvmStats::open(&tempfile::tempfile().unwrap()).unwrap_err();
        assert!(matches!(error, KvmStatsError::Unavailable(_)));
    }
}
