//! Lives of a topic's files on a disk that loses what was not forced: crashes at every call, power failures, a full disk.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use super::*;
use crate::disk::tests::sim::{Fault, Sim};
use crate::tier::budget::{DiskBudget, DiskLimits};
use crate::tier::conditions::{Condition, Performed, Producer};
use crate::tier::state::{Change, LeaseState};

const LIMIT: u64 = 256 << 10;

fn settings(random: &mut fastrand::Rng) -> Settings {
    Settings {
        segment_bytes: 4 << 10,
        memory_limit: 64 << 10,
        disk_limit: LIMIT,
        retention: match random.u8(0..4) {
            0 => Retention::Nothing,
            1 => Retention::Records(20),
            2 => Retention::Bytes(LIMIT / 8),
            _ => Retention::Everything,
        },
        overflow: [Overflow::Block, Overflow::Reject, Overflow::Evict][random.usize(0..3)],
        durability: [Durability::Written, Durability::Synced][random.usize(0..2)],
    }
}

/// What the topic must have.
struct Model {
    state: Arc<Mutex<State>>,
    /// All states that there were, by how many changes led to them.
    states: Vec<State>,
    records: Vec<Vec<u8>>,
    /// Whether each record was appended with a condition.
    checked: Vec<bool>,
    /// Offset and change up to which a publisher was told that all is well.
    told: (u64, usize),
    /// The same, of what was forced to the disk.
    forced: (u64, usize),
    epochs: Vec<Began>,
}

impl Model {
    fn head(&self) -> impl Fn() -> Vec<u8> + Send + use<> {
        let state = self.state.clone();
        move || state.lock().unwrap().encode()
    }

    /// The next append of one of two producers.
    fn performed(&self, random: &mut fastrand::Rng) -> Change {
        let id = random.char('a'..'c').to_string();
        let state = self.state.lock().unwrap();
        let seq = state.conditions.producers.get(&id).map_or(0, |progress| progress.seq + 1);
        let condition = Condition::producer(Producer { id, epoch: 0, seq });
        Change::Performed(Performed { condition, records: 1, time: 5 })
    }

    fn change(&mut self, change: &Change) {
        let mut state = self.state.lock().unwrap();
        state.apply(change);
        self.states.push(state.clone());
    }

    /// Opens the files after a crash. `lost_power` says which promise counts.
    fn open(
        &mut self,
        sim: &Sim,
        lost_power: bool,
        random: &mut fastrand::Rng,
    ) -> Option<Store<Sim>> {
        let (mut store, state, _) = match Store::open(sim.clone()) {
            Ok(opened) => opened,
            Err(_) if sim.is_down() => return None,
            Err(error) => panic!("after a crash: {error}"),
        };
        let (offset, change) = if lost_power { self.forced } else { self.told };
        let next = store.next();
        assert!(next >= offset && next <= self.records.len() as u64, "{next} of {offset} records");
        let changes = self.states.iter().rposition(|known| *known == state);
        let changes = changes.expect("a state that there was");
        assert!(changes >= change, "change {changes}, and {change} was told");
        self.records.truncate(next as usize);
        self.checked.truncate(next as usize);
        let checked = self.checked.iter().filter(|checked| **checked).count() as u64;
        assert_eq!(
            state.conditions.records, checked,
            "what is known of appends is as old as they are"
        );
        self.states.truncate(changes + 1);
        *self.state.lock().unwrap() = state.clone();
        let may_have_lost = lost_power && state.settings.durability == Durability::Written;
        let epoch = may_have_lost.then(|| random.u64(..));
        match store.begin(epoch, self.head()) {
            Ok(()) => {}
            Err(_) if sim.is_down() => return None,
            Err(error) => panic!("{error}"),
        }
        if let Some(epoch) = epoch {
            self.epochs.retain(|began| began.first < next);
            self.epochs.push(Began { epoch, first: next });
        }
        assert_eq!(store.epoch(), self.epochs.last().unwrap().epoch);
        (self.told, self.forced) = ((next, changes), (next, changes));
        self.check(&store, sim);
        Some(store)
    }

    fn check(&self, store: &Store<Sim>, sim: &Sim) {
        let mut reader = store.reader();
        let mut at = store.first();
        while at < reader.next() {
            let frames = match reader.read(at, 10_000) {
                Ok(frames) => frames,
                Err(_) if sim.is_down() => return,
                Err(error) => panic!("{error}"),
            };
            for frame in frames.iter() {
                let (ends, payload) =
                    (frame.records.ends().as_chunks::<4>().0, frame.records.payload());
                let mut begin = 0;
                for (offset, end) in (frame.first..).zip(ends) {
                    let end = u32::from_le_bytes(*end) as usize;
                    assert!(
                        payload[begin..end] == self.records[offset as usize],
                        "record {offset}"
                    );
                    begin = end;
                }
                at = frame.next();
            }
        }
    }
}

/// Nothing here depends on the time, so that a seed is the same life each time.
fn now() -> Instant {
    static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *NOW.get_or_init(Instant::now)
}

fn life(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sim = Sim::new(seed);
    let settings = settings(&mut random);
    let state = State::new("t".into(), settings);
    let mut model = Model {
        states: vec![state.clone()],
        state: Arc::new(Mutex::new(state)),
        records: Vec::new(),
        checked: Vec::new(),
        told: (0, 0),
        forced: (0, 0),
        epochs: vec![Began { epoch: 1, first: 0 }],
    };
    // With a disk that others fill and empty meanwhile.
    let files = least(&settings) + random.u64(0..=LIMIT);
    let budget = DiskBudget::over(DiskLimits { files: Some(files), kept_free: None }, || None);
    let mut most = files;
    let others = budget.reserve(0).unwrap();
    let share = budget.reserve(least(&settings)).unwrap();
    let mut store = match Store::create(sim.clone(), 7, 1, settings, share, model.head()) {
        Ok(store) => store,
        Err(error) => panic!("{error}"),
    };
    for _ in 0..5 {
        let calls = random.u64(1..120);
        match random.u8(0..4) {
            0 => {}
            1 => sim.fault(calls, Fault::Fails(ErrorKind::StorageFull)),
            2 => sim.fault(calls, Fault::Fails(ErrorKind::Other)),
            _ => sim.fault(calls, Fault::Down),
        }
        for _ in 0..random.u64(1..80) {
            match random.u8(0..8) {
                0 => drop(others.take(random.u64(0..=LIMIT), 0)),
                1 => others.shrink(random.u64(0..=LIMIT / 8)),
                _ => {}
            }
            if !step(&mut store, &mut model, &mut random) || sim.is_down() {
                break;
            }
            assert!(budget.look().taken <= most, "more than the limit for all");
        }
        // What a failed call left behind, only a restart can tell. So it counts as if the machine had gone down.
        let lost_power = sim.is_down() || random.bool();
        loop {
            sim = if lost_power { sim.crashed() } else { sim.killed() };
            if random.u8(..) < 60 {
                sim.fault(random.u64(1..40), Fault::Down);
            }
            if let Some(opened) = model.open(&sim, lost_power, &mut random)
                && !sim.is_down()
            {
                // As a process that was ended: nobody has a share of what it had.
                others.shrink(0);
                store.use_share(Share::unlimited());
                store = opened;
                store.use_share(budget.share(store.needs(), 0));
                // What is there stays, and nothing grows.
                most = files.max(budget.look().taken);
                break;
            }
        }
    }
}

/// One step of the writer: a group, or what it does between groups. False if the disk failed.
fn step(store: &mut Store<Sim>, model: &mut Model, random: &mut fastrand::Rng) -> bool {
    let needed = if random.bool() { u64::MAX } else { random.u64(0..=store.next()) };
    let done = match random.u8(0..10) {
        0 => store
            .trim(|| needed, 0)
            .map(drop)
            .map_err(|error| PublishError::DiskFailed { why: error.to_string() }),
        1 => store.mark(),
        2 => store.sync(),
        _ => group(store, model, needed, random),
    };
    let (records, changes) = (model.records.len() as u64, model.states.len() - 1);
    assert!(store.size() <= LIMIT, "{} bytes", store.size());
    store.give_back();
    assert!(store.size() <= store.share.taken(), "{} bytes of its share", store.size());
    match done {
        Ok(()) => {
            model.told = (records, changes);
            // All of it was settled, which forces it where the topic promises that, whatever the files say of themselves.
            let promises = model.states[0].settings.durability == Durability::Synced;
            if promises || store.force_at(now()).is_none() {
                model.forced = model.told;
            }
            true
        }
        Err(error) if error.is_full() => true,
        Err(_) => false,
    }
}

fn group(
    store: &mut Store<Sim>,
    model: &mut Model,
    needed: u64,
    random: &mut fastrand::Rng,
) -> Result<(), PublishError> {
    let mut full = None;
    for _ in 0..random.u64(0..5) {
        let record = vec![random.u8(..); random.usize(0..12_000)];
        let ends = (record.len() as u32).to_le_bytes();
        let change = random.bool().then(|| model.performed(random));
        let notes = change.as_ref().map(Change::encode).unwrap_or_default();
        match store.append(5, &notes, Packed::new(&ends, &record).unwrap(), || needed) {
            Ok(first) => {
                assert_eq!(first, model.records.len() as u64);
                model.records.push(record);
                model.checked.push(change.is_some());
                // After it: a file that began with it began with what was before.
                change.iter().for_each(|change| model.change(change));
            }
            Err(error) if error.is_full() => {
                full = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if random.bool() {
        let name = random.char('a'..'d').to_string();
        let change = if random.u8(..) < 60 {
            Change::EndLease(name)
        } else {
            let next = random.u64(0..=store.next());
            Change::Lease(name, LeaseState { next, ttl: Duration::from_secs(1) })
        };
        // First the state: a file that begins with it may begin in between.
        let before = model.state.lock().unwrap().clone();
        model.change(&change);
        match store.note(5, &change.encode()) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                *model.state.lock().unwrap() = before;
                model.states.pop();
                full = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    store.settle(now())?;
    full.map_or(Ok(()), Err)
}

/// `PSA_TEST_SEED` is the first seed, `PSA_TEST_ROUNDS` how many there are.
#[test]
fn no_crash_loses_what_a_publisher_was_told() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("PSA_TEST_SEED").unwrap_or(1);
    for seed in first..first + number("PSA_TEST_ROUNDS").unwrap_or(200) {
        let told = std::panic::catch_unwind(|| life(seed));
        if let Err(panic) = told {
            eprintln!("failed with PSA_TEST_SEED={seed} PSA_TEST_ROUNDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}
