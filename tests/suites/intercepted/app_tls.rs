//! An app with a TLS of its own, which anybody may reach.

use std::sync::{Arc, Mutex};

use outrider::model::runtime::Refusal;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{LISTENER, Pod, is_reset, port, ports, talk};
use crate::harness::{
    HttpApp, eventually,
    peer::{self, ALPN_H2, TlsPeer},
    soon,
};

const PASSTHROUGH: &str = "app_tls: passthrough";

/// An app that terminates TLS itself, with these protocols, and sends back what it gets.
async fn secure_app(pod_ca: &crate::harness::TestCa, alpn: &[&[u8]]) -> TlsPeer {
    let mut config = peer::server_config(pod_ca, &pod_ca.leaf("orders"), alpn);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsPeer::start(config, async |stream| {
        let (mut read, mut write) = tokio::io::split(stream);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    })
    .await
}

/// A pod whose configuration has the port of an app that comes later.
async fn pod_of(alpn: &[&[u8]]) -> (Pod, TlsPeer) {
    let mut pod = Pod::with("intercept: {}").await;
    let app = secure_app(&pod.mesh.ca, alpn).await;
    pod.reload(&ports(&[port(app.address(), PASSTHROUGH)])).await;
    (pod, app)
}

#[tokio::test]
async fn a_handshake_that_is_not_the_meshs_reaches_the_app_as_it_is() {
    for alpn in [&[][..], &[&b"h2"[..]], &[b"http/1.1"]] {
        let (pod, app) = pod_of(alpn).await;
        let config = peer::client_config(&pod.mesh.ca, Some(&pod.mesh.ca.leaf("web")), alpn);
        let mut stream =
            soon("a handshake", peer::secure(pod.dial(app.address()).await, config)).await.unwrap();
        talk(&mut stream, b"to the app itself").await;
        assert_eq!((app.connections(), pod.exceptions()), (1, [0, 0, 1]), "{alpn:?}");
    }
}

#[tokio::test]
async fn a_handshake_of_the_mesh_is_terminated_here() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PASSTHROUGH).await;
    let mut web = pod.peer(app.address(), "web").await.unwrap();
    assert!(web.get("/").await.unwrap().status().is_success());
    assert!(app.only().header("x-forwarded-client-cert").is_some());
    assert_eq!(pod.exceptions(), [0; 3]);
    // And whoever says so has to prove it.
    let config = peer::client_config(&pod.mesh.ca, None, &[b"h2", ALPN_H2]);
    let stranger = peer::secure(pod.dial(app.address()).await, config).await;
    assert!(stranger.is_err() || stranger.unwrap().read_u8().await.is_err());
    pod.refused(1, Refusal::NoCertificate).await;
    assert_eq!((app.count(), pod.exceptions()), (1, [0; 3]));
}

#[tokio::test]
async fn whom_a_handshake_is_for_is_seen_in_however_many_parts_it_comes() {
    let (pod, app) = pod_of(&[b"h2"]).await;
    let is_ours = || pod.orders.listener(LISTENER).refused.iter().map(count).sum::<u64>();
    for (alpn, is_mesh) in [(&b"h2"[..], false), (ALPN_H2, true)] {
        for size in [1, 7, 100] {
            let hello = fragmented(&hello(pod.tls("web", alpn)), size);
            let before = (app.connections(), is_ours());
            let mut stream = pod.dial(app.address()).await;
            for bytes in hello.chunks(90) {
                stream.write_all(bytes).await.unwrap();
                tokio::task::yield_now().await;
            }
            // Nothing follows: whoever has it answers, and then sees its end.
            soon("an answer", stream.read_u8()).await.unwrap();
            drop(stream);
            if is_mesh {
                eventually("it is ours", || is_ours() == before.1 + 1).await;
                assert_eq!(app.connections(), before.0);
            } else {
                assert_eq!((app.connections(), is_ours()), (before.0 + 1, before.1));
            }
        }
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}

/// The first flight of a client.
fn hello(config: ClientConfig) -> Vec<u8> {
    let name = "orders".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// The one record's content in records of that size.
fn fragmented(record: &[u8], size: usize) -> Vec<u8> {
    let (header, content) = record.split_at(5);
    let fragment = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&header[..3], &length, part].concat()
    };
    content.chunks(size).flat_map(fragment).collect()
}

#[tokio::test]
async fn a_hello_without_end_is_not_collected_for_ever() {
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let app = {
        let heard = Arc::clone(&heard);
        crate::harness::TcpApp::start(move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    heard.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
            }
        })
        .await
    };
    let pod = Pod::new(app.address(), PASSTHROUGH).await;
    // A handshake message of 60,000 bytes, in records of 16 KiB.
    let message = [&[1, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    let sent = fragmented(&[&[22, 3, 1, 0, 0][..], &message].concat(), 16 * 1024);
    let mut stream = pod.dial(app.address()).await;
    stream.write_all(&sent[..40_000]).await.unwrap();
    eventually("it is the app's", || heard.lock().unwrap().len() == 40_000).await;
    assert_eq!(*heard.lock().unwrap(), sent[..40_000]);
}

#[tokio::test]
async fn plaintext_is_refused_where_only_the_apps_tls_passes() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PASSTHROUGH).await;
    for (count, bytes) in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0hello"].into_iter().enumerate() {
        let mut stream = pod.dial(app.address()).await;
        stream.write_all(bytes).await.unwrap();
        is_reset(stream).await;
        pod.refused(count as u64 + 1, Refusal::Plaintext).await;
    }
    assert_eq!(app.connections(), 0);
}
