//! What the facts mean, and what to do about them.

use std::time::{Duration, SystemTime};

use super::{Facts, Finding, PodFact, Seen, Trial, Webhook};
use crate::names::KUBERNETES_NAMESPACE;

/// The first minor version with native sidecars on by default.
const OLDEST_MINOR: u32 = 29;
/// Roots that end within this are told of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);
/// What is to be done about a root that ends; nothing makes another by itself.
const ANOTHER_ROOT: &str =
    "give outrider-ca another one by hand: docs/kubernetes-identity.md, \"Another root\"";
/// Pods that are named; more are counted.
const NAMED: usize = 5;

/// What `facts` mean to a program of this `version`, in the order in which things depend on each other.
#[must_use]
pub fn findings(facts: &Facts, version: &str) -> Vec<Finding> {
    let mut found = vec![of_version(facts.version)];
    found.extend(facts.unseen.iter().map(|unseen| {
        Finding::warning(format!("not seen: {unseen}"), "look again as somebody who may ask for it")
    }));
    if facts.is_bare {
        let remedy = "outrider-injector install | kubectl apply -f -";
        found.push(Finding::warning(format!("nothing is installed in {}", facts.namespace), remedy));
        return found;
    }
    found.extend(facts.parts.iter().map(|part| of_part(part, &facts.namespace, version)));
    found.extend(of_rights(facts));
    match &facts.roots {
        Seen::No => {}
        Seen::Absent => found.push(of_roots("the trust bundle", &[], facts.now)),
        Seen::There(roots) => found.push(of_roots("the trust bundle", roots, facts.now)),
    }
    found.extend(of_webhook(&facts.webhook, facts.now));
    found.extend(facts.trial.as_ref().map(|trial| of_trial(trial, &facts.namespace)));
    found.extend(of_pods(&facts.pods, version));
    found.extend(of_labels(facts));
    found
}

fn of_version(version: Option<(u32, u32)>) -> Finding {
    match version {
        Some((major, minor)) if (major, minor) >= (1, OLDEST_MINOR) => {
            Finding::fine(format!("Kubernetes {major}.{minor} has native sidecars"))
        }
        Some((major, minor)) => Finding::fault(
            format!("Kubernetes {major}.{minor} has no native sidecars"),
            format!(
                "upgrade to 1.{OLDEST_MINOR} or later: without them apps start before their sidecar, and Jobs never end"
            ),
        ),
        None => Finding::fault("the API server does not tell its version", "look at the error above"),
    }
}

fn of_part(part: &super::Part, namespace: &str, version: &str) -> Finding {
    let name = part.name;
    match part.replicas {
        None => Finding::fault(
            format!("{name}: there is no such Deployment in {namespace}"),
            "outrider-injector install | kubectl apply -f -",
        ),
        Some((wanted, 0)) => Finding::fault(
            format!("{name}: none of {wanted} replicas is available"),
            format!("kubectl -n {namespace} describe pods -l app.kubernetes.io/name={name}"),
        ),
        Some((wanted, available)) => match &part.version {
            Some(theirs) if theirs != version => Finding::warning(
                format!(
                    "{name}: {available} of {wanted} replicas, of version {theirs}; this program is {version}"
                ),
                "use the program of that version, or install this one's manifests",
            ),
            _ if available < wanted => Finding::warning(
                format!("{name}: {available} of {wanted} replicas are available"),
                format!("kubectl -n {namespace} describe pods -l app.kubernetes.io/name={name}"),
            ),
            _ => Finding::fine(format!("{name}: {available} of {wanted} replicas")),
        },
    }
}

fn of_rights(facts: &Facts) -> Vec<Finding> {
    let missing: Vec<_> = facts.rights.iter().filter(|right| !right.is_allowed).collect();
    if missing.is_empty() && !facts.rights.is_empty() {
        return vec![Finding::fine(format!(
            "all {} rights of the control plane are granted",
            facts.rights.len()
        ))];
    }
    let told = |right: &&super::Right| {
        let what = format!("{} may not {}", right.part, right.what);
        Finding::fault(what, "apply the Roles and bindings of `outrider-injector install` again")
    };
    missing.iter().map(told).collect()
}

fn of_roots(whose: &str, roots: &[SystemTime], now: Option<SystemTime>) -> Finding {
    let (Some(now), Some(last)) = (now, roots.iter().max()) else {
        return Finding::fault(
            format!("{whose} has no roots"),
            "see the log of outrider-ca, which writes them, and of outrider-controller, which copies them",
        );
    };
    match last.duration_since(now) {
        Err(_past) => Finding::fault(format!("all roots of {whose} have run out"), ANOTHER_ROOT),
        Ok(left) if left < SOON => Finding::warning(
            format!("the last root of {whose} runs out in {} days", left.as_secs() / 86_400),
            ANOTHER_ROOT,
        ),
        Ok(left) => Finding::fine(format!(
            "{} root(s) in {whose}, good for {} days",
            roots.len(),
            left.as_secs() / 86_400
        )),
    }
}

fn of_webhook(webhook: &Seen<Webhook>, now: Option<SystemTime>) -> Vec<Finding> {
    let webhook = match webhook {
        Seen::No => return Vec::new(),
        Seen::There(webhook) => webhook,
        Seen::Absent => {
            return vec![Finding::fault(
                "there is no MutatingWebhookConfiguration outrider-injector: no pod gets a sidecar",
                "outrider-injector install | kubectl apply -f -",
            )];
        }
    };
    let mut found = vec![of_roots("the webhook", &webhook.roots, now)];
    for entry in &webhook.without_roots {
        found.push(Finding::fault(
            format!("{entry} has no caBundle: the API server cannot believe the injector, and refuses pods"),
            "the injector writes it; see its log",
        ));
    }
    for entry in &webhook.lenient {
        found.push(Finding::fault(
            format!("{entry} does not fail: while the injector is away, pods come up outside of the mesh"),
            "set failurePolicy to Fail",
        ));
    }
    found
}

fn of_trial(trial: &Trial, namespace: &str) -> Finding {
    match trial {
        Trial::Injected => {
            Finding::fine("the API server reaches the webhook: a pod on trial got its sidecar")
        }
        Trial::NotInjected => Finding::fault(
            "a pod on trial with outrider.io/inject=enabled got no sidecar",
            "compare the MutatingWebhookConfiguration with `outrider-injector install`",
        ),
        Trial::Refused(why) => Finding::fault(
            format!("a pod on trial was refused: {why}"),
            format!("is the way from the API server to port 4380 of {namespace}/outrider-injector open?"),
        ),
        Trial::Barred(why) => Finding::warning(
            format!("a pod on trial got its sidecar, and was then refused by Pod Security: {why}"),
            "namespaces of the mesh need the level `privileged` (pod-security.kubernetes.io/enforce) or an exemption",
        ),
        Trial::Unknown(why) => Finding::warning(
            format!(
                "whether the API server reaches the webhook is not known: something else refused a pod on trial: {why}"
            ),
            "look at a pod of your own in a namespace of the mesh, or let pods outrider-check-… of dry runs pass there",
        ),
        Trial::Forbidden => Finding::warning(
            "whether the API server reaches the webhook is not known: you may not create pods, not even on trial",
            "look again as somebody who may",
        ),
    }
}

fn of_pods(pods: &[PodFact], version: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let named = |pods: &[&PodFact]| names(pods.iter().map(|pod| pod.name.as_str()));
    let outside: Vec<_> = pods.iter().filter(|pod| pod.version.is_none()).collect();
    if !outside.is_empty() {
        found.push(Finding::fault(
            format!("{} pod(s) should have a sidecar and have none: {}", outside.len(), named(&outside)),
            "they are older than the label: restart their workloads (kubectl rollout restart)",
        ));
    }
    let others: Vec<_> =
        pods.iter().filter(|pod| pod.version.as_deref().is_some_and(|theirs| theirs != version)).collect();
    if !others.is_empty() {
        found.push(Finding::warning(
            format!("{} pod(s) have a sidecar of another version: {}", others.len(), named(&others)),
            "they get this one's when their workloads are restarted",
        ));
    }
    let open: Vec<_> = pods.iter().filter(|pod| pod.has_exceptions).collect();
    if !open.is_empty() {
        found.push(Finding::warning(
            format!(
                "{} pod(s) let callers pass the sidecar, in plaintext, whom no policy judges: {}",
                open.len(),
                named(&open)
            ),
            "outrider.io/inbound-except-ports or -cidrs say so: see that a NetworkPolicy limits who gets there",
        ));
    }
    let inside = pods.iter().filter(|pod| pod.version.is_some()).count();
    if found.is_empty() {
        found.push(Finding::fine(format!("{inside} pod(s) in the mesh, none outside that should be in it")));
    }
    found
}

/// Labels that nobody goes by, so that their pods are outside of the mesh although somebody may think otherwise.
fn of_labels(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let named = |all: &[String]| names(all.iter().map(String::as_str));
    let odd = &facts.odd_labels;
    if !odd.is_empty() {
        found.push(Finding::fault(
            format!("{} label(s) outrider.io/inject say what nobody goes by: {}", odd.len(), named(odd)),
            "write enabled or disabled: such a namespace is outside of the mesh, and such a pod is refused when it is made",
        ));
    }
    let unheard = &facts.unheard_labels;
    if !unheard.is_empty() {
        let (count, namespace) = (unheard.len(), &facts.namespace);
        found.push(Finding::warning(
            format!("{count} label(s) ask for sidecars where no pod gets one: {}", named(unheard)),
            format!(
                "take them off: the pods of {namespace} and {KUBERNETES_NAMESPACE} start without the mesh"
            ),
        ));
    }
    found
}

/// The first few.
fn names<'a>(mut all: impl Iterator<Item = &'a str>) -> String {
    let mut named: Vec<&str> = all.by_ref().take(NAMED).collect();
    if all.next().is_some() {
        named.push("…");
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Part, Right, Severity};

    const DAY: Duration = Duration::from_secs(86_400);
    const OURS: &str = "1.2.3";

    fn well() -> Facts {
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let part = |name| Part { name, replicas: Some((2, 2)), version: Some(OURS.to_owned()) };
        Facts {
            now: Some(now),
            version: Some((1, 33)),
            namespace: "outrider".to_owned(),
            is_bare: false,
            parts: vec![part("outrider-ca"), part("outrider-controller"), part("outrider-injector")],
            rights: vec![Right {
                part: "outrider-ca".to_owned(),
                what: "create secrets".to_owned(),
                is_allowed: true,
            }],
            webhook: Seen::There(hook(now, |_| {})),
            trial: Some(Trial::Injected),
            roots: Seen::There(vec![now + DAY * 100]),
            pods: vec![pod("shop/a", Some(OURS))],
            ..Facts::default()
        }
    }

    fn hook(now: SystemTime, change: fn(&mut Webhook)) -> Webhook {
        let mut webhook = Webhook { lenient: vec![], without_roots: vec![], roots: vec![now + DAY * 100] };
        change(&mut webhook);
        webhook
    }

    fn pod(name: &str, version: Option<&str>) -> PodFact {
        PodFact { name: name.to_owned(), version: version.map(str::to_owned), has_exceptions: false }
    }

    /// What is not fine.
    fn told(facts: &Facts) -> Vec<(Severity, String)> {
        let found = findings(facts, OURS).into_iter().filter(|found| found.severity > Severity::Fine);
        found
            .map(|found| {
                assert!(!found.remedy.is_empty(), "{found}");
                (found.severity, found.what)
            })
            .collect()
    }

    #[test]
    fn a_mesh_that_is_well_has_nothing_to_tell() {
        assert_eq!(told(&well()), []);
        assert_eq!(findings(&well(), OURS).len(), 9);
    }

    fn change(change: fn(&mut Facts)) -> Facts {
        let mut facts = well();
        change(&mut facts);
        facts
    }

    fn each_is_told(cases: &[(Facts, Severity, &str)]) {
        for (facts, severity, words) in cases {
            let told = told(facts);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].0 == *severity && told[0].1.contains(words), "{told:?}");
        }
    }

    #[test]
    fn each_thing_of_the_installation_that_is_wrong_is_told_once() {
        each_is_told(&[
            (change(|facts| facts.version = Some((1, 28))), Severity::Fault, "1.28 has no native sidecars"),
            (change(|facts| facts.version = None), Severity::Fault, "does not tell its version"),
            (change(|facts| facts.is_bare = true), Severity::Warning, "nothing is installed in outrider"),
            (
                change(|facts| facts.parts[0].replicas = None),
                Severity::Fault,
                "outrider-ca: there is no such",
            ),
            (change(|facts| facts.parts[0].replicas = Some((2, 0))), Severity::Fault, "none of 2 replicas"),
            (
                change(|facts| facts.parts[0].replicas = Some((2, 1))),
                Severity::Warning,
                "1 of 2 replicas are",
            ),
            (
                change(|facts| facts.parts[0].version = Some("1.2.2".to_owned())),
                Severity::Warning,
                "of version 1.2.2",
            ),
            (
                change(|facts| facts.rights[0].is_allowed = false),
                Severity::Fault,
                "outrider-ca may not create secrets",
            ),
        ]);
    }

    #[test]
    fn each_root_and_webhook_that_is_wrong_is_told_once() {
        each_is_told(&[
            (
                change(|facts| facts.roots = Seen::There(vec![])),
                Severity::Fault,
                "the trust bundle has no roots",
            ),
            (
                change(|facts| facts.roots = Seen::There(vec![facts.now.unwrap() + DAY * 10])),
                Severity::Warning,
                "runs out in 10 days",
            ),
            (
                change(|facts| facts.roots = Seen::There(vec![facts.now.unwrap() - DAY * 100])),
                Severity::Fault,
                "all roots of the trust bundle",
            ),
            (
                change(|facts| facts.webhook = Seen::Absent),
                Severity::Fault,
                "there is no MutatingWebhookConfiguration",
            ),
            (
                change(|facts| {
                    facts.webhook =
                        Seen::There(hook(facts.now.unwrap(), |hook| hook.lenient.push("a".to_owned())))
                }),
                Severity::Fault,
                "a does not fail",
            ),
            (
                change(|facts| {
                    facts.webhook =
                        Seen::There(hook(facts.now.unwrap(), |hook| hook.without_roots.push("a".to_owned())))
                }),
                Severity::Fault,
                "a has no caBundle",
            ),
        ]);
    }

    #[test]
    fn each_pod_and_label_that_is_wrong_is_told_once() {
        each_is_told(&[
            (change(|facts| facts.trial = Some(Trial::NotInjected)), Severity::Fault, "got no sidecar"),
            (
                change(|facts| facts.trial = Some(Trial::Refused("no route".to_owned()))),
                Severity::Fault,
                "refused: no route",
            ),
            (change(|facts| facts.trial = Some(Trial::Forbidden)), Severity::Warning, "not known"),
            (
                change(|facts| facts.trial = Some(Trial::Barred("violates".to_owned()))),
                Severity::Warning,
                "got its sidecar, and was then refused by Pod Security: violates",
            ),
            (
                change(|facts| facts.trial = Some(Trial::Unknown("kyverno".to_owned()))),
                Severity::Warning,
                "something else refused a pod on trial: kyverno",
            ),
            (
                change(|facts| facts.pods[0].has_exceptions = true),
                Severity::Warning,
                "1 pod(s) let callers pass the sidecar, in plaintext, whom no policy judges: shop/a",
            ),
            (
                change(|facts| facts.odd_labels.push("namespace bank (\"true\")".to_owned())),
                Severity::Fault,
                "say what nobody goes by: namespace bank (\"true\")",
            ),
            (
                change(|facts| facts.unheard_labels.push("namespace kube-system".to_owned())),
                Severity::Warning,
                "where no pod gets one: namespace kube-system",
            ),
            (
                change(|facts| facts.pods.push(pod("shop/b", None))),
                Severity::Fault,
                "1 pod(s) should have a sidecar and have none: shop/b",
            ),
            (
                change(|facts| facts.pods.push(pod("shop/b", Some("1.2.2")))),
                Severity::Warning,
                "another version: shop/b",
            ),
            (
                change(|facts| facts.unseen.push("pods: forbidden".to_owned())),
                Severity::Warning,
                "not seen: pods",
            ),
        ]);
    }

    #[test]
    fn of_many_pods_a_few_are_named() {
        let mut facts = well();
        facts.pods = (0..9).map(|number| pod(&format!("shop/{number}"), None)).collect();
        assert!(told(&facts)[0].1.ends_with(
            "9 pod(s) should have a sidecar and have none: shop/0, shop/1, shop/2, shop/3, shop/4, …"
        ));
    }
}
