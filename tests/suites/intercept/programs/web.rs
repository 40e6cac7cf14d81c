//! HTTP in all its forms, and TLS of an app's own.

use serde_json::Value;

use super::{DATA, Scene, any, hosts, in_url, services};

/// Text in a file that a server has.
const PAGE: &str = "a page of words\n";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn curl_and_a_server_of_http1_are_served_as_http_and_reuse_their_connections() {
    let Some(scene) = Scene::set(&["curl", "python3"]) else { return };
    let (_server, port) = scene.app("http");
    scene.found_to_be(&["http1 client"], || {
        for host in hosts(0) {
            let url = format!("http://{}:{port}", in_url(&host));
            let method = |method: &str| {
                let said =
                    scene.text(&["curl", "-sS", "--max-time", "20", "-X", method, "-d", "some words", &url]);
                let said = json(&said);
                assert_eq!((&said["pod"], &said["method"]), (&DATA.into(), &method.into()), "{host}");
                assert!(said["fields"]["x-request-id"].is_string(), "{host}: {said}");
            };
            // One that nobody has heard of is HTTP all the same.
            ["POST", "DELETE", "BREW"].into_iter().for_each(method);
            // curl keeps its own connection as well.
            let urls: Vec<_> = (0..20).map(|number| format!("{url}/{number}")).collect();
            let command =
                ["curl", "-sS", "--max-time", "20"].into_iter().chain(urls.iter().map(String::as_str));
            let said = scene.text(&command.collect::<Vec<_>>());
            let last = json(said.lines().last().unwrap());
            assert!(last["connections"].as_u64().unwrap() <= 8, "{host}: {last}");
            scene.client("keeps_alive", &host, port);
        }
    });
}

#[test]
fn http2_with_prior_knowledge_is_told_by_its_preface() {
    let Some(scene) = Scene::set(&["curl", "nghttpd"]) else { return };
    let port = scene.port();
    scene.pods().place(DATA, "page", PAGE);
    let _server = scene.server(port, ["nghttpd", "--no-tls", "-a", "*", "-d", "/run/app", &port.to_string()]);
    scene.found_to_be(&["http2 client"], || {
        for host in hosts(0) {
            let url = format!("http://{}:{port}/page", in_url(&host));
            let ask = [
                "curl",
                "-sS",
                "--max-time",
                "20",
                "--http2-prior-knowledge",
                "-w",
                "%{http_code} %{http_version}",
            ];
            assert_eq!(scene.text(&[&ask[..], &[&url]].concat()), format!("{PAGE}200 2"), "{host}");
        }
    });
}

#[test]
fn grpc_calls_of_every_kind_arrive_with_their_errors() {
    let Some(scene) = Scene::set(&["python:grpc"]) else { return };
    let (_server, port) = scene.script_server("grpc_app.py", any());
    scene.found_to_be(&["http2 client"], || {
        for host in services() {
            let family = if host.contains(':') { "ipv6" } else { "ipv4" };
            let target = format!("{family}:{}:{port}", in_url(&host));
            for claim in ["kinds", "aborts"] {
                assert_eq!(
                    scene.script("grpc_client.py", &[&target, claim]),
                    "as claimed\n",
                    "{claim} at {host}"
                );
            }
        }
    });
}

#[test]
fn websockets_begin_as_http_and_go_on_both_ways() {
    let Some(scene) = Scene::set(&["python:websockets", "node", "node:ws"]) else { return };
    let (_server, port) = scene.script_server("ws_app.js", any().trim_matches(['[', ']']));
    scene.found_to_be(&["http1 client"], || {
        for (host, client) in services().into_iter().zip(["ws_client.py", "ws_client.js"]) {
            let said = scene.script(client, &[&format!("{}:{port}", in_url(&host))]);
            assert_eq!(said, "as claimed\n", "{client} at {host}");
        }
    });
}

#[test]
fn an_apps_own_tls_reaches_its_own_server_inside_of_the_meshs() {
    let Some(scene) = Scene::set(&["curl", "nginx", "openssl", "python3"]) else { return };
    let port = scene.port();
    let names = hosts(0).into_iter().map(|host| format!(",IP:{host}")).collect::<String>();
    let certify = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem \
                   -subj /CN=data -days 2 -addext subjectAltName=DNS:data$1 2>/dev/null; cat cert.pem";
    let certificate = scene.pods().text(DATA, ["sh", "-euc", certify, "sh", &names]);
    scene.pods().place(scene.caller, "cert.pem", &certificate);
    let listen = hosts(0)
        .into_iter()
        .filter(|host| host.contains(':'))
        .take(1)
        .map(|_| format!("listen [::]:{port} ssl;"));
    let config = format!(
        "daemon off; pid nginx.pid; events {{}} http {{ access_log off; client_body_temp_path t1; proxy_temp_path t2; \
         fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; server {{ listen {port} ssl; {} \
         ssl_certificate cert.pem; ssl_certificate_key key.pem; location / {{ return 200 \"{PAGE}\"; }} }} }}",
        listen.collect::<String>()
    );
    scene.pods().place(DATA, "nginx.conf", &config);
    let _server = scene.server(port, "nginx -p /run/app -c nginx.conf -e stderr".split(' '));
    scene.found_to_be(&["tls client"], || {
        for host in hosts(0) {
            let url = format!("https://{}:{port}/", in_url(&host));
            let said = scene.text(&["curl", "-sS", "--max-time", "20", "--cacert", "cert.pem", &url]);
            assert_eq!(said, PAGE, "{host}");
            // It is this certificate that makes it so.
            let refused = scene.pods().exec(scene.caller, ["curl", "-sS", "--max-time", "20", &url]);
            assert_eq!(refused.status.code(), Some(60), "{host}: {refused:?}");
            scene.client("hello_by_bytes", &host, port);
        }
    });
}
