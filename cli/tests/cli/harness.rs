//! Starting the binary, and looking at how it ended.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing in these tests takes longer, even on a busy machine; what does hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A command with none of the caller's settings.
pub(crate) fn psa(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psa"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PSA_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// A run that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text on standard output")
    }

    /// Standard output of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// Checks the promise about failures: this code, and one line that begins with `psa: `.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        assert_eq!(self.err.lines().count(), 1, "one line: {}", self.err);
        assert!(self.err.starts_with("psa: ") && self.err.ends_with('\n'), "{:?}", self.err);
        assert!(self.err.contains(part), "{part} in {}", self.err);
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8(output.stderr).expect("text on standard error"),
        }
    }
}

/// Runs to the end with this on standard input.
pub(crate) fn run_with(mut command: Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("piped");
    std::thread::scope(|scope| {
        // It may end without reading everything: that is no failure of the test.
        scope.spawn(move || {
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("it ends").into()
    })
}

/// Runs to the end.
pub(crate) fn run(mut command: Command) -> Ended {
    command.output().expect("the binary starts").into()
}

/// Waits for the end of a process; kills it and fails if it does not come.
#[track_caller]
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status.code();
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("the process does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !check() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the process is there");
}

/// Random numbers from a seed that is printed (and shown if the test fails).
pub(crate) fn random() -> fastrand::Rng {
    let seed = std::env::var("PSA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("PSA_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A `psa serve` on a free port; killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// What it has said on standard output so far.
    said: Arc<Mutex<String>>,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Server {
        let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--log-level", "error"]);
        command.args(args);
        Server::from(command)
    }

    pub(crate) fn from(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut hello = String::new();
        lines.read_line(&mut hello).expect("it says where it listens");
        let address = hello.trim().rsplit(' ').next().unwrap_or_default().to_string();
        assert!(hello.contains(" listens on "), "{hello}");
        let said = Arc::new(Mutex::new(hello));
        let all = said.clone();
        // Its later output must not fill the pipe or break it.
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                all.lock().unwrap().extend([&line, "\n"]);
            }
        });
        Server { child, address, said }
    }

    /// The word that it says after `before`, which is at an address: up to a slash or a space.
    #[track_caller]
    pub(crate) fn said_after(&self, before: &str) -> String {
        let mut word = None;
        eventually(before, || {
            let said = self.said.lock().unwrap();
            let after = said.split_once(before).map(|(_, after)| after);
            word = after.map(|after| after.split(['/', ' ', '\n']).next().unwrap().to_owned());
            word.is_some()
        });
        word.expect("it has come")
    }

    /// A command that talks to this server.
    pub(crate) fn psa(&self, args: &[&str]) -> Command {
        let mut command = psa(args);
        command.args(["--server", &self.address]);
        command
    }

    /// Publishes lines, with their ends.
    #[track_caller]
    pub(crate) fn publish(&self, topic: &str, input: &[u8]) {
        run_with(self.psa(&["pub", topic, "--keep-ends"]), input).ok();
    }

    /// Statistics of one topic.
    #[track_caller]
    pub(crate) fn stats(&self, topic: &str) -> serde_json::Value {
        let out = run(self.psa(&["stats", topic, "--json"])).ok();
        serde_json::from_slice(&out).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads this many bytes from a child's output.
pub(crate) fn read_some(child: &mut Child, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    child.stdout.as_mut().expect("piped").read_exact(&mut bytes).expect("that much comes");
    bytes
}
