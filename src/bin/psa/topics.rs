//! `psa topics`: list, create, delete, close, describe.

use crate::args::{CreateArgs, OverflowArg, TopicsArgs, TopicsCommand};
use crate::config::Config;
use crate::config::value::Retention as RetentionWords;
use crate::connect::{self, failure};
use crate::error::{Error, Result, one_line};
use crate::print;
use crate::snapshot::{self, Detail, LeaseLine, Summary};
use psa::client::{Client, ClientError, TopicDetails, TopicInfo};
use psa::protocol::{Overflow, Retention, Settings};

/// Does what the subcommand says.
pub(crate) fn run(config: &Config, args: TopicsArgs) -> Result {
    connect::block_on(topics(config, args))
}

async fn topics(config: &Config, args: TopicsArgs) -> Result {
    let command = args.command.unwrap_or(TopicsCommand::List { prefix: String::new() });
    // Before the server is asked: what is wrong with the words alone is wrong without one.
    let settings = match &command {
        TopicsCommand::Create(create) => settings(create)?,
        _ => Settings::default(),
    };
    let client = connect::connect(config, "topics").await?;
    match command {
        TopicsCommand::List { prefix } => {
            let list =
                client.topics(&prefix).await.map_err(|error| failure("list topics", &error))?;
            let list: Vec<Summary> = list.into_iter().map(summary).collect();
            if args.json {
                print_lines(list.iter().map(snapshot::summary_json))
            } else {
                print(snapshot::summaries_table(&list).as_bytes())
            }
        }
        TopicsCommand::Create(create) => {
            let made = client.create_topic(&create.topic, settings, create.exists_ok).await;
            made.map_err(|error| failure(about("create", &create.topic), &error))
        }
        TopicsCommand::Delete { topics } => {
            for topic in topics {
                let deleted = client.delete_topic(&topic).await;
                deleted.map_err(|error| failure(about("delete", &topic), &error))?;
            }
            Ok(())
        }
        TopicsCommand::Close { topics } => {
            for topic in topics {
                let closed = client.close_topic(&topic).await;
                closed.map_err(|error| failure(about("close", &topic), &error))?;
            }
            Ok(())
        }
        TopicsCommand::Describe { topic } => {
            let detail = describe(&client, &topic).await?;
            if args.json {
                print_lines([snapshot::detail_json(&detail)].into_iter())
            } else {
                print(snapshot::detail_text(&detail).as_bytes())
            }
        }
    }
}

fn about(verb: &str, topic: &str) -> String {
    format!("{verb} `{}`", one_line(topic))
}

fn settings(create: &CreateArgs) -> Result<Settings> {
    let segment_bytes = create.segment.map_or(Ok(0), u32::try_from);
    let segment_bytes =
        segment_bytes.map_err(|_| Error::usage("--segment", "a segment is smaller than 4GiB"))?;
    if create.segment == Some(0) || create.memory == Some(0) {
        return Err(Error::usage("create", "a size of 0 makes no sense")
            .hint("leave it out for the server's default"));
    }
    Ok(Settings {
        segment_bytes,
        overflow: create.overflow.map(|overflow| match overflow {
            OverflowArg::Block => Overflow::Block,
            OverflowArg::Reject => Overflow::Reject,
            OverflowArg::Evict => Overflow::Evict,
        }),
        retention: create.retention.map(retention),
        memory_limit: create.memory.unwrap_or(0),
    })
}

fn retention(words: RetentionWords) -> Retention {
    match words {
        RetentionWords::Nothing => Retention::Nothing,
        RetentionWords::Records(records) => Retention::Records(records),
        RetentionWords::Bytes(bytes) => Retention::Bytes(bytes),
        RetentionWords::Age(age) => {
            Retention::AgeMs(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
        }
        RetentionWords::Everything => Retention::Everything,
    }
}

/// Everything about one topic.
pub(crate) async fn describe(client: &Client, topic: &str) -> Result<Detail> {
    let details =
        client.describe(topic).await.map_err(|error| failure(about("describe", topic), &error))?;
    Ok(detail(details))
}

/// Everything about many topics; one that was deleted meanwhile is left out.
pub(crate) async fn describe_all(client: &Client) -> Result<Vec<Detail>, ClientError> {
    let mut all = Vec::new();
    for topic in client.topics("").await? {
        match client.describe(&topic.name).await {
            Ok(details) => all.push(detail(details)),
            Err(error) if error.code() == Some(psa::protocol::Code::UnknownTopic) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A topic of the client's list as we show it.
pub(crate) fn summary(topic: TopicInfo) -> Summary {
    Summary {
        name: topic.name,
        epoch: topic.epoch,
        first: topic.first,
        next: topic.next,
        cursors: topic.cursors,
        leases: topic.leases,
        bytes: topic.bytes,
    }
}

/// A topic of the client as we show it.
pub(crate) fn detail(details: TopicDetails) -> Detail {
    Detail {
        name: details.name,
        settings: details.settings,
        stats: details.stats,
        leases: details
            .leases
            .into_iter()
            .map(|lease| LeaseLine {
                name: lease.name,
                committed: lease.committed,
                held: lease.held,
                expires_in_ms: lease.expires_in_ms,
            })
            .collect(),
    }
}

/// Prints JSON, one value a line.
pub(crate) fn print_lines(values: impl Iterator<Item = serde_json::Value>) -> Result {
    let mut text = String::new();
    for value in values {
        text.push_str(&value.to_string());
        text.push('\n');
    }
    print(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    fn create(words: &[&str]) -> CreateArgs {
        let words = ["psa", "topics", "create", "t"].iter().chain(words);
        match crate::args::Cli::try_parse_from(words).unwrap().command {
            crate::args::Command::Topics(TopicsArgs {
                command: Some(TopicsCommand::Create(create)),
                ..
            }) => create,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_settings() {
        assert_eq!(settings(&create(&[])).unwrap(), Settings::default());
        let flags =
            ["--segment", "64KiB", "--retention", "90s", "--overflow", "evict", "--memory", "8MiB"];
        assert_eq!(
            settings(&create(&flags)).unwrap(),
            Settings {
                segment_bytes: 65_536,
                overflow: Some(Overflow::Evict),
                retention: Some(Retention::AgeMs(90_000)),
                memory_limit: 8 << 20,
            }
        );
        assert!(settings(&create(&["--segment", "4GiB"])).is_err());
        assert!(settings(&create(&["--memory", "0"])).is_err());
        assert_eq!(retention(RetentionWords::Age(Duration::from_millis(1))), Retention::AgeMs(1));
    }
}
