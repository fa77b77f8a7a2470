//! A subscriber that is killed at every single step of its writing, including in the middle of a write.

use super::*;
use std::cell::RefCell;
use std::rc::Rc;

/// The contents of the disk, which survive the process.
#[derive(Clone, Debug, Default)]
struct Disk {
    state: Option<Vec<u8>>,
    output: Vec<u8>,
}

/// The files of a process that is killed after `left` units of work.
///
/// Every byte that is written costs one unit, and so does every atomic step (a rename, a cut). A write that
/// the remaining units do not cover is torn: only its first bytes reach the disk.
#[derive(Debug)]
struct KilledStorage {
    disk: Rc<RefCell<Disk>>,
    left: usize,
    spent: Rc<RefCell<usize>>,
}

impl KilledStorage {
    /// Takes up to `want` units; an error if fewer were left.
    fn pay(&mut self, want: usize) -> (usize, io::Result<()>) {
        let paid = want.min(self.left);
        self.left -= paid;
        *self.spent.borrow_mut() += paid;
        (paid, if paid == want { Ok(()) } else { Err(io::Error::other("killed")) })
    }
}

impl Storage for KilledStorage {
    fn read_state(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.disk.borrow().state.clone())
    }

    fn create_state(&mut self, contents: &[u8]) -> io::Result<()> {
        // The bytes go to the temporary file, which nothing reads; then the rename happens or does not.
        self.pay(contents.len()).1?;
        self.pay(1).1?;
        self.disk.borrow_mut().state = Some(contents.to_vec());
        Ok(())
    }

    fn write_state(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (paid, result) = self.pay(bytes.len());
        let mut disk = self.disk.borrow_mut();
        let state = disk.state.as_mut().expect("the state exists");
        state[at as usize..at as usize + paid].copy_from_slice(&bytes[..paid]);
        result
    }

    fn has_output(&self) -> bool {
        true
    }

    fn output_len(&mut self) -> io::Result<u64> {
        Ok(self.disk.borrow().output.len() as u64)
    }

    fn read_output(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.copy_from_slice(&self.disk.borrow().output[at as usize..at as usize + bytes.len()]);
        Ok(())
    }

    fn cut_output(&mut self, len: u64) -> io::Result<()> {
        self.pay(1).1?;
        self.disk.borrow_mut().output.truncate(len as usize);
        Ok(())
    }

    fn append_output(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let (paid, result) = self.pay(bytes.len());
        let output = &mut self.disk.borrow_mut().output;
        assert_eq!(output.len() as u64, at, "the output is only ever appended to");
        output.extend_from_slice(&bytes[..paid]);
        result
    }

    fn sync_output(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync_state(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const RECORDS: u64 = 7;

fn record(offset: u64) -> String {
    // Long enough that the checksum of the tail covers only a part of it.
    format!("record {offset} {}\n", "x".repeat(11 * offset as usize))
}

/// One run of a subscriber, in chunks of `chunk` records, that is killed after `left` units of work.
/// Returns whether it reached the end, and how many units it used.
fn run(disk: &Rc<RefCell<Disk>>, left: usize, chunk: u64) -> (bool, usize) {
    let spent = Rc::new(RefCell::new(0));
    let storage = KilledStorage { disk: disk.clone(), left, spent: spent.clone() };
    let result = (|| {
        let mut journal = Journal::open(storage, "t")?;
        let mut next = match journal.position() {
            Some(position) => position.next,
            None => {
                journal.step(&[], Position { epoch: 9, next: 0 })?;
                0
            }
        };
        while next < RECORDS {
            let end = (next + chunk).min(RECORDS);
            let bytes: String = (next..end).map(record).collect();
            journal.step(bytes.as_bytes(), Position { epoch: 9, next: end })?;
            next = end;
        }
        Ok::<(), JournalError>(())
    })();
    if let Err(error) = &result {
        // Being killed is the only failure allowed: never "damaged", never "another output".
        assert_eq!(error.to_string(), "killed");
    }
    let spent = *spent.borrow();
    (result.is_ok(), spent)
}

fn expected() -> Vec<u8> {
    (0..RECORDS).map(record).collect::<String>().into_bytes()
}

#[test]
fn killed_at_every_byte_the_output_is_exact() {
    for chunk in 1..=3 {
        let (finished, work) = run(&Rc::default(), usize::MAX, chunk);
        assert!(finished);
        assert!(work > 2048, "the whole work is simulated");
        for left in 0..work {
            let disk = Rc::default();
            assert!(!run(&disk, left, chunk).0, "it was to die at {left}");
            assert!(run(&disk, usize::MAX, 2).0);
            assert_eq!(disk.borrow().output, expected(), "killed at {left}");
        }
    }
}

#[test]
fn killed_again_and_again_the_output_is_exact() {
    let seed = std::env::var("PSA_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(fastrand::u64(..));
    println!("PSA_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..2000 {
        let disk = Rc::default();
        let mut lives = 0;
        // Long enough that some runs create the state, short enough that most are killed.
        while !run(&disk, random.usize(0..3000), random.u64(1..4)).0 {
            lives += 1;
            assert!(lives < 1000, "it makes progress");
        }
        assert_eq!(disk.borrow().output, expected());
    }
}

#[test]
fn a_finished_run_adds_nothing_when_run_again() {
    let disk = Rc::default();
    assert!(run(&disk, usize::MAX, 3).0);
    let before = disk.borrow().clone();
    assert_eq!(run(&disk, usize::MAX, 3), (true, 0));
    assert_eq!(disk.borrow().output, before.output);
}

fn open(disk: &Rc<RefCell<Disk>>, topic: &str) -> Result<Journal<KilledStorage>, JournalError> {
    let spent = Rc::default();
    Journal::open(KilledStorage { disk: disk.clone(), left: usize::MAX, spent }, topic)
}

#[test]
fn files_that_do_not_belong_together_are_refused_and_untouched() {
    let disk = Rc::new(RefCell::new(Disk { state: None, output: b"precious".to_vec() }));
    assert!(matches!(open(&disk, "t"), Err(JournalError::UnknownOutput)));
    assert_eq!(disk.borrow().output, b"precious");

    let disk = Rc::default();
    assert!(run(&disk, usize::MAX, 3).0);
    assert!(matches!(open(&disk, "u"), Err(JournalError::OtherTopic(topic)) if topic == "t"));
    let whole = disk.borrow().output.clone();
    disk.borrow_mut().output.pop();
    assert!(matches!(open(&disk, "t"), Err(JournalError::OtherOutput("it is shorter"))));
    let other = vec![b'z'; whole.len() + 100];
    disk.borrow_mut().output = other.clone();
    assert!(matches!(open(&disk, "t"), Err(JournalError::OtherOutput("its bytes differ"))));
    assert_eq!(disk.borrow().output, other, "a file that is not ours is not cut");
}
