//! Notifies the service manager that started the server, if the manager wants to know (systemd's `Type=notify`,
//! which sets `NOTIFY_SOCKET`). Otherwise this does nothing.

use sd_notify::NotifyState;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long to wait until a notification is sent: long enough for any manager that reads its socket, and no longer
/// than a server that starts or stops can afford.
const PATIENCE: Duration = Duration::from_millis(500);

/// Reports that the server listens.
pub(crate) fn ready() {
    notify(NotifyState::Ready);
}

/// Reports that the server drains.
pub(crate) fn stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'static>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // A manager that does not read its socket must not block the server, so a thread sends the notification. A manager
    // that reads must get it before the process ends, so this waits for the thread, for a limited time.
    let (sent, is_sent) = mpsc::channel::<()>();
    thread::spawn(move || {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "cannot tell the service manager how the server is");
        }
        drop(sent);
    });
    let _ = is_sent.recv_timeout(PATIENCE);
}
