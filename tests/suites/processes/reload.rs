//! The configuration file of a running process changes, for better or worse, under load.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use hyper::Method;
use outrider::admin;
use serde_json::Value;

use super::{
    load::{Load, Plan},
    mesh::{Mesh, Sidecar},
    process::program,
    run, until,
};

/// The caller of a mesh, with its file to be changed and load through it.
struct Bench {
    mesh: Mesh,
    keeping: Load,
    fresh: Load,
}

impl Bench {
    async fn start() -> Self {
        let mesh = Mesh::start(2).await;
        let keeping = mesh.load(Plan::default());
        let fresh = mesh.load(Plan { keeps: false, ..Plan::default() });
        Self { mesh, keeping, fresh }
    }

    fn caller(&self) -> &Sidecar {
        &self.mesh.caller
    }

    /// The configuration that it started with, with another key of the cluster.
    fn config(&self, cluster_extra: &'static str) -> String {
        let mut plan = self.caller().plan.clone();
        plan.cluster_extra = cluster_extra;
        plan.config()
    }

    /// Replaces the file as `mv` does.
    fn replace(&self, text: &str) {
        let folder = &self.caller().plan.folder;
        fs::write(folder.join("new.yaml"), text).expect("written");
        fs::rename(folder.join("new.yaml"), folder.join("outrider.yaml")).expect("moved");
    }

    async fn config_dump(&self) -> Value {
        self.caller().ask("/config").await
    }

    async fn until_generation(&self, number: u64) {
        until(&format!("generation {number} is in force"), async || {
            let config = self.config_dump().await;
            config["generation"] == number && config["rejected"].is_null()
        })
        .await;
    }

    /// Waits until the file is rejected with that outcome and for that reason; nothing else may have changed.
    async fn until_rejected(&self, outcome: &str, reason: &str) {
        let generation = self.config_dump().await["generation"].clone();
        until(&format!("the file is rejected for: {reason}"), async || {
            let config = self.config_dump().await;
            assert_eq!(config["generation"], generation, "the last good one stays");
            let report = &config["rejected"]["report"];
            report["outcome"] == outcome && report["faults"].to_string().contains(reason)
        })
        .await;
    }

    async fn metric(&self, series: &str) -> f64 {
        let text = self.caller().ask("/metrics").await;
        let line = text.as_str().expect("text").lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series}")).trim().parse().expect("a number")
    }

    async fn finish(self) {
        self.keeping.go_on(60).await;
        self.keeping.finish().await.assert_none_failed();
        self.fresh.finish().await.assert_none_failed();
    }
}

fn reload(sidecar: &Sidecar) -> Output {
    Command::new(program("outrider"))
        .args(["reload", "--admin-socket"])
        .arg(sidecar.plan.socket())
        .output()
        .expect("it runs")
}

#[test]
fn good_and_bad_files_under_load_cost_no_request() {
    run(async {
        let bench = Bench::start().await;
        let path = bench.caller().plan.folder.join("outrider.yaml");
        bench.replace(&bench.config("connect_timeout: 7s"));
        bench.until_generation(2).await;
        assert_eq!(bench.config_dump().await["clusters"][0]["connect_timeout"], "7s");

        bench.replace(&bench.config("connect_timeout: 7 parsecs"));
        bench.until_rejected("invalid", "clusters[0].connect_timeout").await;
        bench.replace("");
        bench.until_rejected("invalid", "service").await;
        let half = bench.config("").split_at(40).0.to_owned();
        bench.replace(&half);
        bench.until_rejected("invalid", "identity").await;
        fs::remove_file(&path).expect("removed");
        bench.until_rejected("invalid", "cannot be read").await;
        assert!((bench.metric("outrider_config_rejected").await - 1.0).abs() < f64::EPSILON);
        bench.replace(&bench.config("connect_timeout: 8s"));
        bench.until_generation(3).await;

        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("set");
        // Root reads it all the same, and finds that it says what it said.
        if fs::read(&path).is_err() {
            bench.until_rejected("invalid", "cannot be read").await;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        bench.until_generation(3).await;
        assert!((bench.metric("outrider_config_rejected").await).abs() < f64::EPSILON);
        assert!((bench.metric("outrider_config_generation").await - 3.0).abs() < f64::EPSILON);
        assert!((bench.metric("outrider_config_reloads_total{outcome=\"applied\"}").await - 2.0).abs() < 0.1);

        let log = bench.caller().process.log();
        let told = log.lines().filter(|line| line.contains("7 parsecs")).count();
        assert_eq!(told, 1, "each fault once: {log}");
        bench.finish().await;
    });
}

#[test]
fn sighup_has_the_file_read_at_once_and_ends_nothing() {
    run(async {
        let mut bench = Bench::start().await;
        bench.replace(&bench.config("connect_timeout: 7s"));
        bench.caller().process.hang_up();
        bench.until_generation(2).await;
        bench.caller().process.hang_up();
        until("the same again is no change", async || {
            bench.metric("outrider_config_reloads_total{outcome=\"unchanged\"}").await > 0.0
        })
        .await;
        assert_eq!(bench.config_dump().await["generation"], 2);
        assert!(!bench.mesh.caller.process.has_ended());
        bench.finish().await;
    });
}

#[test]
fn the_command_line_says_what_became_of_a_reload() {
    run(async {
        let bench = Bench::start().await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        bench.replace(&bench.config("connect_timeout: 7s"));
        let done = reload(bench.caller());
        assert!(done.status.success() && text(&done.stdout).contains("generation 2"), "{done:?}");
        let again = reload(bench.caller());
        assert!(again.status.success() && text(&again.stdout).contains("already"), "{again:?}");

        bench.replace(&bench.config("").replace("service: web", "service: wob"));
        let refused = reload(bench.caller());
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("service: cannot change while the sidecar runs"), "{said}");
        assert!(said.contains("start a second process"), "{said}");
        bench.until_rejected("refused", "service").await;
        let answer = admin::call(&bench.caller().plan.socket(), Method::POST, "/reload").await;
        assert_eq!(answer.expect("an answer").status, 409);
        assert_eq!(bench.config_dump().await["generation"], 2);
        bench.finish().await;
    });
}
