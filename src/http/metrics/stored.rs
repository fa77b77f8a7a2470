//! Figures of stored topics, and of the disk that they share.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Scrape, counter, gauge};
use crate::broker::{Pressure, StoredStats};

/// The values over all topics that are stored.
#[derive(Default)]
pub(super) struct Stored {
    topics: u64,
    failed: u64,
    bytes: u64,
    files: u64,
    high: u64,
    critical: u64,
    readers: u64,
    syncs: u64,
    sync_time: Duration,
    groups: u64,
    written_bytes: u64,
}

impl Stored {
    pub(super) fn add(&mut self, stored: &StoredStats) {
        self.topics += 1;
        self.failed += u64::from(stored.failed.is_some());
        self.bytes += stored.bytes;
        self.files += stored.files;
        self.high += u64::from(stored.pressure >= Pressure::High);
        self.critical += u64::from(stored.pressure == Pressure::Critical);
        self.readers += stored.readers;
        self.syncs += stored.syncs;
        self.sync_time += stored.sync_time;
        self.groups += stored.groups;
        self.written_bytes += stored.written_bytes;
    }
}

impl Scrape {
    /// What all stored topics have in their files.
    pub(super) fn stored_totals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stored = &self.topics.sums.stored;
        let recovered = self.api.broker.recovered();
        let damaged = recovered.map_or(0, |recovered| recovered.damaged.len() as u64);
        for (name, help, value) in [
            ("psa_stored_topics", "Topics that are stored", stored.topics),
            (
                "psa_stored_topics_damaged",
                "Topics that are damaged, so that the server has started without them",
                damaged,
            ),
            (
                "psa_stored_recovered_records",
                "Records that were in the files when the server started",
                recovered.map_or(0, |recovered| recovered.records),
            ),
            (
                "psa_stored_recovered_cut_bytes",
                "Bytes at the ends of files that a crash had torn, and that were cut when the server started",
                recovered.map_or(0, |recovered| recovered.cut),
            ),
            (
                "psa_stored_failed",
                "Stored topics that take no records because the disk failed",
                stored.failed,
            ),
            ("psa_stored_bytes", "What their files take on the disk, in bytes", stored.bytes),
            ("psa_stored_files", "Their files", stored.files),
            (
                "psa_stored_topics_high",
                "Topics whose files take 80 % of what they may, or more",
                stored.high,
            ),
            (
                "psa_stored_topics_critical",
                "Topics whose files take 95 % of what they may, or more",
                stored.critical,
            ),
            ("psa_stored_readers", "Subscribers that read from the files", stored.readers),
        ] {
            gauge(encoder, name, help, value)?;
        }
        self.disk(encoder)?;
        let took = recovered.map_or(0.0, |recovered| recovered.took.as_secs_f64());
        let help = "How long opening the files took when the server started, in seconds";
        gauge(encoder, "psa_stored_recovery_seconds", help, took)?;
        for (name, help, value) in [
            (
                "psa_stored_syncs",
                "How often files of topics that there are were forced to the disk",
                stored.syncs,
            ),
            ("psa_stored_groups", "Groups of appends that were written together", stored.groups),
            (
                "psa_stored_written_bytes",
                "Bytes that were written to the files",
                stored.written_bytes,
            ),
        ] {
            counter(encoder, name, help, value)?;
        }
        let help = "How long forcing files to the disk took, in seconds";
        counter(encoder, "psa_stored_sync_seconds", help, stored.sync_time.as_secs_f64())
    }

    /// The disk that all stored topics share.
    pub(super) fn disk(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(disk) = self.api.broker.disk() else { return Ok(()) };
        for (name, help, value) in [
            (
                "psa_disk_taken_bytes",
                "What stored topics take of their limit on the disk, with what is reserved for them, in bytes",
                Some(disk.taken),
            ),
            ("psa_disk_limit_bytes", "Their limit together in bytes, if there is one", disk.limit),
            (
                "psa_disk_pressure",
                "1 from 80 % of that limit on, 2 from 95 % on",
                Some(disk.pressure().level()),
            ),
            ("psa_disk_free_bytes", "What their file system has free in bytes", disk.free),
            (
                "psa_disk_kept_free_bytes",
                "What of that they leave free, in bytes",
                Some(disk.kept_free),
            ),
            (
                "psa_disk_space_pressure",
                "2 when 95 % of what may be used of the file system is used, or more",
                Some(disk.space_pressure().level()),
            ),
        ] {
            if let Some(value) = value {
                gauge(encoder, name, help, value)?;
            }
        }
        Ok(())
    }

    /// The files of each stored topic. Topics in memory have no such series.
    pub(super) fn each_stored_topic(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // A family without a sample says nothing, and some parsers refuse it.
        if self.topics.labelled.iter().all(|topic| topic.stored.is_none()) {
            return Ok(());
        }
        type Read = fn(&StoredStats) -> u64;
        let figures: [(&str, &str, bool, Read); 10] = [
            (
                "psa_topic_stored_bytes",
                "What the topic's files take on the disk, in bytes",
                false,
                |s| s.bytes,
            ),
            ("psa_topic_stored_limit_bytes", "The most that they may take", false, |s| s.limit),
            (
                "psa_topic_stored_pressure",
                "1 if they take 80 % of what they may, or more; 2 from 95 % on",
                false,
                |s| s.pressure.level(),
            ),
            ("psa_topic_stored_files", "Its files", false, |s| s.files),
            ("psa_topic_stored_readers", "Subscribers that read from the files", false, |s| {
                s.readers
            }),
            (
                "psa_topic_stored_failed",
                "1 if the topic takes no records because the disk failed",
                false,
                |s| s.failed.is_some().into(),
            ),
            (
                "psa_topic_stored_unsynced_records",
                "Records that were written and not forced to the disk yet",
                false,
                |s| s.next_offset.saturating_sub(s.durable_offset),
            ),
            ("psa_topic_stored_syncs", "How often the files were forced to the disk", true, |s| {
                s.syncs
            }),
            (
                "psa_topic_stored_groups",
                "Groups of appends that were written together",
                true,
                |s| s.groups,
            ),
            ("psa_topic_stored_written_bytes", "Bytes that were written to the files", true, |s| {
                s.written_bytes
            }),
        ];
        for (name, help, is_counter, read) in figures {
            self.family(encoder, name, help, is_counter, |t| t.stored.as_ref().map(read))?;
        }
        let (name, help) =
            ("psa_topic_stored_sync_seconds", "How long forcing them took, in seconds");
        self.family(encoder, name, help, true, |topic| {
            topic.stored.as_ref().map(|stored| stored.sync_time.as_secs_f64())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::broker::{Broker, BrokerConfig, Durability};
    use crate::http::HttpConfig;
    use crate::http::api::Api;
    use crate::http::metrics::{Labelled, Sums, Topics};

    fn exposed(broker: Broker, topics: Topics) -> String {
        let api = Arc::new(Api::new(HttpConfig::default(), broker));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape { api, topics }));
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        text
    }

    fn assert_has(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }

    #[test]
    fn a_stored_topic_has_figures_of_its_files_and_one_in_memory_has_none() {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        let stats = broker.create("t", &Default::default()).unwrap().log().stats();
        let stored = StoredStats {
            next_offset: 9,
            durable_offset: 7,
            bytes: 4096,
            limit: 1 << 30,
            files: 2,
            syncs: 3,
            sync_time: Duration::from_millis(250),
            groups: 4,
            written_bytes: 5,
            readers: 6,
            failed: Some("why".into()),
            pressure: Pressure::Critical,
            ..StoredStats::default()
        };
        let labelled = |name: &str, durability, stored| Labelled {
            name: name.into(),
            stats: stats.clone(),
            delivered: 0,
            durability,
            stored,
        };
        let mut sums = Sums::default();
        for _ in 0..2 {
            sums.stored.add(&stored);
        }
        let topics = Topics {
            labelled: vec![
                labelled("kept", Durability::Synced, Some(stored)),
                labelled("not", Durability::Memory, None),
            ],
            leases: Vec::new(),
            count: 2,
            sums,
        };
        let text = exposed(broker, topics);
        for line in [
            "psa_topic_durability{topic=\"kept\",durability=\"synced\"} 1",
            "psa_topic_durability{topic=\"not\",durability=\"memory\"} 1",
            "psa_topic_stored_bytes{topic=\"kept\"} 4096",
            "psa_topic_stored_limit_bytes{topic=\"kept\"} 1073741824",
            "psa_topic_stored_pressure{topic=\"kept\"} 2",
            "psa_topic_stored_files{topic=\"kept\"} 2",
            "psa_topic_stored_readers{topic=\"kept\"} 6",
            "psa_topic_stored_failed{topic=\"kept\"} 1",
            "psa_topic_stored_unsynced_records{topic=\"kept\"} 2",
            "psa_topic_stored_syncs_total{topic=\"kept\"} 3",
            "psa_topic_stored_sync_seconds_total{topic=\"kept\"} 0.25",
            "psa_topic_stored_groups_total{topic=\"kept\"} 4",
            "psa_topic_stored_written_bytes_total{topic=\"kept\"} 5",
            "psa_stored_topics 2",
            "psa_stored_failed 2",
            "psa_stored_bytes 8192",
            "psa_stored_files 4",
            "psa_stored_readers 12",
            "psa_stored_topics_high 2",
            "psa_stored_topics_critical 2",
            "psa_stored_syncs_total 6",
            "psa_stored_sync_seconds_total 0.5",
            "psa_stored_groups_total 8",
            "psa_stored_written_bytes_total 10",
        ] {
            assert_has(&text, line);
        }
        assert!(!text.contains("_stored_bytes{topic=\"not\"}"), "{text}");
        assert!(!text.contains("psa_disk_"), "there is no folder: {text}");
    }

    #[test]
    fn the_disk_that_stored_topics_share_has_figures() {
        let folder = tempfile::tempdir().unwrap();
        let config = BrokerConfig {
            max_disk: Some(6 << 20),
            disk_kept_free: Some(7),
            ..BrokerConfig::default()
        };
        let broker = Broker::with_folder(config, folder.path()).unwrap();
        broker.create("t", &Default::default()).unwrap();
        let topics =
            Topics { labelled: Vec::new(), leases: Vec::new(), count: 1, sums: Sums::default() };
        let text = exposed(broker, topics);
        for line in [
            "psa_disk_taken_bytes 5242880",
            "psa_disk_limit_bytes 6291456",
            "psa_disk_pressure 1",
            #[cfg(unix)]
            "psa_disk_kept_free_bytes 7",
        ] {
            assert_has(&text, line);
        }
        assert_eq!(text.contains("psa_disk_free_bytes "), cfg!(unix), "{text}");
    }
}
