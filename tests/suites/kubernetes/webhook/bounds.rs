//! What is too large, too slow, too much, or no review.

use serde_json::json;

use super::{
    Files, Webhook,
    caller::{first_line, patched},
    configuration, pod, ready, review,
};
use crate::harness::{TestCa, api_server::ApiServer, eventually};
use outrider_injector::webhook::{Limits, MAX_REVIEW_BYTES};

#[tokio::test]
async fn a_pod_as_large_as_the_api_server_takes_is_answered_and_a_larger_one_refused() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let mut huge = pod();
    huge["metadata"]["annotations"] = json!({"huge": "x".repeat(3 * 1024 * 1024 - 4096)});
    let response = caller.ask(&review(&huge)).await;
    assert_eq!(patched(&huge, &response)["spec"]["initContainers"][1]["name"], "outrider");

    huge["metadata"]["annotations"] = json!({"huge": "x".repeat(MAX_REVIEW_BYTES)});
    let answer = caller.post("/inject?timeout=10s", review(&huge).to_string().into_bytes()).await;
    // It may be refused before all of it was sent.
    assert!(answer.is_err() || answer.is_ok_and(|(status, _)| status == 413));
    assert!(webhook.metric("outrider_injector_requests_refused_total{reason=\"too_large\"}").await >= 1.0);
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true, "others notice nothing");
}

#[tokio::test]
async fn many_containers_and_deep_nesting_are_answered_or_refused_but_never_fatal() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let probe = json!({"httpGet": {"path": "/", "port": 80}});
    let container = |number: usize| json!({"name": format!("c{number}"), "livenessProbe": probe, "readinessProbe": probe});
    let mut many = pod();
    many["spec"]["containers"] = (0..2_000).map(container).collect();
    let response = caller.ask(&review(&many)).await;
    assert_eq!(
        patched(&many, &response)["spec"]["containers"][1_999]["livenessProbe"]["httpGet"]["port"],
        4391
    );

    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let (status, text) = caller.post("/inject", deep.into_bytes()).await.unwrap();
    assert_eq!(status, 400, "{text}");
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
}

#[tokio::test]
async fn what_is_no_review_gets_a_status_that_says_so() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let old =
        json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "1"}});
    for (body, words) in
        [("{".to_owned(), "no JSON"), (old.to_string(), "v1beta1"), (pod().to_string(), "Pod")]
    {
        let (status, text) = caller.post("/inject", body.into_bytes()).await.unwrap();
        assert!(status == 400 && text.contains(words), "{status}: {text}");
    }
    let (status, _) = caller.post("/other", Vec::new()).await.unwrap();
    assert_eq!(status, 404);
    let mut stream = caller.raw(b"GET /inject HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 405 Method Not Allowed");
    let mut stream = caller
        .raw(b"POST /inject HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 415 Unsupported Media Type");
}

/// The head of a review whose body does not come.
const UNFINISHED: &[u8] = b"POST /inject?timeout=2s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";

#[tokio::test]
async fn a_review_that_does_not_arrive_is_given_up_before_the_api_server_does() {
    let (api, _ca, _files, webhook) = ready().await;
    let mut stream = webhook.caller(&api).raw(UNFINISHED).await;
    let begun = std::time::Instant::now();
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 504 Gateway Timeout");
    assert!(begun.elapsed().as_millis() >= 1_800, "{:?}", begun.elapsed());
    assert!(webhook.metric("outrider_injector_requests_refused_total{reason=\"timeout\"}").await >= 1.0);
}

#[tokio::test]
async fn more_than_may_be_answered_at_a_time_are_refused_at_once() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    let files = Files::new(&ca);
    let limits = Limits { requests: 1, ..Limits::default() };
    let webhook = Webhook::start(&api, &files, limits).await;
    webhook.until_ready().await;
    let caller = webhook.caller(&api);
    let slow = String::from_utf8_lossy(UNFINISHED).replace("timeout=2s", "timeout=30s");
    let held = caller.raw(slow.as_bytes()).await;
    let body = || review(&pod()).to_string().into_bytes();
    let mut status = 200;
    // Until the first one has taken its place.
    for _ in 0..1_000 {
        status = caller.post("/inject", body()).await.unwrap().0;
        if status == 503 {
            break;
        }
    }
    assert_eq!(status, 503);
    drop(held);
    for _ in 0..10_000 {
        status = caller.post("/inject", body()).await.unwrap().0;
        if status == 200 {
            break;
        }
    }
    assert_eq!(status, 200, "the place is free again");
}

#[tokio::test]
async fn connections_over_their_number_are_closed() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    let files = Files::new(&ca);
    let limits = Limits { connections: 2, ..Limits::default() };
    let webhook = Webhook::start(&api, &files, limits).await;
    webhook.until_ready().await;
    let caller = webhook.caller(&api);
    let held = [caller.connect(b"h2").await.unwrap(), caller.connect(b"h2").await.unwrap()];
    assert!(caller.connect(b"h2").await.is_err());
    drop(held);
    let mut is_free = false;
    for _ in 0..10_000 {
        is_free = caller.connect(b"h2").await.is_ok();
        if is_free {
            break;
        }
    }
    assert!(is_free);
}

#[tokio::test]
async fn it_stops_when_told_and_what_is_under_way_is_answered() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    let files = Files::new(&ca);
    let limits = Limits { requests: 1, ..Limits::default() };
    let mut webhook = Webhook::start(&api, &files, limits).await;
    webhook.until_ready().await;
    let caller = webhook.caller(&api);
    let text = review(&pod()).to_string();
    let head = format!(
        "POST /inject?timeout=30s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    let (first, rest) = text.split_at(10);
    let mut stream = caller.raw(format!("{head}{first}").as_bytes()).await;
    let taken = async {
        // It has the only place.
        while caller.post("/inject", Vec::new()).await.unwrap().0 != 503 {}
    };
    crate::harness::soon("the request is under way", taken).await;
    webhook.stop.cancel();
    let address = webhook.address;
    let mut is_closed = false;
    for _ in 0..10_000 {
        is_closed = tokio::net::TcpStream::connect(address).await.is_err();
        if is_closed {
            break;
        }
    }
    assert!(is_closed, "nothing new is taken");
    tokio::io::AsyncWriteExt::write_all(&mut stream, rest.as_bytes()).await.unwrap();
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 200 OK");
    drop(stream);
    crate::harness::soon("it ends", &mut webhook.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_kubernetes_without_sidecars_ends_it_with_the_reason() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.set_version("v1.28.15");
    let files = Files::new(&ca);
    let mut webhook = Webhook::start(&api, &files, Limits::default()).await;
    let error = crate::harness::soon("it ends", &mut webhook.running).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("1.28 is too old") && error.contains("1.29"), "{error}");
}

#[tokio::test]
async fn an_api_server_that_is_away_is_waited_for() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    api.refuse(Some((503, None)));
    let files = Files::new(&ca);
    let webhook = Webhook::start(&api, &files, Limits::default()).await;
    eventually("it has asked", || api.calls().len() >= 2).await;
    let (status, text) = webhook.ready().await;
    assert!(status == 503 && text.contains("version"), "{text}");
    api.refuse(None);
    webhook.until_ready().await;
}
