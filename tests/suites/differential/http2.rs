//! HTTP/2, which servers get as HTTP/1 or as HTTP/2.

use super::{
    readers::Reader,
    run::{Spoken, run},
    ways::Way,
};

#[tokio::test]
async fn a_strict_server_sees_of_http2_what_was_decided_on_or_nothing() {
    run(Spoken::Http2, Reader::Strict, &Way::ALL).await;
}

#[tokio::test]
async fn nginx_sees_of_http2_what_was_decided_on_or_nothing() {
    run(Spoken::Http2, Reader::Nginx, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn a_lenient_node_sees_of_http2_what_was_decided_on_or_nothing() {
    run(Spoken::Http2, Reader::NodeLenient, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn hypercorn_over_http2_sees_of_http2_what_was_decided_on_or_nothing() {
    run(Spoken::Http2, Reader::HypercornHttp2, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn hypercorn_over_http2_sees_of_http1_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::HypercornHttp2, &Way::OUTERMOST).await;
}
