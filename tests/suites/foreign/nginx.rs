//! nginx in all its places: the app that closes often, the reverse proxy that is our client, and the standard peer on
//! either side of mutual TLS.

use std::{fmt::Write as _, net::SocketAddr};

use super::{
    apps, claim,
    load_tools::requests,
    mesh::{Mesh, Plan},
    programs::{Call, text},
};
use crate::processes::{
    authority::{Authority, write},
    process::Process,
};

/// Starts nginx with these `server` and `upstream` sections; it listens at `address` among others.
pub(super) async fn nginx(mesh: &Mesh, name: &str, address: SocketAddr, http: &str) -> Process {
    let folder = mesh.folder.path().join(name);
    let (path, mut config) = (folder.display(), String::new());
    let _ = write!(
        config,
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log warn;\n\
         events {{ worker_connections 16000; }}\nhttp {{\n  access_log off;\n  client_max_body_size 0;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(config, "  {kind}_temp_path {path}/{kind};");
    }
    let _ = write!(config, "{http}\n}}\n");
    write(&folder, "nginx.conf", &config);
    let arguments = ["-p", &folder.display().to_string(), "-c", "nginx.conf", "-e", "error.log"];
    apps::start(mesh, address, "nginx", arguments.map(str::to_owned).to_vec()).await
}

/// A server section that answers with a line.
pub(super) fn answering(address: SocketAddr, more: &str) -> String {
    format!(
        "server {{ listen {address} backlog=4096 {more}\n  location / {{ return 200 \"nginx says hello\\n\"; }}\n\
         location /seen {{ return 200 \"$request_method $request_uri $http_x_forwarded_client_cert\"; }} }}"
    )
}

/// `ssl_...` lines of a server that shows an SVID of `service` and wants one.
fn server_tls(mesh: &Mesh, authority: &Authority, service: &str) -> String {
    let folder = mesh.folder.path().join(format!("{service}-nginx"));
    authority.certify(service, &folder);
    write(&folder, "bundle.pem", &authority.bundle());
    let path = folder.display();
    format!(
        "ssl_certificate {path}/svid.pem; ssl_certificate_key {path}/svid_key.pem; \
         ssl_client_certificate {path}/bundle.pem; ssl_verify_client on; ssl_verify_depth 3; \
         ssl_protocols TLSv1.3;"
    )
}

#[test]
fn an_nginx_app_that_closes_its_connections_often_costs_no_request() {
    claim(&["nginx", "h2load"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let upload = mesh.folder.path().join("upload");
        std::fs::write(&upload, "a few bytes").expect("written");
        let (url, post) = (mesh.url("/"), format!("--data={}", upload.display()));
        // With `say` nginx announces each close, so that even a POST, which nobody may repeat, never meets one.
        let say = ["--h1", "-n3000", "-c10", &post, &url];
        // Without, it closes a second after the last answer: requests are spread over that second.
        let silent = ["--h1", "-n60", "-c6", "--rps=5", &url];
        for (closing, load) in
            [("keepalive_requests 7;", say), ("keepalive_timeout 0;", say), ("keepalive_timeout 1s;", silent)]
        {
            let app = nginx(&mesh, "app", mesh.app(), &answering(mesh.app(), &format!("; {closing}"))).await;
            let said = text("h2load", &load).await;
            let (done, succeeded, failed) = requests(&said);
            assert_eq!((succeeded, failed), (done, 0), "{closing}: {said}");
            assert!(said.contains(&format!("{done} 2xx")), "{closing}: {said}");
            apps::stop(app).await;
        }
    });
}

#[test]
fn an_nginx_app_with_http2_serves_it() {
    claim(&["nginx", "h2load"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        // The connection is ended with GOAWAY every hundred requests.
        let server = answering(mesh.app(), "http2; keepalive_requests 100;");
        let _app = nginx(&mesh, "app", mesh.app(), &server).await;
        let said = text("h2load", &["-n3000", "-c10", "-m10", &mesh.url("/")]).await;
        assert_eq!(requests(&said), (3000, 3000, 0), "{said}");
        assert!(said.contains("3000 2xx"), "{said}");
    });
}

#[test]
fn nginx_as_a_reverse_proxy_in_front_keeps_connections_to_us_and_loses_nothing() {
    claim(&["nginx", "h2load"], async || {
        let mesh = Mesh::start(Plan::default()).await;
        let front = mesh.caller.host.app();
        let proxy = format!(
            "upstream mesh {{ server {}; keepalive 20; }}\nserver {{ listen {front}; location / {{\n  \
             proxy_pass http://mesh; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}",
            mesh.outbound()
        );
        let _app = nginx(&mesh, "app", mesh.app(), &answering(mesh.app(), ";")).await;
        let _front = nginx(&mesh, "front", front, &proxy).await;
        let said = text("h2load", &["--h1", "-n3000", "-c10", &format!("http://{front}/")]).await;
        assert_eq!(requests(&said), (3000, 3000, 0), "{said}");
        assert!(said.contains("3000 2xx"), "{said}");
        let listeners = mesh.caller.ask("/listeners").await;
        let accepted = listeners["listeners"][0]["accepted"].as_u64().expect("a number");
        assert!(accepted < 100, "nginx's connections to us are kept: {accepted} for 3000 requests");
    });
}

#[test]
fn nginx_is_a_standard_peer_that_we_call() {
    for (protocol, listen) in [("http1", "ssl;"), ("http2", "ssl http2;")] {
        claim(&["nginx", "h2load", "curl"], async || {
            let http = match protocol {
                "http1" => "peer: standard, peer_protocol: http1, ",
                _ => "peer: standard, peer_protocol: http2, ",
            };
            let plan = Plan { cluster: http, inbound: "peer: standard, ", ..Plan::default() };
            let mut mesh = Mesh::start(plan).await;
            mesh.callee.stop().await;
            let address = mesh.callee.host.inbound();
            let server =
                answering(address, &format!("{listen} {}", server_tls(&mesh, &mesh.authority, "orders")));
            let peer = nginx(&mesh, "peer", address, &server).await;
            let said = text("h2load", &["--h1", "-n1000", "-c10", &mesh.url("/")]).await;
            assert!(said.contains("1000 2xx"), "{protocol}: {said}");

            // The same nginx as somebody else: nobody speaks to it.
            let server =
                answering(address, &format!("{listen} {}", server_tls(&mesh, &mesh.authority, "thief")));
            apps::stop(peer).await;
            let _peer = nginx(&mesh, "thief", address, &server).await;
            let code = ["-s", "-o", "/dev/null", "-w", "%{http_code} %header{x-outrider-reason}"];
            let url = mesh.url("/");
            let said = text("curl", &[&code[..], &[&url]].concat()).await;
            assert_eq!(said, "503 identity_mismatch");
        });
    }
}

#[test]
fn nginx_is_a_standard_peer_that_calls_us() {
    claim(&["nginx", "h2load"], async || {
        let mesh =
            Mesh::start(Plan { inbound: "peer: standard, ", cluster: "peer: standard, ", ..Plan::default() })
                .await;
        let front = mesh.caller.host.app();
        let folder = mesh.folder.path().join("web-nginx");
        mesh.authority.certify("web", &folder);
        write(&folder, "bundle.pem", &mesh.authority.bundle());
        let path = folder.display();
        let proxy = |certificate: &str| {
            format!(
                "upstream mesh {{ server {}; keepalive 20; }}\nserver {{ listen {front}; location / {{\n  \
                 proxy_pass https://mesh; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
                 proxy_ssl_protocols TLSv1.3; {certificate} }} }}",
                mesh.callee.host.inbound()
            )
        };
        let _app = nginx(&mesh, "app", mesh.app(), &answering(mesh.app(), ";")).await;
        let shown =
            format!("proxy_ssl_certificate {path}/svid.pem; proxy_ssl_certificate_key {path}/svid_key.pem;");
        let with = nginx(&mesh, "front", front, &proxy(&shown)).await;
        let url = format!("http://{front}/");
        let said = text("h2load", &["--h1", "-n1000", "-c10", &url]).await;
        assert!(said.contains("1000 2xx"), "{said}");
        let seen = text("curl", &["-s", &format!("http://{front}/seen")]).await;
        assert!(seen.contains("URI=spiffe://test.outrider/web"), "{seen}");
        apps::stop(with).await;
        let _without = nginx(&mesh, "without", front, &proxy("")).await;
        let said = Call::new("h2load", ["--h1", "-n10", "-c1", &url]).text().await;
        assert!(said.contains("10 5xx"), "without a certificate: {said}");
    });
}
