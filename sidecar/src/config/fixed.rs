//! What is fixed for the life of a process: the keys that a reload must leave as they are.

use super::Fault;
use crate::model::settings::Bootstrap;

/// One fault for every key that differs and cannot change while the sidecar runs; none if the rest of a configuration
/// may come into force.
#[must_use]
pub fn fixed_faults(before: &Bootstrap, after: &Bootstrap) -> Vec<Fault> {
    // Every field, so that a new one cannot be forgotten.
    let Bootstrap { service, trust_domain, workers, has_auto_workers, state_dir, identity, tls, admin } =
        before;
    // `auto` stays the same where the number of cores has changed meanwhile.
    let count = |is_auto, workers| if is_auto { None } else { Some(workers) };
    let changes = [
        ("service", differs(service, &after.service)),
        ("trust_domain", differs(trust_domain, &after.trust_domain)),
        (
            "workers",
            differs(&count(*has_auto_workers, workers), &count(after.has_auto_workers, &after.workers)),
        ),
        ("state_dir", differs(state_dir, &after.state_dir)),
        ("identity", differs(identity, &after.identity)),
        ("tls", differs(tls, &after.tls)),
        ("admin.socket", differs(&admin.socket, &after.admin.socket)),
        ("admin.listen", differs(&admin.listen, &after.admin.listen)),
    ];
    changes.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| fault(key)).collect()
}

fn differs<T: PartialEq>(before: &T, after: &T) -> bool {
    before != after
}

fn fault(key: &str) -> Fault {
    Fault {
        path: key.to_owned(),
        line: None,
        problem: "cannot change while the sidecar runs".to_owned(),
        remedy: "put it back, or start a second process with this file: it takes over, then stop this one"
            .to_owned(),
    }
}
