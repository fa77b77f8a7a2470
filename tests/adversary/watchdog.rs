//! Running a test so that it cannot hang in silence, and alone in the process where it counts for all.

use std::cell::Cell;
use std::io::Write as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

/// How long a test, or one step of it, may take. Nothing here takes a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// The payload of a panic that belongs to a test: the panic hook says nothing.
pub(crate) struct Planned;

/// Panics, as planned.
pub(crate) fn panic_as_planned() -> ! {
    std::panic::panic_any(Planned)
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether `f` panics, as it should: nothing is said of it.
pub(crate) fn panics(f: impl FnOnce()) -> bool {
    IS_QUIET.set(true);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    IS_QUIET.set(false);
    ran.is_err()
}

fn silence_planned_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Planned>() && !IS_QUIET.get() {
                usual(info);
            }
        }));
    });
}

/// Held by each test; exclusively by those that count what the whole process does.
static PROCESS: RwLock<()> = RwLock::new(());

/// What a test is at, for whoever finds it hanging, and how many steps it has taken.
pub(crate) struct Progress(Mutex<(String, u64)>);

impl Progress {
    pub(crate) fn at(&self, what: String) {
        let mut at = self.0.lock();
        *at = (what, at.1 + 1);
    }
}

fn run<U>(test: impl FnOnce(&Progress) -> U) -> U {
    silence_planned_panics();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let progress = Progress(Mutex::default());
    let (over, ends) = mpsc::channel::<()>();
    let at = &progress.0;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut steps = 0;
            while ends.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let at = at.lock();
                if at.1 == steps {
                    // Not with a macro, whose output the test harness keeps to itself.
                    let _ = writeln!(std::io::stderr(), "{name} hangs at: {}", at.0);
                    // What hangs cannot be ended in any other way.
                    std::process::abort();
                }
                steps = at.1;
            }
        });
        // Also if the test panics.
        let _over = over;
        test(&progress)
    })
}

/// Runs a test; ends the process if it hangs.
pub(crate) fn watched<U>(test: impl FnOnce(&Progress) -> U) -> U {
    let _process = PROCESS.read();
    run(test)
}

/// The same, with no other test at the same time.
pub(crate) fn watched_alone<U>(test: impl FnOnce(&Progress) -> U) -> U {
    let _process = PROCESS.write();
    run(test)
}
