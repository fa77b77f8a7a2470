//! A subscriber process, which can be killed and started again.

use std::path::PathBuf;
use std::process::Command;

use super::harness::*;
use super::input::Input;

/// How a subscriber keeps what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// On standard output.
    Standard,
    /// `--output`.
    Output,
    /// `--output` and `--state`: it can be killed.
    State,
}

/// A subscriber that follows a topic into a file.
pub(crate) struct Follower {
    pub(crate) name: String,
    folder: PathBuf,
    server: String,
    args: Vec<String>,
    /// Where the records are, unless they are on standard output.
    output: Option<PathBuf>,
    process: Option<Process>,
    /// What the runs that are over said on standard error, and the last one on standard output.
    said: String,
    last_stdout: Vec<u8>,
}

impl Follower {
    /// A subscriber of `topic` with further flags. It does not run yet.
    pub(crate) fn new(
        server: &Server,
        name: &str,
        topic: &str,
        keep: Keep,
        flags: &[&str],
    ) -> Follower {
        let mut args: Vec<String> = ["sub", "--format", "raw"].map(String::from).into();
        args.extend(flags.iter().map(ToString::to_string));
        let path = |kind: &str| server.path(&format!("{name}.{kind}"));
        let mut add = |flag: &str, path: &PathBuf| {
            args.extend([flag.to_string(), path.to_str().expect("a plain path").to_string()]);
        };
        let output = (keep != Keep::Standard).then(|| path("output"));
        if let Some(output) = &output {
            add("--output", output);
        }
        if keep == Keep::State {
            add("--state", &path("state"));
        }
        args.extend(["--".into(), topic.to_string()]);
        Follower {
            name: name.to_string(),
            folder: server.folder.path().to_path_buf(),
            server: server.address.to_string(),
            args,
            output,
            process: None,
            said: String::new(),
            last_stdout: Vec::new(),
        }
    }

    /// Starts it, for the first time or again.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let mut command: Command = psa(&self.args);
        command.env("PSA_SERVER", &self.server);
        self.process = Some(Process::start(&self.folder, command));
    }

    /// Kills it with SIGKILL. It must have run until then.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        assert!(process.is_running(), "{} ended by itself: {}", self.name, process.stderr());
        let run = process.kill();
        assert_eq!(run.code, exit::KILLED, "{} ended by itself: {}", self.name, run.stderr);
        self.said.push_str(&run.stderr);
        self.last_stdout = run.stdout;
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Run {
        self.process.take().expect("it runs").wait()
    }

    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it runs")
    }

    /// What it has written: all of its file, or what the run that was killed last wrote.
    pub(crate) fn written(&self) -> Vec<u8> {
        self.output.as_deref().map_or_else(|| self.last_stdout.clone(), read)
    }

    /// What it has written so far, while it runs.
    pub(crate) fn written_now(&mut self) -> Vec<u8> {
        match &self.output {
            Some(path) => read(path),
            None => self.process().stdout(),
        }
    }

    /// Ends it with SIGTERM and checks its code.
    #[track_caller]
    pub(crate) fn stop(&mut self, code: i32) {
        self.process().signal(rustix::process::Signal::TERM);
        let run = self.wait().expect(code);
        self.said.push_str(&run.stderr);
    }

    /// How much it has written so far, in its file.
    pub(crate) fn length(&self) -> usize {
        let path = self.output.as_deref().expect("it has a file");
        usize::try_from(length(path)).expect("it fits the memory")
    }

    /// Waits for it to end in order, and checks that it wrote exactly `input` and complained of nothing.
    #[track_caller]
    pub(crate) fn expect(mut self, input: &Input) {
        let run = self.wait();
        let name = &self.name;
        assert_eq!(run.code, exit::DONE, "{name}, a subscriber of {}: {}", input.name, run.stderr);
        let said = self.said + &run.stderr;
        assert_eq!(said, "", "{name}, a subscriber of {}, has nothing to complain of", input.name);
        let written = self.output.as_deref().map_or(run.stdout, read);
        expect_same(&written, &input.bytes, &format!("{name}, a subscriber of {}", input.name));
    }
}

/// Checks that bytes are the same; says where they are not.
#[track_caller]
pub(crate) fn expect_same(written: &[u8], input: &[u8], what: &str) {
    if written == input {
        return;
    }
    let same = written.iter().zip(input).take_while(|(a, b)| a == b).count();
    let show = |bytes: &[u8]| {
        let end = bytes.len().min(same + 80);
        String::from_utf8_lossy(&bytes[same.min(end)..end]).into_owned()
    };
    panic!(
        "{what}: {} bytes written, {} published; they differ from byte {same} on: {:?} instead of {:?}",
        written.len(),
        input.len(),
        show(written),
        show(input)
    );
}
