//! The picture of a soak, from what `psa-lab soak --json` said.

use serde::Deserialize;

use crate::draw::course::{Curve, Panel, Time, draw as draw_course};
use crate::draw::{Colour, Frame};
use crate::text::grouped;

/// What of it is needed here.
#[derive(Deserialize)]
struct Report {
    version: String,
    config: Config,
    machine: Machine,
    topics: u64,
    lives: u64,
    passers: u64,
    deliveries: u64,
    lost: u64,
    duplicated: u64,
    corrupt: u64,
    samples: Samples,
}

#[derive(Deserialize)]
struct Config {
    minutes: f64,
    seed: u64,
}

#[derive(Deserialize)]
struct Machine {
    cpu: Option<String>,
    cores: u64,
    kernel: Option<String>,
}

/// A list for each figure, all of the same length.
#[derive(Deserialize)]
struct Samples {
    seconds: Vec<f64>,
    rss_bytes: Vec<f64>,
    segment_bytes: Vec<f64>,
    live_segments: Vec<f64>,
    pooled_segments: Vec<f64>,
    descriptors: Vec<f64>,
    cursors: Vec<f64>,
    leases: Vec<f64>,
    delivered: Vec<f64>,
}

/// Draws it.
///
/// # Errors
///
/// If the text is not what the command says.
pub fn draw(text: &str) -> Result<String, String> {
    let report: Report = serde_json::from_str(text)
        .map_err(|error| format!("this is not what `psa-lab soak --json` says: {error}"))?;
    let Report { samples, config, machine, .. } = &report;
    let curve = |label: &str, values: &[f64], unit: f64, colour| Curve {
        label: label.to_owned(),
        values: values.iter().map(|value| value / unit).collect(),
        colour: Colour::Line(colour),
    };
    let panel = |title: &str, curves| Panel { title: title.to_owned(), curves };
    let mib = 1_048_576.0;
    let panels = [
        panel(
            "memory of the server, MiB",
            vec![
                curve("resident", &samples.rss_bytes, mib, 0),
                curve("of that, segments", &samples.segment_bytes, mib, 1),
            ],
        ),
        panel(
            "segments",
            vec![
                curve("live", &samples.live_segments, 1.0, 1),
                curve("pooled", &samples.pooled_segments, 1.0, 5),
            ],
        ),
        panel(
            "descriptors, cursors, leases",
            vec![
                curve("descriptors", &samples.descriptors, 1.0, 0),
                curve("cursors", &samples.cursors, 1.0, 2),
                curve("leases", &samples.leases, 1.0, 4),
            ],
        ),
        panel(
            "million records delivered and checked",
            vec![curve("delivered", &samples.delivered, 1e6, 2)],
        ),
    ];
    let minutes: Vec<f64> = samples.seconds.iter().map(|seconds| seconds / 60.0).collect();
    let step = if config.minutes >= 30.0 { 10.0 } else { config.minutes / 6.0 };
    let time = Time { points: &minutes, step, title: "minutes" };
    let frame = Frame {
        title: format!("{} minutes of everything coming and going", config.minutes),
        subtitle: format!(
            "{} topics one after another, {} subscribers, {} connections that passed by",
            grouped(report.topics),
            grouped(report.lives),
            grouped(report.passers)
        ),
        caption: vec![
            format!(
                "{} records delivered; lost {}, duplicated {}, corrupt {}",
                grouped(report.deliveries),
                report.lost,
                report.duplicated,
                report.corrupt
            ),
            format!(
                "psa {}, seed {}; {}, {} cores, Linux {}",
                report.version,
                config.seed,
                machine.cpu.as_deref().unwrap_or("unknown processor"),
                machine.cores,
                machine.kernel.as_deref().unwrap_or("unknown")
            ),
        ],
    };
    Ok(draw_course(&frame, &time, &panels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_drawn_and_anything_else_is_refused() {
        let list = "[0, 1, 2]";
        let keys = [
            "seconds",
            "rss_bytes",
            "segment_bytes",
            "live_segments",
            "pooled_segments",
            "descriptors",
            "cursors",
            "leases",
            "delivered",
        ];
        let samples = keys.map(|key| format!("\"{key}\": {list}")).join(",");
        let report = format!(
            r#"{{"version": "1", "config": {{"minutes": 0.1, "seed": 7}}, "machine": {{"cpu": null,
                "cores": 2, "kernel": null}}, "topics": 1, "lives": 2, "passers": 3, "deliveries": 4,
                "lost": 0, "duplicated": 0, "corrupt": 0, "samples": {{{samples}}}}}"#
        );
        let svg = draw(&report).unwrap();
        assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("resident"), "{svg}");
        assert!(draw("{}").is_err());
    }
}
