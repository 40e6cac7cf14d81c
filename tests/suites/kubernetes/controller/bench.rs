//! What a large cluster costs the controller: `docs/controller.md` has the command.

use std::{fs, time::Duration};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    cluster::{Cluster, spiffe_id},
    program::{Program, identity_files, listening},
    replica::{get, number},
    sidecar::Sidecar,
};
use crate::{
    harness::soon,
    processes::process::{Process, program},
};

const SERVICES: usize = 1000;
const ENDPOINTS_OF_EACH: usize = 10;
const CALLED: usize = 10;
const CHANGES_A_SECOND: u64 = 100;

fn address(service: usize, endpoint: usize) -> String {
    let number = service * ENDPOINTS_OF_EACH + endpoint;
    format!("10.{}.{}.{}", 1 + number / 62_500, number / 250 % 250, number % 250)
}

/// A pod as the API server would send it: mostly things that the controller does not read.
fn pod(service: usize, endpoint: usize) -> serde_json::Value {
    let variables: Vec<_> =
        (0..20).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(40)})).collect();
    let container = json!({
        "name": "app", "image": "registry.example.com/shop/app@sha256:0123456789abcdef", "env": variables,
        "ports": [{"containerPort": 8080}], "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": format!("ns-{}", service % 50), "name": format!("service-{service}-{endpoint}"),
            "labels": {"outrider.io/injected": "true", "app": format!("service-{service}")},
            "annotations": {"outrider.io/config": "x".repeat(1500)},
        },
        "spec": {"serviceAccountName": format!("service-{service}"), "containers": [container]},
        "status": {"phase": "Running", "podIPs": [{"ip": address(service, endpoint)}]},
    })
}

fn slice(cluster: &Cluster, service: usize, unready: Option<usize>) {
    let namespace = format!("ns-{}", service % 50);
    let endpoint = |endpoint: usize| {
        let name = format!("service-{service}-{endpoint}");
        let uid = cluster.server.object("pods", &namespace, &name).unwrap()["metadata"]["uid"].clone();
        let is_ready = unready != Some(endpoint);
        json!({
            "addresses": [address(service, endpoint)], "zone": "eu-1",
            "conditions": {"ready": is_ready, "serving": is_ready, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": name, "uid": uid},
        })
    };
    let endpoints = (0..ENDPOINTS_OF_EACH).map(endpoint).collect();
    cluster.slice_with(&namespace, &format!("service-{service}"), endpoints);
}

/// Of a process: CPU time of all threads so far, in ticks of 10 ms, and the memory that is its own, in KiB.
fn usage(pid: i32) -> (u64, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    (ticks, line.trim().trim_end_matches(" kB").parse().unwrap())
}

/// A sidecar whose app has called the first services, with nothing in its file about any of them: there is nobody at their
/// addresses, but that is found out later.
async fn real_sidecar(cluster: &Cluster, controller: &Program) -> (Process, u64) {
    let folder = controller.folder.path();
    let [certificate, key, bundle] = identity_files(cluster, "ns-0", "web", folder);
    let yaml = json!({
        "service": "web", "trust_domain": "test.outrider", "state_dir": folder.join("state"),
        "identity": {"file": {"certificate": certificate, "key": key, "bundle": bundle}},
        "admin": {"listen": "127.0.0.1:0", "socket": folder.join("web.sock")},
        "controller": {
            "address": controller.address.to_string(), "spiffe_id": spiffe_id("outrider", "outrider-controller"),
        },
        "outbound": [{"name": "out", "listen": "127.0.0.1:0"}],
    });
    let file = folder.join("web.yaml");
    fs::write(&file, yaml.to_string()).unwrap();
    let arguments = ["run", "--log-format", "json", "--config"].map(str::to_owned).into_iter();
    let arguments = arguments.chain([file.display().to_string()]);
    let process = Process::start("web", &program("outrider"), arguments, folder);
    let out = listening(&process, r#""listener":"out""#, "address").await;
    let (_, idle) = usage(process.pid());
    for service in 0..CALLED {
        let host = format!("service-{service}.ns-{}", service % 50);
        let mut stream = TcpStream::connect(out).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    soon("the sidecar has asked for them", async {
        let sample = "outrider_controller_wants";
        while number(&get(controller.status, "/metrics").await, sample) < 2.0 * CALLED as f64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    (process, idle)
}

#[tokio::test]
#[ignore = "measures; docs/controller.md has the command"]
async fn a_thousand_services_with_ten_thousand_endpoints() {
    let seconds =
        std::env::var("OUTRIDER_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let cluster = Cluster::new().await;
    let empty = Program::start(&cluster).await;
    let (_, idle) = usage(empty.process.pid());
    drop(empty);
    for service in 0..SERVICES {
        for endpoint in 0..ENDPOINTS_OF_EACH {
            cluster.server.put(pod(service, endpoint));
        }
        let (namespace, name) = (format!("ns-{}", service % 50), format!("service-{service}"));
        cluster.service(&namespace, &name, &format!("10.200.{}.{}", service / 250, service % 250 + 1));
        slice(&cluster, service, None);
    }
    let begun = Instant::now();
    let program = Program::start(&cluster).await;
    let synced_in = begun.elapsed();
    let pid = program.process.pid();
    let (start_ticks, known) = usage(pid);
    let mut sidecar = Sidecar::connect_as(&cluster, program.address, "ns-0", "").await;
    for service in 0..CALLED {
        let key = format!("service-{service}.ns-{}:80", service % 50);
        assert_eq!(sidecar.ask(&key).await.unwrap().endpoints.len(), ENDPOINTS_OF_EACH);
    }
    let (web, web_idle) = real_sidecar(&cluster, &program).await;
    let (web_before, _) = usage(web.pid());
    let (before, _) = usage(pid);
    let mut ticker = interval(Duration::from_millis(1000 / CHANGES_A_SECOND));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut heard) = (Instant::now(), 0_u64);
    for change in 0..CHANGES_A_SECOND * seconds {
        ticker.tick().await;
        let number = usize::try_from(change).unwrap();
        // One in a hundred is of a service that is called; of its endpoints, another is not ready each time.
        let unready = (number + number / SERVICES) % ENDPOINTS_OF_EACH;
        slice(&cluster, number * 37 % SERVICES, Some(unready));
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, sidecar.hear()).await {
            heard += 1;
        }
    }
    let took = begun.elapsed();
    let (after, loaded) = usage(pid);
    let (web_after, web_loaded) = usage(web.pid());
    let share = |ticks: u64| f64::from(u32::try_from(ticks * 10).unwrap()) / took.as_secs_f64() / 10.0;
    let events = r#"outrider_controller_watch_events{kind="endpointslices"}"#;
    let seen = number(&get(program.status, "/metrics").await, events);
    println!(
        "memory of its own: {idle} KiB idle, {known} KiB with the cluster known, {loaded} KiB after the changes"
    );
    println!("first lists: {} ms, {} ms of CPU", synced_in.as_millis(), start_ticks * 10);
    println!(
        "{seen} changes in {:.1} s: {:.2} % of one core, {heard} messages to a sidecar",
        took.as_secs_f64(),
        share(after - before),
    );
    println!(
        "a sidecar that calls {CALLED} services: {web_idle} KiB idle, {web_loaded} KiB after the changes, {:.2} % of one core",
        share(web_after - web_before),
    );
}
