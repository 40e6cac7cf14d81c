//! Bodies: of every size, streamed both ways, however slowly they are read.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};

use super::{PAIRS, Pair};
use crate::harness::{
    Client, HttpApp, body,
    client::{field, request},
    eventually, soon,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Sends a body up with known or unknown length and reads it back as it comes.
async fn echo(client: &mut Client, size: u64, is_sized: bool) {
    let up = if is_sized { body::sized(size) } else { body::streamed(size, None) };
    let response = client.send(request(Method::POST, "/echo", up)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (count, _trailers) = body::check(response.into_body()).await.unwrap();
    assert_eq!(count, size);
}

#[tokio::test]
async fn bodies_of_every_size_pass_whole_in_every_pair_of_versions() {
    for (calling, called) in PAIRS {
        let pair = Pair::speaking(HttpApp::echo().await, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        for size in [0, 1, 64 * KIB + 1, MIB] {
            for is_sized in [true, false] {
                soon(&format!("{size} bytes, {calling:?} to {called:?}"), echo(&mut client, size, is_sized))
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn sixty_four_mib_stream_up_and_down_in_both_versions() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let pair = Pair::speaking(HttpApp::echo().await, version).await;
        let mut client = Client::connect(pair.web.address(), version).await;
        echo(&mut client, 64 * MIB, false).await;
        echo(&mut client, 64 * MIB, true).await;
    }
}

#[tokio::test]
async fn an_answer_streams_while_its_request_still_does() {
    for (calling, called) in PAIRS {
        let pair = Pair::speaking(HttpApp::echo().await, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let (up, body) = body::channel();
        let response = soon("the head comes before the request has ended", async {
            client.send(request(Method::POST, "/echo", body)).await.unwrap()
        })
        .await;
        let mut down = response.into_body();
        for word in ["one", "two", "three"] {
            up.send(Ok(Frame::data(Bytes::from(word)))).await.unwrap();
            let echoed = soon("each word comes back before the next is sent", down.frame()).await;
            assert_eq!(echoed.unwrap().unwrap().into_data().unwrap(), word);
        }
        drop(up);
        let rest = soon("the echo ends", down.collect()).await.unwrap();
        assert!(rest.to_bytes().is_empty(), "{calling:?} to {called:?}");
    }
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_request_never_ends() {
    for (calling, called) in PAIRS {
        let refuse = async |_request: Request<Incoming>| {
            let mut response = Response::new(body::full("too much"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            Ok(response)
        };
        let pair = Pair::speaking(HttpApp::start(refuse).await, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let (up, body) = body::channel();
        up.send(Ok(Frame::data(Bytes::from_static(b"the first of many")))).await.unwrap();
        let claim = format!("the answer comes, {calling:?} to {called:?}");
        let response = soon(&claim, client.send(request(Method::POST, "/upload", body))).await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(soon("the body ends", body::text(response.into_body())).await, "too much");
    }
}

#[tokio::test]
async fn a_slow_reader_of_an_answer_gets_it_whole_and_holds_the_sender_back() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let app = HttpApp::start(async |_request| Ok(Response::new(body::sized(16 * MIB)))).await;
        let pair = Pair::speaking(app, version).await;
        let mut client = Client::connect(pair.web.address(), version).await;
        let mut down = client.get("/slow").await.unwrap().into_body();
        let mut checker = body::Checker::default();
        // A little, and another request on another connection in between: it must not wait for the slow one.
        for _ in 0..8 {
            let frame = soon("some bytes", down.frame()).await.unwrap().unwrap();
            checker.take(&frame.into_data().unwrap());
            let mut other = Client::connect(pair.web.address(), version).await;
            let answer = soon("another answer", other.get("/other")).await.unwrap();
            assert_eq!(soon("another body", body::check(answer.into_body())).await.unwrap().0, 16 * MIB);
        }
        while let Some(frame) = soon("the rest", down.frame()).await {
            checker.take(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(checker.count, 16 * MIB);
    }
}

#[tokio::test]
async fn many_slow_readers_of_one_connection_between_sidecars_hold_up_nobody() {
    let app = HttpApp::start(async |request: Request<Incoming>| {
        Ok(Response::new(if request.uri().path() == "/slow" {
            body::sized(64 * MIB)
        } else {
            body::full("quick")
        }))
    })
    .await;
    let pair = Pair::speaking(app, Version::HTTP_11).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut client = Client::http1(pair.web.address()).await;
        let answer = soon("a head", client.get("/slow")).await.unwrap();
        slow.push((client, answer));
    }
    // Their windows fill up meanwhile: a hundred answers, one after the other.
    for _ in 0..100 {
        let mut client = Client::http1(pair.web.address()).await;
        let answer = soon("another answer", client.get("/")).await.unwrap();
        assert_eq!(soon("its body", body::text(answer.into_body())).await, "quick");
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_request_holds_the_calling_app_back() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (go, gate) = tokio::sync::watch::channel(false);
        let app = HttpApp::start(move |request: Request<Incoming>| {
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|is_open| *is_open).await?;
                let (count, _trailers) = body::check(request.into_body()).await?;
                Ok(Response::new(body::full(count.to_string())))
            }
        })
        .await;
        let pair = Pair::speaking(app, version).await;
        let mut client = Client::connect(pair.web.address(), version).await;
        let (up, body) = body::channel();
        let sending = tokio::spawn(async move { client.send(request(Method::POST, "/slow", body)).await });
        // Windows, buffers and sockets on the way take some; then the calling app must wait.
        let chunk = Bytes::from(vec![0; 251 * 1024]);
        let mut sent = 0_u64;
        while let Ok(taken) = tokio::time::timeout(Duration::from_millis(500), up.reserve()).await {
            let mut bytes = body::pattern(251 * 1024);
            bytes.truncate(chunk.len());
            taken.unwrap().send(Ok(Frame::data(bytes.into())));
            sent += chunk.len() as u64;
            assert!(sent < 256 * MIB, "nobody holds the calling app back");
        }
        go.send(true).unwrap();
        drop(up);
        let response = soon("the answer", sending).await.unwrap().unwrap();
        assert_eq!(body::text(response.into_body()).await, sent.to_string());
    }
}

#[tokio::test]
async fn the_content_length_is_kept_and_an_unknown_length_stays_unknown() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |request: Request<Incoming>| {
            let is_sized = request.uri().path() == "/sized";
            body::check(request.into_body()).await?;
            Ok(Response::new(if is_sized { body::sized(1000) } else { body::streamed(1000, None) }))
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let sized = client.send(request(Method::POST, "/sized", body::sized(1000))).await.unwrap();
        assert_eq!(field(&sized, "content-length"), Some("1000"), "{calling:?} to {called:?}");
        assert_eq!(body::check(sized.into_body()).await.unwrap().0, 1000);
        let streamed =
            client.send(request(Method::POST, "/streamed", body::streamed(1000, None))).await.unwrap();
        assert_eq!(field(&streamed, "content-length"), None, "{calling:?} to {called:?}");
        assert_eq!(streamed.body().size_hint().exact(), None);
        assert_eq!(body::check(streamed.into_body()).await.unwrap().0, 1000);
        let seen = pair.app.seen();
        assert_eq!(seen[0].header("content-length"), Some("1000"));
        assert_eq!(seen[1].header("content-length"), None);
    }
}

#[tokio::test]
async fn trailers_pass_both_ways_in_every_pair_of_versions() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |request: Request<Incoming>| {
            let (count, trailers) = body::check(request.into_body()).await?;
            let mut back = HeaderMap::new();
            back.insert("x-count", HeaderValue::from(count));
            let up = trailers.and_then(|trailers| trailers.get("x-sum").cloned());
            back.insert("x-up", up.unwrap_or_else(|| HeaderValue::from_static("none")));
            Ok(Response::builder().header("trailer", "x-count, x-up").body(body::streamed(10, Some(back)))?)
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let sum = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("42"))]);
        let mut request = request(Method::POST, "/trailers", body::streamed(5, Some(sum)));
        // RFC 9110 §6.5.1: a recipient of HTTP/1.1 trailers says so; §6.6.2: a sender announces them.
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        let response = client.send(request).await.unwrap();
        let (count, trailers) = body::check(response.into_body()).await.unwrap();
        let trailers = trailers.unwrap_or_else(|| panic!("no trailers, {calling:?} to {called:?}"));
        assert_eq!(count, 10);
        assert_eq!(trailers.get("x-count").unwrap(), "5", "{calling:?} to {called:?}");
        assert_eq!(trailers.get("x-up").unwrap(), "42", "{calling:?} to {called:?}");
    }
}

#[tokio::test]
async fn an_app_that_breaks_off_its_answer_is_never_taken_for_one_that_ended_it() {
    for (calling, called) in PAIRS {
        let app = HttpApp::start(async |_request| {
            let (down, body) = body::channel();
            tokio::spawn(async move {
                down.send(Ok(Frame::data(body::pattern(1000).into()))).await.unwrap();
                drop(down.send(Err("the app crashed".into())).await);
            });
            Ok(Response::new(body))
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let broken = match client.get("/broken").await {
            Ok(response) => soon("the body ends", body::check(response.into_body())).await.is_err(),
            Err(_before_its_head) => true,
        };
        assert!(broken, "{calling:?} to {called:?}");
    }
}

#[tokio::test]
async fn what_an_app_says_by_resetting_its_answer_is_heard() {
    let app = HttpApp::start(async |_request| {
        let (down, body) = body::channel();
        tokio::spawn(async move {
            down.send(Ok(Frame::data(body::pattern(1000).into()))).await.unwrap();
            drop(down.send(Err(h2::Error::from(h2::Reason::ENHANCE_YOUR_CALM).into())).await);
        });
        Ok(Response::new(body))
    })
    .await;
    let pair = Pair::speaking(app, Version::HTTP_2).await;
    let mut client = Client::http2(pair.web.address()).await;
    let mut down = soon("a head", client.get("/")).await.unwrap().into_body();
    let error = loop {
        match soon("some bytes or the reset", down.frame()).await.expect("no ordinary end") {
            Ok(_bytes) => {}
            Err(error) => break error,
        }
    };
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    assert_eq!(cause.and_then(h2::Error::reason), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn a_calling_app_that_goes_away_ends_its_request_at_the_called_app() {
    for (calling, called) in PAIRS {
        let (ended, ends) = tokio::sync::watch::channel(false);
        let app = HttpApp::start(move |request: Request<Incoming>| {
            let ended = ended.clone();
            async move {
                let outcome = body::check(request.into_body()).await;
                assert!(outcome.is_err(), "the app took a broken request for a whole one");
                ended.send_replace(true);
                Err("nobody is there".into())
            }
        })
        .await;
        let pair = Pair::speaking(app, called).await;
        let mut client = Client::connect(pair.web.address(), calling).await;
        let (up, body) = body::channel();
        let sending = tokio::spawn(async move { client.send(request(Method::POST, "/", body)).await });
        up.send(Ok(Frame::data(body::pattern(1000).into()))).await.unwrap();
        eventually("the app has the request", || pair.app.count() == 1).await;
        // The whole app goes: its body breaks off, and its connection with it.
        drop(up.send(Err("the calling app crashed".into())).await);
        drop(sending.await);
        let claim = format!("the called app hears of it, {calling:?} to {called:?}");
        eventually(&claim, || *ends.borrow()).await;
    }
}

/// No room for so long: every window on the way is full.
const FULL_AFTER: Duration = Duration::from_millis(500);

#[tokio::test]
async fn a_caller_that_goes_away_is_heard_of_although_nobody_reads_its_request() {
    let (ended, ends) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |request: Request<Incoming>| {
        let ended = ended.clone();
        async move {
            let (down, body) = body::channel();
            tokio::spawn(async move {
                // Its windows fill, and no room comes again.
                let _unread = request.into_body();
                down.closed().await;
                ended.send_replace(true);
            });
            Ok(Response::new(body))
        }
    })
    .await;
    let pair = Pair::speaking(app, Version::HTTP_2).await;
    let stream = tokio::net::TcpStream::connect(pair.web.address()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let call = Request::post("http://orders/").body(()).unwrap();
    let (head, mut up) = sender.send_request(call, false).unwrap();
    let _answer = soon("the head", head).await.unwrap();
    loop {
        up.reserve_capacity(64 << 10);
        let room = std::future::poll_fn(|cx| up.poll_capacity(cx));
        let Ok(room) = tokio::time::timeout(FULL_AFTER, room).await else { break };
        let room = room.unwrap().unwrap();
        up.send_data(body::pattern(room).into(), false).unwrap();
    }
    up.send_reset(h2::Reason::CANCEL);
    eventually("the called app hears of it", || *ends.borrow()).await;
    driving.abort();
}
