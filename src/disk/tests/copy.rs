//! Copies of a log that is being written: the writer and the copier take turns at each call to the file system.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use super::super::copy::{Copied, CopyError, copy};
use super::sim::{Fault, SimFile};
use super::*;

/// Two threads, of which one runs at a time.
struct Turns {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    turn: usize,
    has_ended: [bool; 2],
    random: fastrand::Rng,
}

impl Turns {
    /// Perhaps the other one goes on first.
    fn pass(&self, me: usize) {
        let mut state = self.state.lock().unwrap();
        if state.random.u8(..) < 90 {
            state.turn = 1 - me;
            self.news.notify_all();
        }
        while state.turn != me && !state.has_ended[1 - me] {
            state = self.news.wait(state).unwrap();
        }
    }
}

/// Ends a thread's turns, also if it panics.
struct Ending(Arc<Turns>, usize);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().has_ended[self.1] = true;
        self.0.news.notify_all();
    }
}

#[derive(Clone)]
struct Racing {
    sim: Sim,
    turns: Arc<Turns>,
    me: usize,
}

struct RacingFile(SimFile, Arc<Turns>, usize);

impl Racing {
    fn call(&self) -> &Sim {
        self.turns.pass(self.me);
        &self.sim
    }

    fn file(&self, file: SimFile) -> RacingFile {
        RacingFile(file, self.turns.clone(), self.me)
    }
}

impl Folder for Racing {
    type File = RacingFile;

    fn names(&self) -> io::Result<Vec<String>> {
        Folder::names(self.call())
    }
    fn open(&self, name: &str) -> io::Result<RacingFile> {
        self.call().open(name).map(|file| self.file(file))
    }
    fn create(&self, name: &str) -> io::Result<RacingFile> {
        self.call().create(name).map(|file| self.file(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call().rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.call().remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.call().sync()
    }
}

impl RacingFile {
    fn call(&self) -> &SimFile {
        self.1.pass(self.2);
        &self.0
    }
}

impl File for RacingFile {
    fn size(&self) -> io::Result<u64> {
        self.call().size()
    }
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.call().read_at(into, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.call().write_at(bytes, at)
    }
    fn sync(&self) -> io::Result<()> {
        self.call().sync()
    }
}

fn record(offset: u64) -> Vec<u8> {
    let mut bytes = offset.to_le_bytes().to_vec();
    bytes.resize(8 + (offset * 977 % 1500) as usize, offset as u8);
    bytes
}

fn records_at(first: u64, many: u64) -> Vec<Vec<u8>> {
    (first..first + many).map(record).collect()
}

fn is_head(notes: &[u8]) -> bool {
    notes.starts_with(b"head")
}

/// What was acknowledged: the offset after the last record, and the state.
type Acknowledged = Arc<Mutex<Option<(u64, u64)>>>;

/// What the writer does: appends, changes of a state, which is a number, and files that it gives up.
fn write(folder: Racing, told: &Acknowledged, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let state = Arc::new(Mutex::new(0u64));
    let (mut log, _) = DiskLog::open(folder, small(), TOPIC, 1).unwrap();
    let head = state.clone();
    log.begin_files_with(move || format!("head {}", head.lock().unwrap()).into_bytes());
    log.sync().unwrap();
    *told.lock().unwrap() = Some((0, 0));
    // Some only change the state, some trim all, some nothing.
    let (notes, trims) = (random.u8(0..200), random.u8(0..3));
    for _ in 0..random.u64(20..200) {
        if random.u8(..) < notes {
            let now = {
                let mut state = state.lock().unwrap();
                *state += 1;
                *state
            };
            let mut note = format!("note {now} ").into_bytes();
            note.resize(random.usize(20..1500), b'.');
            log.note(3, &note).unwrap();
        } else {
            let records = records_at(log.next(), random.u64(1..4));
            let (mut ends, mut payload) = (Vec::new(), Vec::new());
            for record in &records {
                payload.extend_from_slice(record);
                ends.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            }
            log.append(7, b"notes", Packed::new(&ends, &payload).unwrap()).unwrap();
        }
        match random.u8(0..6) {
            0 => log.write().unwrap(),
            1 => log.mark(9).unwrap(),
            2..5 => log.sync().unwrap(),
            _ => continue,
        }
        if log.durable() == log.next() && !log.is_unforced() {
            *told.lock().unwrap() = Some((log.next(), *state.lock().unwrap()));
        }
        match trims {
            0 => log.trim(log.next()).unwrap(),
            1 => log.trim(random.u64(0..=log.next())).unwrap(),
            _ => {}
        }
    }
}

/// The state that the notes say, if they say one.
fn state_of(log: &DiskLog<Sim>) -> Option<u64> {
    let mut state = None;
    log.notes(is_head, |frame| {
        let text = String::from_utf8_lossy(frame.notes);
        state = text.split(' ').nth(1).and_then(|number| number.parse().ok()).or(state);
    })
    .unwrap();
    state
}

fn race(seed: u64) {
    let sim = Sim::new(seed);
    let random = fastrand::Rng::with_seed(seed);
    let state = Mutex::new(State { turn: 0, has_ended: [false; 2], random });
    let turns = Arc::new(Turns { state, news: Condvar::new() });
    let racing = |me| Racing { sim: sim.clone(), turns: turns.clone(), me };
    let told: Acknowledged = Arc::default();
    let to = Sim::new(!seed);
    let (copied, acknowledged, source) = std::thread::scope(|scope| {
        let copier = scope.spawn(|| {
            let _ending = Ending(turns.clone(), 1);
            turns.pass(1);
            for _ in 0..seed % 50 {
                turns.pass(1);
            }
            let acknowledged = *told.lock().unwrap();
            let copied = copy(&racing(1), &to, is_head, |_| ()).unwrap();
            (copied, acknowledged, sim.crashed())
        });
        let _ending = Ending(turns.clone(), 0);
        write(racing(0), &told, seed);
        drop(_ending);
        copier.join().unwrap()
    });
    let Some(Copied { first, next, files, .. }) = copied else {
        assert_eq!(acknowledged, None, "there was something to copy");
        return;
    };
    // What the machine's end leaves of the copy, and of the log.
    let to = to.crashed();
    assert_eq!(verify(&to, |_, _| ()).unwrap().problems, []);
    let (log, recovered) = open(&to).unwrap();
    assert_eq!((log.first(), log.next(), recovered.cut), (first, next, 0));
    assert_eq!(log.files() as u64, files);
    let (source, _) = open(&source).unwrap();
    assert!(source.next() >= next, "{} is left of what its copy has, {next}", source.next());
    let (acknowledged, state) = acknowledged.unwrap_or_default();
    assert!(next >= acknowledged, "{next}, and {acknowledged} was acknowledged");
    let (read, error) = read_all(&mut log.reader(), first);
    assert!(error.is_none() && read == records_at(first, next - first), "{error:?}");
    let copied = state_of(&log).expect("a copy has a state");
    assert!(copied >= state, "{copied}, and {state} was acknowledged");
}

#[test]
fn a_copy_has_what_was_acknowledged_whatever_the_writer_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("PSA_TEST_SEED").unwrap_or(1);
    for seed in first..first + number("PSA_TEST_ROUNDS").unwrap_or(300) {
        let told = std::panic::catch_unwind(|| race(seed));
        if let Err(panic) = told {
            eprintln!("failed with PSA_TEST_SEED={seed} PSA_TEST_ROUNDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A log of several files, all of it marked, and nobody who writes it.
fn left() -> Sim {
    let sim = Sim::new(5);
    let (mut log, _) = open(&sim).unwrap();
    log.begin_files_with(|| b"head 0".to_vec());
    for n in 0..40 {
        append(&mut log, &records_at(n, 1)).unwrap();
        log.sync().unwrap();
    }
    log.mark(9).unwrap();
    assert!(log.files() > 2);
    sim
}

fn copy_of(sim: &Sim) -> Result<Option<Copied>, CopyError> {
    copy(&sim.killed(), &Sim::new(6), is_head, |_| ())
}

#[test]
fn damage_is_named_and_a_torn_end_is_none() {
    let sim = left();
    assert_eq!(copy_of(&sim).unwrap().unwrap().next, 40);
    let names = sim.names();
    for name in
        [&names[0], &names[1], names.iter().rfind(|name| sim.change(name, |b| b[0] != 0)).unwrap()]
    {
        let sim = sim.killed();
        sim.change(name, |bytes| bytes[4096 + 48 + 300] ^= 1);
        match copy_of(&sim) {
            Err(CopyError::From(OpenError::Damaged { file, .. })) => assert_eq!(file, *name),
            other => panic!("{name}: {other:?}"),
        }
    }
    // The last frame, half-written, and nothing behind it.
    let (mut log, _) = open(&sim).unwrap();
    append(&mut log, &records_at(40, 1)).unwrap();
    log.write().unwrap();
    let (at, name) = (log.position, log.last().name());
    drop(log);
    sim.change(&name, |bytes| bytes[at as usize - 100] ^= 1);
    assert_eq!(copy_of(&sim).unwrap().unwrap().next, 40);
}

#[test]
fn a_copy_that_cannot_be_written_is_none() {
    let sim = left();
    let whole = Sim::new(6);
    copy(&sim, &whole, is_head, |_| ()).unwrap().unwrap();
    for call in 0..whole.calls() {
        let to = Sim::new(6);
        to.fault(call, Fault::Fails(io::ErrorKind::StorageFull));
        match copy(&sim, &to, is_head, |_| ()) {
            Err(CopyError::To { error, .. }) => {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull)
            }
            other => panic!("call {call}: {other:?}"),
        }
    }
}
