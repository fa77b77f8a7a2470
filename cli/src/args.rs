//! The grammar of the command line. The help texts here are the only description of each flag. Values
//! that need checks beyond `clap`'s are checked by their commands.

use crate::config::flags::SettingFlags;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use psa::{Durability, Overflow, Position, Retention, Start};
use psa_load::args::overflow;
use std::path::PathBuf;
use std::time::Duration;

/// A log that many subscribers follow at once: server and tools.
#[derive(Debug, Parser)]
#[command(name = "psa", version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The flags that every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection and configuration")]
pub(crate) struct Global {
    /// The server to connect to [default: 127.0.0.1:9853] [env: PSA_SERVER]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// The token; visible to others in the process list, so prefer PSA_TOKEN or --token-file
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A file whose first line is the token [env: PSA_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<String>,
    /// Connect with TLS [env: PSA_CONNECT_TLS]
    #[arg(long, global = true)]
    pub(crate) tls: bool,
    /// Certificate authorities, PEM, to trust instead of the system's; turns TLS on [env: PSA_CONNECT_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<String>,
    /// The client's own certificate, PEM; turns TLS on [env: PSA_CONNECT_CERT]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<String>,
    /// The private key of the client's certificate, PEM [env: PSA_CONNECT_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<String>,
    /// The name that the server's certificate must have [env: PSA_CONNECT_SERVER_NAME]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// The configuration file, TOML [env: PSA_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Print the configuration in effect and where each value came from
    Config(ConfigArgs),
    /// Publish records from standard input or files
    Pub(PubArgs),
    /// Subscribe to a topic and write its records
    Sub(SubArgs),
    /// List, create, close, delete and describe topics
    Topics(TopicsArgs),
    /// Create tokens for a server's access file
    Token(TokenArgs),
    /// Read all of a folder for data that no server uses, and name what is damaged
    Verify(VerifyArgs),
    /// Cut a damaged topic of such a folder, so that a server opens it again
    Repair(RepairArgs),
    /// Copy a folder for data, also while a server uses it
    Backup(BackupArgs),
    /// Show what topics hold, what holds it back, and rates
    Stats(StatsArgs),
    /// Show a tour of half a minute in this terminal, on a server of its own
    Demo(DemoArgs),
    /// Measure a server, and the machine it runs on
    Bench(psa_load::args::BenchArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Print one JSON object: sizes in bytes, durations in nanoseconds
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingFlags,
}

#[derive(Debug, Args)]
pub(crate) struct PubArgs {
    /// The topic
    pub(crate) topic: String,
    /// Files to read, one after the other; `-`, or no file at all, means standard input
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) split: SplitArgs,
    /// Wait for the server to acknowledge every record (the default)
    #[arg(long, overrides_with = "no_ack")]
    pub(crate) ack: bool,
    /// Do not request acknowledgements: faster, but a refusal is noticed only at the end, without counts
    #[arg(long)]
    pub(crate) no_ack: bool,
    /// Print a summary on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How input becomes records.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct SplitArgs {
    /// A record is a line without its line ending (the default); an empty line is an empty record
    #[arg(long)]
    pub(crate) lines: bool,
    /// A record is a line with its line ending, so `psa sub --format raw` writes byte for byte what went in
    #[arg(long)]
    pub(crate) keep_ends: bool,
    /// A record is a little-endian 32-bit length and that many bytes
    #[arg(long)]
    pub(crate) length_prefixed: bool,
    /// A record ends with a NUL byte, as in the output of `find -print0`
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// A record is a whole file
    #[arg(long)]
    pub(crate) whole: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubArgs {
    /// The topic
    pub(crate) topic: String,
    /// Where to begin: earliest, next (only new records), last:N, an offset, EPOCH:OFFSET (with that
    /// record), a time such as 2026-01-31T12:00:00Z, or a duration ago such as 10m
    #[arg(long, value_name = "START", default_value = "earliest", group = "start")]
    pub(crate) from: Start,
    /// Begin after the record with this epoch and offset
    #[arg(long, value_name = "EPOCH:OFFSET", group = "start")]
    pub(crate) after: Option<Position>,
    /// Begin with the last N records
    #[arg(long, value_name = "N", group = "start")]
    pub(crate) last: Option<u64>,
    /// Hold a lease with this name: if this command dies, the server keeps what is not committed yet
    #[arg(long, value_name = "NAME")]
    pub(crate) lease: Option<String>,
    /// How long the lease outlives the connection
    #[arg(long, value_name = "DURATION", requires = "lease", value_parser = crate::units::parse_duration, default_value = "1m")]
    pub(crate) lease_ttl: Duration,
    /// Take the lease over from its current holder
    #[arg(long, requires = "lease")]
    pub(crate) take_over: bool,
    /// Fail if there is no such lease, or the server has forgotten it, instead of making one
    #[arg(long, requires = "lease")]
    pub(crate) lease_must_exist: bool,
    /// How to write records
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Short for `--format null`
    #[arg(short = '0', long, conflicts_with = "format")]
    pub(crate) null: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Stop when every record that is there has been written, instead of waiting for more
    #[arg(long)]
    pub(crate) exit_at_end: bool,
    /// What to do at a gap, when records are gone before they were received
    #[arg(long, value_enum, default_value_t = OnGap::Report)]
    pub(crate) on_gap: OnGap,
    /// Record the position in this file, and continue from it when run again
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Write to this file; with --state, it has every record exactly once, however the command ended
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Force output and state to disk after each piece: exactly once even across a power failure
    #[arg(long, requires = "state")]
    pub(crate) sync: bool,
    /// How long to try to reconnect after the connection breaks; 0s does not try. If given, it also applies
    /// to the first connection, which is otherwise tried only once [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = crate::units::parse_duration)]
    pub(crate) reconnect: Option<Duration>,
    /// Print where it begins and how many records it wrote, on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The record and a newline
    Text,
    /// The record's bytes and nothing else
    Raw,
    /// The record and a NUL byte, which `psa pub --null` reads
    Null,
    /// A little-endian 32-bit length and the record, which `psa pub --length-prefixed` reads
    LengthPrefixed,
    /// One JSON object per line: topic, epoch, offset, time, data (or data_base64)
    Json,
}

/// What happens at a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnGap {
    /// Report it on standard error and continue
    Report,
    /// Report it and exit with code 5
    Fail,
}

#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<TopicsCommand>,
    /// Print JSON, one object per topic and line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// List topics (what `psa topics` alone does)
    List {
        /// Only topics whose names begin with this
        #[arg(default_value = "")]
        prefix: String,
    },
    /// Create a topic
    Create(CreateArgs),
    /// Delete topics with all their records
    Delete {
        /// The topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
    },
    /// Close topics: they accept no more records; subscribers receive the rest and then the end
    Close {
        /// The topics
        #[arg(required = true, value_name = "TOPIC")]
        topics: Vec<String>,
    },
    /// Show a topic's settings, statistics and leases
    Describe {
        /// The topic
        topic: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The topic
    pub(crate) topic: String,
    /// The size of one segment's arena, for example 1MiB
    #[arg(long, value_name = "SIZE", value_parser = crate::units::parse_size)]
    pub(crate) segment: Option<u64>,
    /// What is kept after every subscriber has passed it: nothing, everything, "1000 records", 64MiB, 1h
    #[arg(long)]
    pub(crate) retention: Option<Retention>,
    /// What happens at the memory limit
    #[arg(long, value_parser = overflow())]
    pub(crate) overflow: Option<Overflow>,
    /// The memory limit
    #[arg(long, value_name = "SIZE", value_parser = crate::units::parse_size)]
    pub(crate) memory: Option<u64>,
    /// What an acknowledgement means; the last two need a server with --data
    #[arg(long, value_parser = durability())]
    pub(crate) durability: Option<Durability>,
    /// How much room on the disk the topic's files may take
    #[arg(long, value_name = "SIZE", value_parser = crate::units::parse_size)]
    pub(crate) disk: Option<u64>,
    /// Succeed if the topic exists already
    #[arg(long)]
    pub(crate) exists_ok: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token: its entry for the access file goes to standard output, and the secret, this once, to
    /// standard error
    New(NewTokenArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NewTokenArgs {
    /// The name of its owner, for the access file and the server's log
    pub(crate) name: String,
    /// Topics that it may publish to; `*` matches any sequence of characters [may be repeated]
    #[arg(long, value_name = "PATTERN")]
    pub(crate) publish: Vec<psa::server::Pattern>,
    /// Topics that it may subscribe to
    #[arg(long, value_name = "PATTERN")]
    pub(crate) subscribe: Vec<psa::server::Pattern>,
    /// Topics that it may create, describe, close and delete
    #[arg(long, value_name = "PATTERN")]
    pub(crate) manage: Vec<psa::server::Pattern>,
    /// Let it read the server's metrics
    #[arg(long)]
    pub(crate) metrics: bool,
    /// When it expires: 2027-01-31 (as that day begins, UTC) or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = crate::access::parse_expires)]
    pub(crate) expires: Option<crate::access::Expires>,
    /// Write the secret to this new file, which only its owner may read, instead of to standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The folder, as `psa serve --data` uses it
    pub(crate) folder: PathBuf,
    /// Only this topic; where its name cannot be read, the name of its folder under topics/
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,
    /// Print JSON, one object per topic and line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The folder, as `psa serve --data` uses it; the server may go on
    pub(crate) folder: PathBuf,
    /// The folder for the copy: a new one, or one that is empty
    pub(crate) destination: PathBuf,
    /// Print JSON, one object per topic and line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The folder, as `psa serve --data` uses it
    pub(crate) folder: PathBuf,
    /// The topic; where its name cannot be read, the name of its folder under topics/
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Say what would be cut, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Only this topic
    pub(crate) topic: Option<String>,
    /// Show a live view; q quits
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
    /// How often the live view asks the server
    #[arg(long, value_name = "DURATION", value_parser = crate::units::parse_duration, default_value = "1s", requires = "watch")]
    pub(crate) interval: Duration,
    /// Print JSON, one object per topic and line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Run the tour in a few seconds
    #[arg(long)]
    pub(crate) fast: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Parses what an acknowledgement means. The help text explains each word.
fn durability() -> impl TypedValueParser<Value = Durability> {
    let word = |word: &'static str, help: &'static str| PossibleValue::new(word).help(help);
    PossibleValuesParser::new([
        word("memory", "The record is in memory, and lost when the server ends"),
        word("written", "It is in files, which are forced to the disk within a second"),
        word("synced", "It was forced to the disk"),
    ])
    .try_map(|text| text.parse::<Durability>())
}
