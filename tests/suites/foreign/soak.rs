//! Memory stays flat under a mixed load: HTTP/1, gRPC, bytes, connections that come and go, requests given up.
//!
//! `OUTRIDER_SOAK_SECONDS` says how long; 600 for a real soak: `OUTRIDER_SOAK_SECONDS=600 cargo test --workspace --test
//! suites foreign::soak -- --nocapture` prints the curve.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{
    apps::{self, node},
    claim,
    load_tools::requests,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};

const DEFAULT_SECONDS: u64 = 20;
/// Samples over the whole time.
const SAMPLES: u32 = 40;
/// By how much memory may be larger in the last third than in the one before: what an allocator moves anyway.
const SLACK_PERCENT: u64 = 10;
const SLACK_KIB: u64 = 4 * 1024;

fn length() -> Duration {
    let seconds = std::env::var("OUTRIDER_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(DEFAULT_SECONDS, |text| text.parse().expect("whole seconds")))
}

/// What runs until it is told to end.
struct Load<'a> {
    mesh: &'a Mesh,
    is_over: AtomicBool,
    rounds: AtomicU64,
}

impl Load<'_> {
    async fn repeat(&self, round: impl AsyncFn()) {
        while !self.is_over.load(Ordering::Relaxed) {
            round().await;
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn http1(&self) {
        self.repeat(async || {
            let said =
                text("h2load", &["--h1", "-n1000", "-c20", "--rps=25", &self.mesh.url("/bytes?n=2000")])
                    .await;
            assert_eq!(requests(&said), (1000, 1000, 0), "{said}");
            assert!(said.contains("1000 2xx"), "{said}");
        })
        .await;
    }

    async fn grpc(&self) {
        let target = self.mesh.second_outbound().to_string();
        self.repeat(async || {
            for claim in ["kinds", "aborts", "cancels"] {
                text("grpc_client.py", &[&target, claim]).await;
            }
        })
        .await;
    }

    async fn bytes(&self) {
        let address = self.mesh.tcp_outbound();
        let arguments =
            [address.ip().to_string(), address.port().to_string(), "churn".to_owned(), "500".to_owned()];
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.repeat(async || drop(text("tcp_client.py", &arguments).await)).await;
    }

    async fn given_up(&self) {
        let url = self.mesh.url("/slow?n=5000000");
        self.repeat(async || {
            // Its end by time is what is wanted.
            drop(
                Call::new("curl", ["--silent", "--max-time", "0.2", "--output", "/dev/null", &url])
                    .run()
                    .await,
            );
        })
        .await;
    }

    /// Samples of both sidecars' memory over the whole time, in KiB.
    async fn watch(&self, length: Duration) -> Vec<[u64; 2]> {
        let start = Instant::now();
        let mut samples = Vec::new();
        for number in 1..=SAMPLES {
            tokio::time::sleep((length * number / SAMPLES).saturating_sub(start.elapsed())).await;
            let sample = self.mesh.sidecars().map(|sidecar| sidecar.rss_kib());
            println!(
                "{:6.1} s: caller's {} KiB, callee's {} KiB",
                start.elapsed().as_secs_f32(),
                sample[0],
                sample[1]
            );
            samples.push(sample);
        }
        self.is_over.store(true, Ordering::Relaxed);
        samples
    }
}

#[test]
fn memory_stays_flat_under_a_mixed_load() {
    claim(&["h2load", "curl", "node", "python3", "python:grpc"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let _http = node(&mesh, "http").await;
        let _grpc = apps::script(&mesh, mesh.second_app(), "grpc_app.py", &[]).await;
        let _bytes = apps::script(&mesh, mesh.tcp_app(), "tcp_app.py", &["echo"]).await;
        let load = Load { mesh: &mesh, is_over: AtomicBool::new(false), rounds: AtomicU64::new(0) };
        let (samples, ..) =
            tokio::join!(load.watch(length()), load.http1(), load.grpc(), load.bytes(), load.given_up());
        println!("{} rounds of load", load.rounds.load(Ordering::Relaxed));
        let third = samples.len() / 3;
        let most =
            |part: &[[u64; 2]], which: usize| part.iter().map(|sample| sample[which]).max().expect("samples");
        for (which, sidecar) in mesh.sidecars().into_iter().enumerate() {
            let (before, last) =
                (most(&samples[third..2 * third], which), most(&samples[2 * third..], which));
            let bound = before + before * SLACK_PERCENT / 100 + SLACK_KIB;
            assert!(last <= bound, "{sidecar:?}: {last} KiB at the end, {before} KiB before");
        }
        mesh.quiet().await;
    });
}
