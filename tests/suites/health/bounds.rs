//! Checks leave nothing behind, and are never too many.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use outrider::{
    drain::Phase,
    health::MAX_UNDER_WAY,
    model::{health::Checked, health_check::CheckOutcome},
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

use super::{OFTEN, becomes, counted, item, list, watching};
use crate::harness::{TcpApp, TestMesh, eventually};

/// An app that takes connections and says nothing, and knows how many it has now, and had at most.
async fn hanging() -> (TcpApp, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, ever) = (Arc::clone(&open), Arc::clone(&most));
    let app = TcpApp::start(move |stream| hold(stream, Arc::clone(&now), Arc::clone(&ever))).await;
    (app, open, most)
}

async fn hold(mut stream: TcpStream, now: Arc<AtomicUsize>, most: Arc<AtomicUsize>) {
    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    drop(stream.read_to_end(&mut Vec::new()).await);
    now.fetch_sub(1, Ordering::SeqCst);
}

#[tokio::test]
async fn a_check_that_hangs_holds_one_connection_until_its_timeout() {
    let (mesh, (app, open, most)) = (TestMesh::new(), hanging().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "health_check: {interval: 100ms, timeout: 200ms}").await;
    eventually("some have hung", || counted(&web, CheckOutcome::Timeout) >= 5).await;
    assert!(most.load(Ordering::SeqCst) <= 2, "one, and perhaps one that is just ending");
    drop(web);
    eventually("the sidecar's end ends it", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn an_endpoint_that_goes_takes_its_check_with_it() {
    let (mesh, (app, open, _)) = (TestMesh::new(), hanging().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    list(&mesh, &[item(orders.address())]);
    let web = watching(&mesh, "health_check: {interval: 100ms, timeout: 1m}").await;
    eventually("it is asked", || open.load(Ordering::SeqCst) == 1).await;
    list(&mesh, &[]);
    eventually("nobody waits for it any more", || open.load(Ordering::SeqCst) == 0).await;
    assert!(web.cluster("orders").endpoints.is_empty());
    list(&mesh, &[item(orders.address())]);
    eventually("it is asked again", || open.load(Ordering::SeqCst) == 1).await;
    web.app().drains.advance(Phase::Forced);
    eventually("the end of the process ends it", || open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_thousand_endpoints_are_asked_a_few_at_a_time() {
    const ENDPOINTS: usize = 1000;
    let mesh = TestMesh::new();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // At every address of 127.0.0.0/8: none of them says anything.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (now, ever) = (Arc::clone(&open), Arc::clone(&most));
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(hold(stream, Arc::clone(&now), Arc::clone(&ever)));
        }
    });
    let items: Vec<_> =
        (0..ENDPOINTS).map(|n| format!("{{address: '127.1.{}.{}:{port}'}}", n / 250, n % 250 + 1)).collect();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{}], health_check: {{interval: 1h, timeout: 500ms}}}}]",
        items.join(", "),
    );
    let began = Instant::now();
    let web = mesh.start("web", &yaml).await;
    eventually("all are given up", || counted(&web, CheckOutcome::Timeout) as usize == ENDPOINTS).await;
    assert!(began.elapsed() > Duration::from_millis(500) * (ENDPOINTS / MAX_UNDER_WAY) as u32);
    // A few may not be closed yet when others are there already.
    let most = most.load(Ordering::SeqCst);
    assert!((MAX_UNDER_WAY / 2..=MAX_UNDER_WAY + 32).contains(&most), "{most} at a time");
    eventually("nothing is left", || open.load(Ordering::SeqCst) == 0).await;
    accepting.abort();
}

#[tokio::test]
async fn checks_go_on_while_inbound_drains_and_over_a_restart_of_the_app() {
    let mesh = TestMesh::new();
    let told = super::Told::start().await;
    let orders = mesh.callee("orders", told.app.address(), "").await;
    let web = mesh.caller(&[orders.address()], &format!("health_check: {{{OFTEN}}}")).await;
    becomes(&web, orders.address(), Checked::Healthy).await;
    web.app().drain_inbound();
    told.tell(503);
    becomes(&web, orders.address(), Checked::Unhealthy).await;
}
