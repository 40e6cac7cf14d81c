//! Standard mTLS peers, as callers and as callees, in the form that each speaks.

use http::{Response, StatusCode, Version};
use outrider::headers::websocket::accept;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ACCEPT, app, call, call_http2_over, echo, extended, fields, handshake, told_http1};
use crate::harness::{
    TestMesh,
    client::read_head,
    peer::{self, TlsPeer, server_config},
    soon,
};

#[tokio::test]
async fn a_standard_caller_gets_its_own_form_whatever_the_app_speaks() {
    for called in [Version::HTTP_11, Version::HTTP_2] {
        let (mesh, app) = (TestMesh::new(), echo(called).await);
        let protocol = if called == Version::HTTP_2 { "http2" } else { "http1" };
        let keys = format!("peer: standard, app_protocol: {protocol}");
        let orders = mesh.callee("orders", app.address(), &keys).await;
        let connect = async |alpn: &[u8]| {
            let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[alpn]);
            peer::connect(orders.address(), config).await.unwrap()
        };

        let mut stream = connect(b"http/1.1").await;
        stream.write_all(handshake("").as_bytes()).await.unwrap();
        let told = told_http1(&mut stream).await;
        assert_eq!(
            (told.status, told.header("sec-websocket-accept")),
            (StatusCode::SWITCHING_PROTOCOLS, Some(ACCEPT))
        );
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        soon("the echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"hello");
        stream.shutdown().await.unwrap();
        assert_eq!(soon("the end", stream.read(&mut back)).await.unwrap(), 0);

        let stream = connect(b"h2").await;
        let (told, mut side) =
            call_http2_over(stream, extended("websocket").header("sec-websocket-version", "13")).await;
        assert_eq!(told.status, StatusCode::OK);
        side.says_back(b"hello").await;
    }
}

#[tokio::test]
async fn an_upgrade_of_a_standard_caller_reaches_an_http1_app() {
    let (mesh, app) = (TestMesh::new(), app(Version::HTTP_11, |_asked, side| side.echo()).await);
    let orders = mesh.callee("orders", app.address(), "peer: standard").await;
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[b"http/1.1"]);
    let mut stream = peer::connect(orders.address(), config).await.unwrap();
    stream.write_all(handshake("").as_bytes()).await.unwrap();
    assert_eq!(told_http1(&mut stream).await.status, StatusCode::SWITCHING_PROTOCOLS);
}

/// A standard server that takes WebSocket as its protocol has it, and echoes.
async fn standard_server(mesh: &TestMesh, version: Version) -> TlsPeer {
    let alpn: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
    TlsPeer::start(server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[alpn]), move |mut stream| async move {
        if version == Version::HTTP_2 {
            let mut builder = h2::server::Builder::new();
            builder.enable_connect_protocol();
            let mut connection = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert!(request.headers().keys().all(|name| !name.as_str().starts_with("x-outrider")));
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                let mut receive = request.into_body();
                tokio::spawn(async move {
                    while let Some(Ok(bytes)) = receive.data().await {
                        receive.flow_control().release_capacity(bytes.len()).unwrap();
                        send.send_data(bytes, false).unwrap();
                    }
                    drop(send.send_data(bytes::Bytes::new(), true));
                });
            }
            return;
        }
        let (head, _) = read_head(&mut stream).await;
        let headers = fields(head.lines().skip(1));
        assert!(headers.keys().all(|name| !name.as_str().starts_with("x-outrider")));
        let accept = accept(&headers["sec-websocket-key"]);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept.to_str().unwrap(),
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    })
    .await
}

#[tokio::test]
async fn a_standard_callee_is_asked_in_its_own_form() {
    for called in [Version::HTTP_11, Version::HTTP_2] {
        let mesh = TestMesh::new();
        let server = standard_server(&mesh, called).await;
        let protocol = if called == Version::HTTP_2 { "http2" } else { "http1" };
        let keys = format!("peer: standard, peer_protocol: {protocol}");
        let web = mesh.caller(&[server.address()], &keys).await;
        for calling in [Version::HTTP_11, Version::HTTP_2] {
            let (told, mut side) = call(web.address(), calling).await;
            assert!(matches!(told.status.as_u16(), 101 | 200), "{told:?}");
            for i in 0..100 {
                side.says_back(format!("message {i}").as_bytes()).await;
            }
            side.finish().await;
            assert_eq!(soon("the end", side.read_to_end()).await.unwrap(), b"");
        }
    }
}

#[tokio::test]
async fn standard_peers_that_are_both_sidecars_work_too() {
    for (protocol, alpn) in [("http1", "http/1.1"), ("http2", "h2")] {
        let (mesh, app) = (TestMesh::new(), echo(Version::HTTP_11).await);
        let orders = mesh.callee("orders", app.address(), "peer: standard, app_protocol: http1").await;
        let web =
            mesh.caller(&[orders.address()], &format!("peer: standard, peer_protocol: {protocol}")).await;
        for calling in [Version::HTTP_11, Version::HTTP_2] {
            let (_told, mut side) = call(web.address(), calling).await;
            side.says_back(b"hello").await;
        }
        let facts = web.cluster("orders").endpoints[0].runtime.tls().unwrap();
        assert_eq!(facts.alpn, alpn);
    }
}
