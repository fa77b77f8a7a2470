//! `GET /openapi.json`: the description of the API, for programs.
//!
//! The description is written by hand, like the routes. They read their parameters, headers and bodies themselves,
//! byte by byte where their promises require it, so a macro would see nothing of that, and would only move the same
//! sentences into attributes. Two things keep the description true: the tests below compare it with the router, in
//! both directions, and in `.ci/openapi` a property-based tester asks the real server for everything that the file
//! describes, and for much that it does not.

use axum::extract::OriginalUri;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::request::prefix;

/// The description, OpenAPI 3.1.
const DESCRIPTION: &str = include_str!("../../docs/openapi.json");

/// Where it says what stands before the paths.
const SERVER: &str = r#""servers": [{"url": "/""#;

/// Returns the description. In another program's router, everything is under a prefix, and it says so.
pub(super) async fn describe(OriginalUri(original): OriginalUri, uri: Uri) -> Response {
    let media = [(header::CONTENT_TYPE, "application/json")];
    match prefix(&original, &uri) {
        "" => (media, DESCRIPTION).into_response(),
        prefix => {
            let server = format!(r#""servers": [{{"url": {}"#, json!(prefix));
            (media, DESCRIPTION.replacen(SERVER, &server, 1)).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Method, Request, StatusCode, header};
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::broker::{Broker, BrokerConfig};
    use crate::http::api::Api;
    use crate::http::{HttpConfig, router};

    /// Whether browsers ask for this path, for people: pages and their files. They are not for programs, so they are
    /// not described.
    fn is_of_a_page(path: &str) -> bool {
        path == "/" || path.starts_with("/live/")
    }

    fn api_router() -> Router {
        let broker = Broker::new(BrokerConfig::default()).unwrap();
        router(&Arc::new(Api::new(HttpConfig::default(), broker)))
    }

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    /// The router exposes its paths only in its `Debug` output: `… paths: {RouteId(0): "/topics", …`.
    fn paths_of(router: &Router) -> BTreeSet<String> {
        let shown = format!("{router:?}");
        let paths = shown.split('"').skip(1).step_by(2).filter(|text| text.starts_with('/'));
        // A star matches the rest of a path, which OpenAPI cannot express. axum's own catch-all is not
        // one of our routes.
        let ours = paths.filter(|path| !path.contains("__private__axum"));
        ours.map(|path| path.replace("{*", "{")).collect()
    }

    #[test]
    fn every_route_is_described_and_nothing_else_is() {
        let document = description();
        let described = document["paths"].as_object().unwrap().keys().cloned().collect();
        let mut routed = paths_of(&api_router());
        routed.retain(|path| !is_of_a_page(path));
        assert!(routed.contains("/topics/{topic}/records"), "{routed:?}");
        assert_eq!(routed, described);
    }

    #[tokio::test]
    async fn each_path_has_the_methods_that_are_described_and_no_others() {
        let router = api_router();
        for (path, item) in description()["paths"].as_object().unwrap() {
            // No route has PATCH, so the response lists the methods that are allowed.
            let address = path.replace(['{', '}'], "");
            let request = Request::builder().method(Method::PATCH).uri(&address);
            let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            let allowed = answer.headers()[header::ALLOW].to_str().unwrap();
            let mut allowed: BTreeSet<_> = allowed.split(',').map(str::to_lowercase).collect();
            // HEAD works wherever GET does; it is described only where its response differs.
            if item.get("head").is_none() {
                allowed.remove("head");
            }
            let methods = ["get", "put", "post", "delete", "head", "patch"];
            let described = methods.into_iter().filter(|method| item.get(*method).is_some());
            assert_eq!(allowed, described.map(str::to_owned).collect(), "{path}");
        }
    }

    #[test]
    fn every_problem_that_is_described_is_documented() {
        let document = include_str!("../../docs/http.md");
        let mut codes = BTreeSet::new();
        gather(&description(), &mut codes);
        assert!(codes.len() > 20, "{codes:?}");
        for code in codes {
            assert!(document.contains(&format!("<a id=\"{code}\"></a>")), "{code}");
        }
    }

    /// Collects the values that the enumerations of all `code` members list.
    fn gather(value: &Value, codes: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                let listed = members.get("code").and_then(|code| code["enum"].as_array());
                let listed = listed.into_iter().flatten().filter_map(Value::as_str);
                codes.extend(listed.map(str::to_owned));
                members.values().for_each(|member| gather(member, codes));
            }
            Value::Array(items) => items.iter().for_each(|item| gather(item, codes)),
            _ => {}
        }
    }

    #[test]
    fn its_server_can_be_named() {
        assert_eq!(DESCRIPTION.matches(SERVER).count(), 1);
    }

    #[test]
    fn its_version_is_ours() {
        assert_eq!(description()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
