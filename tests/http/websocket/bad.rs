//! Sockets that do what they should not, each beside one that does nothing wrong.

use super::*;

/// A socket that has heard that it is caught up.
async fn begun(server: &Running) -> Socket {
    let mut socket = Socket::open(server.address, "t/events", &[]).await;
    socket.next().await.event("begin");
    socket.next().await.event("caught-up");
    socket
}

#[tokio::test]
async fn what_is_no_frame_for_a_server_ends_its_socket_alone() {
    let server = serve(|_, _| {});
    let mut well = begun(&server).await;
    let huge = [&[LAST | BINARY, LAST | 127][..], &(1u64 << 62).to_be_bytes(), &[0; 4]].concat();
    let unmasked = vec![LAST | PING, 1, b'x'];
    let padded = vec![LAST | TEXT, LAST | 126, 0, 1, 0, 0, 0, 0, b'x'];
    let one_byte_of_close = frame(LAST | CLOSE, b"x");
    let cut_text = frame(LAST | TEXT, b"\xc3");
    for (what, bytes, codes) in [
        ("a message", frame(LAST | TEXT, b"hello"), &[1003][..]),
        ("bytes", frame(LAST | BINARY, b"hello"), &[1003]),
        ("a message in pieces", [frame(TEXT, b"he"), frame(LAST, b"llo")].concat(), &[1003]),
        ("a large message", frame(LAST | TEXT, &[b'x'; 1000]), &[1009]),
        (
            "a large one in pieces",
            [frame(TEXT, &[b'x'; 120]), frame(0, &[b'x'; 120])].concat(),
            &[1009],
        ),
        ("a huge frame that does not come", huge, &[1009]),
        ("a frame without a mask", unmasked, &[1002]),
        ("a ping in pieces", frame(PING, b"x"), &[1002]),
        ("a ping that is too long", frame(LAST | PING, &[b'x'; 126]), &[1002]),
        ("a kind that is none", frame(LAST | 3, b"x"), &[1002]),
        ("an extension that was not agreed on", frame(LAST | 0x40 | TEXT, b"x"), &[1002]),
        ("the rest of nothing", frame(LAST, b"x"), &[1002]),
        ("a length that is written too long", padded, &[1002]),
        ("half a code", one_byte_of_close, &[1002]),
        ("a code that may not be", frame(LAST | CLOSE, &1005u16.to_be_bytes()), &[1002]),
        ("text that is none", cut_text, &[1002, 1007]),
        ("what is no WebSocket", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &[1002]),
    ] {
        let mut socket = begun(&server).await;
        socket.client.send(&bytes).await;
        let (code, reason) = socket.end().await;
        assert!(codes.contains(&code), "{what}: {code} {reason}");
        // It hears no other word, and ends.
        let more = [frame(LAST | PING, b"well?"), frame(LAST | CLOSE, &code.to_be_bytes())];
        let _ =
            tokio::io::AsyncWriteExt::write_all(&mut socket.client.stream, &more.concat()).await;
        assert_eq!(socket.frame().await, None, "{what}");
    }
    server.publish("t", b"hello").await;
    assert_eq!(well.record().await, (0, b"hello".to_vec()));
    until("the others are gone", || server.handle.connections() == 1).await;
    assert_eq!(server.handle.streams(), 1);
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let server = serve(|_, _| {});
    let mut socket = begun(&server).await;
    for byte in frame(LAST | PING, b"slow") {
        socket.client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(socket.frame().await, Some((PONG, b"slow".into())));
    // Half of one holds up nothing that is to be told.
    let half = frame(LAST | PING, b"half");
    socket.client.send(&half[..5]).await;
    server.publish("t", b"hello").await;
    assert_eq!(socket.record().await, (0, b"hello".to_vec()));
    socket.client.send(&half[5..]).await;
    assert_eq!(socket.frame().await, Some((PONG, b"half".into())));
}

#[tokio::test]
async fn who_goes_without_a_word_is_noticed() {
    let server = serve(|_, _| {});
    for half in [0, 3] {
        let mut socket = begun(&server).await;
        socket.client.send(&frame(LAST | PING, b"half")[..half]).await;
        drop(socket);
        until("it is gone", || server.handle.connections() == 0).await;
        assert_eq!(server.broker.topic("t").unwrap().log().stats().cursors, 0);
    }
}

#[tokio::test]
async fn who_asks_and_does_not_listen_is_not_answered_without_end() {
    let server = serve(|config, _| {
        (config.send_buffer, config.receive_buffer) = (Some(8 << 10), Some(8 << 10));
        config.limits.stall_timeout = Duration::from_millis(300);
    });
    let mut socket = begun(&server).await;
    // As soon as the answers are not taken, no more questions are: the client cannot go on to ask, and
    // is cut off for taking nothing.
    let pings = frame(LAST | PING, &[b'x'; 125]).repeat(1000);
    let asking = async {
        use tokio::io::AsyncWriteExt;
        while socket.client.stream.write_all(&pings).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it is cut off");
    until("it is gone", || server.handle.connections() == 0).await;
}

/// A topic whose memory is soon used up, and a socket to it.
async fn stall(server: &Running, overflow: &str, form: &[(&str, &str)]) -> Socket {
    let settings = json!({
        "segment_bytes": 65_536, "memory_limit": 1 << 20, "retention": "nothing", "overflow": overflow,
    });
    let made = server.ask("PUT /topics/t", &[], settings.to_string().as_bytes()).await;
    assert_eq!(made.status, 201);
    Socket::open(server.address, "t/events", form).await
}

#[tokio::test]
async fn a_slow_socket_that_is_evicted_is_told_exactly_what_it_missed() {
    let server = serve(|config, _| config.send_buffer = Some(8 << 10));
    let mut slow = stall(&server, "evict", &BYTES).await;
    let mut quick = Socket::open(server.address, "t/events", &JSON).await;
    let log = server.broker.topic("t").unwrap();
    let record = |n: u64| format!("{n} {}", "x".repeat(1000)).into_bytes();
    const RECORDS: u64 = 20_000;
    let publisher = log.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..RECORDS {
            publisher.append(&record(n)).await.unwrap();
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(publisher.close());
    });
    let mut missed = [0, 0];
    for (socket, missed) in [&mut quick, &mut slow].into_iter().zip(&mut missed) {
        // Each has every record, or was told that it has not; in order, once.
        let mut next = 0;
        loop {
            match socket.next().await {
                Told::Record(offset, data) => {
                    assert!(offset == next && data == record(next), "record {next}");
                    next += 1;
                }
                Told::Event(name, facts) if name == "gap" => {
                    assert_eq!(facts["reason"], "evicted");
                    assert_eq!(facts["first_missed"], next);
                    let behind = facts["next_offset"].as_u64().unwrap();
                    *missed += behind - next;
                    next = behind;
                }
                Told::Event(..) => {}
                Told::Close(code, _) => break assert_eq!(code, 1000),
            }
        }
        assert_eq!(next, RECORDS);
    }
    publishing.await.unwrap();
    assert!(missed[1] > 0, "the slow one, which is read last, missed something");
    assert!(log.stats().evictions > 0);
}

#[tokio::test]
async fn a_socket_that_takes_nothing_or_a_trickle_loses_its_place() {
    for trickle in [false, true] {
        let server = serve(|config, _| {
            config.send_buffer = Some(8 << 10);
            config.limits.stall_timeout = Duration::from_millis(200);
        });
        let stalled = stall(&server, "block", &[]).await;
        let mut stream = stalled.client.stream;
        let reading = tokio::spawn(async move {
            use tokio::io::AsyncReadExt;
            // Held open in either case.
            let mut byte = [0];
            while trickle && stream.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            std::future::pending::<()>().await;
            drop(stream);
        });
        let log = server.broker.topic("t").unwrap();
        // The publisher is held back by the socket's place, until that is let go.
        for _ in 0..10_000 {
            let appended = tokio::time::timeout(PATIENCE, log.append(&[b'x'; 1000])).await;
            appended.expect("there is room again").unwrap();
        }
        until("the stream is gone", || server.handle.streams() == 0).await;
        until("the connection is gone", || server.handle.connections() == 0).await;
        assert_eq!(log.stats().cursors, 0);
        reading.abort();
    }
}
