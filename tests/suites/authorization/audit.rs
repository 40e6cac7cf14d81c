//! Rules that are tried out: what they would deny passes, and is told.

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Bench, WEB, verdicts};
use crate::harness::{TcpApp, TestMesh, ca::id, soon};

#[tokio::test]
async fn what_would_be_denied_passes_and_is_told() {
    let rules = format!(
        "{{mode: audit, rules: [{{name: web, from: ['spiffe://test.outrider/{WEB}'], path_prefixes: [/items]}}]}}"
    );
    let mut bench = Bench::new(&rules).await;
    let mut web = bench.peer(WEB).await;
    for (count, (path, told)) in [
        ("/items/7", "web"),
        ("/admin", "audited"),
        // They would be refused, and the app gets them as it would without rules.
        ("/items%2Fx", "audited"),
        ("/items;x", "audited"),
        ("//items", "web"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(web.get(path).await.unwrap().status(), StatusCode::OK, "{path}");
        assert_eq!(bench.app.seen()[count].uri.path(), path);
        let trail = bench.trail().await;
        assert_eq!(trail.authorization.as_deref(), Some(told), "{path}");
        assert_eq!((trail.flag, trail.reason), (None, None));
    }
    let status = bench.peer("somebody").await.get("/").await.unwrap().status();
    assert_eq!((status, bench.verdicts()), (StatusCode::OK, [2, 0, 4]));
}

#[tokio::test]
async fn streams_pass_as_well() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let yaml = format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', protocol: tcp}}]\n\
         authorization: {{mode: audit, rules: [{{name: a, from: ['{}']}}]}}",
        app.address(),
        id("other"),
    );
    let orders = mesh.start("orders", &yaml).await;
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0; 5])).await.unwrap();
    assert_eq!(verdicts(&orders, "in"), [0, 0, 1]);
}
