//! The sidecar's own log, and records on standard output: as a process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use hyper::Method;
use outrider::admin;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::app;
use crate::{
    harness::{Client, HttpApp, body},
    processes::{
        DEADLINE,
        authority::{Authority, DOMAIN, write},
        mesh::Network,
        process::program,
        until,
    },
};

/// The program with an app out of the mesh behind it, its log as JSON in a file, and records on standard output.
struct Running {
    folder: TempDir,
    out: SocketAddr,
    child: Child,
    _app: HttpApp,
}

impl Running {
    async fn start() -> (Self, Lines<BufReader<ChildStdout>>) {
        let (folder, app) = (TempDir::new().unwrap(), app().await);
        let authority = Authority::new(&folder.path().join("ca"));
        authority.certify("web", folder.path());
        write(folder.path(), "bundle.pem", &authority.bundle());
        let out = Network::new().host(1).outbound();
        let yaml = format!(
            "service: web\ntrust_domain: {DOMAIN}\nstate_dir: state\n\
             identity: {{file: {{certificate: svid.pem, key: svid_key.pem, bundle: bundle.pem}}}}\n\
             admin: {{socket: admin.sock, listen: none}}\n\
             drain: {{idle_grace: 100ms, deadline: 5s}}\n\
             telemetry: {{access_log: {{of: all}}}}\n\
             outbound: [{{name: out, listen: '{out}'}}]\n\
             clusters: [{{name: orders, tls: none, endpoints: [{{address: '{}'}}]}}]\n",
            app.address()
        );
        write(folder.path(), "outrider.yaml", &yaml);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new(program("outrider"))
            .args(["run", "--log-format", "json", "--config"])
            .arg(folder.path().join("outrider.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let records = BufReader::new(child.stdout.take().unwrap()).lines();
        let running = Self { folder, out, child, _app: app };
        until("the sidecar is ready", async || {
            let ready = admin::call(&running.socket(), Method::GET, "/ready").await;
            ready.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        (running, records)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// The lines of its log so far.
    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    /// `outrider log` with these arguments: whether it did, and what it said.
    async fn command(&self, level: &[&str]) -> (bool, String) {
        let output = Command::new(program("outrider"))
            .arg("log")
            .args(level)
            .arg("--admin-socket")
            .arg(self.socket())
            .output()
            .await
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    async fn call(&self, path: &str) -> u16 {
        let response = Client::http1(self.out).await.get(path).await.unwrap();
        let status = response.status().as_u16();
        body::text(response.into_body()).await;
        status
    }

    async fn stop(&mut self) -> bool {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("it ends").unwrap().success()
    }
}

async fn path_of(records: &mut Lines<BufReader<ChildStdout>>) -> Option<Value> {
    let line = tokio::time::timeout(DEADLINE, records.next_line()).await.expect("in time").unwrap()?;
    let record: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    Some(record["path"].clone())
}

#[tokio::test]
async fn the_level_changes_by_command_and_is_told() {
    let (running, _records) = Running::start().await;
    assert_eq!(running.command(&[]).await, (true, "the log level is info\n".to_owned()));
    let debugged = |log: &[Value]| log.iter().any(|line| line["level"] == "DEBUG");
    assert!(!debugged(&running.log()));
    assert_eq!(
        running.command(&["warn,outrider=debug"]).await,
        (true, "the log level is outrider=debug,warn; it was info\n".to_owned())
    );
    running.call("/ok").await;
    // An answer of our own is told of at DEBUG.
    let request = http::Request::get("/").header("host", "nobody").body(body::empty()).unwrap();
    assert_eq!(Client::http1(running.out).await.send(request).await.unwrap().status(), 404);
    until("it tells more", async || debugged(&running.log())).await;
    let (done, said) = running.command(&["inof"]).await;
    assert!(!done && said.contains("\"inof\" is not a log filter"), "{said}");
    assert_eq!(running.command(&["info"]).await.1, "the log level is info; it was outrider=debug,warn\n");
    let (done, said) = Running::command_at(Path::new("/nowhere/admin.sock")).await;
    assert!(!done && said.contains("no answer from the sidecar"), "{said}");
}

#[tokio::test]
async fn a_flood_of_one_message_is_held_back_and_counted() {
    let (running, _records) = Running::start().await;
    let told = |log: &[Value]| {
        let changed = log.iter().filter(|line| line["message"] == "an operator changed the log level");
        changed.cloned().collect::<Vec<_>>()
    };
    let change = async || {
        let answer = admin::call(&running.socket(), Method::POST, "/log?level=info").await.unwrap();
        assert_eq!(answer.status, 200);
    };
    for _ in 0..300 {
        change().await;
    }
    let lines = told(&running.log()).len();
    assert!((20..300).contains(&lines), "{lines} of 300");
    let suppressed =
        |log: &[Value]| told(log).iter().filter_map(|line| line["suppressed"].as_u64()).sum::<u64>();
    let mut sent = 300;
    until("the next that passes says how many did not", async || {
        change().await;
        sent += 1;
        let log = running.log();
        told(&log).last().is_some_and(|line| line["suppressed"].as_u64() > Some(0))
            && u64::try_from(told(&log).len()).unwrap() + suppressed(&log) == sent
    })
    .await;
}

#[tokio::test]
async fn records_on_standard_output_are_complete_at_the_end() {
    let (mut running, mut records) = Running::start().await;
    running.call("/first").await;
    assert_eq!(path_of(&mut records).await.unwrap(), "/first");
    running.call("/last").await;
    assert!(running.stop().await, "{:?}", running.log());
    assert_eq!(path_of(&mut records).await.unwrap(), "/last", "what was taken in is written before the end");
    assert_eq!(path_of(&mut records).await, None);
}

#[tokio::test]
async fn a_reader_that_goes_away_costs_records_and_not_the_sidecar() {
    let (mut running, records) = Running::start().await;
    drop(records);
    until("it says that it cannot write", async || {
        assert_eq!(running.call("/ok").await, 200);
        running.log().iter().any(|line| line["message"].as_str().unwrap().contains("cannot be written"))
    })
    .await;
    assert_eq!(running.call("/ok").await, 200);
    assert!(running.stop().await, "{:?}", running.log());
}

impl Running {
    async fn command_at(socket: &Path) -> (bool, String) {
        let output = Command::new(program("outrider"))
            .args(["log", "--admin-socket"])
            .arg(socket)
            .output()
            .await
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }
}
