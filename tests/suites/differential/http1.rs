//! HTTP/1.

use super::{
    readers::Reader,
    run::{Spoken, run},
    ways::Way,
};

#[tokio::test]
async fn a_strict_server_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::Strict, &Way::ALL).await;
}

#[tokio::test]
async fn nginx_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::Nginx, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn haproxy_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::Haproxy, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn node_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::Node, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn a_lenient_node_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::NodeLenient, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn pythons_own_server_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::Python, &Way::OUTERMOST).await;
}

#[tokio::test]
async fn hypercorn_sees_what_was_decided_on_or_nothing() {
    run(Spoken::Http1, Reader::Hypercorn, &Way::OUTERMOST).await;
}
