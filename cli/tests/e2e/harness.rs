//! Servers and commands for tests of the real binary.
//!
//! # Waiting
//!
//! Nothing here sleeps and hopes. A wait is [`eventually`]: it looks again until what it waits for is
//! there, and panics at a deadline with what it waited for and what it saw instead. The deadline is far
//! beyond what anything needs, because the machine may be busy.
//!
//! # Apart from each other
//!
//! Each test has its own folder and its own servers on free ports, so that tests can run at the same
//! time. A process that a test started ends with it, also when it fails; then what its servers logged
//! is printed.

// Three test crates share this file, and none uses all of it.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(3);

/// The codes that `psa` ends with; see `docs/cli.md`.
pub(crate) mod exit {
    pub(crate) const DONE: i32 = 0;
    pub(crate) const FAILED: i32 = 1;
    pub(crate) const USAGE: i32 = 2;
    pub(crate) const UNREACHABLE: i32 = 3;
    pub(crate) const REFUSED: i32 = 4;
    pub(crate) const GAP: i32 = 5;
    pub(crate) const HANGUP: i32 = 129;
    pub(crate) const INTERRUPT: i32 = 130;
    pub(crate) const TERMINATE: i32 = 143;
    /// Not a code of ours: what [`Run::code`](super::Run) says of a process that SIGKILL ended.
    pub(crate) const KILLED: i32 = 137;
}

/// Looks until `look` finds something; it says what it sees instead while it does not.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if began.elapsed() > PATIENCE => {
                panic!("waited {PATIENCE:?} for {what}; what is there: {seen}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Random numbers for the test `name`, from the seed that is printed.
pub(crate) fn random(name: &str) -> fastrand::Rng {
    let seed = match std::env::var("PSA_TEST_SEED") {
        Ok(text) => text.parse().expect("PSA_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    eprintln!("{name}: PSA_TEST_SEED={seed}");
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    fastrand::Rng::with_seed(hasher.finish())
}

/// A command of ours, with nothing of the environment's configuration in it.
pub(crate) fn psa(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_psa"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PSA_"))
    {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").args(args).stdin(Stdio::null());
    command
}

/// A running process; it is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    what: String,
    /// Where its standard output goes, if into a file of ours.
    stdout: Option<PathBuf>,
    stderr: PathBuf,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Run {
    /// Its exit code, or 128 + n if signal n ended it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts `command` with standard error in a file in `folder`, and standard output too unless
    /// `configure` has sent it elsewhere.
    pub(crate) fn start(folder: &Path, command: Command) -> Process {
        let stdout = unique(folder, "stdout");
        let mut process = Process::start_with_output(folder, command, create(&stdout));
        process.stdout = Some(stdout);
        process
    }

    /// Starts `command` with this standard output.
    pub(crate) fn start_with_output(
        folder: &Path,
        mut command: Command,
        stdout: impl Into<Stdio>,
    ) -> Process {
        let stderr = unique(folder, "stderr");
        let what = describe(&command);
        command.stdout(stdout).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        Process { child, what, stdout: None, stderr }
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&read(&self.stderr)).into_owned()
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.stdout.as_deref().map(read).unwrap_or_default()
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("{signal:?} to {}: {error}", self.what));
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) -> Run {
        let _ = self.child.kill();
        self.ended()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Run {
        let what = format!("the end of {}", self.what);
        eventually(&what, || match self.child.try_wait().expect("it is our child") {
            Some(_) => Ok(()),
            None => Err(format!("it runs and has said {:?}", self.stderr())),
        });
        self.ended()
    }

    fn ended(&mut self) -> Run {
        let status = self.child.wait().expect("it is our child");
        Run { code: code(status), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Run {
    /// Checks that it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Run {
        assert_eq!(self.code, code, "exit code; it said {:?}", self.stderr);
        self
    }

    /// Checks that it failed as the documentation of the command line says: with this code, nothing on
    /// standard output, and one line on standard error that holds all of `parts`.
    #[track_caller]
    pub(crate) fn expect_line(self, code: i32, parts: &[&str]) -> Run {
        let run = self.expect(code);
        let line =
            run.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line in {:?}", run.stderr));
        assert!(!line.contains(char::is_control), "more than one line, or worse: {line:?}");
        assert!(line.starts_with("psa: "), "{line:?}");
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
        run
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("it wrote text")
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| Some(128 + status.signal()?)).expect("it ended")
}

fn describe(command: &Command) -> String {
    let args = command.get_args().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>();
    format!("`{} {}`", command.get_program().to_string_lossy(), args.join(" "))
}

fn create(path: &Path) -> File {
    OpenOptions::new().create_new(true).append(true).open(path).expect("the folder is ours")
}

/// A file name that nobody uses yet.
fn unique(folder: &Path, what: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    folder.join(format!("{}.{what}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A whole file; nothing if it is not there (yet).
pub(crate) fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_end(&mut bytes).expect("it is a file of ours");
    }
    bytes
}

/// How long a file is; 0 if it is not there (yet).
pub(crate) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A server process on a free port, and a folder for the test's files.
pub(crate) struct Server {
    process: Option<Process>,
    /// What its clients must know.
    token: Option<&'static str>,
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

impl Server {
    /// Starts `psa serve` with these flags on a free port, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(flags: &[&str]) -> Server {
        Server::start_on("127.0.0.1:0", flags)
    }

    #[track_caller]
    pub(crate) fn start_on(listen: &str, flags: &[&str]) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (process, address) = serve(folder.path(), listen, flags);
        Server { process: Some(process), token: None, address, folder }
    }

    /// Starts a server with a command that becomes `psa serve` in the end: through a shell that lowers a
    /// limit, or with something in its environment.
    #[track_caller]
    pub(crate) fn start_by(command: Command) -> Server {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (process, address) = listening(folder.path(), command);
        Server { process: Some(process), token: None, address, folder }
    }

    /// Starts one that asks for a token. Its commands have it.
    #[track_caller]
    pub(crate) fn start_with_token(token: &'static str, flags: &[&str]) -> Server {
        Server::start(&[&["--token", token], flags].concat()).with_token(token)
    }

    /// One that was started with this token.
    pub(crate) fn with_token(mut self, token: &'static str) -> Server {
        self.token = Some(token);
        self
    }

    /// Kills it with SIGKILL and starts it again on the same address.
    #[track_caller]
    pub(crate) fn restart(&mut self, flags: &[&str]) {
        self.process.take().expect("it runs").kill();
        self.start_again(flags);
    }

    /// Starts it again, after its process was taken, on the same address.
    #[track_caller]
    pub(crate) fn start_again(&mut self, flags: &[&str]) {
        let (process, address) = serve(self.folder.path(), &self.address.to_string(), flags);
        assert_eq!(address, self.address);
        self.process = Some(process);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The server's own process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    /// Takes the process, to see how it ends.
    pub(crate) fn take_process(&mut self) -> Process {
        self.process.take().expect("it runs")
    }

    /// A client command for this server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = psa(args);
        command.env("PSA_SERVER", self.address.to_string());
        if let Some(token) = self.token {
            command.env("PSA_TOKEN", token);
        }
        command
    }

    /// Starts a client command.
    pub(crate) fn spawn(&self, args: &[&str]) -> Process {
        Process::start(self.folder.path(), self.command(args))
    }

    /// Runs a client command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.spawn(args).wait()
    }

    /// Publishes `input` from standard input, with these further arguments.
    #[track_caller]
    pub(crate) fn publish(&self, args: &[&str], input: &[u8]) -> Run {
        let path = unique(self.folder.path(), "stdin");
        fs::write(&path, input).expect("the folder is ours");
        let mut command = self.command(args);
        command.stdin(File::open(&path).expect("it was just written"));
        Process::start(self.folder.path(), command).wait()
    }

    /// What the server says about a topic; or why it does not.
    pub(crate) fn look_at(&self, topic: &str) -> Result<serde_json::Value, String> {
        let run = self.run(&["topics", "describe", "--json", "--", topic]);
        if run.code != exit::DONE {
            return Err(run.stderr);
        }
        Ok(serde_json::from_str(run.text()).expect("it is JSON"))
    }

    /// What the server says about a topic that is there.
    #[track_caller]
    pub(crate) fn describe(&self, topic: &str) -> serde_json::Value {
        self.look_at(topic).unwrap_or_else(|line| panic!("{line}"))
    }

    /// Asks about a topic, which may not be there yet, until `judge` agrees with what is said.
    #[track_caller]
    pub(crate) fn describe_until(
        &self,
        topic: &str,
        what: &str,
        judge: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        eventually(what, || {
            let stats = self.look_at(topic)?;
            if judge(&stats) { Ok(stats) } else { Err(stats.to_string()) }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(process) = &self.process
        {
            eprintln!("the server at {} logged:\n{}", self.address, process.stderr());
        }
    }
}

#[track_caller]
fn serve(folder: &Path, listen: &str, flags: &[&str]) -> (Process, SocketAddr) {
    listening(folder, psa(["serve", "--listen", listen].iter().chain(flags)))
}

/// Starts a server with this command and reads from its first line where it listens.
#[track_caller]
fn listening(folder: &Path, command: Command) -> (Process, SocketAddr) {
    let mut process = Process::start(folder, command);
    let address = eventually("the server's first line", || {
        let out = String::from_utf8(process.stdout()).expect("it says text");
        if let Some((line, _)) = out.split_once('\n') {
            let address = line.rsplit(' ').next().and_then(|word| word.parse().ok());
            return Ok(address.unwrap_or_else(|| panic!("no address at the end of {line:?}")));
        }
        assert!(process.is_running(), "the server ended: {}", process.stderr());
        Err(format!("{out:?}; log: {}", process.stderr()))
    });
    (process, address)
}
