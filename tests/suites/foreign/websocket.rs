//! WebSockets of the libraries `websockets` (Python) and `ws` (Node), each as client and as app.

use super::{
    apps, claim,
    mesh::{Mesh, Plan},
    programs::text,
};

const NEEDS: [&str; 4] = ["python3", "python:websockets", "node", "node:ws"];

#[test]
fn every_pair_of_libraries_talks_pings_and_closes_with_its_reason() {
    claim(&NEEDS, async || {
        for app in ["ws_app.py", "ws_app.js"] {
            let mesh = Mesh::start(Plan::default()).await;
            let _app = apps::script(&mesh, mesh.app(), app, &[]).await;
            for client in ["ws_client.py", "ws_client.js"] {
                let said = text(client, &[&mesh.outbound().to_string()]).await;
                assert_eq!(said.trim(), "as claimed", "{client} and {app}");
            }
            mesh.quiet().await;
        }
    });
}

#[test]
fn an_app_that_speaks_no_websocket_declines_in_its_own_words() {
    claim(&["curl", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = apps::node(&mesh, "http").await;
        let wish = [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ];
        let url = mesh.url("/");
        let mut arguments = vec!["--silent", "--max-time", "10", &url];
        arguments.extend(wish.iter().flat_map(|field| ["--header", field]));
        assert_eq!(text("curl", &arguments).await, "hello\n");
    });
}
