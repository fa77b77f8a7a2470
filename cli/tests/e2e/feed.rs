//! A publisher process whose standard input comes in bursts, so that there are moments to kill at.
//!
//! A [`Hold`] keeps the bursts from going beyond a place until it is let go: whoever plans to kill
//! something in the middle of the input holds it somewhat behind that middle, and so the middle is
//! certain to be one, however busy the machine is. As long as the machine keeps up, a hold is gone
//! before it is reached, and what is killed is killed at work.

use std::io::Write;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::harness::*;
use super::input::Input;

/// How long feeding takes if nothing holds it.
const DURATION: Duration = Duration::from_millis(2500);
const BURSTS: usize = 150;

#[derive(Default)]
struct State {
    fed: usize,
    holds: Vec<(u64, usize)>,
    next: u64,
}

/// How far a publisher has been fed, and how far it may be.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

/// Keeps a publisher from being fed further, until it is dropped.
pub(crate) struct Hold {
    progress: Arc<Progress>,
    number: u64,
}

impl Progress {
    /// Nothing beyond `bytes` is fed while the hold lives.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Hold {
        let mut state = self.state.lock().unwrap();
        assert!(state.fed <= bytes, "a hold comes before what it holds");
        let number = state.next;
        state.next += 1;
        state.holds.push((number, bytes));
        Hold { progress: self.clone(), number }
    }

    /// Waits until some of `wanted` bytes may be fed; how many.
    fn grant(&self, wanted: usize) -> usize {
        let mut state = self.state.lock().unwrap();
        loop {
            let limit = state.holds.iter().map(|(_, limit)| *limit).min().unwrap_or(usize::MAX);
            let granted = wanted.min(limit.saturating_sub(state.fed));
            if granted > 0 {
                state.fed += granted;
                return granted;
            }
            let (again, timeout) = self.changed.wait_timeout(state, PATIENCE).unwrap();
            assert!(!timeout.timed_out(), "waited {PATIENCE:?} for a hold to be let go");
            state = again;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A test that fails drops holds too; the lock may be poisoned then.
        if let Ok(mut state) = self.progress.state.lock() {
            state.holds.retain(|(number, _)| *number != self.number);
        }
        self.progress.changed.notify_all();
    }
}

/// Publishes `input` to its topic, line by line, in bursts. Ends when everything is acknowledged.
pub(crate) fn publish(
    server: &Server,
    input: &Input,
    progress: Arc<Progress>,
    mut random: fastrand::Rng,
) -> JoinHandle<Run> {
    let mut command = server.command(&["pub", "--keep-ends", "--", &input.name]);
    command.stdin(Stdio::piped());
    let mut process = Process::start(server.folder.path(), command);
    let mut stdin = process.child().stdin.take().expect("it is a pipe");
    let bytes = input.bytes.clone();
    std::thread::spawn(move || {
        let mut rest = bytes.as_slice();
        let burst = bytes.len() / BURSTS * 2 + 2;
        while !rest.is_empty() {
            // Bursts end anywhere, in the middle of lines too.
            let count = progress.grant(random.usize(1..=burst).min(rest.len()));
            let (now, later) = rest.split_at(count);
            if let Err(error) = stdin.write_all(now) {
                panic!("{error} while feeding a publisher that says {:?}", process.stderr());
            }
            rest = later;
            // This is no synchronisation: it only makes the input last.
            std::thread::sleep((DURATION / BURSTS as u32).mul_f64(random.f64() * 2.0));
        }
        drop(stdin);
        process.wait()
    })
}
