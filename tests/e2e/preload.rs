//! A few lines that are loaded into a process in front of the C library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a library of one source file, which is named from the repository's root, into `folder`.
pub(crate) fn build(source: &str, folder: &Path) -> PathBuf {
    let library = folder.join("libshim.so");
    // The compiler that built this test.
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(compiler);
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-Cpanic=abort", "-O", "-o"]);
    command.arg(&library).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    let output = command.output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}
