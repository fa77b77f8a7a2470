//! A few lines that are loaded into a process in front of the C library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Has `command` load a library, and run in `folder`, where it is built of one source file, which is named from
/// the package's folder.
pub(crate) fn preload(command: &mut Command, source: &str, folder: &Path) {
    build(source, folder);
    // A relative name: the loader takes a space or a colon in the folder's for the end of the name.
    command.env("LD_PRELOAD", Path::new(".").join(LIBRARY)).current_dir(folder);
}

const LIBRARY: &str = "libshim.so";

fn build(source: &str, folder: &Path) {
    let library = folder.join(LIBRARY);
    // The compiler that built this test: beside the cargo that runs it, whatever PATH says.
    let beside = std::env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    let compiler = std::env::var_os("RUSTC").map(PathBuf::from).or(beside);
    let compiler = compiler.filter(|path| path.exists()).unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(compiler);
    command.args(["--edition", "2024", "--crate-type", "cdylib", "-Cpanic=abort", "-O", "-o"]);
    command.arg(&library).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    let output = command.output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
