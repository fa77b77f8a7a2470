//! What browsers are told: whose pages may use the server, and what may be done with an answer.

use psa::broker::{Broker, BrokerConfig};
use psa::http::{HttpConfig, HttpServer, Token};

use super::support::*;

/// A stream's content type is its maker's choice, and the live page has the same origin.
#[tokio::test]
async fn nothing_that_a_client_sent_runs_in_a_browser() {
    let server = serve(|_, _| {});
    let script = b"<script>alert(1)</script>";
    for media in ["text/html", "image/svg+xml", "text/xml", "application/xhtml+xml"] {
        let made = [("content-type", media)];
        server.ask("PUT /v1/stream/page", &made, script).await;
        for line in ["GET /v1/stream/page", "HEAD /v1/stream/page", "GET /v1/stream/page?offset=-1"]
        {
            let mut client = Client::new(server.address).await;
            client.send(&request(line, &[], b"")).await;
            let head = client.head().await.unwrap();
            assert_eq!((head.status, head.header("content-type")), (200, Some(media)), "{line}");
            let policy = head.header("content-security-policy");
            assert_eq!(policy, Some("sandbox; default-src 'none'"), "{line}");
            assert_eq!(head.header("x-content-type-options"), Some("nosniff"));
        }
        server.ask("DELETE /v1/stream/page", &[], b"").await;
    }
    // Nor anywhere else, save the page itself, which has a policy of its own.
    server.publish("t", script).await;
    for path in ["/topics", "/topics/t", "/topics/t/records", "/topics/%3Cb%3E", "/metrics"] {
        let answer = server.get(path).await;
        let policy = answer.header("content-security-policy");
        assert_eq!(policy, Some("sandbox; default-src 'none'"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let page = server.get("/").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("sandbox"), "{policy}");
}

#[tokio::test]
async fn nothing_that_is_true_for_a_moment_is_kept() {
    let server = serve(|_, _| {});
    server.publish("t", b"x").await;
    for path in [
        "/topics",
        "/topics/t",
        "/topics/t/records",
        "/metrics",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/nothing",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
    let answer = server.ask("POST /topics/t", &[], b"x").await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn an_origin_is_named_however_it_is_written() {
    let server = serve(|config, _| config.origins = vec!["https://App.Example:443".into()]);
    // What a browser sends.
    let origin = "https://app.example";
    let answer = server.ask("POST /topics/t", &[("origin", origin)], b"x").await;
    answer.ok();
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    let asked = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "cache-control,x-requested-with,last-event-id"),
    ];
    let answer = server.ask("OPTIONS /topics/t", &asked, b"").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
    let allowed = answer.header("access-control-allow-headers").unwrap();
    for name in ["cache-control", "x-requested-with", "last-event-id"] {
        assert!(allowed.split(',').any(|known| known.trim() == name), "{allowed}");
    }
    let foreign = [("origin", "https://app.example:8443")];
    server.ask("POST /topics/t", &foreign, b"x").await.problem(403, "foreign-origin");
}

#[tokio::test]
async fn a_host_is_named_however_it_is_written() {
    let server = serve(|config, _| config.hosts = vec!["PSA.example.".into()]);
    for host in ["psa.example", "Psa.Example:9854", "psa.example."] {
        server.ask("GET /topics", &[("host", host)], b"").await.ok();
    }
    let answer = server.ask("GET /topics", &[("host", "other.example")], b"").await;
    answer.problem(421, "foreign-host");
}

#[tokio::test]
async fn what_could_never_match_is_refused_at_the_start() {
    let refused = |change: fn(&mut HttpConfig)| {
        let mut config =
            HttpConfig { listen: "127.0.0.1:0".parse().unwrap(), ..HttpConfig::default() };
        change(&mut config);
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        HttpServer::bind_with(config, broker).expect_err("it is refused").to_string()
    };
    let said = refused(|config| config.origins = vec!["https://*.wild.example".into()]);
    assert!(said.contains("wildcard"), "{said}");
    assert!(refused(|config| config.hosts = vec!["a:9854".into()]).contains("port"));
    let said = refused(|config| config.token = Some(Token::new("pässwört")));
    assert!(said.contains("ASCII") && !said.contains("pässwört"), "{said}");
    assert!(refused(|config| config.token = Some(Token::new(" lead"))).contains("blank"));
}

/// What a page at https://app.example sends through a proxy that puts its own Host.
#[tokio::test]
async fn the_own_page_is_known_behind_a_proxy() {
    let server = serve(|_, _| {});
    let page = ("origin", "https://app.example");
    let from = |site| [page, ("sec-fetch-site", site)];
    server.ask("POST /topics/t", &from("same-origin"), b"x").await.ok();
    for other in ["same-site", "cross-site"] {
        let answer = server.ask("POST /topics/t", &from(other), b"x").await;
        answer.problem(403, "foreign-origin");
    }
    server.ask("POST /topics/t", &[page], b"x").await.problem(403, "foreign-origin");
}

#[tokio::test]
async fn a_place_is_whole_only_where_the_server_knows_its_own_address() {
    let server = serve(|config, _| config.token = Some(Token::new("s3cret")));
    let common = [("authorization", "Bearer s3cret"), ("content-type", "text/plain")];
    let path = "/v1/stream/a%2Fb";
    for (more, place) in [
        (&[("host", "localhost:1")][..], "http://localhost:1/v1/stream/a%2Fb"),
        (&[("host", "127.0.0.1:1")], "http://127.0.0.1:1/v1/stream/a%2Fb"),
        (&[("host", "evil.example")], path),
        (&[("host", "app.example")], path),
        (&[("host", "localhost"), ("x-forwarded-proto", "https")], path),
        (&[("host", "127.0.0.1"), ("via", "1.1 proxy")], path),
    ] {
        let headers = [&common[..], more].concat();
        let made = server.ask(&format!("PUT {path}"), &headers, b"").await;
        assert_eq!((made.status, made.header("location")), (201, Some(place)), "{more:?}");
        assert_eq!(server.ask(&format!("DELETE {path}"), &common, b"").await.status, 204);
    }
}
