//! TLS on both listeners of the real binary: certificates made for the test, real handshakes.

#[path = "../../tests/tls/authority.rs"]
mod authority;
#[path = "cli/curl.rs"]
mod curl;
#[path = "cli/harness.rs"]
#[allow(dead_code, reason = "a part is needed")]
mod harness;

use authority::Authority;
use harness::{eventually, run, run_with, signal};
use std::net::SocketAddr;
use std::path::Path;

#[test]
fn the_binary_speaks_tls_on_both_listeners_and_reads_its_certificate_again() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) =
        (Authority::new(folder.path(), "before"), Authority::new(folder.path(), "after"));
    let pair = before.issue(folder.path(), "localhost", false);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (certificate, key) = (text(&pair.0), text(&pair.1));
    let flags = ["--tls-certificate", &certificate, "--tls-key", &key, "--http", "127.0.0.1:0"];
    let server = harness::Server::start(&flags);
    let with = |authority: &Authority, args: &[&str]| {
        let mut command = server.psa(args);
        command.args(["--ca", &text(&authority.file), "--server-name", "localhost"]);
        command
    };
    run_with(with(&before, &["pub", "t"]), b"hello\n").ok();
    let got = run(with(&before, &["sub", "t", "--exit-at-end"])).ok();
    assert_eq!(got, b"hello\n");
    assert!(String::from_utf8(run(with(&before, &["topics"])).ok()).unwrap().contains('t'));
    run(with(&before, &["stats", "t", "--json"])).ok();
    run(server.psa(&["topics"])).failed(3, "use --tls or --ca FILE");
    run(with(&after, &["topics"])).failed(3, "UnknownIssuer");

    if curl::is_there("the binary's HTTPS") {
        let http: SocketAddr = server.said_after("curl -N https://").parse().unwrap();
        let curl = |authority: &Authority, args: &[&str]| {
            let mut command = curl::curl();
            command.args(["-sS", "-i", "--cacert", &text(&authority.file)]);
            command.args(["--resolve", &format!("localhost:{}:127.0.0.1", http.port())]);
            command.args(args);
            run(command)
        };
        let base = format!("https://localhost:{}", http.port());
        for version in ["--http1.1", "--http2"] {
            let records = curl(&before, &[version, &format!("{base}/topics/t/records")]).ok();
            assert!(String::from_utf8(records).unwrap().contains("\"hello\""));
        }
        let made = curl(&before, &["-X", "PUT", &format!("{base}/v1/stream/s")]).ok();
        let made = String::from_utf8(made).unwrap().to_lowercase();
        assert!(made.contains(&format!("location: {base}/v1/stream/s")), "{made}");
    }

    after.issue(folder.path(), "localhost", false);
    signal(&server.child, rustix::process::Signal::HUP);
    eventually("the new certificate", || run(with(&after, &["topics"])).code == Some(0));
    run(with(&before, &["topics"])).failed(3, "UnknownIssuer");
}
