//! What is too large, too slow, too much, or no review.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Files, Webhook,
    caller::{first_line, patched},
    configuration, of, pod, ready, review,
};
use crate::harness::{TestCa, api_server::ApiServer, eventually, soon};
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
async fn reviews_that_do_not_arrive_keep_nobody_out_and_are_given_up_soon() {
    let (api, _ca, _files, webhook) = of(Limits { requests: 1, ..Limits::default() }).await;
    let caller = webhook.caller(&api);
    let slow = String::from_utf8_lossy(UNFINISHED).replace("timeout=2s", "timeout=30s");
    let begun = std::time::Instant::now();
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(caller.raw(slow.as_bytes()).await);
    }
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true, "they have not taken the only place");
    assert_eq!(first_line(&mut held[0]).await, "HTTP/1.1 408 Request Timeout");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn more_than_may_be_answered_at_a_time_are_refused_at_once() {
    let (api, _ca, _files, webhook) = of(Limits { requests: 1, ..Limits::default() }).await;
    let caller = webhook.caller(&api);
    let mut large = pod();
    large["spec"]["future"] = vec![json!({"a": 1}); 20_000].into();
    let body = review(&large).to_string().into_bytes();
    let asked = (0..8).map(|_| caller.post("/inject", body.clone()));
    let answers = futures_util::future::join_all(asked).await;
    let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().0).collect();
    assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
    assert!(webhook.metric("outrider_injector_requests_refused_total{reason=\"overload\"}").await >= 1.0);
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true, "the place is free again");
}

#[tokio::test]
async fn whoever_sends_much_and_does_not_end_gives_way_to_an_api_server() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let (stranger, mut held) = (caller.from(2), Vec::new());
    let much = "x".repeat(3 * 1024 * 1024);
    let head = String::from_utf8_lossy(UNFINISHED).replace("Length: 100", "Length: 3500000");
    for _ in 0..12 {
        let mut stream = stranger.raw(head.as_bytes()).await;
        // It may have given way to one of its own before all of it was sent.
        let _sent = stream.write_all(much.as_bytes()).await;
        held.push(stream);
    }
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
    assert!(webhook.metric("outrider_injector_requests_refused_total{reason=\"overload\"}").await >= 1.0);
}

#[tokio::test]
async fn a_review_of_too_many_values_is_denied_with_the_bound() {
    let (api, _ca, _files, webhook) = ready().await;
    let caller = webhook.caller(&api);
    let mut many = pod();
    many["spec"]["future"] = vec![0; 1_700_000].into();
    let response = caller.ask(&review(&many)).await;
    let message = response["status"]["message"].as_str().unwrap();
    assert!(response["allowed"] == false && message.contains("more than 50000 values"), "{message}");
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
}

#[tokio::test]
async fn where_there_are_too_many_connections_the_oldest_that_waits_is_closed() {
    let (api, _ca, _files, webhook) = of(Limits { connections: 4, ..Limits::default() }).await;
    let caller = webhook.caller(&api);
    let mut own = caller.connect(b"h2").await.unwrap();
    let stranger = caller.from(2);
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(stranger.connect(b"h2").await.unwrap());
    }
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
    // What HTTP/2 says at the beginning may be read before the end.
    drop(soon("the oldest is closed", idle[0].read_to_end(&mut Vec::new())).await);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_millis(100), own.read_to_end(&mut rest));
    assert!(read.await.is_err(), "who has fewer keeps his");
    assert!(webhook.metric("outrider_injector_requests_refused_total{reason=\"connections\"}").await >= 1.0);
}

#[tokio::test]
async fn told_to_stop_it_is_not_ready_and_goes_on_until_that_is_known() {
    let shutdown_delay = std::time::Duration::from_secs(1);
    let (api, _ca, _files, mut webhook) = of(Limits { shutdown_delay, ..Limits::default() }).await;
    let caller = webhook.caller(&api);
    webhook.stop.cancel();
    let (status, text) = webhook.ready().await;
    assert!(status == 503 && text.contains("stopping"), "{text}");
    assert_eq!(caller.ask(&review(&pod())).await["allowed"], true, "who has not heard of it is answered");

    let text = review(&pod()).to_string();
    let head = format!(
        "POST /inject?timeout=30s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    let (first, rest) = text.split_at(10);
    let mut stream = caller.raw(format!("{head}{first}").as_bytes()).await;
    let address = webhook.address;
    eventually("nothing new is taken", || std::net::TcpStream::connect(address).is_err()).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    assert_eq!(first_line(&mut stream).await, "HTTP/1.1 200 OK", "what is under way is answered");
    drop(stream);
    soon("it ends", &mut webhook.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_kubernetes_without_sidecars_ends_it_with_the_reason() {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.set_version("v1.28.15");
    let files = Files::new(&ca);
    let mut webhook = Webhook::start(&api, &files, Limits::default()).await;
    let error = soon("it ends", &mut webhook.running).await.unwrap().unwrap_err().to_string();
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
