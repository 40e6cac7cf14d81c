//! What a sidecar needs for interception is looked for when it starts, and what is missing has a name.

use super::{
    namespace::{claim, has_users, sysctl},
    sidecars::{CALLED, Power, Sidecars, own},
};

/// Programs beside those that every claim takes.
const NEEDS: [&str; 2] = ["setpriv", "mount"];

#[test]
fn a_sidecar_without_the_capability_that_its_mode_takes_does_not_start() {
    claim(&NEEDS, async || {
        let sidecars = Sidecars::new();
        let by_mark = ("own: mark", ["intercept.own: mark", "SO_MARK", "set intercept.own: uid"]);
        let by_address = (
            "own: uid, uid: 4343, mode: tproxy",
            ["intercept.mode: tproxy", "IP_TRANSPARENT", "set intercept.mode: redirect"],
        );
        // Where there is but one user, that one is root, who cannot be told from others by the uid.
        for (keys, expected) in [by_mark].into_iter().chain(has_users().then_some(by_address)) {
            let folder = sidecars.prepare("lonely", CALLED, &format!("intercept: {{{keys}}}\n"));
            let refused = sidecars.refused(&folder);
            let said = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success());
            let words = expected.into_iter().chain(["CAP_NET_ADMIN"]);
            words.for_each(|word| assert!(said.contains(word), "no {word:?} in {said}"));
        }
    });
}

#[test]
fn a_sidecar_of_another_user_than_the_rules_leave_alone_does_not_start() {
    claim(&NEEDS, async || {
        let sidecars = Sidecars::new();
        let folder = sidecars.prepare("lonely", CALLED, "intercept: {own: uid, uid: 4344}\n");
        let refused = sidecars.refused(&folder);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("intercept.uid is 4344"), "{said}");
    });
}

#[test]
fn where_own_addresses_cannot_be_told_from_others_no_sidecar_starts() {
    claim(&NEEDS, async || {
        let sidecars = Sidecars::new();
        sysctl("net/ipv6/ip_nonlocal_bind", "1");
        let folder = sidecars.prepare("lonely", CALLED, &format!("intercept: {{{}}}\n", own()));
        let power = if has_users() { Power::None } else { Power::NetRaw };
        let mut sidecar = sidecars.start(&folder, power);
        let ended = sidecar.process.exited(crate::processes::DEADLINE).await;
        let said = sidecar.process.log();
        assert!(!ended.success() && said.contains("/proc/sys/net/ipv6/ip_nonlocal_bind is not 0"), "{said}");
    });
}
