//! gRPC of grpcio (C++ core) and of @grpc/grpc-js, in all its kinds.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::{
    apps, claim,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};
use crate::processes::{process::Process, until};

const NEEDS: [&str; 2] = ["python3", "python:grpc"];

async fn app(mesh: &Mesh) -> Process {
    apps::script(mesh, mesh.app(), "grpc_app.py", &[]).await
}

/// Starts mesh and app, has the client check its claims, and waits until nothing is left of them.
fn grpcio(claims: &[&str]) {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = app(&mesh).await;
        for claim in claims {
            let said = text("grpc_client.py", &[&mesh.outbound().to_string(), claim]).await;
            assert_eq!(said.trim(), "as claimed");
        }
        mesh.quiet().await;
    });
}

#[test]
fn every_kind_of_call_gets_through_alone_and_many_at_once() {
    grpcio(&["kinds", "parallel"]);
}

#[test]
fn big_and_compressed_messages_get_through() {
    grpcio(&["big"]);
}

#[test]
fn metadata_deadline_and_errors_get_through() {
    grpcio(&["metadata", "aborts"]);
}

#[test]
fn a_stream_that_is_not_read_holds_up_no_other() {
    grpcio(&["slow_reader"]);
}

#[test]
fn deadlines_and_cancellations_of_the_client_reach_the_app() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let app = app(&mesh).await;
        let target = mesh.outbound().to_string();
        text("grpc_client.py", &[&target, "deadline"]).await;
        until("the app hears of the deadline", async || app.log().contains("unary cancelled")).await;
        text("grpc_client.py", &[&target, "cancels"]).await;
        until("the app hears of the cancelled call", async || {
            app.log().matches("unary cancelled").count() == 2
        })
        .await;
        until("the app hears of the cancelled stream", async || app.log().contains("stream cancelled")).await;
        mesh.quiet().await;
    });
}

#[test]
fn an_app_that_dies_under_a_stream_is_unavailable() {
    claim(&NEEDS, async || {
        let mesh = Mesh::start(Plan::default()).await;
        let app = app(&mesh).await;
        let call = Call::new("grpc_client.py", [&mesh.outbound().to_string(), "lost"]);
        let mut client = call.command().stdout(Stdio::piped()).spawn().expect("it starts");
        let mut said = BufReader::new(client.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).await.expect("a line");
        assert_eq!(line, "now\n");
        apps::stop(app).await;
        let mut rest = String::new();
        said.read_to_string(&mut rest).await.expect("the rest");
        assert_eq!(rest, "as claimed\n");
    });
}

#[test]
fn grpc_js_makes_every_kind_of_call() {
    claim(&["python3", "python:grpc", "node", "node:@grpc/grpc-js"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _app = app(&mesh).await;
        assert_eq!(text("grpc_client.js", &[&mesh.outbound().to_string()]).await.trim(), "as claimed");
    });
}
