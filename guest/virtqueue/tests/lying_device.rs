//! Devices that do as they should, and devices that do not.

use std::cell::RefCell;
use std::rc::Rc;

use pagelab_virtqueue::{AVAILABLE, Piece, Queue, QueueError, QueueMemory, SIZE, USED};

/// A page that the device holds as well.
#[derive(Clone)]
struct Page(Rc<RefCell<Vec<u8>>>);

impl Page {
    fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![0; 4096])))
    }

    fn bytes<const N: usize>(&self, offset: u64) -> [u8; N] {
        let at = usize::try_from(offset).unwrap();
        self.0.borrow()[at..at + N].try_into().unwrap()
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        let at = usize::try_from(offset).unwrap();
        self.0.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// As a device uses the request that is available: says so in the entry of the
    /// used ring that is next.
    fn answer(&self, head: u32, written: u32) {
        let index = u16::from_le_bytes(self.bytes(USED + 2));
        let entry = USED + 4 + 8 * u64::from(index % SIZE);
        self.put(entry, &head.to_le_bytes());
        self.put(entry + 4, &written.to_le_bytes());
        self.put(USED + 2, &index.wrapping_add(1).to_le_bytes());
    }

    fn offered(&self) -> u16 {
        u16::from_le_bytes(self.bytes(AVAILABLE + 2))
    }

    /// The chain as a device walks it: address, length, whether it may write.
    fn chain(&self) -> Vec<(u64, u32, bool)> {
        let mut chain = Vec::new();
        let mut number = 0;
        loop {
            let at = 16 * u64::from(number);
            let flags = u16::from_le_bytes(self.bytes(at + 12));
            let address = u64::from_le_bytes(self.bytes(at));
            chain.push((address, u32::from_le_bytes(self.bytes(at + 8)), flags & 2 != 0));
            if flags & 1 == 0 {
                return chain;
            }
            number = u16::from_le_bytes(self.bytes(at + 14));
            assert!(number < SIZE && chain.len() < usize::from(SIZE), "a chain without an end");
        }
    }
}

impl QueueMemory for Page {
    fn read_u16(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.bytes(offset))
    }

    fn read_u32(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.bytes(offset))
    }

    fn write_u16(&mut self, offset: u64, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    fn write_u64(&mut self, offset: u64, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }
}

const ROOM: u32 = 100;
const QUESTION: Piece = Piece { address: 0x1000, length: 40, device_writes: false };
const ANSWER: Piece = Piece { address: 0x2000, length: ROOM, device_writes: true };

fn queue() -> (Queue<Page>, Page) {
    let page = Page::new();
    (Queue::new(page.clone()), page)
}

fn ask(queue: &mut Queue<Page>) {
    queue.begin().unwrap();
    queue.add(QUESTION).unwrap();
    queue.add(ANSWER).unwrap();
    queue.offer().unwrap();
}

#[test]
fn an_honest_device_is_believed_for_longer_than_its_indices_count() {
    let (mut queue, page) = queue();
    for round in 0..70_000_u32 {
        ask(&mut queue);
        assert!(!queue.has_used());
        assert_eq!(page.chain(), [(0x1000, 40, false), (0x2000, ROOM, true)]);
        page.answer(0, round % (ROOM + 1));
        assert!(queue.has_used());
        assert_eq!(queue.take_used(), Ok((round % (ROOM + 1)) as usize));
    }
}

#[test]
fn requests_have_at_least_one_piece_and_no_more_than_descriptors() {
    let (mut queue, page) = queue();
    queue.begin().unwrap();
    assert_eq!(queue.offer(), Err(QueueError::TooLong));
    for _ in 0..SIZE {
        queue.add(ANSWER).unwrap();
    }
    assert_eq!(queue.add(ANSWER), Err(QueueError::TooLong));
    queue.offer().unwrap();
    assert_eq!(page.chain().len(), usize::from(SIZE));
    let room = u32::from(SIZE) * ROOM;
    page.answer(0, room);
    assert_eq!(queue.take_used(), Ok(room as usize));
    // What a request that was given up had, the next one has not.
    queue.begin().unwrap();
    queue.add(ANSWER).unwrap();
    ask(&mut queue);
    assert_eq!(page.chain().len(), 2);
    page.answer(0, ROOM + 1);
    assert_eq!(queue.take_used(), Err(QueueError::Nonsense));
}

/// After a lie, nothing is offered and nothing believed.
fn is_broken(queue: &mut Queue<Page>, page: &Page) {
    let offered = page.offered();
    assert_eq!(queue.begin(), Err(QueueError::Nonsense));
    page.answer(0, 0);
    assert_eq!(queue.take_used(), Err(QueueError::Nonsense));
    assert_eq!(page.offered(), offered);
}

#[test]
fn a_device_that_lies_is_found_out_and_not_asked_again() {
    let lies: [(&str, fn(&Page)); 6] = [
        ("more bytes than there was room for", |page| page.answer(0, ROOM + 1)),
        ("all bytes that there are", |page| page.answer(0, u32::MAX)),
        ("a chain that nobody offered", |page| page.answer(1, 0)),
        ("a chain that there cannot be", |page| page.answer(u32::MAX, 0)),
        ("two answers to one question", |page| {
            page.answer(0, 0);
            page.answer(0, 0);
        }),
        ("an index from long ago", |page| page.put(USED + 2, &0x8000_u16.to_le_bytes())),
    ];
    for (what, lie) in lies {
        let (mut queue, page) = queue();
        ask(&mut queue);
        page.answer(0, 5);
        assert_eq!(queue.take_used(), Ok(5));
        ask(&mut queue);
        lie(&page);
        assert!(queue.has_used(), "{what}");
        assert_eq!(queue.take_used(), Err(QueueError::Nonsense), "{what}");
        is_broken(&mut queue, &page);
    }
}

#[test]
fn an_answer_before_the_question_is_none() {
    let (mut queue, page) = queue();
    page.answer(0, 5);
    assert!(queue.has_used());
    assert_eq!(queue.take_used(), Err(QueueError::Nonsense));
    is_broken(&mut queue, &page);
}

#[test]
fn what_a_device_writes_into_the_descriptors_is_not_believed() {
    let (mut queue, page) = queue();
    queue.begin().unwrap();
    queue.add(QUESTION).unwrap();
    queue.add(ANSWER).unwrap();
    // Longer pieces, and a chain that goes on.
    page.put(0, &[0xff; 0x800]);
    queue.offer().unwrap();
    page.answer(0, ROOM + 1);
    assert_eq!(queue.take_used(), Err(QueueError::Nonsense));
    let last: [u8; 8] = page.bytes(16 + 8);
    let expected = u64::from(ROOM) | 2 << 32 | 2 << 48;
    assert_eq!(u64::from_le_bytes(last), expected, "the end of the chain is the driver's");
}

/// Random bytes at random places, at any time: no panic, and only answers that
/// there can be.
#[test]
fn a_device_that_scribbles_is_survived() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let (mut believed, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let (mut queue, page) = queue();
        for _ in 0..8 {
            if queue.begin().is_err() {
                break;
            }
            for _ in 0..random(6) + 1 {
                let piece = if random(2) == 0 { QUESTION } else { ANSWER };
                queue.add(piece).unwrap();
                if random(8) == 0 {
                    page.put(random(4088), &random(u64::MAX).to_le_bytes());
                }
            }
            queue.offer().unwrap();
            let room: u32 = ROOM * 6;
            page.answer(0, u32::try_from(random(u64::from(2 * ROOM))).unwrap());
            if random(3) == 0 {
                page.put(USED + random(16), &random(u64::MAX).to_le_bytes());
            }
            match queue.take_used() {
                Ok(written) => {
                    assert!(written <= room as usize);
                    believed += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(believed > 1_000 && refused > 1_000, "{believed} believed, {refused} refused");
}
