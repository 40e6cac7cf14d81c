//! What belongs together stays together, through the whole mesh.

use std::{collections::BTreeSet, net::SocketAddr};

use http::{HeaderMap, Method, Version, header::SET_COOKIE};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{NAMES, Replicas, config, who, who_over};
use crate::harness::{Client, Sidecar, TcpApp, TestMesh, app::nobody, ca::id, soon};

const BY_USER: &str = "balance: maglev, affinity: {by: header, name: X-User}, retry: {budget_min_per_second: 1000, backoff_base: 1ms}";
const BY_COOKIE: &str = "balance: maglev, affinity: {by: cookie, name: stick}, retry: {budget_min_per_second: 1000, backoff_base: 1ms}";

/// The cookie that an answer sets, as a request has it.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let mut set = headers.get_all(SET_COOKIE).iter();
    let value = set.next()?.to_str().unwrap();
    assert!(set.next().is_none(), "one cookie");
    let (pair, attributes) = value.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly");
    Some(pair.to_owned())
}

#[tokio::test]
async fn requests_with_one_header_go_to_one_endpoint_whichever_sidecar_sends_them() {
    let replicas = Replicas::start(3).await;
    let (one, other) = (replicas.caller("", BY_USER).await, replicas.caller("workers: 2", BY_USER).await);
    let mut used = BTreeSet::new();
    for user in 0..30 {
        let user = format!("user-{user}");
        let fields = [("x-user", user.as_str())];
        let (first, headers) = who(one.address(), &fields).await;
        assert!(cookie(&headers).is_none());
        for sidecar in [&one, &other, &one, &other] {
            for version in [Version::HTTP_11, Version::HTTP_2] {
                let mut client = Client::connect(sidecar.address(), version).await;
                assert_eq!(who_over(&mut client, Method::POST, &fields).await.0, first, "{user}");
            }
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 3, "all are used");
}

#[tokio::test]
async fn requests_without_the_header_are_spread() {
    let replicas = Replicas::start(3).await;
    let web = replicas.caller("", BY_USER).await;
    for _ in 0..60 {
        who(web.address(), &[]).await;
    }
    assert!(replicas.counts().iter().all(|count| (5..40).contains(count)), "{:?}", replicas.counts());
}

#[tokio::test]
async fn a_cookie_is_issued_once_and_followed_by_every_sidecar_and_after_a_restart() {
    let replicas = Replicas::start(3).await;
    let web = replicas.caller("", BY_COOKIE).await;
    let (mut issued, mut used) = (Vec::new(), BTreeSet::new());
    // Who is chosen is chance: that one of three is left out so often has a probability of 1e-34.
    for _ in 0..200 {
        let (first, headers) = who(web.address(), &[]).await;
        let cookie = cookie(&headers).expect("a cookie");
        assert!(!cookie.contains("127") && cookie.len() == "stick=".len() + 16, "{cookie}");
        used.insert(first.clone());
        issued.push((first, cookie));
        if issued.len() >= 12 && used.len() == 3 {
            break;
        }
    }
    assert_eq!(used.len(), 3, "all are used");
    let again = replicas.caller("workers: 2", BY_COOKIE).await;
    drop(web);
    let restarted = replicas.caller("", BY_COOKIE).await;
    for (first, cookie) in &issued {
        for sidecar in [&again, &restarted] {
            let fields = [("cookie", "theme=dark"), ("cookie", cookie.as_str())];
            let mut client = Client::http2(sidecar.address()).await;
            let (name, headers) = who_over(&mut client, Method::GET, &fields).await;
            assert_eq!(&name, first);
            assert!(self::cookie(&headers).is_none(), "it has one");
        }
    }
}

#[tokio::test]
async fn a_cookie_leads_to_who_answered_even_if_another_was_asked_first() {
    let replicas = Replicas::start(2).await;
    let endpoints: Vec<SocketAddr> = [nobody()].into_iter().chain(replicas.addresses()).collect();
    let yaml = config("", endpoints.into_iter().map(|address| (address, "")), BY_COOKIE);
    let web = replicas.mesh.start("web", &yaml).await;
    for _ in 0..20 {
        let (first, headers) = who(web.address(), &[]).await;
        let cookie = cookie(&headers).expect("a cookie");
        assert_eq!(who(web.address(), &[("cookie", &cookie)]).await.0, first);
    }
    assert!(web.retries() > 0, "nobody was never asked");
}

#[tokio::test]
async fn what_belonged_to_one_that_is_down_stays_together_elsewhere() {
    let replicas = Replicas::start(3).await;
    let all = replicas.caller("", BY_USER).await;
    let mut endpoints = replicas.addresses();
    endpoints[1] = nobody();
    let users: Vec<String> = (0..60).map(|user| format!("user-{user}")).collect();
    // As many of them as there are, of those that led to the one that will be down.
    let mut of_second = Vec::new();
    for user in &users {
        if who(all.address(), &[("x-user", user)]).await.0 == NAMES[1] {
            of_second.push(user);
        }
    }
    assert!(of_second.len() > 3);
    drop(all);
    // The same addresses, of which one answers no more.
    let Replicas { mesh, apps: _apps, mut sidecars } = replicas;
    let addresses: Vec<_> = sidecars.iter().map(Sidecar::address).collect();
    drop(sidecars.remove(1));
    let yaml = config("", addresses.into_iter().map(|address| (address, "")), BY_USER);
    let web = mesh.start("web", &yaml).await;
    for user in of_second {
        let (first, _) = who(web.address(), &[("x-user", user)]).await;
        assert_ne!(first, NAMES[1]);
        for _ in 0..3 {
            assert_eq!(who(web.address(), &[("x-user", user)]).await.0, first, "{user}");
        }
    }
    assert!(web.retries() > 0);
}

#[tokio::test]
async fn an_app_that_sets_the_cookie_itself_is_left_alone() {
    use http::{HeaderValue, Request, Response};
    use hyper::body::Incoming;

    use crate::harness::{HttpApp, body};
    let mesh = TestMesh::new();
    let app = HttpApp::start(async |_request: Request<Incoming>| {
        let mut response = Response::new(body::full("ok"));
        response.headers_mut().append(SET_COOKIE, HeaderValue::from_static("stick=mine; Path=/; HttpOnly"));
        Ok(response)
    })
    .await;
    let sidecars =
        [mesh.callee("orders", app.address(), "").await, mesh.callee("orders", app.address(), "").await];
    let endpoints = sidecars.iter().map(|sidecar| (sidecar.address(), ""));
    let web = mesh.start("web", &config("", endpoints, BY_COOKIE)).await;
    let (_, headers) = who(web.address(), &[]).await;
    assert_eq!(cookie(&headers).as_deref(), Some("stick=mine"));
}

#[tokio::test]
async fn callers_of_one_address_go_to_one_endpoint() {
    let replicas = Replicas::start(4).await;
    let web = replicas.caller("", "balance: maglev, affinity: {by: source}").await;
    let mut used = BTreeSet::new();
    for last in 1..=24 {
        let mut first = None;
        for _ in 0..3 {
            let stream = from([127, 0, 1, last], web.address()).await;
            let mut client = Client::over(stream, Version::HTTP_11).await;
            let (name, _) = who_over(&mut client, Method::GET, &[]).await;
            assert_eq!(first.get_or_insert_with(|| name.clone()), &name);
        }
        used.extend(first);
    }
    assert_eq!(used.len(), 4, "{used:?}");
}

#[tokio::test]
async fn what_one_service_sends_goes_to_one_endpoint() {
    let replicas = Replicas::start(4).await;
    let keys = "balance: maglev, affinity: {by: spiffe_id}";
    let mut firsts = BTreeSet::new();
    for service in ["web", "shop", "cart", "mail", "bill", "news", "jobs", "logs"] {
        let endpoints = || replicas.addresses().into_iter().map(|address| (address, ""));
        let one = replicas.mesh.start(service, &config("", endpoints(), keys)).await;
        let other = replicas.mesh.start(service, &config("", endpoints(), keys)).await;
        let (first, _) = who(one.address(), &[]).await;
        for sidecar in [&one, &other, &one, &other] {
            assert_eq!(who(sidecar.address(), &[]).await.0, first, "{service}");
        }
        firsts.insert(first);
    }
    assert!(firsts.len() > 1, "not all to {firsts:?}");
}

/// A connection from that address.
async fn from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    soon("the sidecar accepts", socket.connect(to)).await.unwrap()
}

#[tokio::test]
async fn opaque_streams_of_one_address_go_to_one_endpoint() {
    let mesh = TestMesh::new();
    let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
    for name in NAMES {
        let app = TcpApp::start(async move |mut stream: TcpStream| {
            drop(stream.write_all(name.as_bytes()).await);
        })
        .await;
        sidecars.push(mesh.callee("orders", app.address(), "protocol: tcp").await);
        apps.push(app);
    }
    let endpoints: Vec<_> =
        sidecars.iter().map(|sidecar| format!("{{address: '{}'}}", sidecar.address())).collect();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints: [{}], balance: maglev, affinity: {{by: source}}}}]",
        id("orders"),
        endpoints.join(", "),
    );
    let web = mesh.start("web", &yaml).await;
    let mut used = BTreeSet::new();
    for last in 1..=24 {
        let mut first = None;
        for _ in 0..3 {
            let (mut stream, mut text) = (from([127, 0, 1, last], web.address()).await, String::new());
            soon("the app's name", stream.read_to_string(&mut text)).await.unwrap();
            assert_eq!(first.get_or_insert_with(|| text.clone()), &text);
        }
        used.extend(first);
    }
    assert_eq!(used.len(), 4, "{used:?}");
}
