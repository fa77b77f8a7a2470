//! `psa stats`: once as a table or JSON, or live with `--watch`.

use crate::args::StatsArgs;
use crate::config::Config;
use crate::config::settings::Key;
use crate::connect::{self, failure};
use crate::error::{Error, Exit, Result};
use crate::print;
use crate::signals::Signals;
use crate::snapshot;
use crate::terminal;
use crate::topics::{describe, describe_all, print_lines};
use crate::watch::{Input, Snapshot, View};
use psa::client::{Client, ClientError};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// The live view asks at most this often.
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
    let (report, mut looks) = mpsc::channel(1);
    let interval = args.interval.max(MIN_INTERVAL);
    // On a task of its own: a server that does not answer must not keep a key from working.
    tokio::spawn(ask(client, args.topic, interval, selected, report));
    let mut inputs = read_inputs();

    let fail = |error: io::Error| Error::file("terminal", &error);
    let mut view = View::new(&config.text(Key::Server));
    // This also restores the terminal when something panics. Its own drop complains on standard error,
    // which panics when that is a terminal that was closed; so the guard alone gives it back.
    let mut terminal = ManuallyDrop::new(ratatui::try_init().map_err(fail)?);
    let _restored = Restore;
    // When the last answer came, and the pause after it was over.
    let mut last = Instant::now();
    loop {
        if let Err(error) = terminal.draw(|frame| view.draw(frame)) {
            return Err(Error::stdout(&error));
        }
        tokio::select! {
            exit = signals.next() => return Err(Error::quiet(exit)),
            look = looks.recv() => match look {
                Some(Ok(snapshot)) => {
                    last = snapshot.at + interval;
                    view.update(snapshot);
                }
                Some(Err(error)) => view.fail(failure("statistics", &error).to_string()),
                None => return Ok(()),
            },
            // What is waited for is said after a while, and for how long.
            () = tokio::time::sleep(SECOND) => view.wait(last.elapsed()),
            input = inputs.recv() => match input {
                Some(Input::Quit) | None => return Ok(()),
                Some(Input::Interrupt) => return Err(Error::quiet(INTERRUPT)),
                // A new one, whose first frame draws everything: to clear the old one would ask the terminal
                // where its cursor is, and the thread that reads keys would get the answer.
                Some(Input::Suspend) => terminal = ManuallyDrop::new(suspend().map_err(fail)?),
                Some(Input::Move(lines)) => view.select(lines),
                Some(Input::Refresh) => select.send_modify(|_| {}),
                Some(Input::Redraw) => {}
            },
        }
        // The asking task looks at once if another topic was selected.
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

/// What Ctrl-C means, as a key: the terminal makes no signal of it here.
const INTERRUPT: Exit = Exit::Signal(2);

const SECOND: Duration = Duration::from_secs(1);

/// Gives the terminal back and stops, as Ctrl-Z does elsewhere. Returns when the process goes on.
fn suspend() -> io::Result<ratatui::DefaultTerminal> {
    ratatui::try_restore()?;
    execute!(io::stdout(), Show)?;
    rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
    ratatui::try_init()
}

/// Gives the terminal back on every way out.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        // A terminal that was closed cannot be restored, and needs not be.
        let _ = ratatui::try_restore();
        let _ = execute!(io::stdout(), Show);
    }
}

/// Looks at the server again and again. `only` is the topic that the user named.
async fn ask(
    client: Client,
    only: Option<String>,
    interval: Duration,
    mut selected: watch::Receiver<Option<String>>,
    report: mpsc::Sender<Result<Snapshot, ClientError>>,
) {
    loop {
        let topic = selected.borrow_and_update().clone();
        let look = look(&client, only.as_deref(), topic.as_deref()).await;
        if report.send(look).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            changed = selected.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(
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
        Some(name) => match client.describe(name).await {
            Ok(details) => Some(details),
            // Deleted since the list was made.
            Err(error) if error.code() == Some(psa::protocol::Code::UnknownTopic) => None,
            Err(error) => return Err(error),
        },
    };
    Ok(Snapshot { at: Instant::now(), topics, detail })
}

/// Reads the keyboard on a thread of its own, which ends with the process.
fn read_inputs() -> mpsc::Receiver<Input> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            let Some(input) = input(&event) else { continue };
            if sender.blocking_send(input).is_err() {
                break;
            }
        }
    });
    receiver
}

fn input(event: &Event) -> Option<Input> {
    match event {
        Event::Resize(..) => Some(Input::Redraw),
        Event::Key(KeyEvent { kind: KeyEventKind::Release, .. }) => None,
        Event::Key(KeyEvent { code: KeyCode::Char(key), modifiers, .. })
            if modifiers.contains(KeyModifiers::CONTROL) =>
        {
            match key {
                'c' => Some(Input::Interrupt),
                'd' => Some(Input::Quit),
                'z' => Some(Input::Suspend),
                _ => None,
            }
        }
        Event::Key(KeyEvent { code, .. }) => match code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Input::Quit),
            KeyCode::Up | KeyCode::Char('k') => Some(Input::Move(-1)),
            KeyCode::Down | KeyCode::Char('j') => Some(Input::Move(1)),
            KeyCode::PageUp => Some(Input::Move(-10)),
            KeyCode::PageDown => Some(Input::Move(10)),
            KeyCode::Home => Some(Input::Move(isize::MIN)),
            KeyCode::End => Some(Input::Move(isize::MAX)),
            KeyCode::Char('r') => Some(Input::Refresh),
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
        assert_eq!(input(&key(KeyCode::Char('q'), KeyModifiers::NONE)), Some(Input::Quit));
        let control = |letter| input(&key(KeyCode::Char(letter), KeyModifiers::CONTROL));
        assert_eq!(control('c'), Some(Input::Interrupt));
        assert_eq!(control('z'), Some(Input::Suspend));
        assert_eq!(control('d'), Some(Input::Quit));
        assert_eq!(input(&key(KeyCode::Char('c'), KeyModifiers::NONE)), None);
        assert_eq!(input(&key(KeyCode::Down, KeyModifiers::NONE)), Some(Input::Move(1)));
        assert_eq!(input(&Event::Resize(10, 10)), Some(Input::Redraw));
    }
}
