//! At-least-once processing: the worker is killed again and again, and every letter is sent.

use std::ops::Range;

use psa::client::Client;
use psa::server::{Server, ServerConfig};

use crate::program::Program;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_letter_is_sent() {
    let listen = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(ServerConfig { listen, ..ServerConfig::default() });
    let server = server.expect("a free port");
    let address = server.local_addr().to_string();
    tokio::spawn(server.run(std::future::pending()));
    let client = Client::builder(&address).build().expect("an address");
    let publish = async |numbers: Range<u32>| {
        let letters: Vec<_> = numbers.map(|n| n.to_string()).collect();
        client.publish_batch("letters", &letters).await.expect("published");
    };
    publish(0..20).await;

    let folder = tempfile::tempdir().expect("a folder");
    let outbox = folder.path().join("outbox");
    let start = |crash_at: Option<u64>| {
        let outbox = outbox.to_str().expect("a path of text").to_owned();
        let crash_at = crash_at.map(|offset| offset.to_string());
        Program::start("at_least_once", [address.clone(), outbox].into_iter().chain(crash_at))
    };

    // Crash exactly between sending a letter and committing it.
    let mut program = start(Some(5));
    assert!(!program.end().success(), "{:#?}", program.seen);
    assert_eq!(program.said("sent ").last(), Some(&"5: 5"));
    let mut program = start(None);
    program.expect("starting at 5");
    program.expect("sent 5: 5");
    let mut interrupted = 2;
    drop(program);

    // Kill it anywhere. Each time there are new letters, so that it has work however far the last worker got.
    for letters in 1..10 {
        publish(letters * 20..(letters + 1) * 20).await;
        let mut program = start(None);
        for _ in 0..letters {
            program.expect("sent ");
        }
        program.kill();
        interrupted += 1;
    }
    let mut program = start(None);
    program.succeed();
    assert_eq!(program.said("done up to "), ["200"], "{:#?}", program.seen);

    let sent = std::fs::read_to_string(&outbox).expect("an outbox");
    let sent: Vec<u64> = sent.lines().map(|letter| letter.parse().expect("a letter")).collect();
    let mut repeated = 0;
    assert_eq!(sent[0], 0);
    for pair in sent.windows(2) {
        // Each letter is committed before the next one is sent, so only the last one before a crash can be repeated.
        assert!(pair[1] == pair[0] || pair[1] == pair[0] + 1, "{sent:?}");
        repeated += usize::from(pair[1] == pair[0]);
    }
    assert_eq!(sent.last(), Some(&199));
    assert!((1..=interrupted).contains(&repeated), "{repeated} of {interrupted}");

    // No work is left.
    let mut program = start(None);
    program.succeed();
    assert_eq!(program.said("sent "), [""; 0]);
}
