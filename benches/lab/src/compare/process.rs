//! A rival's server: a child process on a free loopback port, with a folder of its own that is removed when the
//! process ends.

use psa_load::error::{Error, Result, describe_io};
use psa_load::facts::{self, Usage};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take to start listening.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server. It is killed when this is dropped, which is safe because nobody needs what it stores.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

/// The number of the next folder of this process.
static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Finds a program in `PATH` or where Debian installs servers.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The first line of a program's `--version` output.
pub(crate) fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

impl Process {
    /// Starts `program` and waits until it listens. `configure` receives the port and the folder.
    pub(crate) fn start(
        program: &Path,
        configure: impl Fn(&mut Command, u16, &Path) -> std::io::Result<()>,
    ) -> Result<Process> {
        Process::start_in(&std::env::temp_dir(), program, configure)
    }

    /// As [`start`](Process::start), with its folder in this one.
    pub(crate) fn start_in(
        place: &Path,
        program: &Path,
        configure: impl Fn(&mut Command, u16, &Path) -> std::io::Result<()>,
    ) -> Result<Process> {
        // Try twice: another program may take the port first.
        Process::try_start(place, program, &configure)
            .or_else(|_| Process::try_start(place, program, &configure))
    }

    fn try_start(
        place: &Path,
        program: &Path,
        configure: impl Fn(&mut Command, u16, &Path) -> std::io::Result<()>,
    ) -> Result<Process> {
        let what = format!("start {}", program.display());
        let fail = |error: &std::io::Error| Error::failed(&what, describe_io(error));
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("psa-bench-{}-{number}", std::process::id());
        let folder = place.join(name);
        std::fs::create_dir_all(&folder).map_err(|error| fail(&error))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
        let address = free.map_err(|error| fail(&error))?;
        let mut command = Command::new(program);
        configure(&mut command, address.port(), &folder).map_err(|error| fail(&error))?;
        command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(|error| fail(&error))?;
        let mut process = Process { child, address, folder };
        let began = Instant::now();
        while !process.listens() {
            if process.has_ended() {
                return Err(Error::failed(&what, "it ended before it listened"));
            }
            if began.elapsed() > PATIENCE {
                let why = format!("it does not listen after {} s", PATIENCE.as_secs());
                return Err(Error::failed(&what, why));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// The address on which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ID of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The resources it has used so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        facts::exact_usage(self.child.id())
    }

    /// Whether a server listens. A TCP connection to a free port in the ephemeral range can connect to itself, so
    /// both ends are compared.
    fn listens(&self) -> bool {
        TcpStream::connect(self.address)
            .is_ok_and(|stream| stream.local_addr().ok() != stream.peer_addr().ok())
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
