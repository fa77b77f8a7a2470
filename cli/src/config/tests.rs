//! Tests of the layers, the errors and the printing of the configuration, all on strings.

use super::settings::{Key, SETTINGS};
use super::*;
use proptest::prelude::*;

fn with_file(text: &str) -> Result<Config, ConfigError> {
    resolve(Sources { file: Some(("psa.toml", text)), strict: true, ..Sources::default() })
}

fn with_env(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: Vec<_> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    resolve(Sources { environment: &environment, strict: true, ..Sources::default() })
}

fn line(error: ConfigError) -> String {
    Error::from(error).to_string()
}

#[test]
fn keys_stand_in_the_order_of_the_table_and_defaults_parse() {
    for (index, setting) in SETTINGS.iter().enumerate() {
        assert_eq!(setting.key as usize, index);
        if !setting.default.is_empty() {
            let value = setting.kind.parse(setting.default).unwrap();
            assert_eq!(
                value.text().as_deref(),
                Some(setting.default),
                "{} prints otherwise",
                setting.name
            );
        }
    }
    resolve(Sources::default()).unwrap();
}

#[test]
fn names_are_distinct_in_every_spelling() {
    let mut flags: Vec<String> = SETTINGS.iter().map(|s| s.flag()).collect();
    flags.sort();
    flags.dedup();
    assert_eq!(flags.len(), SETTINGS.len());
    assert!(SETTINGS.iter().all(|setting| !is_foreign(&setting.variable())));
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let environment = [
        ("PSA_LIMIT_CONNECTIONS".to_string(), "30".to_string()),
        ("PSA_LIMIT_TOPICS".to_string(), "31".to_string()),
    ];
    let flags = [(Key::LimitTopics, "40".to_string())];
    let text = "[limit]\nconnections = 20\ntopics = 21\nleases = 22\n";
    let config = resolve(Sources {
        file: Some(("a.toml", text)),
        environment: &environment,
        flags: &flags,
        strict: true,
    })
    .unwrap();
    let got = |key| (config.count(key), config.origin(key).to_string());
    assert_eq!(got(Key::LimitTopics), (40, "--limit-topics".into()));
    assert_eq!(got(Key::LimitConnections), (30, "PSA_LIMIT_CONNECTIONS".into()));
    assert_eq!(got(Key::LimitLeases), (22, "a.toml:4".into()));
    assert_eq!(config.origin(Key::LimitSubscriptions), &Origin::Default);
}

#[test]
fn the_file_takes_every_form_of_a_value() {
    let config = with_file(
        "listen = \"[::1]:1\"\nworkers = 0x10\n[topic]\ncreate_on_publish = false\nsegment = 65_536\nmemory = '32MiB'\n\
         retention = \"1h\"\n[timeout]\nidle = \"off\"\nhandshake = \"1m30s\"\n",
    )
    .unwrap();
    assert_eq!(config.text(Key::Listen), "[::1]:1");
    assert_eq!(config.count(Key::Workers), 16);
    assert!(!config.switch(Key::TopicCreateOnPublish));
    assert_eq!(config.size(Key::TopicSegment), Some(65_536));
    assert_eq!(config.size(Key::TopicMemory), Some(32 << 20));
    assert_eq!(config.retention(Key::TopicRetention), Retention::Age(Duration::from_secs(3600)));
    assert_eq!(config.wait(Key::TimeoutIdle), None);
    assert_eq!(config.size(Key::SendBuffer), None);
    assert_eq!(config.wait(Key::TimeoutHandshake), Some(Duration::from_secs(90)));
}

#[test]
fn file_errors_name_their_line() {
    for (text, expected) in [
        ("\n[limits]\nmemory = 1", "psa.toml:2: unknown section `limits`; did you mean `limit`?"),
        (
            "[limit]\n\nmemroy = 1",
            "psa.toml:3: unknown key `limit.memroy`; did you mean `limit.memory`?",
        ),
        ("memory = 1", "psa.toml:1: unknown key `memory`; did you mean `topic.memory`?"),
        (
            "certificate = 1",
            "psa.toml:1: unknown key `certificate`; did you mean `tls.certificate`?",
        ),
        ("watermelon = 1", "psa.toml:1: unknown key `watermelon`; `psa config` lists the settings"),
        (
            "[limit]\nmemory = '1M'",
            "psa.toml:2: limit.memory: `M` can mean two units: write 1MiB or 1MB",
        ),
        (
            "[limit]\nmemory = 1.5",
            "psa.toml:2: limit.memory: expected a size such as 64MiB, not a float",
        ),
        ("[limit]\nmemory = -1", "psa.toml:2: limit.memory: the number is negative or too large"),
        ("[limit]\nmemory = 1", "psa.toml:2: limit.memory: the value lies outside 64KiB to 64TiB"),
        (
            "[limit]\nmemory = {}",
            "psa.toml:2: limit.memory: expected a size such as 64MiB, not a table",
        ),
        (
            "[timeout]\nidle = 5",
            "psa.toml:2: timeout.idle: a duration needs a unit: write \"5s\" or \"5ms\"",
        ),
        ("limit = 5", "psa.toml:1: limit: this is a section: write it as a table"),
        (
            "listen = true",
            "psa.toml:1: listen: expected an address such as 127.0.0.1:9853, not true",
        ),
        ("workers = []", "psa.toml:1: workers: expected a whole number, not an array"),
    ] {
        assert_eq!(line(with_file(text).unwrap_err()), expected);
    }
    for text in ["listen", "a = 1\na = 2", "[limit", "x = \"\u{1}\"", "\n\n\nlisten = \"abc"] {
        let error = line(with_file(text).unwrap_err());
        assert!(error.starts_with("psa.toml:") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn environment_errors_name_their_variable() {
    for (pair, expected) in [
        (
            ("PSA_LIMIT_MEMROY", "1"),
            "PSA_LIMIT_MEMROY: no setting has this variable; did you mean PSA_LIMIT_MEMORY?",
        ),
        (
            ("PSA_TOPIC_OVERFLOW", "evcit"),
            "PSA_TOPIC_OVERFLOW: expected block or reject or evict; did you mean evict?",
        ),
        (("PSA_WORKERS", "two"), "PSA_WORKERS: expected a whole number"),
    ] {
        assert_eq!(line(with_env(&[pair]).unwrap_err()), expected);
    }
}

#[test]
fn foreign_variables_and_empty_ones_are_let_be() {
    let config = with_env(&[
        ("PSA_PORT", "tcp://10.0.0.1:9853"),
        ("PSA_SERVICE_HOST", "10.0.0.1"),
        ("PSA_PORT_9853_TCP", "x"),
        ("PSA_TEST_SEED", "1"),
        ("PSA_CONFIG", "/nowhere"),
        ("PSA_WORKERS", ""),
    ])
    .unwrap();
    assert_eq!(config.count(Key::Workers), 0);
    let environment = [("PSA_WHATEVER".to_string(), "1".to_string())];
    assert!(
        resolve(Sources { environment: &environment, ..Sources::default() }).is_ok(),
        "a client is lenient"
    );
    assert!(
        resolve(Sources { environment: &environment, strict: true, ..Sources::default() }).is_err()
    );
}

#[test]
fn flag_errors_name_their_flag() {
    let flags = [(Key::LimitMemory, "64M".to_string())];
    let error = resolve(Sources { flags: &flags, ..Sources::default() }).unwrap_err();
    assert_eq!(line(error), "--limit-memory: `M` can mean two units: write 64MiB or 64MB");
}

#[test]
fn values_are_checked_against_each_other() {
    let error = line(with_file("[limit]\nrecord = '8MiB'").unwrap_err());
    assert_eq!(
        error,
        "psa.toml:2: limit.record of 8MiB (psa.toml:2) has no room in limit.frame of 8MiB (default); lower the one or raise the other"
    );
    for (text, expected) in [
        (
            "[limit]\nframe = '64KiB'",
            "psa.toml:2: limit.record of 1MiB (default) has no room in limit.frame of 64KiB",
        ),
        (
            "[limit]\nchunk = '8MiB'",
            "psa.toml:2: limit.chunk of 8MiB (psa.toml:2) has no room in limit.frame",
        ),
        ("[limit]\nchunk_records = 10_000_000", "psa.toml:2: limit.chunk_records of 10000000"),
        (
            "[limit]\nframe = '64MiB'",
            "psa.toml:2: limit.frame of 64MiB (psa.toml:2) has no room in limit.input",
        ),
        (
            "[topic]\nmemory = '2GiB'",
            "psa.toml:2: topic.memory of 2GiB (psa.toml:2) has no room in limit.topic_memory",
        ),
        ("[topic]\nmemory = '1MiB'\nsegment = '2MiB'", "psa.toml:3: topic.segment of 2MiB"),
    ] {
        let error = line(with_file(text).unwrap_err());
        assert!(error.starts_with(expected), "{error}");
    }
    with_file("[topic]\nmemory = '64KiB'").unwrap();
}

#[test]
fn a_stored_topic_needs_a_folder() {
    for word in ["written", "synced"] {
        let flags = [(Key::TopicDurability, word.to_string())];
        let error = resolve(Sources { flags: &flags, ..Sources::default() }).unwrap_err();
        assert_eq!(
            line(error),
            format!(
                "--topic-durability: topic.durability is {word}, and there is no folder for data; \
                 give one with --data FOLDER, or leave the durability out"
            )
        );
        let config = with_file(&format!("data = '/x'\n[topic]\ndurability = '{word}'")).unwrap();
        assert_eq!(config.data(), Some("/x".into()));
    }
    assert_eq!(with_file("[topic]\ndurability = 'memory'").unwrap().data(), None);
    let error = line(with_env(&[("PSA_TOPIC_DURABILITY", "sync")]).unwrap_err());
    assert!(
        error.ends_with("expected memory or written or synced; did you mean synced?"),
        "{error}"
    );
    let error = line(with_file("[topic]\ndisk = '2TiB'").unwrap_err());
    assert!(
        error.starts_with("psa.toml:2: topic.disk of 2TiB (psa.toml:2) has no room"),
        "{error}"
    );
    assert_eq!(with_env(&[("PSA_DATA", "/y")]).unwrap().text(Key::Data), "/y");
    let error = line(with_file("data = ''").unwrap_err());
    assert_eq!(error, "psa.toml:1: data: the folder name is empty");
}

#[test]
fn a_folder_for_data_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let checked = |path: &std::path::Path| {
        let flags = [(Key::Data, path.display().to_string())];
        resolve(Sources { flags: &flags, ..Sources::default() }).unwrap().check_folder()
    };
    let error = checked(&file).unwrap_err().to_string();
    assert!(error.starts_with("--data: ") && error.contains("is no folder"), "{error}");
    checked(folder.path()).unwrap();
    checked(&folder.path().join("new")).unwrap();
}

#[test]
fn a_public_address_needs_a_token() {
    for public in ["0.0.0.0:9853", "[::]:9853", "10.1.2.3:1", "[::ffff:10.1.2.3]:1"] {
        let error = line(with_env(&[("PSA_LISTEN", public)]).unwrap_err());
        assert!(error.contains("no token is set; set PSA_TOKEN"), "{error}");
        with_env(&[("PSA_LISTEN", public), ("PSA_TOKEN", "x")]).unwrap();
        with_env(&[("PSA_LISTEN", public), ("PSA_ACCESS_FILE", "x")]).unwrap();
        with_env(&[("PSA_LISTEN", public), ("PSA_ALLOW_PUBLIC_WITHOUT_TOKEN", "true")]).unwrap();
    }
    let error = line(with_env(&[("PSA_HTTP_LISTEN", "0.0.0.0:9854")]).unwrap_err());
    assert!(error.starts_with("PSA_HTTP_LISTEN: 0.0.0.0:9854 can be reached"), "{error}");
    for local in ["127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        with_env(&[("PSA_LISTEN", local), ("PSA_HTTP_LISTEN", local)]).unwrap();
    }
}

#[test]
fn one_layer_has_one_token_and_a_later_layer_replaces_it() {
    let error = line(with_file("token = 'a'\ntoken_file = 'b'").unwrap_err());
    assert_eq!(error, "psa.toml:2: psa.toml:1 already sets the token; give one of the two");
    let flags = [(Key::TokenFile, "f".to_string())];
    let environment = [("PSA_TOKEN".to_string(), "secret".to_string())];
    let config =
        resolve(Sources { environment: &environment, flags: &flags, strict: true, file: None })
            .unwrap();
    assert_eq!(config.value(Key::Token), &Value::Unset);
    assert_eq!(config.text(Key::TokenFile), "f");
}

#[test]
fn printed_toml_is_a_file_that_means_the_same() {
    let config = with_file(
        "listen = '[::1]:0'\nserver = \"x\\\"y:1\"\n[topic]\nretention = '1000 records'\n[timeout]\nidle = '5s'\n[log]\nlevel = \"info,psa=debug\"",
    )
    .unwrap();
    let text = show::toml(&config);
    let again = with_file(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
    for setting in SETTINGS {
        assert_eq!(config.value(setting.key), again.value(setting.key), "{}", setting.name);
    }
    assert!(text.contains("# psa.toml:1"), "{text}");
}

#[test]
fn secrets_are_not_shown() {
    let config = with_env(&[("PSA_TOKEN", "hunter2")]).unwrap();
    let (toml, json) = (show::toml(&config), show::json(&config).to_string());
    assert!(!toml.contains("hunter2") && !json.contains("hunter2"));
    assert!(toml.contains("# token is set"), "{toml}");
    assert_eq!(show::json(&config)["token"]["set"], true);
    let error = line(with_env(&[("PSA_TOKEN", "hunter2\u{1}")]).unwrap_err());
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn every_setting_is_documented() {
    let document = include_str!("../../../docs/configuration.md");
    for setting in SETTINGS {
        let default = if setting.default.is_empty() {
            "unset".into()
        } else {
            format!("`{}`", setting.default)
        };
        let row = format!(
            "| `{}` | {default} | {} | {} |",
            setting.name,
            setting.kind.range(),
            setting.help
        );
        assert!(document.contains(&row), "docs/configuration.md lacks this row:\n{row}");
    }
}

/// Every example in the document's table of values is accepted, and every counterexample is refused.
#[test]
fn values_are_written_as_the_document_says() {
    use psa::words::{Period, Size, Time};

    type Reads = fn(&str) -> bool;
    let document = include_str!("../../../docs/configuration.md");
    let reads: [(&str, Reads); 5] = [
        ("size", |text| text.parse::<Size>().is_ok()),
        ("duration", |text| text.parse::<Period>().is_ok()),
        ("time", |text| text.parse::<Time>().is_ok()),
        ("retention", |text| text.parse::<Retention>().is_ok()),
        ("durability", |text| text.parse::<psa::Durability>().is_ok()),
    ];
    for (value, reads) in reads {
        let row = document.lines().find(|line| line.starts_with(&format!("| {value} | `")));
        let columns: Vec<&str> = row.expect("a row").split('|').collect();
        let examples: Vec<&str> = columns[2].split('`').skip(1).step_by(2).collect();
        assert!(examples.len() > 2, "{value}: {examples:?}");
        for example in examples {
            assert!(reads(example), "{value}: {example}");
        }
        for reason in columns[3].split(';') {
            let refused = reason.split('`').nth(1).expect("an example");
            assert!(!reads(refused), "{value}: {refused}");
        }
    }
}

proptest! {
    #[test]
    fn any_file_is_answered(text: String) {
        let _ = with_file(&text);
    }

    #[test]
    fn any_near_file_is_answered(text in "((\\[?(limit|topic|timeout|token|listen|workers)\\]?|=|\\.|'|\"|5s|1MiB|true|[0-9]+|\\n| )){0,20}") {
        if let Ok(config) = with_file(&text) {
            prop_assert!(with_file(&show::toml(&config)).is_ok());
        }
    }
}

#[test]
fn the_default_memory_fits_what_there_is() {
    let fitted = |flags: &[(Key, String)], bytes| {
        let mut config = resolve(Sources { flags, ..Sources::default() }).unwrap();
        config.fit_memory(bytes, "the control group allows so much");
        (config.size(Key::LimitMemory).unwrap(), config.origin(Key::LimitMemory).to_string())
    };
    let (size, origin) = fitted(&[], 160 << 20);
    assert_eq!(size, 80 << 20);
    assert!(origin.contains("the control group allows so much"), "{origin}");
    assert_eq!(fitted(&[], 64 << 30), (1 << 30, "default".into()));
    // There is always room for one topic of the default size.
    assert_eq!(fitted(&[], 1 << 20).0, 64 << 20);
    let asked = [(Key::LimitMemory, "1GiB".to_string())];
    assert_eq!(fitted(&asked, 160 << 20), (1 << 30, "--limit-memory".into()));
}

/// An address may bring a token and TLS along; they are for that server alone.
#[test]
fn an_address_with_a_scheme_is_taken_apart() {
    let variable = |value: &str| [("PSA_SERVER".to_owned(), value.to_owned())];
    let flag = |value: &str| [(Key::Server, value.to_owned())];
    let token = |config: &Config| config.token().unwrap();
    let environment = variable("psa+tls://s3cret@example.org");
    let config = resolve(Sources { environment: &environment, ..Sources::default() }).unwrap();
    assert_eq!(config.text(Key::Server), "example.org:9853");
    assert_eq!((token(&config), config.switch(Key::ConnectTls)), (Some("s3cret".into()), true));
    // Another server does not get that token.
    let flags = flag("other.example:1");
    let both = Sources { environment: &environment, flags: &flags, ..Sources::default() };
    let config = resolve(both).unwrap();
    assert_eq!(config.text(Key::Server), "other.example:1");
    assert_eq!((token(&config), config.switch(Key::ConnectTls)), (None, false));
    // One that was given by itself stays.
    let flags = [flag("psa://one@a"), [(Key::Token, "two".into())]].concat();
    let config = resolve(Sources { flags: &flags, ..Sources::default() }).unwrap();
    assert_eq!(token(&config), Some("two".into()));
    let flags = [flag("psa://one@a"), [(Key::TokenFile, "a file".into())]].concat();
    let twice = resolve(Sources { flags: &flags, ..Sources::default() }).unwrap_err();
    assert!(Error::from(twice).to_string().contains("already sets the token"));
    for bad in ["http://a", "psa://", "psa://a/topic", "psa://a:b"] {
        let flags = flag(bad);
        let refused = resolve(Sources { flags: &flags, ..Sources::default() }).unwrap_err();
        assert!(!Error::from(refused).to_string().is_empty());
    }
}

/// A client beside a server has the server's environment, which is none of its business.
#[test]
fn client_commands_ignore_the_servers_variables() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let of_server = [
        variable("PSA_LISTEN", "0.0.0.0:9853"),
        variable("PSA_TYPO", "1"),
        variable("PSA_WORKERS", "two"),
    ];
    let server = variable("PSA_SERVER", "example.org:1");
    let environment = [&of_server[..], &[server]].concat();
    let config = resolve(Sources { environment: &environment, ..Sources::default() }).unwrap();
    assert_eq!(config.text(Key::Server), "example.org:1");
    for one in of_server {
        let strict = Sources { environment: &[one], strict: true, ..Sources::default() };
        assert!(resolve(strict).is_err());
    }
    let bad = [variable("PSA_SERVER", "nowhere")];
    assert!(resolve(Sources { environment: &bad, ..Sources::default() }).is_err());
}
