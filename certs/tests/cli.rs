//! The program `outrider-ca`, from outside.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests may read clocks and panic")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::SystemTime;

use common::*;
use outrider_certs::client::{self, SvidRequest};
use outrider_certs::join_token::JoinToken;
use outrider_certs::request::KeyPairAndCsr;
use outrider_certs::svid::X509Svid;
use outrider_certs::trust_bundle::{TrustBundle, TrustBundles};
use outrider_certs::verify::{Role, peer};
use tonic::Code;

const PROGRAM: &str = env!("CARGO_BIN_EXE_outrider-ca");

/// A folder with a CA in it.
struct Folder(tempfile::TempDir);

/// What a run of the program gave.
#[derive(Debug)]
struct Output {
    code: i32,
    out: String,
    err: String,
}

fn run(arguments: &[&str]) -> Output {
    let output = Command::new(PROGRAM).args(arguments).env_remove("OUTRIDER_CA_DIR").output().unwrap();
    Output {
        code: output.status.code().expect("not ended by a signal"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Whether a tool of the system is there; tests with tools pass without it.
fn has(tool: &str) -> bool {
    Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let made = folder.run("init", &["--trust-domain", "example.org"]);
        assert_eq!(made.code, 0, "{made:?}");
        folder
    }

    fn ca(&self) -> PathBuf {
        self.0.path().join("ca")
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        let ca = self.ca();
        run(&[&[command, "--dir", path(&ca)], arguments].concat())
    }

    fn token(&self) -> JoinToken {
        let made = self.run("token", &["--spiffe-id", ID]);
        assert_eq!(made.code, 0, "{made:?}");
        JoinToken::parse(&made.out).unwrap()
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle::from_jwks(domain(), self.run("bundle", &["--format", "jwks"]).out.as_bytes()).unwrap()
    }

    fn serve(&self, more: &[&str]) -> Server {
        Server::start(Command::new(PROGRAM).args(self.serve_arguments(more)))
    }

    fn serve_arguments(&self, more: &[&str]) -> Vec<String> {
        let ca = self.ca();
        let fixed =
            ["serve", "--dir", path(&ca), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        fixed.iter().chain(more).map(|&text| text.to_owned()).collect()
    }
}

/// A running `outrider-ca serve`.
struct Server {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = line_with(&mut log, "the CA is listening");
        let field = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap();
        let (address, metrics) = (field("address=").parse().unwrap(), field("metrics=").parse().unwrap());
        Self { child, log, address, metrics }
    }

    async fn join(&self, token: &JoinToken) -> Result<(X509Svid, TrustBundle), client::Error> {
        join(self.address, token, SystemTime::now()).await
    }

    fn wait_for_log(&mut self, text: &str) {
        line_with(&mut self.log, text);
    }

    /// kill -9.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns how it ended and the rest of its log.
    fn stop(mut self) -> (ExitStatus, String) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        let lines: Vec<_> = self.log.by_ref().lines().map(Result::unwrap).collect();
        (status, lines.join("\n"))
    }
}

/// Reads a log up to the first line that has `text` in it.
fn line_with(log: &mut BufReader<ChildStderr>, text: &str) -> String {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the CA ended without saying: {text}");
    }
    line
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only matters for a test that failed half-way.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_new_ca_is_its_owners_alone_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("deep/ca");
    let script = format!("umask 000; exec {PROGRAM} init --dir {} --trust-domain example.org", path(&ca));
    assert!(Command::new("sh").args(["-c", &script]).output().unwrap().status.success());
    assert_eq!(mode(&ca), 0o700);
    assert_eq!(mode(&ca.join("tokens")), 0o700);
    assert_eq!(mode(&ca.join("ca.json")), 0o600);
    let left: Vec<_> = fs::read_dir(&ca).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
}

#[test]
fn a_ca_is_made_only_once() {
    let folder = Folder::new();
    let before = fs::read(folder.ca().join("ca.json")).unwrap();
    let again = folder.run("init", &["--trust-domain", "example.org"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("ca.json exists") && again.err.contains("choose another --dir"), "{again:?}");
    assert_eq!(fs::read(folder.ca().join("ca.json")).unwrap(), before);
}

#[test]
fn a_folder_that_others_can_use_is_refused() {
    let folder = Folder::new();
    fs::set_permissions(folder.ca(), fs::Permissions::from_mode(0o750)).unwrap();
    for (command, more) in [
        ("init", &["--trust-domain", "example.org"][..]),
        ("token", &["--spiffe-id", ID]),
        ("bundle", &[]),
        ("serve", &[]),
    ] {
        let refused = folder.run(command, more);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.err.contains("mode 0750") && refused.err.contains("chmod 700"),
            "{command}: {refused:?}"
        );
    }
    let open = tempfile::tempdir().unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let refused = run(&["init", "--dir", path(open.path()), "--trust-domain", "example.org"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(fs::read_dir(open.path()).unwrap().count(), 0, "nothing was made in it");
}

#[test]
fn mistakes_are_told_with_place_and_remedy() {
    let folder = Folder::new();
    let missing = run(&["token", "--dir", "/nowhere/ca", "--spiffe-id", ID]);
    assert_eq!(missing.code, 1);
    assert!(
        missing.err.contains("/nowhere/ca/ca.json") && missing.err.contains("outrider-ca init"),
        "{missing:?}"
    );
    for (id, code, text) in [
        ("spiffe://other.example/a", 1, "not of the trust domain example.org"),
        ("spiffe://example.org", 1, "not of the trust domain"),
        ("spiffe://example.org/outrider/ca", 1, "the CA's own ID"),
        ("example.org/a", 2, "does not start with \"spiffe://\""),
        ("spiffe://example.org/a/", 2, "ends in '/'"),
    ] {
        let refused = folder.run("token", &["--spiffe-id", id]);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.err.contains(text), "{refused:?}");
    }
    assert_eq!(run(&[]).code, 2);
    assert_eq!(run(&["init", "--dir", "/x"]).code, 2);
    assert_eq!(run(&["--help"]).code, 0);
    assert_eq!(folder.run("serve", &["--caller-rate", "0/1"]).code, 2);
    let long = folder.run("serve", &["--max-validity", "91days"]);
    assert_eq!((long.code, long.err.contains("--max-validity")), (1, true), "{long:?}");
    fs::write(folder.ca().join("ca.json"), "{").unwrap();
    let damaged = folder.run("bundle", &[]);
    assert_eq!(damaged.code, 1);
    assert!(damaged.err.contains("ca.json") && damaged.err.contains("backup"), "{damaged:?}");
}

#[test]
fn the_bundle_is_the_same_in_both_forms() {
    let folder = Folder::new();
    let pem = folder.run("bundle", &[]).out;
    assert_eq!(folder.bundle().to_pem(), pem);
    assert_eq!(folder.bundle().sequence(), 1);
}

#[test]
fn a_token_goes_to_a_file_of_its_owner() {
    let folder = Folder::new();
    let file = folder.0.path().join("token");
    let made = folder.run("token", &["--spiffe-id", ID, "--out", path(&file)]);
    assert_eq!((made.code, made.out.as_str()), (0, ""));
    assert_eq!(mode(&file), 0o600);
    let token = JoinToken::parse(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(token.spiffe_id().as_str(), ID);
    // Nothing in the state folder gives the secret away.
    let stored = folder.ca().join("tokens").join(format!("{}.json", token.id()));
    assert_eq!(mode(&stored), 0o600);
    let secret = token.bearer().rsplit('.').next().unwrap().to_owned();
    assert!(!fs::read_to_string(stored).unwrap().contains(&secret));
}

#[test]
fn a_certificate_by_hand_is_a_whole_svid() {
    let folder = Folder::new();
    let out = folder.0.path().join("out");
    let made = folder.run("issue", &["--spiffe-id", ID, "--ttl", "2h", "--out", path(&out)]);
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(mode(&out.join("svid_key.pem")), 0o600);
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    let svid = X509Svid::from_pem(&read("svid.pem"), &read("svid_key.pem")).unwrap();
    let bundles = TrustBundles::single(TrustBundle::from_pem(domain(), &read("bundle.pem")).unwrap());
    let verified = peer(svid.chain(), &bundles, Role::Server, SystemTime::now()).unwrap();
    assert_eq!(verified.id().as_str(), ID);
    if has("openssl") {
        let verify = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-CAfile",
                path(&out.join("bundle.pem")),
                path(&out.join("svid.pem")),
            ])
            .output()
            .unwrap();
        assert!(verify.status.success(), "{verify:?}");
    }
    let long = folder.run("issue", &["--spiffe-id", ID, "--ttl", "91days", "--out", path(&out)]);
    assert_eq!((long.code, long.err.contains("90 days")), (1, true), "{long:?}");
}

#[test]
fn a_request_can_be_signed_by_hand_for_its_own_name_only() {
    let folder = Folder::new();
    let (out, csr) = (folder.0.path().join("out"), folder.0.path().join("request.pem"));
    let pair = KeyPairAndCsr::generate(&id(ID)).unwrap();
    fs::write(&csr, pair.csr_pem()).unwrap();
    let issue =
        |id: &str| folder.run("issue", &["--spiffe-id", id, "--csr", path(&csr), "--out", path(&out)]);
    assert_eq!(issue(ID).code, 0);
    assert!(!out.join("svid_key.pem").exists());
    let pem = fs::read(out.join("svid.pem")).unwrap();
    let key = rcgen::KeyPair::from_der_and_sign_algo(pair.key(), &rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    assert_eq!(X509Svid::from_pem(&pem, key.serialize_pem().as_bytes()).unwrap().id().as_str(), ID);
    let other = issue("spiffe://example.org/other");
    assert_eq!((other.code, other.err.contains("asks for")), (1, true), "{other:?}");
    fs::write(&csr, "garbage").unwrap();
    assert_eq!(issue(ID).code, 1);
}

#[tokio::test]
async fn a_token_is_good_once_even_across_kill_9() {
    let folder = Folder::new();
    let (used, unused) = (folder.token(), folder.token());
    let server = folder.serve(&[]);
    let (svid, bundle) = server.join(&used).await.unwrap();
    assert_eq!((svid.id().as_str(), &bundle), (ID, &folder.bundle()));
    let (code, message) = refusal(server.join(&used).await);
    assert_eq!((code, message.contains("used before")), (Code::Unauthenticated, true), "{message}");
    server.kill();

    let server = folder.serve(&[]);
    let (code, message) = refusal(server.join(&used).await);
    assert_eq!((code, message.contains("used before")), (Code::Unauthenticated, true), "{message}");
    server.join(&unused).await.unwrap();
    let log = fs::read_to_string(folder.ca().join("issued.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let issued = lines.iter().filter(|line| line["spiffe_id"] == ID).count();
    assert_eq!(issued, 2, "one line for each certificate: {log}");
    assert_eq!(mode(&folder.ca().join("issued.jsonl")), 0o600);
}

#[tokio::test]
async fn kill_9_at_any_moment_never_makes_a_token_good_twice() {
    let folder = Folder::new();
    for delay in [0, 1, 2, 3, 5, 8, 13, 21] {
        let token = folder.token();
        let server = folder.serve(&[]);
        let (address, first) = (server.address, token.clone());
        let joining = tokio::spawn(async move { join(address, &first, SystemTime::now()).await.is_ok() });
        // Not to wait for anything: to strike at a different step each time.
        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
        server.kill();
        let won = usize::from(joining.await.unwrap());
        let again = usize::from(folder.serve(&[]).join(&token).await.is_ok());
        assert!(won + again <= 1, "two certificates after {delay} ms");
        let log = fs::read_to_string(folder.ca().join("issued.jsonl")).unwrap();
        let logged = log.matches(&token.id().to_string()).count();
        assert!((won + again..=1).contains(&logged), "logged {logged}, given {won} + {again}");
    }
}

#[tokio::test]
async fn an_svid_renews_itself_and_nobody_else() {
    let folder = Folder::new();
    let server = folder.serve(&["--validity", "10m"]);
    let (svid, bundle) = server.join(&folder.token()).await.unwrap();
    let now = SystemTime::now();
    let renewed = renew(server.address, &svid, &bundle, svid.id(), now).await.unwrap();
    assert_eq!(renewed.id(), svid.id());
    let other = renew(server.address, &svid, &bundle, &id("spiffe://example.org/admin"), now).await;
    let (code, message) = refusal(other);
    assert_eq!((code, message.contains("asks for")), (Code::PermissionDenied, true), "{message}");
    // It is no more than ten minutes, whatever is asked for.
    let lifetime = renewed.not_after().duration_since(now).unwrap();
    assert!(lifetime.as_secs() <= 601, "{lifetime:?}");
}

#[tokio::test]
async fn bad_requests_are_told_apart_and_logged_without_secrets() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    let token = folder.token();
    let bearer = token.bearer();
    let ask = async |csr: &str, bearer: Option<&str>| {
        let caller = Caller::with_token(server.address, &token, SystemTime::now());
        refusal(caller.request(SvidRequest { bearer, ..wish(csr) }).await)
    };
    let good = KeyPairAndCsr::generate(&id(ID)).unwrap();
    let foreign = KeyPairAndCsr::generate(&id("spiffe://other.example/a")).unwrap();
    let p521 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let p521 = rcgen::CertificateParams::default().serialize_request(&p521).unwrap().pem().unwrap();
    for (csr, bearer, code, text) in [
        ("garbage", Some(bearer.as_str()), Code::InvalidArgument, "not PEM"),
        (foreign.csr_pem(), Some(bearer.as_str()), Code::PermissionDenied, "other.example"),
        (&p521, Some(bearer.as_str()), Code::InvalidArgument, "P-256"),
        (good.csr_pem(), None, Code::Unauthenticated, "neither"),
        (good.csr_pem(), Some("secret-looking-garbage"), Code::Unauthenticated, "does not hold"),
    ] {
        let (found, message) = ask(csr, bearer).await;
        assert_eq!((found, message.contains(text)), (code, true), "{message}");
    }
    // None of that cost the token.
    server.join(&token).await.unwrap();
    let metrics = http_get(server.metrics, "/metrics").await;
    assert!(metrics.contains("outrider_ca_refused_total{reason=\"no_proof\"} 1"), "{metrics}");
    let (status, log) = server.stop();
    assert!(status.success());
    assert_eq!(log.matches("certificate refused").count(), 5, "{log}");
    let secret = bearer.rsplit('.').next().unwrap();
    assert!(!log.contains(secret) && !log.contains("secret-looking-garbage"), "{log}");
}

#[tokio::test]
async fn sigterm_ends_it_cleanly() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    // An idle connection does not hold it up.
    let idle = Caller::with_bundle(server.address, &folder.bundle(), None, SystemTime::now());
    let idle = idle.connect().await.unwrap();
    assert!(http_get(server.metrics, "/ready").await.contains("ready"));
    let (status, log) = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(status.success(), "{status:?}");
    assert!(log.contains("stopped"), "{log}");
    drop(idle);
}

#[tokio::test]
async fn curl_and_openssl_can_talk_to_it() {
    let folder = Folder::new();
    let server = folder.serve(&["--san", "localhost", "--san", "127.0.0.1"]);
    let roots = folder.0.path().join("bundle.pem");
    fs::write(&roots, folder.run("bundle", &[]).out).unwrap();
    if has("curl") {
        for (host, version) in [("localhost", "--http2"), ("127.0.0.1", "--http1.1")] {
            let url = format!("https://{host}:{}/bundle", server.address.port());
            let got =
                Command::new("curl").args(["-sS", version, "--cacert", path(&roots), &url]).output().unwrap();
            assert!(got.status.success(), "{got:?}");
            assert_eq!(TrustBundle::from_jwks(domain(), &got.stdout).unwrap(), folder.bundle());
        }
    }
    if has("openssl") {
        let connect = |version: &str| {
            let address = server.address.to_string();
            let arguments =
                ["s_client", "-connect", &address, version, "-CAfile", path(&roots), "-verify_return_error"];
            Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap()
        };
        assert!(connect("-tls1_3").status.success());
        let old = connect("-tls1_2");
        assert!(!old.status.success(), "TLS 1.2 is refused");
        let said = String::from_utf8_lossy(&old.stderr).to_lowercase();
        assert!(said.contains("protocol version"), "{said}");
    }
}

#[tokio::test]
async fn running_out_of_file_descriptors_is_survived() {
    let folder = Folder::new();
    let token = folder.token();
    let arguments = folder.serve_arguments(&[]);
    let script = format!("ulimit -n 40; exec {PROGRAM} \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).args(&arguments);
    let mut server = Server::start(&mut command);
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(tokio::net::TcpStream::connect(server.address).await.unwrap());
    }
    // 60 open connections do not fit into 40 descriptors, so this line comes.
    server.wait_for_log("could not be accepted");
    drop(held);
    let (svid, _) = eventually("it serves again", async || server.join(&token).await.ok()).await;
    assert_eq!(svid.id().as_str(), ID);
    let metrics = http_get(server.metrics, "/metrics").await;
    let errors = metrics.lines().find_map(|line| line.strip_prefix("outrider_ca_accept_errors_total "));
    assert_ne!(errors, Some("0"), "{metrics}");
}
