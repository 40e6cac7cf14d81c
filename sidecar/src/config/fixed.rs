//! What is fixed for the life of a process: the keys that a reload must leave as they are.

use super::Fault;
use crate::model::{Settings, settings::Bootstrap};

/// One fault for every key that differs and cannot change while the sidecar runs; none if the rest of a configuration
/// may come into force.
#[must_use]
pub fn fixed_faults(before: &Settings, after: &Settings) -> Vec<Fault> {
    let has_other_memory = before.limits.memory != after.limits.memory;
    let (before, after) = (&before.bootstrap, &after.bootstrap);
    // Every field, so that a new one cannot be forgotten.
    let Bootstrap {
        service,
        trust_domain,
        workers,
        has_auto_workers,
        state_dir,
        identity,
        tls,
        admin,
        intercept,
        controller,
    } = before;
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
        ("intercept", differs(intercept, &after.intercept)),
        ("controller", differs(controller, &after.controller)),
        ("limits.memory", has_other_memory),
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::model::fixture;

    #[test]
    fn each_fixed_key_that_changed_is_named() {
        let before = fixture::config(&[]);
        let mut after = before.clone();
        after.bootstrap.service = "users".to_owned();
        after.bootstrap.admin.listen = Some(([127, 0, 0, 1], 1).into());
        let keys: Vec<_> = fixed_faults(&before, &after).into_iter().map(|fault| fault.path).collect();
        assert_eq!(keys, ["service", "admin.listen"]);
        assert!(fixed_faults(&before, &before).is_empty());
    }

    #[test]
    fn auto_stays_auto_where_the_number_of_cores_has_changed() {
        let workers = |workers, has_auto_workers| {
            let mut settings = fixture::config(&[]);
            settings.bootstrap.workers = NonZeroUsize::new(workers).unwrap();
            settings.bootstrap.has_auto_workers = has_auto_workers;
            settings
        };
        assert!(fixed_faults(&workers(2, true), &workers(8, true)).is_empty());
        assert_eq!(fixed_faults(&workers(2, true), &workers(2, false)).len(), 1);
        assert_eq!(fixed_faults(&workers(2, false), &workers(3, false)).len(), 1);
    }
}
