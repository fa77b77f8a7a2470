//! What a server tells the service manager that has started it, if that wants to know (systemd's
//! `Type=notify`, which says so with `NOTIFY_SOCKET`). Elsewhere this does nothing.

use sd_notify::NotifyState;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long we wait until a word is out: long enough for any manager that reads its socket, and no longer than a
/// server that begins or ends can afford.
const PATIENCE: Duration = Duration::from_millis(500);

/// It listens.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// It drains.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'static>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // A manager that does not read its socket must not stop us. One that does must be told before the process ends.
    let (told, is_told) = mpsc::channel::<()>();
    thread::spawn(move || {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "cannot tell the service manager how the server is");
        }
        drop(told);
    });
    let _ = is_told.recv_timeout(PATIENCE);
}
