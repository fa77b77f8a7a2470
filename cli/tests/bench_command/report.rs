//! Running a benchmark, and reading what it says. The laboratory's tests, in `benches/lab/tests`, have it from here, too.

use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// Runs a program to its end, with none of the caller's settings.
pub(crate) fn run(mut command: Command, arguments: &[&str]) -> Output {
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("PSA_")) {
            command.env_remove(variable);
        }
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The one object that a mode has said, after the checks that hold for all.
pub(crate) fn read(output: Output, arguments: &[&str]) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    for key in [
        "mode",
        "version",
        "config",
        "machine",
        "subscribers",
        "record_bytes",
        "records",
        "deliveries",
        "seconds",
        "deliveries_per_s",
        "ceiling_per_s",
        "ratio",
        "peak_rss_bytes",
        "server_cpu_s",
        "server_cpu_ns_per_delivery",
        "client_cpu_s",
        "lost",
        "duplicated",
        "corrupt",
        "gaps",
        "missed",
    ] {
        assert!(report.get(key).is_some(), "{arguments:?}: no `{key}` in {text}");
    }
    assert_eq!(report["mode"], arguments[0]);
    for key in ["lost", "duplicated", "corrupt"] {
        assert_eq!(report[key], 0, "{arguments:?}: {key} in {text}");
    }
    report
}

pub(crate) fn number(report: &Value, key: &str) -> f64 {
    report[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {report}"))
}
