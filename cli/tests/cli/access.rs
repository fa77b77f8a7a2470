//! Tokens with rights: made by the binary, asked for by the server, changed while it runs.

use crate::harness::*;
use rustix::process::Signal;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Makes a token: its entry and its secret.
fn new(args: &[&str]) -> (String, String) {
    let ended = run(psa(&[&["token", "new"], args].concat()));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    (ended.text().to_owned(), ended.err.trim_end().to_owned())
}

/// A server with these entries, whose log goes to a file.
fn serve(folder: &Path, entries: &str, level: &str) -> (Server, PathBuf, PathBuf) {
    let (file, log) = (folder.join("access.toml"), folder.join("log"));
    std::fs::write(&file, entries).unwrap();
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.args(["--log-level", level, "--http-token-in-query", "--access-file"]).arg(&file);
    command.stderr(std::fs::File::create(&log).unwrap());
    (Server::from(command), file, log)
}

fn with_token(server: &Server, token: &str, args: &[&str]) -> std::process::Command {
    let mut command = server.psa(args);
    command.env("PSA_TOKEN", token);
    command
}

#[test]
fn a_token_is_made_used_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let (entry, secret) =
        new(&["writer \"1\"", "--publish", "a/*", "--subscribe", "a/*", "--metrics"]);
    let (other, reader) = new(&["reader", "--subscribe", "a/*", "--expires", "2500-01-31"]);
    assert!(secret.starts_with("psa_") && secret.len() == 47 && secret != reader, "its form");
    assert!(!entry.contains(&secret), "the entry does not have the secret");
    let (mut server, file, log) = serve(folder.path(), &format!("{entry}{other}"), "info");

    run_with(with_token(&server, &secret, &["pub", "a/1"]), b"hello\n").ok();
    let denied = run_with(with_token(&server, &reader, &["pub", "a/1"]), b"x\n");
    denied.failed(4, "\"publish\" for \"a/1\"");
    denied.failed(4, "[forbidden]");
    run(with_token(&server, &secret, &["topics", "delete", "a/1"])).failed(4, "[forbidden]");
    run(server.psa(&["topics"])).failed(4, "[unauthorized]");
    let list = run(with_token(&server, &reader, &["topics"]));
    assert!(list.text().contains("a/1"), "{list:?}");

    let mut follower = with_token(&server, &reader, &["sub", "a/1"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(read_some(&mut follower, 6), b"hello\n");

    // A file with a mistake changes nothing, and the log says where it is.
    std::fs::write(&file, format!("{entry}\n[[token]]\nname = 7\n")).unwrap();
    signal(&server.child, Signal::HUP);
    let logged = || std::fs::read_to_string(&log).unwrap();
    eventually("the file is refused", || logged().contains("access file refused"));
    let line = logged().lines().find(|line| line.contains("refused")).unwrap().to_owned();
    assert!(line.contains("access.toml:") && line.contains("stay in force"), "{line}");
    run(with_token(&server, &reader, &["topics"])).ok();

    std::fs::write(&file, &entry).unwrap();
    signal(&server.child, Signal::HUP);
    assert_eq!(wait(&mut follower), Some(4), "the follower is sent away");
    let mut said = String::new();
    follower.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("[unauthorized]"), "{said}");
    run(with_token(&server, &reader, &["topics"])).failed(4, "[unauthorized]");
    run_with(with_token(&server, &secret, &["pub", "a/1"]), b"again\n").ok();
    assert!(server.child.try_wait().unwrap().is_none(), "a hang-up does not end it");
}

/// The status of an answer over HTTP/2 without TLS, with prior knowledge.
fn over_http2(address: &str, path: &str, token: &str) -> u16 {
    use http_body_util::Empty;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let executor = TokioExecutor::new();
        let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream));
        let (mut client, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(format!("http://{address}{path}"))
            .header("Authorization", format!("Bearer {token}"))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        client.send_request(request).await.unwrap().status().as_u16()
    })
}

#[test]
fn no_token_is_logged_at_any_level() {
    let folder = tempfile::tempdir().unwrap();
    let (entry, secret) = new(&["a", "--publish", "*", "--subscribe", "*"]);
    let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    let (file, log) = (folder.path().join("access.toml"), folder.path().join("log"));
    std::fs::write(&file, &entry).unwrap();
    command.args(["--log-level", "trace", "--http-token-in-query", "--access-file"]).arg(&file);
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut server = Server::from(command);
    let http = server.said_after("curl -N http://");

    for token in [secret.as_str(), "psa_wrong-but-secret-all-the-same"] {
        run_with(with_token(&server, token, &["pub", "t"]), b"x\n");
        let header = format!("Authorization: Bearer {token}\r\n");
        let query = format!("?access_token={token}");
        for (query, header) in [(query.as_str(), ""), ("", header.as_str())] {
            let mut stream = std::net::TcpStream::connect(&http).unwrap();
            let request = format!(
                "GET /topics/t/records{query} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let status = if token == secret { "HTTP/1.1 200" } else { "HTTP/1.1 401" };
            assert!(answer.starts_with(status), "{answer}");
        }
        // HTTP/2, whose library logs frames.
        let status = if token == secret { 200 } else { 401 };
        assert_eq!(over_http2(&http, "/topics/t/records", token), status);
    }
    signal(&server.child, Signal::TERM);
    assert_eq!(wait(&mut server.child), Some(0));
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("TRACE") && logged.contains("wrong token"), "it is the whole log");
    let hash = entry.split("sha256 = \"").nth(1).unwrap().split('"').next().unwrap();
    for secret in [secret.as_str(), "psa_wrong-but-secret", hash] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}

#[test]
fn a_broken_access_file_keeps_the_server_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.toml");
    let serve = || {
        let mut command = psa(&["serve", "--listen", "127.0.0.1:0", "--log-level", "off"]);
        command.arg("--access-file").arg(&file);
        run(command)
    };
    serve().failed(2, "access.toml: no such file");
    std::fs::write(&file, "[[token]]\nname = \"a\"\nsha256 = \"psa_oops\"\n").unwrap();
    let ended = serve();
    ended.failed(2, "access.toml:3: sha256 has 64 hexadecimal digits");
    assert!(!ended.err.contains("psa_oops"));
    let (entry, _) = new(&["a", "--publish", "*"]);
    std::fs::write(&file, format!("{entry}{entry}")).unwrap();
    serve().failed(2, "two tokens are named \"a\"");
}

#[test]
fn a_secret_can_go_to_a_file_of_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let name = path.to_str().unwrap();
    let (_, said) = new(&["a", "--secret-file", name]);
    assert_eq!(said, "");
    let secret = std::fs::read_to_string(&path).unwrap();
    assert!(secret.starts_with("psa_") && secret.len() == 48);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    run(psa(&["token", "new", "b", "--secret-file", name])).failed(1, "secret");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), secret, "it stays");
    run(psa(&["token", "new", ""])).failed(2, "1 to 64 characters");
    run(psa(&["token", "new", "a", "--publish", ""])).failed(2, "--publish");
    run(psa(&["token", "new", "a", "--expires", "soon"])).failed(2, "--expires");
}
