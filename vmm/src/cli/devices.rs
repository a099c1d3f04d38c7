//! The options for folders of the host and for swap, and what they come to.

use clap::Args;

use super::Failure;
use crate::machine::VirtioConfig;
use crate::memory::size::{Bytes, parse_bytes};
use crate::share::MAX_TRANSFER;
use crate::share::config::{ShareOption, Shares};
use crate::share::fault::Fault;
use crate::stop::STATUS_LAB_FAILED;

/// Most swap space: what any host could have room for.
const MAX_SWAP: u64 = 1 << 40;
const PAGE: u64 = pagelab_abi::addr::PAGE_SIZE;
/// Most pages that are read or mapped together: what one request can move.
const MAX_PAGES: i64 = MAX_TRANSFER as i64 / 4096;

/// Options for folders and swap.
#[derive(Debug, Default, Args)]
pub(super) struct DeviceOptions {
    /// Give the guest a folder of this host, at GUESTDIR (/mnt/NAME otherwise, and / for /);
    /// with :ro it cannot change anything. May be repeated; / as GUESTDIR makes it the guest's
    /// root
    #[arg(long = "share", value_name = "DIR[:GUESTDIR][:ro]")]
    shares: Vec<ShareOption>,
    /// Test aid: let requests about a file fail, such as write:data.bin:EIO, or
    /// write:*:ENOSPC:10 after ten that go well
    #[arg(long = "share-fault", value_name = "OPERATION:NAME:ERRNO[:AFTER]", hide = true)]
    share_faults: Vec<Fault>,
    /// Swap space for the guest, in a file without a name in $TMPDIR
    #[arg(long, value_name = "SIZE", value_parser = parse_swap, allow_negative_numbers = true)]
    swap: Option<u64>,
    /// Read so many pages of a shared file at once when one is missing (1: only that one)
    #[arg(long, value_name = "PAGES", value_parser = clap::value_parser!(u32).range(1..=MAX_PAGES))]
    readahead: Option<u32>,
    /// At a fault on a shared file, map so many neighbours that are in memory already (1: none)
    #[arg(long, value_name = "PAGES", value_parser = clap::value_parser!(u32).range(1..=MAX_PAGES))]
    fault_around: Option<u32>,
}

impl DeviceOptions {
    /// The devices that are wanted, checked against the host.
    pub(super) fn devices(&self) -> Result<VirtioConfig, Failure> {
        let others = usize::from(self.swap.is_some());
        let shares = Shares::new(&self.shares, others)
            .map_err(|error| Failure::new(STATUS_LAB_FAILED, format_args!("--share: {error}")))?;
        Ok(VirtioConfig { shares, faults: self.share_faults.clone(), swap: self.swap })
    }

    /// The kernel's command line: what the user says, then what options say.
    pub(super) fn command_line(&self, words: &str) -> String {
        let mut line = words.to_owned();
        for (name, pages) in [("readahead", self.readahead), ("fault_around", self.fault_around)] {
            if let Some(pages) = pages {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(&format!("{name}={pages}"));
            }
        }
        line
    }
}

fn parse_swap(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    if bytes == 0 || !bytes.is_multiple_of(PAGE) {
        return Err(format!("{bytes} bytes are not whole pages: make it a multiple of {PAGE}"));
    }
    if bytes > MAX_SWAP {
        return Err(format!("{} is too much: the most is {}", Bytes(bytes), Bytes(MAX_SWAP)));
    }
    Ok(bytes)
}
