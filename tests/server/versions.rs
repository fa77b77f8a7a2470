//! Two versions of the protocol over one server: each connection gets what its version can say.

use psa::broker::{Broker, BrokerConfig, Durability};
use psa::protocol::{Code, DecodeLimits, Decoded, Description, Hello, Reply, Request, Settings};
use psa::protocol::{TopicSummary, decode_reply};
use tokio::io::AsyncReadExt;

use crate::support::*;

/// HELLO, CREATE, LIST and DESCRIBE as a client of version 1 sends them, byte for byte.
const OF_VERSION_1: [&str; 4] = [
    "11 00 00 00 01 00 00 00 50 53 41 01 01 00 01 00 00 00 05 00 74 65 73 74 73",
    "1e 00 00 00 06 00 00 00 01 00 00 00 01 61 00 20 00 00 01 01 00 00 05 00 00 00 00 00 00 00 00 90 01 00 00 00 00 00",
    "05 00 00 00 09 00 00 00 02 00 00 00 00",
    "06 00 00 00 0a 00 00 00 03 00 00 00 01 61",
];

fn bytes(hex: &str) -> Vec<u8> {
    hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// The bytes of the next frame.
async fn frame(client: &mut Client) -> Vec<u8> {
    let mut frame = vec![0; 8];
    client.stream.read_exact(&mut frame).await.unwrap();
    let length = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(8 + length, 0);
    client.stream.read_exact(&mut frame[8..]).await.unwrap();
    frame
}

fn decoded(frame: &[u8]) -> Reply<'_> {
    match decode_reply(frame, &DecodeLimits::default()).unwrap() {
        Decoded::Frame { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

async fn list(client: &mut Client) -> Vec<u8> {
    client.send(&Request::List { request: 2, prefix: None }).await;
    frame(client).await
}

async fn described(client: &mut Client, topic: &str) -> Vec<u8> {
    client.send(&Request::Describe { request: 3, topic: name(topic) }).await;
    frame(client).await
}

async fn of_version(server: &Running, version_min: u16, version_max: u16) -> (Client, u16) {
    let mut client = Client::raw(server).await;
    let hello = Hello { version_min, version_max, token: "", client: "tests" };
    client.send(&Request::Hello(hello)).await;
    let welcome = frame(&mut client).await;
    let Reply::Welcome(welcome) = decoded(&welcome) else { panic!("{welcome:?}") };
    (client, welcome.version)
}

fn create<'a>(topic: &'a str, durability: Durability, disk_limit: u64) -> Request<'a> {
    let settings = Settings { durability: Some(durability), disk_limit, ..Settings::default() };
    Request::Create { request: 1, topic: name(topic), settings, exist_ok: false }
}

#[tokio::test]
async fn version_1_goes_on_as_it_was() {
    let server = serve(|_| {});
    let mut client = Client::raw(&server).await;
    for hex in OF_VERSION_1 {
        client.send_bytes(&bytes(hex)).await;
    }
    let welcome = frame(&mut client).await;
    assert_eq!((welcome[4], &welcome[8..10]), (0x81, &[1, 0][..]));
    assert_eq!(frame(&mut client).await, bytes("04 00 00 00 8b 00 00 00 01 00 00 00"));
    // One topic, whose name has one byte: no flag, and the length of version 1.
    let topics = frame(&mut client).await;
    assert_eq!((topics[4], topics[5], topics.len()), (0x8c, 0, 8 + 8 + 2 + 40));
    let Reply::Topics { topics, .. } = decoded(&topics) else { unreachable!() };
    assert!(matches!(topics[..], [TopicSummary { durability: None, .. }]), "{topics:?}");
    let description = frame(&mut client).await;
    let length = 8 + 4 + 2 + 24 + 192 + 4;
    assert_eq!((description[4], description[5], description.len()), (0x8d, 0, length));
    let settings = &bytes(OF_VERSION_1[1])[14..];
    assert_eq!(&description[14..14 + 24], settings, "the settings that were asked for");
    // What only version 2 has is no frame here.
    client.send(&create("b", Durability::Memory, 0)).await;
    let message = client.expect_goodbye(Code::BadFrame).await;
    assert!(message.contains("version 2"), "{message}");
}

#[tokio::test]
async fn the_newest_common_version_is_chosen() {
    let server = serve(|_| {});
    for (min, max, chosen) in [(1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 9, 2)] {
        assert_eq!(of_version(&server, min, max).await.1, chosen);
    }
}

#[tokio::test]
async fn version_2_tells_the_durability() {
    let server = serve(|_| {});
    let (mut client, _) = of_version(&server, 2, 2).await;
    client.send(&create("a", Durability::Memory, 0)).await;
    client.expect_done(1).await;
    let topics = list(&mut client).await;
    let Reply::Topics { topics, .. } = decoded(&topics) else { unreachable!() };
    assert_eq!((topics[0].durability, topics[0].disk_bytes), (Some(Durability::Memory), 0));
    let description = described(&mut client, "a").await;
    let Reply::Description(description) = decoded(&description) else { unreachable!() };
    let Description { settings, stored, .. } = *description;
    assert_eq!((settings.durability, settings.disk_limit), (Some(Durability::Memory), 0));
    assert_eq!(stored, None);
    // Without a folder, nothing is stored.
    for stored in [Durability::Written, Durability::Synced] {
        client.send(&create("b", stored, 0)).await;
        assert_eq!(client.expect_error(1).await, Code::BadSettings);
    }
}

#[tokio::test]
async fn a_folder_makes_topics_safe_unless_they_ask_for_less() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::with_folder(BrokerConfig::default(), folder.path()).unwrap();
    let server = serve_over(broker, |_| {});
    let (mut client, _) = of_version(&server, 1, 2).await;
    for (topic, asked) in [
        ("a", None),
        ("b", Some((Durability::Memory, 0))),
        ("c", Some((Durability::Written, 64 << 20))),
    ] {
        let request = match asked {
            Some((durability, disk_limit)) => create(topic, durability, disk_limit),
            None => Request::Create {
                request: 1,
                topic: name(topic),
                settings: Settings::default(),
                exist_ok: false,
            },
        };
        client.send(&request).await;
        client.expect_done(1).await;
    }
    let topics = list(&mut client).await;
    let Reply::Topics { topics, .. } = decoded(&topics) else { unreachable!() };
    let durabilities: Vec<_> = topics.iter().map(|topic| topic.durability.unwrap()).collect();
    assert_eq!(durabilities, [Durability::Synced, Durability::Memory, Durability::Written]);
    let description = described(&mut client, "c").await;
    let Reply::Description(description) = decoded(&description) else { unreachable!() };
    assert_eq!(description.settings.durability, Some(Durability::Written));
    assert_eq!(description.settings.disk_limit, 64 << 20);
    let stored = description.stored.unwrap();
    assert_eq!((stored.first, stored.next, stored.limit), (0, 0, 64 << 20));
    // A client of version 1 uses them like any other.
    let (mut old, _) = of_version(&server, 1, 1).await;
    old.publish("c", &[b"x"]).await;
    old.publish("a", &[b"x", b"y"]).await;
    let description = described(&mut client, "a").await;
    let Reply::Description(description) = decoded(&description) else { unreachable!() };
    let stored = description.stored.unwrap();
    assert_eq!((stored.next, stored.durable), (2, 2), "it was acknowledged, so it is on the disk");
    assert!(stored.files > 0 && stored.syncs > 0 && stored.groups > 0, "{stored:?}");
    assert!(stored.bytes > 0 && stored.written_bytes > 0 && stored.failed.is_none(), "{stored:?}");
    let topics = list(&mut client).await;
    let Reply::Topics { topics, .. } = decoded(&topics) else { unreachable!() };
    assert_eq!(topics[0].disk_bytes, stored.bytes);
    assert_eq!(topics[1].disk_bytes, 0, "it is in memory");
    let description = described(&mut old, "c").await;
    assert_eq!(description[5], 0);
}
