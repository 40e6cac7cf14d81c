//! A certificate's life: got once by a token, kept over restarts, renewed under load, whatever the CA does.

use std::{fs, net::SocketAddr, path::PathBuf};

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{
    app::App,
    authority::{Authority, id},
    load::{Load, Plan},
    lying_ca::{Lie, LyingCa},
    mesh::{CALLED, CALLER, Network, Proof, Sidecar, SidecarPlan},
    process::Process,
    run, until,
};

/// A CA, and the plans of a caller and of one replica that get their certificates from it.
struct Setting {
    authority: Authority,
    address: SocketAddr,
    caller: SidecarPlan,
    replica: SidecarPlan,
    folder: TempDir,
}

impl Setting {
    /// Nothing runs yet. `validity` is what the sidecars ask for.
    fn new(validity: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("mesh").tempdir().expect("a folder");
        let (root, network) = (folder.path(), Network::new());
        let authority = Authority::new(&root.join("ca"));
        let address = network.host(1).ca();
        let mut caller = SidecarPlan::new(CALLER, CALLER, network.host(10), root);
        let mut replica = SidecarPlan::new(CALLED, CALLED, network.host(20), root);
        caller.calls = vec![replica.host.inbound()];
        replica.app = Some(replica.host.app());
        for plan in [&mut caller, &mut replica] {
            plan.proof = Proof::Ca { address, validity };
        }
        Self { authority, address, caller, replica, folder }
    }

    async fn serve_ca(&self) -> Process {
        // Short lifetimes are refused unless asked for.
        self.authority.serve(self.address, &["--min-validity", "5s"], self.folder.path()).await
    }

    /// Starts CA, app and both sidecars, with a token each.
    async fn start(self) -> Running {
        let ca = self.serve_ca().await;
        let app = App::start(CALLED, self.replica.host.app()).await;
        for plan in [&self.caller, &self.replica] {
            self.authority.write_token(plan.service, &token(plan));
        }
        let sidecars = [self.caller.start(""), self.replica.start("")];
        let [caller, replica] = join_all(sidecars.map(Sidecar::ready)).await.try_into().expect("two");
        Running { setting: self, ca, caller, replica, _app: app }
    }
}

/// Where a sidecar looks for its token.
fn token(plan: &SidecarPlan) -> PathBuf {
    plan.folder.join("token")
}

/// A running setting.
struct Running {
    setting: Setting,
    ca: Process,
    caller: Sidecar,
    replica: Sidecar,
    _app: App,
}

impl Running {
    fn load(&self) -> Load {
        Load::start(self.caller.plan.host.outbound(), Plan { rate: 80, ..Plan::default() })
    }

    /// Kills the CA, and replaces the caller's sidecar by one that wants to renew at once: a kept certificate is
    /// counted from its backdated beginning, so one for a minute is due.
    async fn renew_without_ca(&mut self) {
        self.ca.kill();
        self.ca.exited(super::DEADLINE).await;
        let status = self.caller.replace("-new").await;
        assert!(status.success(), "{status}");
    }

    async fn stop_ca(&mut self) {
        self.ca.terminate();
        assert!(self.ca.exited(super::DEADLINE).await.success());
    }
}

async fn number(sidecar: &Sidecar, pointer: &str) -> u64 {
    sidecar.ask("/certs").await.pointer(pointer).and_then(serde_json::Value::as_u64).expect("a number")
}

/// Certificates that the process got from the CA.
async fn obtained(sidecar: &Sidecar) -> u64 {
    number(sidecar, "/renewal/successes").await
}

async fn failures(sidecar: &Sidecar) -> u64 {
    number(sidecar, "/renewal/failures").await
}

async fn not_after(sidecar: &Sidecar) -> String {
    sidecar.ask("/certs").await["not_after"].as_str().expect("a time").to_owned()
}

/// Waits until the log says so.
async fn until_logged(sidecar: &Sidecar, text: &str) {
    until(&format!("{} logs {text:?}", sidecar.plan.name), async || sidecar.process.log().contains(text))
        .await;
}

#[test]
fn a_token_gives_a_certificate_and_a_restart_needs_neither_token_nor_ca() {
    run(async {
        let setting = Setting::new("1h");
        let mut ca = setting.serve_ca().await;
        let plan = setting.caller.clone();
        setting.authority.write_token(CALLER, &token(&plan));
        let mut sidecar = plan.start("").ready().await;
        let certs = sidecar.ask("/certs").await;
        assert_eq!(certs["spiffe_id"], id(CALLER).as_str());
        assert_eq!(certs["renewal"]["successes"], 1);
        let first = not_after(&sidecar).await;

        assert!(sidecar.stop().await.success());
        ca.kill();
        ca.exited(super::DEADLINE).await;
        fs::remove_file(token(&plan)).expect("removed");
        let sidecar = plan.start("-again").ready().await;
        assert_eq!(sidecar.ask("/certs").await["renewal"]["successes"], 0, "nobody was asked");
        assert_eq!(not_after(&sidecar).await, first, "it is the same certificate");
        assert!(sidecar.process.log().contains("using the kept certificate"), "it says so");
    });
}

#[test]
fn without_a_token_a_sidecar_is_not_ready_says_why_and_heals_when_one_is_dropped_in() {
    run(async {
        let setting = Setting::new("1h");
        let _ca = setting.serve_ca().await;
        let plan = &setting.caller;
        let sidecar = plan.start("");
        until_logged(&sidecar, "no certificate and no join token").await;
        let log = sidecar.process.log();
        let line = log.lines().find(|line| line.contains("no join token")).expect("there");
        for told in ["ERROR", &token(plan).display().to_string(), "outrider-ca token", "without a restart"] {
            assert!(line.contains(told), "{told} is missing: {line}");
        }
        assert!(!sidecar.is_ready().await);
        assert_eq!(sidecar.ask("/ready").await, "waiting for: identity, listeners\n");

        setting.authority.write_token(CALLER, &token(plan));
        let sidecar = sidecar.ready().await;
        until_logged(&sidecar, "works again").await;
    });
}

#[test]
fn a_token_that_was_used_is_refused_with_the_reason_in_the_log() {
    run(async {
        let setting = Setting::new("1h");
        let _ca = setting.serve_ca().await;
        let first = &setting.caller;
        setting.authority.write_token(CALLER, &token(first));
        let mut thief = SidecarPlan::new("thief", CALLER, setting.replica.host, setting.folder.path());
        thief.calls = first.calls.clone();
        thief.proof = first.proof.clone();
        fs::copy(token(first), token(&thief)).expect("copied");
        let _first = first.start("").ready().await;

        let thief = thief.start("");
        until_logged(&thief, "the CA refused").await;
        let log = thief.process.log();
        let line = log.lines().find(|line| line.contains("the CA refused")).expect("there");
        assert!(line.contains("ERROR") && line.contains("used"), "{line}");
        assert!(!thief.is_ready().await);
        setting.authority.write_token(CALLER, &token(&thief.plan));
        thief.ready().await;
    });
}

#[test]
fn renewal_under_load_costs_no_request_and_no_connection() {
    run(async {
        let running = Setting::new("10s").start().await;
        let load = running.load();
        load.go_on(40).await;
        let sidecars = [&running.caller, &running.replica];
        let accepted = [running.caller.accepted().await, running.replica.accepted().await];
        for sidecar in sidecars {
            until("the certificate is renewed", async || obtained(sidecar).await >= 2).await;
        }
        load.go_on(40).await;
        assert_eq!([running.caller.accepted().await, running.replica.accepted().await], accepted);
        let totals = load.finish().await;
        totals.assert_none_failed();
        assert_eq!(totals.repeated, 0);
    });
}

#[test]
fn a_ca_that_is_down_costs_nothing_and_renewal_resumes_when_it_is_back() {
    run(async {
        let mut running = Setting::new("1m").start().await;
        let load = running.load();
        load.go_on(20).await;
        running.renew_without_ca().await;
        let first = not_after(&running.caller).await;
        until("renewal has failed several times", async || failures(&running.caller).await >= 3).await;
        until_logged(&running.caller, "cannot be reached").await;
        assert!(running.caller.process.log().contains("the last good stays"), "it says so");
        assert_eq!(not_after(&running.caller).await, first);

        let _ca = running.setting.serve_ca().await;
        until("renewal resumes", async || obtained(&running.caller).await == 1).await;
        assert_ne!(not_after(&running.caller).await, first);
        until_logged(&running.caller, "works again").await;
        load.go_on(20).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn a_ca_that_never_answers_costs_nothing() {
    run(async {
        let mut running = Setting::new("1m").start().await;
        let load = running.load();
        running.stop_ca().await;
        // The kernel accepts for it, and nobody reads.
        let silent = TcpListener::bind(running.setting.address).await.expect("the CA is gone");
        assert!(running.caller.replace("-new").await.success());
        until_logged(&running.caller, "the CA gave no answer within").await;
        drop(silent);
        let _ca = running.setting.serve_ca().await;
        until("renewal resumes", async || obtained(&running.caller).await == 1).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn a_server_with_a_foreign_root_is_not_taken_for_the_ca() {
    run(async {
        let mut running = Setting::new("1m").start().await;
        let load = running.load();
        let foreign = Authority::new(&running.setting.folder.path().join("foreign-ca"));
        running.stop_ca().await;
        let mut impostor = foreign.serve(running.setting.address, &[], running.setting.folder.path()).await;
        assert!(running.caller.replace("-new").await.success());
        until_logged(&running.caller, "is not a CA we trust").await;
        impostor.kill();
        impostor.exited(super::DEADLINE).await;
        let _ca = running.setting.serve_ca().await;
        until("renewal resumes", async || obtained(&running.caller).await == 1).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn certificates_for_another_id_or_from_a_foreign_root_are_refused_and_the_last_good_stays() {
    run(async {
        let mut running = Setting::new("1m").start().await;
        let load = running.load();
        let foreign = Authority::new(&running.setting.folder.path().join("foreign-ca"));
        running.stop_ca().await;
        let liar = LyingCa::start(running.setting.address, &running.setting.authority, &foreign).await;
        assert!(running.caller.replace("-new").await.success());
        let first = not_after(&running.caller).await;
        let other = format!("it is a certificate for {}, not for {}", id("payroll"), id(CALLER));
        until_logged(&running.caller, &other).await;
        let told = liar.told();
        liar.tell(Lie::ForeignRoot);
        until("it lies again", async || liar.told() > told).await;
        until("it is refused again", async || failures(&running.caller).await > told).await;
        let certs = running.caller.ask("/certs").await;
        let error = certs["renewal"]["error"].as_str().expect("a reason");
        assert!(error.starts_with("the CA's answer is refused"), "{error}");
        assert!(running.caller.process.log().contains(error), "warned of: {error}");
        assert_eq!((not_after(&running.caller).await, obtained(&running.caller).await), (first, 0));
        load.go_on(20).await;
        load.finish().await.assert_none_failed();
    });
}
