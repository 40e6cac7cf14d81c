//! Streams end as they were ended.

use super::{Scene, hosts, services};

#[test]
fn the_end_of_what_is_sent_is_heard_before_the_answer_comes() {
    let Some(scene) = Scene::set(&["nc", "python3"]) else { return };
    let (_server, port) = scene.app("count");
    // A connection that says nothing before it ends is told by that.
    scene.found_to_be(&["opaque client", "opaque silent_end"], || {
        for host in hosts(0) {
            scene.client("half_close", &host, port);
            let said = scene.shell("printf x | nc -N -w 20 $1 $2", &[&host, &port.to_string()]);
            assert_eq!(said, "1 bytes\n", "{host}");
        }
    });
}

#[test]
fn a_reset_by_the_server_arrives_as_a_reset() {
    let Some(scene) = Scene::set(&["python3"]) else { return };
    let (_server, port) = scene.app("reset");
    scene.found_to_be(&["opaque client"], || {
        for host in services() {
            scene.client("is_reset", &host, port);
        }
    });
}

#[test]
fn a_reset_by_the_client_arrives_as_a_reset_and_its_end_as_an_end() {
    let Some(scene) = Scene::set(&["python3"]) else { return };
    let (_server, port) = scene.app("ends");
    scene.found_to_be(&["opaque server"], || {
        for host in services() {
            scene.client("resets", &host, port);
        }
    });
}
