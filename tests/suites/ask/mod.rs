//! What a running sidecar can be asked: by its own commands, of a real process, through its socket.
//!
//! ```text
//!   client ──▶ `outrider run` (asked here) ══mTLS══▶ sidecar of `orders` ──▶ app
//! ```

mod calls;
mod commands;
mod explain;
mod tap;

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio};

use hyper::Method;
use outrider::admin;
use serde_json::Value;
use tokio::process::Command;

use crate::{
    harness::{Sidecar, TestMesh},
    processes::{
        mesh::Network,
        process::{Process, program},
        until,
    },
};

/// Nothing is repeated, and nobody waits for an endpoint.
const PLAIN: &str = "retry: {max_retries: 0}, queue_timeout: 0s";

/// A sidecar as a process of its own, with a socket to ask it by. Dropping it kills it.
struct Asked {
    _process: Process,
    socket: PathBuf,
    config: PathBuf,
    /// Where it listens.
    address: SocketAddr,
}

/// What a command said, and how it ended.
struct Said {
    out: String,
    err: String,
    is_good: bool,
}

impl Asked {
    /// The sidecar of `web` with an outbound listener `out` and one cluster `orders` with these endpoints.
    async fn web(mesh: &TestMesh, endpoints: &[SocketAddr], keys: &str) -> Self {
        let address = Network::new().host(1).outbound();
        let cluster = if endpoints.is_empty() {
            fs::write(mesh.dir().join("none.yaml"), "endpoints: []").unwrap();
            let id = crate::harness::ca::id("orders");
            format!("{{name: orders, spiffe_ids: ['{id}'], endpoints_file: none.yaml, {keys}}}")
        } else {
            TestMesh::cluster("orders", endpoints, keys)
        };
        let yaml = format!("outbound: [{{name: out, listen: '{address}'}}]\nclusters: [{cluster}]");
        Self::start(mesh, "web", address, &yaml).await
    }

    /// The sidecar of that service, when it is ready.
    async fn start(mesh: &TestMesh, service: &str, address: SocketAddr, yaml: &str) -> Self {
        mesh.certify(service, &mesh.ca.leaf(service));
        let config = mesh.dir().join(format!("{service}.yaml"));
        fs::write(&config, TestMesh::config(service, yaml)).unwrap();
        let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        let process = Process::start(service, &program("outrider"), arguments, mesh.dir());
        let asked = Self { _process: process, socket: mesh.dir().join("admin.sock"), config, address };
        until("the sidecar is ready", async || {
            admin::call(&asked.socket, Method::GET, "/ready").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        asked
    }

    /// The answer to a GET, and its status.
    async fn get(&self, target: &str) -> (u16, Value) {
        let answer = admin::call(&self.socket, Method::GET, target).await.unwrap();
        (answer.status, answer.body)
    }

    /// The edges of the last quarter of an hour.
    async fn edges(&self) -> Vec<Value> {
        let (status, body) = self.get("/edges?seconds=900").await;
        assert_eq!(status, 200, "{body}");
        body["edges"].as_array().unwrap().clone()
    }

    /// A command of `outrider`, with this socket.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("outrider"));
        command.args(arguments).arg("--admin-socket").arg(&self.socket);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// What it says.
    async fn says(&self, arguments: &[&str]) -> Said {
        said(self.command(arguments)).await
    }

    /// What `explain` says, once it knows.
    async fn explains(&self, what: &str) -> String {
        let mut text = String::new();
        until(&format!("`{what}` is explained"), async || {
            let said = self.says(&["explain", what]).await;
            text = said.out;
            said.is_good && text.contains("came in at")
        })
        .await;
        text
    }
}

async fn said(mut command: Command) -> Said {
    let output = crate::harness::soon("the command ends", command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { out: text(&output.stdout), err: text(&output.stderr), is_good: output.status.success() }
}

/// `orders`, with an app that answers everything.
async fn orders(mesh: &TestMesh) -> (Sidecar, crate::harness::HttpApp) {
    let app = crate::harness::HttpApp::named("orders").await;
    (mesh.callee("orders", app.address(), "").await, app)
}
