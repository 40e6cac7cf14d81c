//! Prometheus of the distribution scrapes sidecars and answers; promtool finds nothing to object to.

use std::{fs, fs::File, net::SocketAddr, path::Path, process::Stdio};

use serde_json::Value;

use super::{
    apps::{node, start, stop},
    claim,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};
use crate::processes::until;

const DOC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
/// Requests of one run of curl.
const BATCH: u32 = 20;

/// The code blocks of the doc that are in `language`.
fn blocks(language: &str) -> Vec<String> {
    let doc = fs::read_to_string(DOC).expect("the doc");
    let fence = format!("```{language}\n");
    let blocks = doc.split(&fence).skip(1);
    blocks.map(|rest| rest.split("```").next().expect("what is before it").to_owned()).collect()
}

/// Sends one batch of requests through the mesh, whatever comes of them.
async fn load(mesh: &Mesh) -> u32 {
    let urls = mesh.url(&format!("/?n=[1-{BATCH}]"));
    text("curl", &["--silent", "--output", "/dev/null", &urls]).await;
    BATCH
}

/// The values that Prometheus answers to a query, one for each series.
async fn ask(prometheus: SocketAddr, query: &str) -> Vec<f64> {
    let url = format!("http://{prometheus}/api/v1/query");
    let query = format!("query={query}");
    let said = text("curl", &["--silent", "--get", &url, "--data-urlencode", &query]).await;
    let answer: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(answer["status"], "success", "{query}: {said}");
    let result = answer["data"]["result"].as_array().expect("series");
    let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok());
    result.iter().map(|series| value(series).expect("a number")).collect()
}

/// The value of a query that has one series, if it has one now.
async fn one(prometheus: SocketAddr, query: &str) -> Option<f64> {
    match ask(prometheus, query).await.as_slice() {
        [value] => Some(*value),
        [] => None,
        more => panic!("{query}: {more:?}"),
    }
}

/// Prometheus with the sidecars of a mesh as its targets.
async fn prometheus(mesh: &Mesh) -> (crate::processes::process::Process, SocketAddr) {
    let targets = mesh.sidecars().map(|sidecar| format!("\"{}\"", sidecar.host.health())).join(", ");
    let config = format!(
        "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
         scrape_configs:\n  - {{job_name: outrider, static_configs: [{{targets: [{targets}]}}]}}\n"
    );
    let file = mesh.folder.path().join("prometheus.yml");
    fs::write(&file, config).expect("written");
    let (address, data) = (mesh.caller.host.at(9090), mesh.folder.path().join("prometheus"));
    let arguments = vec![
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address={address}"),
        "--log.level=warn".to_owned(),
    ];
    (start(mesh, address, "prometheus", arguments).await, address)
}

/// Both sidecars have served something, so that most series are there.
async fn used(mesh: &Mesh) {
    let app = node(mesh, "http").await;
    load(mesh).await;
    stop(app).await;
    load(mesh).await;
}

#[test]
fn promtool_objects_to_nothing_in_a_scrape() {
    claim(&["promtool", "curl", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        used(&mesh).await;
        for sidecar in mesh.sidecars() {
            let scraped = sidecar.folder.join("scraped");
            let url = format!("http://{}/metrics", sidecar.host.health());
            let file = scraped.display().to_string();
            text("curl", &["--silent", "--fail", "--output", &file, &url]).await;
            let mut check = Call::new("promtool", ["check", "metrics"]).command();
            let output = check.stdin(Stdio::from(File::open(&scraped).expect("a scrape"))).output().await;
            let output = output.expect("promtool runs");
            let (said, errors) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && said.is_empty() && errors.is_empty(), "{said}\n{errors}");
            let text = fs::read_to_string(&scraped).expect("a scrape");
            assert!(text.contains("outrider_edge_requests_total{") && text.len() > 10_000, "{text}");
        }
    });
}

#[test]
fn promtool_objects_to_nothing_in_the_documented_scrape_config() {
    claim(&["promtool"], async || {
        let folder = tempfile::tempdir().expect("a folder");
        let configs = blocks("yaml");
        let scrapes: Vec<_> = configs.iter().filter(|block| block.contains("scrape_configs")).collect();
        assert!(!scrapes.is_empty());
        for block in scrapes {
            let file: &Path = &folder.path().join("prometheus.yml");
            fs::write(file, block).expect("written");
            text("promtool", &["check", "config", "--syntax-only", &file.display().to_string()]).await;
        }
    });
}

#[test]
fn prometheus_answers_for_success_rate_and_p99_of_an_edge_and_counts_every_request() {
    claim(&["prometheus", "curl", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let app = node(&mesh, "http").await;
        let (_process, address) = prometheus(&mesh).await;
        until("both sidecars are scraped", async || one(address, "sum(up)").await == Some(2.0)).await;
        let edge = r#"{direction="outbound",source="web",destination="http"}"#;
        let rate = format!(
            "1 - sum(rate(outrider_edge_errors_total{edge}[3s])) / sum(rate(outrider_edge_requests_total{edge}[3s]))"
        );
        let p99 = format!(
            "histogram_quantile(0.99, sum by (le) (rate(outrider_edge_duration_seconds_bucket{edge}[3s])))"
        );
        let mut sent = 0;
        until("all requests are answered well, and how fast is known", async || {
            sent += load(&mesh).await;
            let took = one(address, &p99).await;
            one(address, &rate).await == Some(1.0) && took.is_some_and(|took| took > 0.0 && took <= 10.0)
        })
        .await;
        stop(app).await;
        until("none is", async || {
            sent += load(&mesh).await;
            one(address, &rate).await == Some(0.0)
        })
        .await;
        let total = format!("sum(outrider_edge_requests_total{edge})");
        until("every request is counted", async || one(address, &total).await == Some(f64::from(sent))).await;
        let far = r#"sum(outrider_edge_requests_total{direction="inbound"})"#;
        let near = "sum(outrider_edge_requests_total{direction=\"outbound\"}) \
                    + sum(outrider_edge_retries_total{direction=\"outbound\"})";
        until("the far sidecar counted every attempt", async || {
            let (far, near) = (one(address, far).await, one(address, near).await);
            far.is_some() && far == near
        })
        .await;
    });
}

#[test]
fn prometheus_understands_every_documented_query() {
    claim(&["prometheus", "curl", "node"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let (_process, address) = prometheus(&mesh).await;
        used(&mesh).await;
        let app = node(&mesh, "http").await;
        let queries = blocks("promql");
        assert!(queries.len() >= 8, "{queries:#?}");
        for query in queries {
            until(&format!("{query} has an answer"), async || {
                load(&mesh).await;
                !ask(address, query.trim()).await.is_empty()
            })
            .await;
        }
        stop(app).await;
    });
}
