//! What memory is, said as simply as possible: a map from pages to what they
//! hold and how they are mapped. No areas, no tables, no frames.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use pagelab_abi::fault::FaultKind;
use pagelab_mm::{Access, FaultError, Protection};

/// Pages of shared memory: what each holds, `None` if it is not there yet.
pub type Shared = Rc<RefCell<Vec<Option<u8>>>>;

/// What a private page holds.
#[derive(Clone, Debug)]
pub enum Private {
    Untouched,
    Zero,
    /// A frame with its byte. As many own it as there are clones of the `Rc`.
    Frame {
        frame: Rc<RefCell<u8>>,
        writable: bool,
        copied_on_write: bool,
        dirty: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Content {
    Private(Private),
    Shared { object: Shared, index: usize, mapped: bool },
}

/// One page.
#[derive(Clone, Debug)]
pub struct PageModel {
    pub protection: Protection,
    pub content: Content,
    pub locked: bool,
    pub dont_fork: bool,
    pub wipe_on_fork: bool,
}

/// One address space, by page number.
#[derive(Clone, Default)]
pub struct SpaceModel {
    pub pages: BTreeMap<u64, PageModel>,
}

/// A range of pages.
pub type Pages = std::ops::Range<u64>;

/// How a call over a range ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    NotMapped,
    Invalid,
}

impl PageModel {
    pub fn is_resident(&self) -> bool {
        match &self.content {
            Content::Private(private) => !matches!(private, Private::Untouched),
            Content::Shared { object, index, .. } => {
                object.borrow().get(*index).copied().flatten().is_some()
            }
        }
    }

    pub fn is_private(&self) -> bool {
        matches!(self.content, Content::Private(_))
    }

    /// What a program would read.
    pub fn byte(&self) -> u8 {
        match &self.content {
            Content::Private(Private::Frame { frame, .. }) => *frame.borrow(),
            Content::Private(_) => 0,
            Content::Shared { object, index, .. } => {
                object.borrow().get(*index).copied().flatten().unwrap_or(0)
            }
        }
    }

    /// An access, and the fault it takes.
    pub fn touch(&mut self, access: Access) -> Result<Option<FaultKind>, FaultError> {
        let allowed = if access.write {
            self.protection.contains(Protection::WRITE)
        } else {
            !self.protection.is_empty()
        };
        if !allowed {
            return Err(FaultError::Forbidden);
        }
        match &mut self.content {
            Content::Private(private) => Ok(touch_private(private, access.write)),
            Content::Shared { object, index, mapped } => {
                if *mapped {
                    return Ok(None);
                }
                let mut object = object.borrow_mut();
                let page = object.get_mut(*index).ok_or(FaultError::NoBacking)?;
                *mapped = true;
                let kind =
                    if page.is_some() { FaultKind::FileMinor } else { FaultKind::DemandZero };
                page.get_or_insert(0);
                Ok(Some(kind))
            }
        }
    }

    pub fn store(&mut self, byte: u8) {
        match &mut self.content {
            Content::Private(Private::Frame { frame, dirty, .. }) => {
                *frame.borrow_mut() = byte;
                *dirty = true;
            }
            Content::Private(_) => panic!("a write left no frame"),
            Content::Shared { object, index, .. } => object.borrow_mut()[*index] = Some(byte),
        }
    }

    fn protect(&mut self, protection: Protection) {
        if protection == self.protection {
            return;
        }
        self.protection = protection;
        let writes = protection.contains(Protection::WRITE);
        if let Content::Private(Private::Frame { writable, copied_on_write, dirty, .. }) =
            &mut self.content
        {
            *writable = writes && (*writable || (*dirty && !*copied_on_write));
        }
    }

    pub fn drop_content(&mut self) {
        match &mut self.content {
            Content::Private(private) => *private = Private::Untouched,
            Content::Shared { mapped, .. } => *mapped = false,
        }
    }

    /// What a child gets. `zero_too`: entries of the zero page are copied.
    fn fork(&mut self, zero_too: bool) -> Self {
        let mut child = self.clone();
        child.locked = false;
        match (&mut self.content, &mut child.content) {
            (Content::Private(_), Content::Private(theirs)) if self.wipe_on_fork => {
                *theirs = Private::Untouched;
            }
            (Content::Private(ours), Content::Private(theirs)) => {
                if matches!(theirs, Private::Zero) && !zero_too {
                    *theirs = Private::Untouched;
                }
                for side in [ours, theirs] {
                    if let Private::Frame { writable, copied_on_write, .. } = side {
                        *writable = false;
                        *copied_on_write = true;
                    }
                }
            }
            (_, Content::Shared { mapped, .. }) => *mapped = false,
            _ => {}
        }
        child
    }
}

fn touch_private(private: &mut Private, write: bool) -> Option<FaultKind> {
    let new = |byte| Private::Frame {
        frame: Rc::new(RefCell::new(byte)),
        writable: true,
        copied_on_write: false,
        dirty: true,
    };
    match private {
        Private::Untouched if write => {
            *private = new(0);
            Some(FaultKind::DemandZero)
        }
        Private::Untouched => {
            *private = Private::Zero;
            Some(FaultKind::ZeroPageRead)
        }
        Private::Zero if write => {
            *private = new(0);
            Some(FaultKind::ZeroPageUpgrade)
        }
        Private::Frame { writable: true, dirty, .. } if write => {
            *dirty = true;
            None
        }
        Private::Frame { frame, writable, copied_on_write, dirty } if write => {
            if Rc::strong_count(frame) == 1 {
                (*writable, *copied_on_write, *dirty) = (true, false, true);
                return Some(FaultKind::CowReuse);
            }
            let byte = *frame.borrow();
            *private = new(byte);
            Some(FaultKind::CowCopy)
        }
        Private::Zero | Private::Frame { .. } => None,
    }
}

impl SpaceModel {
    pub fn map(&mut self, pages: Pages, protection: Protection, shared: bool) {
        let length = (pages.end - pages.start) as usize;
        let object: Shared = Rc::new(RefCell::new(vec![None; length]));
        for (index, page) in pages.enumerate() {
            let content = if shared {
                Content::Shared { object: object.clone(), index, mapped: false }
            } else {
                Content::Private(Private::Untouched)
            };
            let model = PageModel {
                protection,
                content,
                locked: false,
                dont_fork: false,
                wipe_on_fork: false,
            };
            self.pages.insert(page, model);
        }
    }

    pub fn unmap(&mut self, pages: Pages) {
        self.pages.retain(|page, _| !pages.contains(page));
    }

    pub fn is_free(&self, pages: Pages) -> bool {
        self.pages.range(pages).next().is_none()
    }

    /// Where a mapping without a place goes.
    pub fn highest_gap(&self, length: u64, low: u64, high: u64) -> Option<u64> {
        (low..=high.checked_sub(length)?).rev().find(|&at| self.is_free(at..at + length))
    }

    /// Up to the first hole.
    pub fn protect(&mut self, pages: Pages, protection: Protection) -> Result<(), Stop> {
        for page in pages {
            self.pages.get_mut(&page).ok_or(Stop::NotMapped)?.protect(protection);
        }
        Ok(())
    }

    /// Calls `advise` for each page, passing over holes, until it refuses.
    pub fn advise(
        &mut self,
        pages: Pages,
        mut advise: impl FnMut(&mut PageModel) -> bool,
    ) -> Result<(), Stop> {
        let mut result = Ok(());
        for page in pages {
            match self.pages.get_mut(&page) {
                None => result = Err(Stop::NotMapped),
                Some(page) => {
                    if !advise(page) {
                        return Err(Stop::Invalid);
                    }
                }
            }
        }
        result
    }

    pub fn lock(&mut self, pages: Pages, locked: bool) -> Result<(), Stop> {
        for page in pages {
            self.pages.get_mut(&page).ok_or(Stop::NotMapped)?.locked = locked;
        }
        Ok(())
    }

    /// Moves pages, and the gaps between them by doing nothing there; what is left
    /// behind is empty or nothing.
    pub fn relocate(&mut self, from: Pages, to: u64, keep: bool) {
        let moved: Vec<_> =
            from.clone().filter_map(|page| Some((page, self.pages.get(&page)?.clone()))).collect();
        for (page, model) in moved {
            self.pages.insert(to + (page - from.start), model);
            if let Some(source) = self.pages.get_mut(&page) {
                source.drop_content();
            }
        }
        if !keep {
            self.unmap(from);
        }
    }

    /// `extra` more pages like the last one, behind it.
    pub fn extend(&mut self, last: u64, extra: u64) {
        let Some(model) = self.pages.get(&last).cloned() else { return };
        for n in 1..=extra {
            let mut more = model.clone();
            more.drop_content();
            if let Content::Shared { index, .. } = &mut more.content {
                *index += n as usize;
            }
            self.pages.insert(last + n, more);
        }
    }

    /// `zero_too` says of which pages entries of the zero page are copied.
    pub fn fork(&mut self, zero_too: impl Fn(u64) -> bool) -> Self {
        let pages = self
            .pages
            .iter_mut()
            .filter(|(_, model)| !model.dont_fork)
            .map(|(&page, model)| (page, model.fork(zero_too(page))))
            .collect();
        Self { pages }
    }
}
