//! Whoever asks for more than their share is closed or answered, and counted; everybody else notices nothing.

mod abuse;
mod connections;
mod http2;
mod memory;
mod starving;

use std::sync::atomic::Ordering;

use http::StatusCode;
use outrider::model::closed::{Misuse, Shed};

use crate::harness::{Client, Sidecar, soon};

fn shed(sidecar: &Sidecar, listener: &str, reason: Shed) -> u64 {
    sidecar.listener(listener).closed.shed[reason as usize].load(Ordering::Relaxed)
}

fn misused(sidecar: &Sidecar, listener: &str, reason: Misuse) -> u64 {
    sidecar.listener(listener).closed.misused[reason as usize].load(Ordering::Relaxed)
}

/// Somebody else's request on a connection of its own passes.
async fn others_are_served(web: &Sidecar, when: &str) {
    let response = soon(when, async { Client::http1(web.address()).await.get("/good").await }).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{when}");
}
