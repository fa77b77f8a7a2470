//! Notes which compiler builds the suite, for the captions of its figures.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").expect("cargo sets RUSTC");
    let version = Command::new(rustc).arg("--version").output().expect("rustc says its version");
    let version = String::from_utf8(version.stdout).expect("rustc writes UTF-8");
    println!("cargo::rustc-env=SUITE_RUSTC={}", version.trim());
}
