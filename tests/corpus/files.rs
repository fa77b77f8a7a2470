//! A folder of inputs, one after the other.

use std::path::Path;

/// Says which input it was, if it panics.
struct Tell<'a>(&'a Path);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is {}", self.0.display());
        }
    }
}

/// Gives each file of `folder` to `check`.
pub(crate) fn replay(folder: &Path, check: fn(&[u8])) {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in &files {
        let _tell = Tell(file);
        check(&std::fs::read(file).unwrap());
    }
    println!("{} inputs", files.len());
}
