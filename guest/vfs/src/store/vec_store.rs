//! A page store without a memory manager: pages in a map, for tests on the host.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::ops::Bound;

use spin::Mutex;

use super::{MAX_FILE_SIZE, ObjectId, PAGE_BYTES, PAGE_SIZE, PageStore};
use crate::buffer::{Sink, Source, moved_or_fault};
use crate::errno::{Errno, Result};

const PAGE: usize = PAGE_BYTES;

type Page = Box<[u8; PAGE]>;

#[derive(Default)]
struct Object {
    size: u64,
    pages: BTreeMap<u64, Page>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    objects: BTreeMap<ObjectId, Object>,
}

/// Pages on the heap, up to a limit.
pub struct VecStore {
    state: Mutex<State>,
    page_limit: u64,
}

impl VecStore {
    /// A store that refuses with `ENOSPC` to hold more than `page_limit` pages.
    #[must_use]
    pub fn with_limit(page_limit: u64) -> Self {
        Self { state: Mutex::default(), page_limit }
    }

    /// How many objects there are: a leak shows here.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.state.lock().objects.len()
    }

    fn with<T>(&self, object: ObjectId, act: impl FnOnce(&mut Object) -> Result<T>) -> Result<T> {
        act(self.state.lock().objects.get_mut(&object).ok_or(Errno::EIO)?)
    }
}

impl Default for VecStore {
    fn default() -> Self {
        Self::with_limit(u64::MAX)
    }
}

/// Page index, offset within the page and length there of the piece of
/// `length` bytes that starts at `offset`.
fn piece(offset: u64, length: usize) -> (u64, usize, usize) {
    let within = usize::try_from(offset % PAGE_SIZE).unwrap_or(0);
    (offset / PAGE_SIZE, within, length.min(PAGE - within))
}

impl Object {
    fn clear(&mut self, offset: u64, length: usize) {
        let (index, within, length) = piece(offset, length);
        if let Some(page) = self.pages.get_mut(&index) {
            page[within..within + length].fill(0);
        }
    }
}

impl PageStore for VecStore {
    fn create(&self) -> Result<ObjectId> {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = ObjectId(state.last_id);
        state.objects.insert(id, Object::default());
        Ok(id)
    }

    fn destroy(&self, object: ObjectId) {
        self.state.lock().objects.remove(&object);
    }

    fn size(&self, object: ObjectId) -> u64 {
        self.with(object, |object| Ok(object.size)).unwrap_or(0)
    }

    fn set_size(&self, object: ObjectId, size: u64) -> Result<()> {
        self.with(object, |object| {
            if size < object.size {
                object.pages.split_off(&size.div_ceil(PAGE_SIZE));
                if !size.is_multiple_of(PAGE_SIZE) {
                    object.clear(size, PAGE);
                }
            }
            object.size = size;
            Ok(())
        })
    }

    fn read_at(&self, object: ObjectId, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        self.with(object, |object| {
            let left = usize::try_from(object.size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let wanted = sink.remaining().min(left);
            let mut done = 0;
            while done < wanted {
                let (index, within, length) = piece(offset + done as u64, wanted - done);
                let moved = match object.pages.get(&index) {
                    Some(page) => sink.put(&page[within..within + length]),
                    None => sink.put_zeros(length),
                };
                done += moved;
                if moved < length {
                    break;
                }
            }
            moved_or_fault(done, wanted)
        })
    }

    fn write_at(&self, object: ObjectId, offset: u64, source: &mut dyn Source) -> Result<usize> {
        let limit = self.page_limit;
        self.with(object, |object| {
            let room = usize::try_from(MAX_FILE_SIZE.saturating_sub(offset)).unwrap_or(usize::MAX);
            let wanted = source.remaining().min(room);
            let mut done = 0;
            while done < wanted {
                let (index, within, length) = piece(offset + done as u64, wanted - done);
                let full = object.pages.len() as u64 >= limit;
                let fresh = !object.pages.contains_key(&index);
                if fresh && full {
                    return if done > 0 { Ok(done) } else { Err(Errno::ENOSPC) };
                }
                let page = object.pages.entry(index).or_insert_with(|| Box::new([0; PAGE]));
                let moved = source.take(&mut page[within..within + length]);
                if fresh && moved == 0 {
                    object.pages.remove(&index);
                }
                done += moved;
                object.size = object.size.max(offset + done as u64);
                if moved < length {
                    break;
                }
            }
            moved_or_fault(done, wanted)
        })
    }

    fn allocate(&self, object: ObjectId, offset: u64, length: u64) -> Result<()> {
        let limit = self.page_limit;
        self.with(object, |object| {
            for index in offset / PAGE_SIZE..(offset + length).div_ceil(PAGE_SIZE) {
                if object.pages.len() as u64 >= limit {
                    return Err(Errno::ENOSPC);
                }
                object.pages.entry(index).or_insert_with(|| Box::new([0; PAGE]));
            }
            Ok(())
        })
    }

    fn punch_hole(&self, object: ObjectId, offset: u64, length: u64) -> Result<()> {
        self.with(object, |object| {
            let end = offset.saturating_add(length);
            let (first, last) = (offset.div_ceil(PAGE_SIZE), end / PAGE_SIZE);
            if first <= last {
                object.pages.retain(|index, _| !(first..last).contains(index));
            }
            let head = end.min(first * PAGE_SIZE) - offset;
            if head > 0 {
                object.clear(offset, usize::try_from(head).unwrap_or(0));
            }
            if last >= first && !end.is_multiple_of(PAGE_SIZE) {
                object.clear(last * PAGE_SIZE, usize::try_from(end % PAGE_SIZE).unwrap_or(0));
            }
            Ok(())
        })
    }

    fn resident_pages(&self, object: ObjectId) -> u64 {
        self.with(object, |object| Ok(object.pages.len() as u64)).unwrap_or(0)
    }

    fn total_pages(&self) -> u64 {
        self.state.lock().objects.values().map(|object| object.pages.len() as u64).sum()
    }

    fn next_resident(&self, object: ObjectId, page: u64) -> Option<u64> {
        let state = self.state.lock();
        state.objects.get(&object)?.pages.range(page..).next().map(|(index, _)| *index)
    }

    fn next_hole(&self, object: ObjectId, page: u64) -> u64 {
        let state = self.state.lock();
        let Some(object) = state.objects.get(&object) else { return page };
        let from = (Bound::Included(page), Bound::Unbounded);
        let resident = object.pages.range(from).zip(page..);
        page + resident.take_while(|((index, _), expected)| *index == expected).count() as u64
    }
}
