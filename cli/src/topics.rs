//! `psa topics`: list, create, delete, close, describe.

use crate::args::{CreateArgs, TopicsArgs, TopicsCommand};
use crate::config::Config;
use crate::connect;
use crate::error::{Error, Result, one_line};
use crate::print;
use crate::snapshot;
use psa::client::{Client, ClientError, TopicDetails};
use psa::protocol::{Code, Settings};
use psa_load::client::failure;

/// Runs the subcommand.
pub(crate) fn run(config: &Config, args: TopicsArgs) -> Result {
    connect::block_on(topics(config, args))
}

async fn topics(config: &Config, args: TopicsArgs) -> Result {
    let command = args.command.unwrap_or(TopicsCommand::List { prefix: String::new() });
    // Wrong flags are reported before the server is contacted.
    let settings = match &command {
        TopicsCommand::Create(create) => settings(create)?,
        _ => Settings::default(),
    };
    let client = connect::connect(config, "topics").await?;
    match command {
        TopicsCommand::List { prefix } => {
            let list =
                client.topics(&prefix).await.map_err(|error| failure("list topics", &error))?;
            if args.json {
                print_lines(list.iter().map(snapshot::summary_json))
            } else {
                print(snapshot::summaries_table(&list).as_bytes())
            }
        }
        TopicsCommand::Create(create) => {
            let made = if create.exists_ok {
                client.ensure_topic(&create.topic, settings).await
            } else {
                client.create_topic(&create.topic, settings).await
            };
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
        TopicsCommand::Describe { topic } => describe(&client, &topic, args.json).await,
    }
}

fn about(verb: &str, topic: &str) -> String {
    format!("{verb} `{}`", one_line(topic))
}

fn settings(create: &CreateArgs) -> Result<Settings> {
    let segment_bytes = create.segment.map_or(Ok(0), u32::try_from);
    let segment_bytes =
        segment_bytes.map_err(|_| Error::usage("--segment", "a segment is smaller than 4GiB"))?;
    if [create.segment, create.memory, create.disk].contains(&Some(0)) {
        return Err(Error::usage("create", "a size of 0 makes no sense")
            .hint("leave it out for the server's default"));
    }
    Ok(Settings {
        segment_bytes,
        overflow: create.overflow,
        retention: create.retention,
        memory_limit: create.memory.unwrap_or(0),
        durability: create.durability,
        disk_limit: create.disk.unwrap_or(0),
    })
}

/// Prints everything about one topic.
pub(crate) async fn describe(client: &Client, topic: &str, json: bool) -> Result {
    let details =
        client.describe(topic).await.map_err(|error| failure(about("describe", topic), &error))?;
    if json {
        print_lines([snapshot::detail_json(&details)].into_iter())
    } else {
        print(snapshot::detail_text(&details).as_bytes())
    }
}

/// Everything about all topics, except those that are deleted in the meantime.
pub(crate) async fn describe_all(client: &Client) -> Result<Vec<TopicDetails>, ClientError> {
    let mut all = Vec::new();
    for topic in client.topics("").await? {
        all.extend(describe_listed(client, &topic.name).await?);
    }
    Ok(all)
}

/// Everything about a topic of a list; `None` if it was deleted since the list was fetched.
pub(crate) async fn describe_listed(
    client: &Client,
    name: &str,
) -> Result<Option<TopicDetails>, ClientError> {
    match client.describe(name).await {
        Ok(details) => Ok(Some(details)),
        Err(error) if error.code() == Some(Code::UnknownTopic) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Prints JSON, one value per line.
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
    use psa::{Durability, Overflow, Retention};
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
        let flags = [
            ["--segment", "64KiB"],
            ["--retention", "90s"],
            ["--overflow", "evict"],
            ["--memory", "8MiB"],
            ["--durability", "written"],
            ["--disk", "1GiB"],
        ];
        assert_eq!(
            settings(&create(flags.as_flattened())).unwrap(),
            Settings {
                segment_bytes: 65_536,
                overflow: Some(Overflow::Evict),
                retention: Some(Retention::Age(Duration::from_secs(90))),
                memory_limit: 8 << 20,
                durability: Some(Durability::Written),
                disk_limit: 1 << 30,
            }
        );
        assert!(settings(&create(&["--segment", "4GiB"])).is_err());
        for flag in ["--memory", "--disk"] {
            assert!(settings(&create(&[flag, "0"])).is_err());
        }
        let words = ["psa", "topics", "create", "t", "--durability", "disk"];
        let error = crate::args::Cli::try_parse_from(words).unwrap_err().to_string();
        assert!(error.contains("memory, written, synced"), "{error}");
    }
}
