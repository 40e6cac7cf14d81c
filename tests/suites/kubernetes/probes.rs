//! The sidecar performs the app's probes for the kubelet: real servers, a real sidecar, and the kubelet's rules.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{ServerConfig, version::TLS13};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{
    harness::{Client, TestCa, app::nobody, body, client::request},
    processes::{
        mesh::{Host, Network},
        process::{Process, program},
        run, until,
    },
};

/// What an app saw: method, path, version, fields.
type Seen = Arc<Mutex<Vec<(Method, String, Version, HeaderMap)>>>;

/// An app on the pod's address; gone when dropped.
pub(super) struct App {
    address: SocketAddr,
    seen: Seen,
    task: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// One that answers by its path: `/status/500`, `/to?location`, `/long`, `/silent`.
    async fn start(address: IpAddr, tls: Option<ServerConfig>) -> Self {
        Self::at((address, 0).into(), tls).await
    }

    /// The same at this port.
    pub(super) async fn at(address: SocketAddr, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
        let (log, acceptor) = (Arc::clone(&seen), tls.map(|config| TlsAcceptor::from(Arc::new(config))));
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _peer) = listener.accept().await.unwrap();
                let (log, acceptor) = (Arc::clone(&log), acceptor.clone());
                serving.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (log, (head, body)) = (Arc::clone(&log), request.into_parts());
                        let path = head.uri.path_and_query().unwrap().to_string();
                        log.lock().unwrap().push((head.method, path.clone(), head.version, head.headers));
                        async move { answer(&path, body).await }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    match acceptor {
                        None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            drop(server.serve_connection(TokioIo::new(stream), service).await);
                        }
                    }
                });
            }
        });
        Self { address, seen, task }
    }

    fn last(&self) -> (Method, String, Version, HeaderMap) {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

async fn answer(path: &str, asked: Incoming) -> Result<Response<body::Body>, Infallible> {
    let text =
        |status: u16| Ok(Response::builder().status(status).body(body::full("a secret of the app")).unwrap());
    match split(path) {
        ("status", code) => text(code.split('?').next().unwrap().parse().unwrap()),
        ("to", location) => {
            Ok(Response::builder().status(302).header("location", location).body(body::empty()).unwrap())
        }
        ("again", _) => {
            Ok(Response::builder().status(307).header("location", path).body(body::empty()).unwrap())
        }
        ("long", _) => Ok(Response::new(body::streamed(1 << 20, None))),
        ("silent", _) => std::future::pending().await,
        ("grpc.health.v1.Health", "Check") => {
            let asked = asked.collect().await.unwrap().to_bytes();
            let status = if asked == Bytes::from_static(b"\0\0\0\0\x03\x0a\x01a") { 1 } else { 2 };
            let (down, out) = body::channel();
            tokio::spawn(async move {
                let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
                let name = http::HeaderName::from_static("grpc-status");
                let trailers = HeaderMap::from_iter([(name, HeaderValue::from_static("0"))]);
                drop(down.send(Ok(Frame::data(message))).await);
                drop(down.send(Ok(Frame::trailers(trailers))).await);
            });
            Ok(Response::builder().header("content-type", "application/grpc").body(out).unwrap())
        }
        _ => text(200),
    }
}

/// First segment and the rest.
fn split(path: &str) -> (&str, &str) {
    path[1..].split_once(['/', '?']).unwrap_or((&path[1..], ""))
}

/// A sidecar that performs these probes.
struct Pod {
    host: Host,
    process: Process,
    _folder: TempDir,
}

impl Pod {
    async fn start(host: Host, probes: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("probes").tempdir().unwrap();
        let config = format!(
            "service: app\ntrust_domain: cluster.local\n\
             identity: {{file: {{certificate: none.pem, key: none.pem, bundle: none.pem}}}}\n\
             admin: {{socket: admin.sock, listen: '{}'}}\noutbound: [{{listen: '{}'}}]\nprobes:\n{probes}",
            host.health(),
            host.outbound(),
        );
        let file = folder.path().join("outrider.yaml");
        std::fs::write(&file, config).unwrap();
        let arguments =
            ["run".into(), "--log-level".into(), "debug".into(), "--config".into(), file.into_os_string()];
        let mut process =
            Process::start::<std::ffi::OsString>("sidecar", &program("outrider"), arguments, folder.path());
        until("admin listens", async || {
            assert!(!process.has_ended(), "it ended while starting");
            tokio::net::TcpStream::connect(host.health()).await.is_ok()
        })
        .await;
        Self { host, process, _folder: folder }
    }

    /// What the kubelet is told.
    async fn asked(&self, name: &str) -> (u16, String) {
        let mut request = request(Method::GET, &format!("/probe/{name}"), body::empty());
        request.headers_mut().insert("user-agent", HeaderValue::from_static("kube-probe/1.33"));
        let mut client = Client::http1(self.host.health()).await;
        let answer = client.send(request).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }
}

#[test]
fn a_probe_by_http_is_judged_as_the_kubelet_does() {
    run(async {
        let host = Network::new().host(1);
        let (app, other) = (App::start(host.app().ip(), None).await, App::start(host.app().ip(), None).await);
        let port = app.address.port();
        let probe = |name: &str, path: &str| {
            format!("  - {{name: {name}, http: {{port: {port}, path: '{path}'}}, timeout: 30s}}\n")
        };
        let (elsewhere, nowhere) = ("/to?http://example.com/", nobody().port());
        let to_other = format!("/to?http://{}/status/204", other.address);
        let probes = [
            probe("app/readiness", "/status/200?x=1"),
            probe("created", "/status/299"),
            probe("not-modified", "/status/304"),
            probe("bad", "/status/404"),
            probe("broken", "/status/503"),
            probe("elsewhere", elsewhere),
            probe("relative", "/to?/status/200"),
            probe("relative-bad", "/to?/status/500"),
            probe("same-host", &to_other),
            probe("endless", "/again"),
            probe("long", "/long"),
            format!("  - {{name: silent, http: {{port: {port}, path: /silent}}, timeout: 50ms}}\n"),
            format!(
                "  - {{name: fields, http: {{port: {port}, headers: [{{name: Host, value: a.example}}, {{name: User-Agent, \
                 value: mine}}, {{name: authorization, value: Bearer hidden}}, {{name: x-a, value: '1'}}, {{name: x-a, \
                 value: '2'}}]}}}}\n"
            ),
            format!("  - {{name: nobody, http: {{port: {nowhere}, host: 127.0.0.1}}}}\n"),
        ];
        let pod = Pod::start(host, &probes.concat()).await;
        for (name, expected) in [
            ("app/readiness", 200),
            ("created", 200),
            ("not-modified", 200),
            ("bad", 404),
            ("broken", 503),
            ("elsewhere", 200),
            ("relative", 200),
            ("relative-bad", 500),
            ("same-host", 200),
            ("endless", 503),
            ("long", 200),
            ("silent", 504),
            ("nobody", 503),
            ("unknown", 404),
        ] {
            let (status, text) = pod.asked(name).await;
            assert_eq!(status, expected, "{name}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
        assert_eq!(pod.asked("endless").await.1, "stopped after 10 redirects\n");
        assert_eq!(other.last().1, "/status/204");

        pod.asked("app/readiness").await;
        let (method, path, version, fields) = app.last();
        assert_eq!((method, path.as_str(), version), (Method::GET, "/status/200?x=1", Version::HTTP_11));
        assert_eq!(fields["user-agent"], "kube-probe/1.33");
        assert_eq!(fields["host"], app.address.to_string().as_str());
        assert_eq!(fields["connection"], "close");
        pod.asked("fields").await;
        let fields = app.last().3;
        assert_eq!(
            (&fields["host"], &fields["user-agent"]),
            (&"a.example".parse().unwrap(), &"mine".parse().unwrap())
        );
        assert_eq!(fields.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert!(!pod.process.log().contains("hidden"));
    });
}

#[test]
fn probes_by_https_tcp_and_grpc_reach_the_app() {
    run(async {
        let host = Network::new().host(1);
        let ip = host.app().ip();
        let leaf = TestCa::new().wrong_web(crate::harness::ca::Wrong::Expired, "somebody.else");
        let tls = ServerConfig::builder_with_provider(outrider_certs::rustls_verify::provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
            .unwrap();
        let (plain, secure) = (App::start(ip, None).await, App::start(ip, Some(tls)).await);
        let (clear, tls) = (plain.address.port(), secure.address.port());
        let unused = TcpListener::bind((ip, 0)).await.unwrap();
        let closed = unused.local_addr().unwrap().port();
        drop(unused);
        let pod = Pod::start(
            host,
            &format!(
                "  - {{name: https, http: {{port: {tls}, scheme: https, path: /status/200}}, timeout: 30s}}\n\
                 \x20 - {{name: not-tls, http: {{port: {clear}, scheme: https}}, timeout: 30s}}\n\
                 \x20 - {{name: tcp, tcp: {{port: {clear}}}}}\n\
                 \x20 - {{name: closed, tcp: {{port: {closed}}}}}\n\
                 \x20 - {{name: serving, grpc: {{port: {clear}, service: a}}, timeout: 30s}}\n\
                 \x20 - {{name: not-serving, grpc: {{port: {clear}}}, timeout: 30s}}\n\
                 \x20 - {{name: no-grpc, grpc: {{port: {tls}}}, timeout: 30s}}\n"
            ),
        )
        .await;
        for (name, expected) in [
            ("https", 200),
            ("not-tls", 503),
            ("tcp", 200),
            ("closed", 503),
            ("serving", 200),
            ("not-serving", 503),
            ("no-grpc", 503),
        ] {
            let (status, text) = pod.asked(name).await;
            assert_eq!(status, expected, "{name}: {text}");
        }
        let (method, path, version, fields) = plain.last();
        assert_eq!((method, version), (Method::POST, Version::HTTP_2));
        assert_eq!(
            (path.as_str(), &fields["user-agent"]),
            ("/grpc.health.v1.Health/Check", &"kube-probe/1.33".parse().unwrap())
        );
        assert_eq!(secure.count(), 1);
    });
}

#[test]
fn nobody_can_ask_for_more_than_is_configured() {
    run(async {
        let host = Network::new().host(1);
        let app = App::start(host.app().ip(), None).await;
        let pod =
            Pod::start(host, &format!("  - {{name: a/b, http: {{port: {}}}}}\n", app.address.port())).await;
        for target in ["/probe/a/b/../c", "/probe/a", "/probe/", "/probe/http://example.com/", "/probe/a/b/"]
        {
            let mut client = Client::http1(pod.host.health()).await;
            assert_eq!(client.get(target).await.unwrap().status(), 404, "{target}");
        }
        let mut client = Client::http1(pod.host.health()).await;
        let post = client.send(request(Method::POST, "/probe/a/b", body::empty()));
        assert_eq!(post.await.unwrap().status(), 405);
        assert_eq!(app.count(), 0);
        let mut client = Client::http1(pod.host.health()).await;
        assert_eq!(client.get("/probe/a/b?path=/secret&port=1").await.unwrap().status(), 200);
        assert_eq!(app.last().1, "/");
    });
}
