//! What is slow, long or late is told apart all the same.

use super::{Scene, hosts, services};

/// Does it with each host, all at the same time: most of it is waiting.
fn at_once(hosts: Vec<String>, call: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for host in &hosts {
            scope.spawn(|| call(host));
        }
    });
}

#[test]
fn a_request_line_that_comes_byte_by_byte_is_http() {
    let Some(scene) = Scene::set(&["python3"]) else { return };
    let (_server, port) = scene.app("http");
    scene.found_to_be(&["http1 client"], || {
        at_once(services(), |host| scene.client("slow_request_line", host, port));
    });
}

#[test]
fn long_heads_are_http_and_too_long_ones_are_refused_as_http() {
    let Some(scene) = Scene::set(&["python3"]) else { return };
    let (_server, port) = scene.app("http");
    scene.found_to_be(&["http1 client"], || {
        for host in hosts(0) {
            scene.client("long_heads", &host, port);
        }
    });
}

#[test]
fn a_client_that_asks_after_three_seconds_of_silence_is_http_and_leaves_nothing_at_the_app() {
    let Some(scene) = Scene::set(&["python3"]) else { return };
    scene.found_to_be(&["http1 client"], || {
        at_once(services(), |host| {
            // One of its own, because it counts its connections.
            let (_server, port) = scene.app("http");
            scene.client("waits_then_asks", host, port);
        });
    });
}

#[test]
fn a_server_that_speaks_first_may_take_three_seconds() {
    let Some(scene) = Scene::set(&["python3"]) else { return };
    let (_server, port) = scene.app("late");
    scene.found_to_be(&["opaque server"], || {
        at_once(services(), |host| scene.client("late", host, port));
    });
}
