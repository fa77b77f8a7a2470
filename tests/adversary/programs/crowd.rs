//! Programs of several threads, over the same logs. What each reader is shown is still exact.

use std::sync::atomic::Ordering;
use std::thread;

use fastrand::Rng;
use parking_lot::Mutex;

use super::alone::{append, each_seed, leave};
use super::reader::Reader;
use super::world::{World, meddle};
use crate::watchdog::watched;

const THREADS: usize = 4;

fn run(seed: u64, steps: usize) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let world = World::new(&mut rng, false);
    let forgets = rng.bool();
    // Readers that anybody may take: they go from thread to thread.
    let common: Mutex<Vec<Reader>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (mut rng, world, common) = (rng.fork(), &world, &common);
            scope.spawn(move || {
                let mut own: Vec<Reader> = Vec::new();
                for _ in 0..steps {
                    match rng.u8(..12) {
                        0..5 => append(world, &mut rng, forgets),
                        5 if own.len() < 6 => own.extend(Reader::new(world, &mut rng)),
                        6 if !own.is_empty() => {
                            let reader = own.swap_remove(rng.usize(..own.len()));
                            leave(world, &mut rng, reader, forgets);
                        }
                        7 => {
                            let taken = {
                                let mut common = common.lock();
                                common.extend(own.pop());
                                let any = rng.usize(..common.len().max(1));
                                (!common.is_empty()).then(|| common.swap_remove(any))
                            };
                            own.extend(taken);
                        }
                        8 => meddle(world, &mut rng),
                        _ if !own.is_empty() => {
                            let reader = own.swap_remove(rng.usize(..own.len()));
                            own.extend(reader.step(world, &mut rng));
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    drop(common);
    world.check_before_the_end();
    let calls = world.calls.load(Ordering::Relaxed);
    world.end();
    calls
}

#[test]
fn several_threads_do_anything() {
    watched(|progress| {
        let mut calls = 0;
        each_seed(16, progress, |seed| calls += run(seed, 400));
        assert!(calls > 0, "the logs called nothing");
    });
}
