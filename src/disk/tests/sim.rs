//! A file system that remembers what was forced and what was not.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::{File, Folder};

const SECTOR: usize = 512;

/// What goes wrong at some call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine goes down: this call and all later ones fail.
    Down,
    /// The call fails, once.
    Fails(ErrorKind),
}

#[derive(Clone)]
pub(crate) struct Sim(Arc<Mutex<World>>);

struct World {
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    forced_names: BTreeMap<String, usize>,
    /// The names after each change since they were last forced.
    changes: Vec<BTreeMap<String, usize>>,
    random: fastrand::Rng,
    calls: u64,
    fault: Option<(u64, Fault)>,
    is_down: bool,
}

#[derive(Clone, Default)]
struct Inode {
    forced: Vec<u8>,
    bytes: Vec<u8>,
    /// Writes since they were last forced.
    writes: Vec<(usize, Vec<u8>)>,
}

pub(crate) struct SimFile {
    sim: Sim,
    inode: usize,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Sim {
        Sim(Arc::new(Mutex::new(World {
            files: Vec::new(),
            names: BTreeMap::new(),
            forced_names: BTreeMap::new(),
            changes: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            calls: 0,
            fault: None,
            is_down: false,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u64 {
        self.world().calls
    }

    /// Something goes wrong at the call after so many more.
    pub(crate) fn fault(&self, after: u64, fault: Fault) {
        let mut world = self.world();
        world.fault = Some((world.calls + after, fault));
    }

    pub(crate) fn is_down(&self) -> bool {
        self.world().is_down
    }

    /// The disk as another process finds it after this one was killed: everything that was written is there.
    pub(crate) fn killed(&self) -> Sim {
        let mut world = self.world();
        let (names, seed) = (world.names.clone(), world.random.u64(..));
        let files = world.files.clone();
        let (forced_names, changes) = (world.forced_names.clone(), world.changes.clone());
        drop(world);
        let sim = Sim::new(seed);
        *sim.world() = World {
            files,
            names,
            forced_names,
            changes,
            random: fastrand::Rng::with_seed(seed),
            calls: 0,
            fault: None,
            is_down: false,
        };
        sim
    }

    /// The disk after the machine went down: what was forced, and any part of the rest. Each sector has what any number
    /// of the writes to it left there, and the folder any number of the changes to it.
    pub(crate) fn crashed(&self) -> Sim {
        let mut world = self.world();
        let World { files, names: _, forced_names, changes, random, .. } = &mut *world;
        let kept = random.usize(0..=changes.len());
        let names = kept.checked_sub(1).map_or(forced_names.clone(), |at| changes[at].clone());
        let files = files.iter().map(|inode| inode.crashed(random)).collect();
        let seed = random.u64(..);
        drop(world);
        let sim = Sim::new(seed);
        {
            let mut world = sim.world();
            (world.files, world.forced_names) = (files, names.clone());
            world.names = names;
        }
        sim
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.world().names.keys().cloned().collect()
    }

    /// The bytes of a file, to be changed behind the log's back.
    pub(crate) fn change<T>(&self, name: &str, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut world = self.world();
        let inode = world.names[name];
        let file = &mut world.files[inode];
        let out = change(&mut file.bytes);
        file.forced = file.bytes.clone();
        file.writes.clear();
        out
    }

    pub(crate) fn lose(&self, name: &str) {
        self.world().names.remove(name).unwrap();
    }

    pub(crate) fn swap(&self, one: &str, other: &str) {
        let mut world = self.world();
        let (a, b) = (world.names[one], world.names[other]);
        world.names.insert(one.to_owned(), b);
        world.names.insert(other.to_owned(), a);
    }
}

impl World {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if let Some((_, fault)) = self.fault.take_if(|(at, _)| *at <= self.calls) {
            match fault {
                Fault::Down => self.is_down = true,
                Fault::Fails(kind) => return Err(kind.into()),
            }
        }
        if self.is_down { Err(io::Error::other("the machine is down")) } else { Ok(()) }
    }

    fn changed(&mut self) {
        self.changes.push(self.names.clone());
    }
}

impl Inode {
    fn crashed(&self, random: &mut fastrand::Rng) -> Inode {
        let mut bytes = self.forced.clone();
        let end = self.writes.iter().map(|(at, bytes)| at + bytes.len()).max().unwrap_or(0);
        // A whole machine seldom tears everything: sometimes nothing was lost, sometimes everything.
        let style = random.u8(0..4);
        for sector in 0..end.div_ceil(SECTOR) {
            let (from, to) = (sector * SECTOR, (sector + 1) * SECTOR);
            let hits: Vec<_> = self
                .writes
                .iter()
                .filter(|(at, bytes)| *at < to && at + bytes.len() > from)
                .collect();
            let kept = match style {
                0 => hits.len(),
                1 => 0,
                _ => random.usize(0..=hits.len()),
            };
            for (at, written) in &hits[..kept] {
                let begin = from.max(*at);
                let end = to.min(at + written.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[begin..end].copy_from_slice(&written[begin - at..end - at]);
            }
        }
        Inode { forced: bytes.clone(), bytes, writes: Vec::new() }
    }
}

impl Folder for Sim {
    type File = SimFile;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.call()?;
        Ok(world.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.world();
        world.call()?;
        let inode = *world.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(SimFile { sim: self.clone(), inode })
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut world = self.world();
        world.call()?;
        if world.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = world.files.len();
        world.files.push(Inode::default());
        world.names.insert(name.to_owned(), inode);
        world.changed();
        Ok(SimFile { sim: self.clone(), inode })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.call()?;
        let inode = world.names.remove(from).ok_or(ErrorKind::NotFound)?;
        world.names.insert(to.to_owned(), inode);
        world.changed();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.call()?;
        world.names.remove(name).ok_or(ErrorKind::NotFound)?;
        world.changed();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world();
        world.call()?;
        world.forced_names = world.names.clone();
        world.changes.clear();
        Ok(())
    }
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        let mut world = self.sim.world();
        world.call()?;
        Ok(world.files[self.inode].bytes.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut world = self.sim.world();
        world.call()?;
        let World { files, random, .. } = &mut *world;
        let bytes = files[self.inode].bytes.get(at as usize..).unwrap_or(&[]);
        let mut len = bytes.len().min(into.len());
        if len > 1 && random.u8(..) < 40 {
            len = random.usize(1..=len);
        }
        into[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut world = self.sim.world();
        let called = world.call();
        let World { files, random, is_down, .. } = &mut *world;
        if called.is_err() && !*is_down {
            return called.map(|()| 0);
        }
        let mut len = bytes.len();
        if len > 1 && (called.is_err() || random.u8(..) < 40) {
            len = random.usize(1..=len);
        }
        let (inode, at) = (&mut files[self.inode], at as usize);
        if inode.bytes.len() < at + len {
            inode.bytes.resize(at + len, 0);
        }
        inode.bytes[at..at + len].copy_from_slice(&bytes[..len]);
        inode.writes.push((at, bytes[..len].to_vec()));
        // A write that the end of the machine interrupts has perhaps left something.
        called.map(|()| len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.sim.world();
        world.call()?;
        let inode = &mut world.files[self.inode];
        inode.forced = inode.bytes.clone();
        inode.writes.clear();
        Ok(())
    }
}
