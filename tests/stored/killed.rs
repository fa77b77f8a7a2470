//! What another process would find if this one were killed now: a copy of what the system has of its files.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// The folder in which a process is killed now.
#[allow(dead_code, reason = "not all who include this file need it")]
pub(crate) fn killed(folder: &Path) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    copy_folder(folder, copied.path());
    copied
}

/// Copies a folder into another one, which is created if it is missing.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}
