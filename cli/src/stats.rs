//! `psa stats`: prints statistics once, as a table or JSON, or shows them live with `--watch`.

use crate::args::StatsArgs;
use crate::config::Config;
use crate::config::settings::Key;
use crate::connect;
use crate::error::{Error, Exit, Result};
use crate::print;
use crate::signals::Signals;
use crate::snapshot;
use crate::terminal;
use crate::topics::{describe, describe_all, describe_listed, print_lines};
use crate::watch::{Action, Snapshot, View};
use psa::client::{Client, ClientError};
use psa_load::client::failure;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// The shortest interval at which the live view asks the server.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Shows the statistics.
pub(crate) fn run(config: &Config, args: StatsArgs) -> Result {
    if args.watch && !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Error::usage("--watch", "it needs a terminal").hint("use --json for programs"));
    }
    if args.watch && terminal::is_dumb() {
        let why = "it needs a terminal that can move its cursor, and TERM is `dumb`";
        return Err(Error::usage("--watch", why).hint("leave it out, or set TERM"));
    }
    connect::block_on(async {
        let client = connect::connect(config, "stats").await?;
        if args.watch { live(config, client, args).await } else { once(&client, &args).await }
    })
}

async fn once(client: &Client, args: &StatsArgs) -> Result {
    match &args.topic {
        Some(topic) => describe(client, topic, args.json).await,
        None => {
            let all = describe_all(client).await.map_err(|error| failure("statistics", &error))?;
            if args.json {
                print_lines(all.iter().map(snapshot::detail_json))
            } else {
                print(snapshot::stats_table(&all).as_bytes())
            }
        }
    }
}

/// The live view, until a key or a signal ends it.
async fn live(config: &Config, client: Client, args: StatsArgs) -> Result {
    let mut signals = Signals::listen()?;
    let (select, selected) = watch::channel(args.topic.clone());
    let (report, mut snapshots) = mpsc::channel(1);
    let interval = args.interval.max(MIN_INTERVAL);
    // A separate task, so that keys work even if the server does not answer.
    tokio::spawn(poll_server(client, args.topic, interval, selected, report));
    let mut actions = read_actions();

    let fail = |error: io::Error| Error::file("terminal", &error);
    let mut view = View::new(&config.text(Key::Server));
    // `try_init` also restores the terminal after a panic. The terminal's own `drop` would report errors on standard
    // error, and panic if that is a closed terminal; so it is never dropped, and the guard below restores the terminal.
    let mut terminal = ManuallyDrop::new(ratatui::try_init().map_err(fail)?);
    let _restored = Restore;
    // When the next answer is due: the time of the last one, plus the interval.
    let mut due = Instant::now();
    loop {
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            return Err(Error::stdout(&error));
        }
        tokio::select! {
            exit = signals.next() => return Err(Error::quiet(exit)),
            snapshot = snapshots.recv() => match snapshot {
                Some(Ok(snapshot)) => {
                    due = snapshot.at + interval;
                    view.update(snapshot);
                }
                Some(Err(error)) => view.fail(failure("statistics", &error).to_string()),
                None => return Ok(()),
            },
            // After a while, the view says for how long the server has not answered.
            () = tokio::time::sleep(SECOND) => view.wait(due.elapsed()),
            action = actions.recv() => match action {
                Some(Action::Quit) | None => return Ok(()),
                Some(Action::Interrupt) => return Err(Error::quiet(INTERRUPT)),
                // A new terminal, whose first frame draws everything. Clearing the old one would ask the terminal
                // for its cursor's position, and the thread that reads keys would get the answer.
                Some(Action::Suspend) => terminal = ManuallyDrop::new(suspend().map_err(fail)?),
                Some(Action::Move(lines)) => view.select(lines),
                Some(Action::Refresh) => select.send_modify(|_| {}),
                Some(Action::Redraw) => {}
            },
        }
        // If another topic was selected, the polling task asks for it immediately.
        let wanted = view.selected().map(str::to_string);
        select.send_if_modified(|current| {
            let changed = wanted.is_some() && *current != wanted;
            if changed {
                *current = wanted;
            }
            changed && view.wants_detail()
        });
    }
}

/// The exit for Ctrl-C, which arrives here as a key, because the terminal sends no signal for it in this mode.
const INTERRUPT: Exit = Exit::Signal(2);

const SECOND: Duration = Duration::from_secs(1);

/// Restores the terminal and stops the process, as Ctrl-Z does elsewhere. Returns when the process continues.
fn suspend() -> io::Result<ratatui::DefaultTerminal> {
    ratatui::try_restore()?;
    execute!(io::stdout(), Show)?;
    rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
    ratatui::try_init()
}

/// Restores the terminal when the live view ends, however it ends.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A closed terminal cannot be restored, and need not be.
        let _ = ratatui::try_restore();
        let _ = execute!(io::stdout(), Show);
    }
}

/// Fetches snapshots from the server repeatedly. `only` is the topic that the user named.
async fn poll_server(
    client: Client,
    only: Option<String>,
    interval: Duration,
    mut selected: watch::Receiver<Option<String>>,
    report: mpsc::Sender<Result<Snapshot, ClientError>>,
) {
    loop {
        let topic = selected.borrow_and_update().clone();
        let snapshot = fetch_snapshot(&client, only.as_deref(), topic.as_deref()).await;
        if report.send(snapshot).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            changed = selected.changed() => if changed.is_err() { return },
        }
    }
}

async fn fetch_snapshot(
    client: &Client,
    only: Option<&str>,
    selected: Option<&str>,
) -> Result<Snapshot, ClientError> {
    let topics = client.topics(only.unwrap_or_default()).await?;
    let topics: Vec<_> =
        topics.into_iter().filter(|topic| only.is_none_or(|only| topic.name == only)).collect();
    let selected = selected
        .filter(|name| topics.iter().any(|topic| topic.name == *name))
        .or(topics.first().map(|topic| topic.name.as_str()));
    let detail = match selected {
        None => None,
        Some(name) => describe_listed(client, name).await?,
    };
    Ok(Snapshot { at: Instant::now(), topics, detail })
}

/// Reads the keyboard on a separate thread, which ends with the process.
fn read_actions() -> mpsc::Receiver<Action> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Some(action) = action(&event) else { continue };
            if sender.blocking_send(action).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The action for a terminal event, if it has one.
fn action(event: &Event) -> Option<Action> {
    match event {
        Event::Resize(..) => Some(Action::Redraw),
        Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => None,
        Event::Key(KeyEvent { code: KeyCode::Char(key), modifiers, .. })
            if modifiers.contains(KeyModifiers::CONTROL) =>
        {
            match key {
                'c' => Some(Action::Interrupt),
                'd' => Some(Action::Quit),
                'z' => Some(Action::Suspend),
                _ => None,
            }
        }
        Event::Key(KeyEvent { code, .. }) => match code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Action::Quit),
            KeyCode::Up | KeyCode::Char('k') => Some(Action::Move(-1)),
            KeyCode::Down | KeyCode::Char('j') => Some(Action::Move(1)),
            KeyCode::PageUp => Some(Action::Move(-10)),
            KeyCode::PageDown => Some(Action::Move(10)),
            KeyCode::Home => Some(Action::Move(isize::MIN)),
            KeyCode::End => Some(Action::Move(isize::MAX)),
            KeyCode::Char('r') => Some(Action::Refresh),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert_eq!(action(&key(KeyCode::Char('q'), KeyModifiers::NONE)), Some(Action::Quit));
        let control = |letter| action(&key(KeyCode::Char(letter), KeyModifiers::CONTROL));
        assert_eq!(control('c'), Some(Action::Interrupt));
        assert_eq!(control('z'), Some(Action::Suspend));
        assert_eq!(control('d'), Some(Action::Quit));
        assert_eq!(action(&key(KeyCode::Char('c'), KeyModifiers::NONE)), None);
        assert_eq!(action(&key(KeyCode::Down, KeyModifiers::NONE)), Some(Action::Move(1)));
        assert_eq!(action(&Event::Resize(10, 10)), Some(Action::Redraw));
    }
}
