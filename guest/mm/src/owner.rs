//! The word of a frame's metadata that says who maps it.
//!
//! ```text
//! anonymous   bits  0 to 35  number of the virtual page where it is mapped
//!             bits 36 to 63  slot of swap that holds the same, 0: none
//! of objects  bits  0 to 39  number of the page in the object
//!             bits 40 to 63  number of the object, 0: not known
//! ```
//!
//! For an anonymous frame the page is where to look first: fork keeps it, and
//! `mremap` sets it anew, so that only a frame that was shared by fork and then
//! moved on one side has mappers elsewhere (see [`crate::rmap`]).

use pagelab_abi::addr::{Frame, GuestVirt, PAGE_SHIFT};

use crate::frames::{Held, Use};
use crate::object::ObjectId;

const PAGE_BITS: u32 = 36;
const INDEX_BITS: u32 = 40;

/// How many slots of swap can be named.
pub const MAX_SLOTS: u64 = 1 << (64 - PAGE_BITS);

/// Who may map a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody knows.
    Unknown,
    /// Whoever has anonymous memory there.
    Anonymous {
        /// The page.
        page: GuestVirt,
        /// The slot of swap that holds the same.
        slot: Option<u64>,
    },
    /// Areas that map this page of an object.
    Page {
        /// The object.
        object: ObjectId,
        /// The page's number in it.
        index: u64,
    },
}

impl Owner {
    /// What the word of a frame says.
    #[must_use]
    pub fn decode(usage: Use, word: u64) -> Self {
        match usage {
            Use::Anonymous => {
                let page = GuestVirt((word & mask(PAGE_BITS)) << PAGE_SHIFT);
                let slot = word >> PAGE_BITS;
                Self::Anonymous { page, slot: (slot != 0).then_some(slot) }
            }
            Use::Cache => {
                let object = u32::try_from(word >> INDEX_BITS).ok().and_then(ObjectId::new);
                object.map_or(Self::Unknown, |object| Self::Page {
                    object,
                    index: word & mask(INDEX_BITS),
                })
            }
            _ => Self::Unknown,
        }
    }
}

/// The word of an anonymous frame that is mapped at `page`.
#[inline]
pub(crate) const fn anonymous(page: GuestVirt) -> u64 {
    page.0 >> PAGE_SHIFT
}

/// The word of a page of an object.
#[inline]
pub(crate) fn of_page(object: ObjectId, index: u64) -> u64 {
    let number = u64::from(object.number());
    if index >> INDEX_BITS != 0 || number >> (64 - INDEX_BITS) != 0 {
        return 0;
    }
    number << INDEX_BITS | index
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl Held<'_> {
    /// An anonymous frame is mapped at another page now.
    pub(crate) fn set_page(&mut self, frame: Frame, page: GuestVirt) {
        let slot = self.owner(frame) & !mask(PAGE_BITS);
        self.set_owner(frame, slot | anonymous(page));
    }

    /// The slot of swap that holds what an anonymous frame holds; 0: none.
    pub(crate) fn set_slot(&mut self, frame: Frame, slot: u64) {
        let page = self.owner(frame) & mask(PAGE_BITS);
        self.set_owner(frame, slot << PAGE_BITS | page);
    }

    /// How many entries map a frame of a program: its owners, but for its object
    /// or the swap cache.
    pub(crate) fn mappings(&self, frame: Frame) -> u32 {
        let owner = Owner::decode(self.use_of(frame), self.owner(frame));
        let alone = matches!(owner, Owner::Anonymous { slot: None, .. });
        self.count(frame) - u32::from(!alone)
    }
}
