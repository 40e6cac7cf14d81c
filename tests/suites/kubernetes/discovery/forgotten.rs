//! What nobody uses is asked after no more.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::harness::{TcpApp, eventually};

const BRIEF: &str = "wait: 60s, idle: 1s";

#[tokio::test]
async fn what_is_idle_is_forgotten_and_what_has_a_connection_is_not() {
    let (scene, mut stream) = Scene::new(BRIEF).await;
    let (app, echo) = (HttpApp::named("orders").await, TcpApp::echo().await);
    let held = "10.96.0.8:5432";
    let keys = r#""tls":"none","pool_idle_timeout":"100ms""#;
    let asking = async {
        let mut kept = scene.dial(held).await.unwrap();
        kept.write_all(b"\x01begun").await.unwrap();
        let mut heard = [0; 6];
        soon("an echo", kept.read_exact(&mut heard)).await.unwrap();
        is_from(&scene.ask(SERVICE).await, "orders");
        kept
    };
    let telling = async {
        assert_eq!(stream.asked().await, format!("want {held} 0/0"));
        stream.service("db", 1, &format!(r#""authorities":[],"addresses":["{held}"],{keys}"#)).await;
        stream.endpoints("db", 2, &[(echo.address(), "")]).await;
        stream.leads(held, "db").await;
        assert_eq!(stream.asked().await, format!("want {SERVICE} 0/0"));
        stream.service("orders", 1, &format!("{AT_SERVICE},{keys}")).await;
        stream.endpoints("orders", 2, &[(app.address(), "")]).await;
        stream.leads(SERVICE, "orders").await;
    };
    let (mut kept, ()) = tokio::join!(asking, telling);
    // The one that is not used goes, though the other was first.
    assert_eq!(stream.asked().await, format!("forget {SERVICE}"));
    eventually("its cluster is gone", || !scene.has_cluster("orders")).await;
    assert!(scene.has_cluster("db"));
    kept.write_all(b"goes on").await.unwrap();
    soon("an echo", kept.read_exact(&mut [0; 7])).await.unwrap();
    // It is asked after again when it is used again.
    let telling = async {
        assert_eq!(stream.asked().await, format!("want {SERVICE} 0/0"));
        stream.service("orders", 1, &format!("{AT_SERVICE},{keys}")).await;
        stream.endpoints("orders", 2, &[(app.address(), "")]).await;
        stream.leads(SERVICE, "orders").await;
    };
    let (answer, ()) = tokio::join!(scene.ask(SERVICE), telling);
    is_from(&answer, "orders");
    drop(kept);
    let mut gone = vec![stream.asked().await, stream.asked().await];
    gone.sort();
    assert_eq!(gone, [format!("forget {SERVICE}"), format!("forget {held}")]);
    assert!(scene.metric("outrider_controller_forgotten_total") >= 3.0);
}

#[tokio::test]
async fn what_leads_outside_is_forgotten_too() {
    let (scene, mut stream) = Scene::new(BRIEF).await;
    let outside = HttpApp::named("outside").await;
    let to = outside.address().to_string();
    for _ in 0..2 {
        let telling = async {
            assert_eq!(stream.asked().await, format!("want {to} 0/0"));
            stream.leads(&to, "").await;
        };
        let (answer, ()) = tokio::join!(scene.ask(&to), telling);
        is_from(&answer, "outside");
        assert_eq!(stream.asked().await, format!("forget {to}"));
        eventually("it is not known", || scene.metric("outrider_controller_outside") == 0.0).await;
    }
}
