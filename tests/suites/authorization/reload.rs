//! Rules change while connections stay.

use http::StatusCode;

use super::{Bench, WEB, web_may};

#[tokio::test]
async fn every_request_goes_by_the_newest_rules() {
    let mut bench = Bench::new(&web_may("paths: [/a]")).await;
    let mut web = bench.peer(WEB).await;
    for (rules, path, expected) in [
        (web_may("paths: [/a]"), "/a", StatusCode::OK),
        (web_may("paths: [/b]"), "/a", StatusCode::FORBIDDEN),
        (web_may("paths: [/b]"), "/b", StatusCode::OK),
        ("{rules: []}".to_owned(), "/b", StatusCode::FORBIDDEN),
        ("{mode: audit, rules: []}".to_owned(), "/b", StatusCode::OK),
        (web_may("methods: [POST]"), "/b", StatusCode::FORBIDDEN),
        (web_may("methods: [GET]"), "/b", StatusCode::OK),
    ] {
        bench.reload(&rules).await;
        assert_eq!(web.get(path).await.unwrap().status(), expected, "{rules} {path}");
    }
}
