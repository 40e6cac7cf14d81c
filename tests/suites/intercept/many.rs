//! Many short connections.

use super::pods::{Pods, State, pod, until};

/// Connections of each of the two kinds that are opened at a time, and in all.
const AT_A_TIME: usize = 4;
const EACH: usize = 1250;

/// Sockets that may stay open between two sidecars and their apps: pools.
const KEPT: usize = 64;

#[test]
fn ten_thousand_short_connections_leave_no_sockets_behind() {
    let Some(pods) = Pods::start(&[pod("web"), pod("users").ports(&[80, 25])]) else { return };
    let _servers = [pods.service("users", 80), pods.greeter("users", 25)];
    let before = ["web", "users"].map(|name| pods.descriptors(name));
    // No program is started for each: bash connects by itself.
    let request =
        r"printf 'GET / HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n' >&3; read -r line <&3";
    let talk = r"echo hello >&3; read -r line <&3; read -r line <&3";
    let loops: Vec<_> = [(80, request, "HTTP/1.1 200 OK\r"), (25, talk, "hello")]
        .iter()
        .map(|(port, exchange, answer)| {
            format!(
                "for ((i = 0; i < {EACH}; i++)); do exec 3<>/dev/tcp/users/{port}; {exchange}; exec 3>&-; \
                 [[ $line == $'{}' ]] || exit 1; done",
                answer.replace('\r', "\\r")
            )
        })
        .collect();
    std::thread::scope(|scope| {
        for each in loops.iter().cycle().take(2 * AT_A_TIME) {
            scope.spawn(|| {
                let output = pods.exec("web", ["bash", "-c", each]);
                assert!(output.status.success(), "{output:?}");
            });
        }
    });
    for (name, before) in ["web", "users"].into_iter().zip(before) {
        until(&format!("{name} has no sockets left over"), || {
            let sockets = pods.sockets(name);
            let count = |state| sockets.iter().filter(|socket| socket.state == state).count();
            count(State::HalfClosed) == 0 && count(State::Established) < KEPT
        });
        let now = pods.descriptors(name);
        assert!(now < before + KEPT, "{name} had {before} descriptors and has {now}");
    }
}
