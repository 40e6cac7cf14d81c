//! Apps and clients as people write them: Node's own HTTP, and httpx and hypercorn of Python.

use super::{
    apps::{self, node},
    claim,
    mesh::{Mesh, Plan},
    programs::text,
};

#[test]
fn an_agent_of_node_that_rests_as_long_as_nodes_servers_wait_loses_no_post() {
    claim(&["node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "http").await;
        assert_eq!(
            text("http_client.js", &[&mesh.outbound().to_string(), "agent"]).await.trim(),
            "as claimed"
        );
        mesh.quiet().await;
    });
}

#[test]
fn a_session_of_node_has_its_streams_trailers_and_resets() {
    claim(&["node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = node(&mesh, "h2c").await;
        assert_eq!(
            text("http_client.js", &[&mesh.outbound().to_string(), "session"]).await.trim(),
            "as claimed"
        );
        mesh.quiet().await;
    });
}

#[test]
fn httpx_and_hypercorn_understand_each_other_in_both_versions() {
    claim(&["python3", "python:httpx", "python:hypercorn"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = apps::script(&mesh, mesh.app(), "asgi_app.py", &[]).await;
        for version in ["1.1", "2"] {
            let said = text("httpx_client.py", &[&mesh.outbound().to_string(), version]).await;
            assert_eq!(said.trim(), "as claimed", "{version}");
        }
        mesh.quiet().await;
    });
}
