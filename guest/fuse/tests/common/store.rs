//! A page store whose objects can have something behind them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pagelab_abi::addr::Frame;
use pagelab_vfs::store::{PageBacking, PageStore};
use pagelab_vfs::{Errno, ObjectId, Result, Sink, Source};

use super::{Memory, PAGE};

struct Object {
    size: u64,
    backing: Option<Arc<dyn PageBacking>>,
    /// Pages, and whether they were changed.
    pages: BTreeMap<u64, (Frame, bool)>,
}

/// Objects by number.
pub struct Store {
    memory: Arc<Memory>,
    objects: Mutex<(u64, BTreeMap<u64, Object>)>,
}

impl Store {
    pub fn new(memory: &Arc<Memory>) -> Self {
        Self { memory: memory.clone(), objects: Mutex::default() }
    }

    fn add(&self, backing: Option<Arc<dyn PageBacking>>, size: u64) -> ObjectId {
        let mut objects = self.objects.lock().unwrap();
        objects.0 += 1;
        let number = objects.0;
        objects.1.insert(number, Object { size, backing, pages: BTreeMap::new() });
        ObjectId(number)
    }

    fn with<R>(&self, object: ObjectId, act: impl FnOnce(&mut Object) -> R) -> R {
        act(self.objects.lock().unwrap().1.get_mut(&object.0).expect("an object that exists"))
    }

    /// The frame of a page, read from what is behind it.
    fn page(&self, object: &mut Object, index: u64) -> Result<Frame> {
        if let Some((frame, _)) = object.pages.get(&index) {
            return Ok(*frame);
        }
        let frame = self.memory.alloc();
        let read = match &object.backing {
            Some(backing) => backing.read_pages(index, &[frame])?,
            None => 0,
        };
        self.memory.write(frame, read, &vec![0; PAGE - read]);
        object.pages.insert(index, (frame, false));
        Ok(frame)
    }
}

impl PageStore for Store {
    fn create(&self) -> Result<ObjectId> {
        Ok(self.add(None, 0))
    }

    fn create_backed(&self, backing: Arc<dyn PageBacking>, size: u64) -> Result<ObjectId> {
        Ok(self.add(Some(backing), size))
    }

    fn refresh(&self, object: ObjectId, size: u64) -> Result<()> {
        self.with(object, |object| {
            object.pages.retain(|_, (frame, dirty)| {
                if !*dirty {
                    self.memory.free(*frame);
                }
                *dirty
            });
            if object.pages.is_empty() {
                object.size = size;
            }
        });
        Ok(())
    }

    fn sync(&self, object: ObjectId, data_only: bool) -> Result<()> {
        self.with(object, |object| {
            let Some(backing) = &object.backing else { return Ok(()) };
            for (index, (frame, dirty)) in &mut object.pages {
                if *dirty {
                    let bytes = (object.size - index * PAGE as u64).min(PAGE as u64);
                    backing.write_pages(*index, &[*frame], usize::try_from(bytes).unwrap())?;
                    *dirty = false;
                }
            }
            backing.sync(data_only)
        })
    }

    fn destroy(&self, object: ObjectId) {
        let gone = self.objects.lock().unwrap().1.remove(&object.0).unwrap();
        for (frame, _) in gone.pages.values() {
            self.memory.free(*frame);
        }
    }

    fn size(&self, object: ObjectId) -> u64 {
        self.with(object, |object| object.size)
    }

    fn set_size(&self, object: ObjectId, size: u64) -> Result<()> {
        self.with(object, |object| {
            object.size = size;
            let gone = object.pages.split_off(&size.div_ceil(PAGE as u64));
            for (frame, _) in gone.values() {
                self.memory.free(*frame);
            }
            match &object.backing {
                Some(backing) => backing.set_size(size),
                None => Ok(()),
            }
        })
    }

    fn read_at(&self, object: ObjectId, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        self.with(object, |object| {
            let mut done = 0;
            while sink.remaining() > 0 && offset + (done as u64) < object.size {
                let at = offset + done as u64;
                let within = usize::try_from(at % PAGE as u64).unwrap();
                let left = usize::try_from(object.size - at).unwrap();
                let count = (PAGE - within).min(left).min(sink.remaining());
                let frame = self.page(object, at / PAGE as u64)?;
                sink.put(&self.memory.read(frame, within..within + count));
                done += count;
            }
            Ok(done)
        })
    }

    fn write_at(&self, object: ObjectId, offset: u64, source: &mut dyn Source) -> Result<usize> {
        self.with(object, |object| {
            let mut done = 0;
            while source.remaining() > 0 {
                let at = offset + done as u64;
                let within = usize::try_from(at % PAGE as u64).unwrap();
                let mut bytes = vec![0; (PAGE - within).min(source.remaining())];
                source.take(&mut bytes);
                let frame = self.page(object, at / PAGE as u64)?;
                self.memory.write(frame, within, &bytes);
                object.pages.insert(at / PAGE as u64, (frame, true));
                done += bytes.len();
                object.size = object.size.max(at + bytes.len() as u64);
            }
            Ok(done)
        })
    }

    fn allocate(&self, _object: ObjectId, _offset: u64, _length: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn punch_hole(&self, _object: ObjectId, _offset: u64, _length: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn resident_pages(&self, object: ObjectId) -> u64 {
        self.with(object, |object| object.pages.len() as u64)
    }

    fn total_pages(&self) -> u64 {
        self.memory.used() as u64
    }

    fn next_resident(&self, object: ObjectId, page: u64) -> Option<u64> {
        self.with(object, |object| object.pages.range(page..).next().map(|(page, _)| *page))
    }

    fn next_hole(&self, _object: ObjectId, page: u64) -> u64 {
        page
    }
}
