//! The servers, and what they saw.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    outcome::Seen,
    strict::{Strict, Whole},
};
use crate::{
    foreign::programs::{self, Call},
    processes::{mesh::Network, process::Process, until},
};

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Ours: takes nothing but what all take alike.
    Strict,
    /// A proxy before ours, which sees what the proxy makes of it.
    Nginx,
    /// The same.
    Haproxy,
    /// llhttp.
    Node,
    /// llhttp, told to take what is not HTTP.
    NodeLenient,
    /// http.server of Python's library.
    Python,
    /// h11.
    Hypercorn,
    /// h2 of Python, over HTTP/2.
    HypercornHttp2,
}

/// A running server.
pub(super) struct Log {
    kind: Kind,
    /// Gone when dropped.
    _process: Option<Process>,
}

enum Kind {
    Strict(Strict),
    /// Lines of JSON, and how many bytes of them are read.
    File(PathBuf, usize),
}

impl Log {
    /// What came since the last call: whole requests, and what was wrong with others.
    pub(super) fn take(&mut self) -> (Vec<Whole>, Vec<String>) {
        match &mut self.kind {
            Kind::Strict(strict) => strict.take(),
            Kind::File(path, read) => {
                let text = fs::read_to_string(path).unwrap_or_default();
                let new = &text[*read..];
                let new = new.rfind('\n').map_or("", |end| &new[..=end]);
                *read += new.len();
                (new.lines().map(whole).collect(), Vec::new())
            }
        }
    }
}

fn whole(line: &str) -> Whole {
    let line: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let fields = line["fields"].as_array().unwrap();
    Whole {
        seen: Seen {
            method: text(&line["method"]),
            target: text(&line["target"]),
            host: text(&line["host"]),
            bytes: line["bytes"].as_u64().unwrap(),
        },
        fields: fields.iter().map(|field| (text(&field[0]), text(&field[1]))).collect(),
    }
}

impl Reader {
    /// As the files of cases name it; ours has no name there, as most is the same everywhere.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Strict => "",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Node => "node",
            Self::NodeLenient => "node-lenient",
            Self::Python => "python",
            Self::Hypercorn => "hypercorn",
            Self::HypercornHttp2 => "hypercorn-h2",
        }
    }

    /// Whether it hands requests on by Python's ASGI, which makes methods capitals and an empty query none.
    pub(super) fn is_asgi(self) -> bool {
        matches!(self, Self::Hypercorn | Self::HypercornHttp2)
    }

    /// As the configuration names what it is spoken to by.
    pub(super) fn protocol(self) -> &'static str {
        if self == Self::HypercornHttp2 { "http2" } else { "http1" }
    }

    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Strict => &[],
            Self::Nginx => &["nginx"],
            Self::Haproxy => &["haproxy"],
            Self::Node | Self::NodeLenient => &["node"],
            Self::Python => &["python3"],
            Self::Hypercorn | Self::HypercornHttp2 => &["python:hypercorn"],
        }
    }

    /// Starts it, with its files in `folder`; `None`, and said so, where it is not installed.
    pub(super) async fn start(self, folder: &Path) -> Option<(SocketAddr, Log)> {
        if !programs::are_here(self.needs()) {
            return None;
        }
        let address = Network::new().host(1).at(8080);
        let file = folder.join("seen");
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let script = |name: &'static str, more: &[&str]| {
            let first = [ip.as_str(), port.as_str(), file.to_str().unwrap()];
            Call::new(name, first.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        let call = match self {
            Self::Strict | Self::Nginx | Self::Haproxy => {
                let strict = Strict::start().await;
                if self == Self::Strict {
                    return Some((strict.address(), Log { kind: Kind::Strict(strict), _process: None }));
                }
                let process = start(&self.proxy(folder, address, strict.address()), address, folder).await;
                return Some((address, Log { kind: Kind::Strict(strict), _process: Some(process) }));
            }
            Self::Node => script("seen_app.js", &["strict"]),
            Self::NodeLenient => script("seen_app.js", &["lenient"]),
            Self::Python => script("seen_app.py", &[]),
            Self::Hypercorn | Self::HypercornHttp2 => script("seen_asgi.py", &[]),
        };
        let process = start(&call, address, folder).await;
        Some((address, Log { kind: Kind::File(file, 0), _process: Some(process) }))
    }

    /// A proxy that passes on what it gets.
    fn proxy(self, folder: &Path, address: SocketAddr, server: SocketAddr) -> Call {
        let path = folder.display();
        if self == Self::Haproxy {
            let config = format!(
                "global\n  tune.bufsize 262144\n  tune.http.maxhdr 256\n\
                 defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
                 frontend in\n  bind {address}\n  default_backend app\n\
                 backend app\n  server app {server}\n"
            );
            fs::write(folder.join("haproxy.cfg"), config).unwrap();
            return Call::new(
                "haproxy",
                ["-db".into(), "-f".into(), folder.join("haproxy.cfg").into_os_string()],
            );
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {path}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log warn;\n\
             events {{ worker_connections 256; }}\nhttp {{\n  access_log off;\n  client_max_body_size 0;\n{temporary}  \
             large_client_header_buffers 8 256k;\n  proxy_buffer_size 64k;\n  proxy_buffers 8 64k;\n  \
             upstream app {{ server {server}; keepalive 4; }}\n  server {{ listen {address};\n    location / {{\n      \
             proxy_pass http://app; proxy_http_version 1.1;\n      proxy_set_header Connection \"\"; \
             proxy_set_header Host $http_host;\n    }}\n  }}\n}}\n"
        );
        fs::write(folder.join("nginx.conf"), config).unwrap();
        let arguments = ["-p", &path.to_string(), "-c", "nginx.conf", "-e", "error.log"];
        Call::new("nginx", arguments.map(str::to_owned))
    }
}

/// Starts a program that will listen at `address`, and waits until it does.
async fn start(call: &Call, address: SocketAddr, folder: &Path) -> Process {
    let mut process = Process::start("server", &call.program, call.arguments.clone(), folder);
    until(&format!("{call:?} listens at {address}"), async || {
        assert!(!process.has_ended(), "it ended while starting: {}", process.log());
        TcpStream::connect(address).await.is_ok()
    })
    .await;
    process
}
