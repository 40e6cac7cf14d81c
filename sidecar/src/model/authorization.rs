//! Who may ask the own app for what: rules that allow, and nothing that denies.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, header::CONTENT_TYPE};
use outrider_certs::{SpiffeId, TrustDomain};

use crate::canonical::Care;

/// What rules can say of a call, as metrics and traces tell it; a rule's name stands there for the first.
pub const VERDICTS: [&str; 3] = ["allowed", "denied", "audited"];

/// The rules about inbound calls. What none of them fits is denied; there may be none at all. Made by [`Authorization::new`],
/// which works out what the rest of the program asks of them for every request. Who else says rules adds a layer
/// ([`Authorization::and`]), and a call has to pass every layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Whose rules, what becomes of a call that none of them fits, and where in `rules` they end.
    layers: Vec<(Whose, Mode, usize)>,
    rules: Vec<Rule>,
    trust_domains: Vec<TrustDomain>,
    fields: Vec<HeaderName>,
    by_path: ByPath,
}

/// What becomes of a call that no rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is denied.
    Enforce,
    /// It passes, and is told: what the rules would do is seen before they do it.
    Audit,
}

/// Who says rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The own file.
    File,
    /// The controller: policies of the cluster.
    Controller,
}

/// The rules of one who says some.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// Who.
    pub whose: Whose,
    /// What becomes of a call that none fits.
    pub mode: Mode,
    /// In their order.
    pub rules: &'a [Rule],
}

/// One rule. It fits a call of which everything that it says is true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique; a label of spans and records.
    pub name: Arc<str>,
    /// Who calls.
    pub from: Callers,
    /// The app's port is one of these; empty: any.
    pub ports: Vec<u16>,
    /// What is asked for; `None`: anything, opaque streams included. A rule that says anything of HTTP never fits those.
    pub http: Option<HttpRule>,
}

/// Who calls: any one of all of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// Workloads, by their whole IDs.
    pub ids: Vec<SpiffeId>,
    /// Workloads of a namespace.
    pub namespaces: Vec<Namespace>,
    /// Any workload of a trust domain.
    pub trust_domains: Vec<TrustDomain>,
}

/// A namespace of IDs as Kubernetes has them: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its trust domain: a namespace of another one that has the same name is another namespace.
    pub trust_domain: TrustDomain,
    /// Its name.
    pub name: Box<str>,
}

/// What a request must be, all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// Whom it is for is one of these, canonical; without a port: whatever the port. Empty: anybody.
    pub hosts: Vec<Box<str>>,
    /// Its method is one of these, letter by letter; empty: any. A WebSocket is a `GET`.
    pub methods: Vec<Method>,
    /// Its path is one of these; empty: any.
    pub paths: Vec<PathRule>,
    /// Its fields.
    pub headers: Vec<FieldRule>,
    /// It is one of these calls of gRPC; empty: whatever it is.
    pub grpc: Vec<GrpcRule>,
}

/// What a path must be, canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRule {
    /// Exactly this one.
    Exact(Box<str>),
    /// This one, or one below it, as [`PathMatch::Prefix`](super::policy::PathMatch::Prefix). Kept without a `/` at its end.
    Prefix(Box<str>),
}

/// What a field must be. One that is repeated, or whose value is not ASCII, never fits: readers take it differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// Its name.
    pub name: HeaderName,
    /// Its value, byte by byte; `None`: whatever it is.
    pub value: Option<HeaderValue>,
}

/// What a call of gRPC must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRule {
    /// The service with its package, as `shop.Orders`.
    pub service: Box<str>,
    /// The method; `None`: any of that service.
    pub method: Option<Box<str>>,
}

/// Ports at which some rule looks at paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ByPath {
    Any,
    Ports(Vec<u16>),
}

impl Authorization {
    /// These rules of the file.
    #[must_use]
    pub fn new(mode: Mode, rules: Vec<Rule>) -> Self {
        Self::of(Whose::File, mode, rules)
    }

    /// The same rules, of somebody else.
    #[must_use]
    pub fn by(self, whose: Whose) -> Self {
        Self { layers: self.layers.into_iter().map(|(_, mode, end)| (whose, mode, end)).collect(), ..self }
    }

    /// Lets pass what passes both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let before = self.rules.len();
        self.layers.extend(other.layers.into_iter().map(|(whose, mode, end)| (whose, mode, before + end)));
        self.rules.extend(other.rules);
        self.trust_domains.retain(|domain| other.trust_domains.contains(domain));
        other.fields.iter().for_each(|field| add(&mut self.fields, field));
        self.by_path = match (self.by_path, other.by_path) {
            (ByPath::Any, _) | (_, ByPath::Any) => ByPath::Any,
            (ByPath::Ports(mut ports), ByPath::Ports(others)) => {
                others.iter().for_each(|port| add(&mut ports, port));
                ByPath::Ports(ports)
            }
        };
        self
    }

    fn of(whose: Whose, mode: Mode, rules: Vec<Rule>) -> Self {
        let (mut trust_domains, mut fields, mut by_path) =
            (Vec::new(), Vec::new(), ByPath::Ports(Vec::new()));
        for rule in &rules {
            let Callers { ids, namespaces, trust_domains: whole } = &rule.from;
            let ids = ids.iter().map(SpiffeId::trust_domain);
            let namespaces = namespaces.iter().map(|namespace| &namespace.trust_domain);
            ids.chain(namespaces).chain(whole).for_each(|domain| add(&mut trust_domains, domain));
            let Some(http) = &rule.http else { continue };
            http.headers.iter().for_each(|field| add(&mut fields, &field.name));
            if !http.grpc.is_empty() {
                add(&mut fields, &CONTENT_TYPE);
            }
            if !http.paths.is_empty() || !http.grpc.is_empty() {
                by_path = match (by_path, rule.ports.as_slice()) {
                    (ByPath::Any, _) | (_, []) => ByPath::Any,
                    (ByPath::Ports(mut known), ports) => {
                        ports.iter().for_each(|port| add(&mut known, port));
                        ByPath::Ports(known)
                    }
                };
            }
        }
        Self { layers: vec![(whose, mode, rules.len())], rules, trust_domains, fields, by_path }
    }

    /// What becomes of a call that none fits: it is denied, if any layer does so.
    #[must_use]
    pub fn mode(&self) -> Mode {
        let enforces = self.layers.iter().any(|(_, mode, _)| *mode == Mode::Enforce);
        if enforces { Mode::Enforce } else { Mode::Audit }
    }

    /// All rules, layer by layer, each in its own order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whose rules there are: at least one, and all of them must let a call pass.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'_>> {
        let begins = std::iter::once(0).chain(self.layers.iter().map(|(_, _, end)| *end));
        self.layers.iter().zip(begins).map(|((whose, mode, end), begin)| Layer {
            whose: *whose,
            mode: *mode,
            rules: self.rules.get(begin..*end).unwrap_or_default(),
        })
    }

    /// Whether some rule, of every layer, lets anybody of that trust domain in.
    #[must_use]
    pub fn names(&self, trust_domain: &TrustDomain) -> bool {
        self.trust_domains.contains(trust_domain)
    }

    /// The fields that rules look at, each once.
    #[must_use]
    pub fn fields(&self) -> &[HeaderName] {
        &self.fields
    }

    /// What is at stake with the path of a request to that port of the app.
    #[must_use]
    pub fn care(&self, port: u16) -> Care {
        match &self.by_path {
            ByPath::Ports(ports) if !ports.contains(&port) => Care::Plain,
            ByPath::Any | ByPath::Ports(_) => Care::Judged,
        }
    }
}

fn add<T: Clone + PartialEq>(list: &mut Vec<T>, item: &T) {
    if !list.contains(item) {
        list.push(item.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(ports: &[u16], http: Option<HttpRule>) -> Rule {
        let from = Callers { ids: vec!["spiffe://a/b".parse().unwrap()], ..Callers::default() };
        Rule { name: "a".into(), from, ports: ports.to_vec(), http }
    }

    #[test]
    fn paths_are_judged_where_a_rule_looks_at_them() {
        let by_path = || Some(HttpRule { paths: vec![PathRule::Prefix("".into())], ..HttpRule::default() });
        let grpc = GrpcRule { service: "a.B".into(), method: None };
        let by_call = || Some(HttpRule { grpc: vec![grpc.clone()], ..HttpRule::default() });
        let by_method = || Some(HttpRule { methods: vec![Method::GET], ..HttpRule::default() });
        let care = |rules: Vec<Rule>| {
            let rules = Authorization::new(Mode::Enforce, rules);
            [80, 90].map(|port| rules.care(port) == Care::Judged)
        };
        assert_eq!(care(vec![]), [false, false]);
        assert_eq!(care(vec![rule(&[], None), rule(&[], by_method())]), [false, false]);
        assert_eq!(care(vec![rule(&[80], by_path())]), [true, false]);
        assert_eq!(care(vec![rule(&[80], by_call()), rule(&[90], by_path())]), [true, true]);
        assert_eq!(care(vec![rule(&[], by_call()), rule(&[90], by_path())]), [true, true]);
        assert_eq!(care(vec![rule(&[90], by_path()), rule(&[], by_path())]), [true, true]);
    }

    #[test]
    fn layers_keep_their_rules_and_look_at_what_either_looks_at() {
        let by_path = || Some(HttpRule { paths: vec![PathRule::Prefix("".into())], ..HttpRule::default() });
        let other = Callers { ids: vec!["spiffe://b/b".parse().unwrap()], ..Callers::default() };
        let file =
            Authorization::new(Mode::Audit, vec![rule(&[80], None), Rule { from: other, ..rule(&[], None) }]);
        let told = Authorization::new(Mode::Enforce, vec![rule(&[90], by_path())]).by(Whose::Controller);
        let both = file.clone().and(told.clone());
        let layers: Vec<_> =
            both.layers().map(|layer| (layer.whose, layer.mode, layer.rules.len())).collect();
        assert_eq!(layers, [(Whose::File, Mode::Audit, 2), (Whose::Controller, Mode::Enforce, 1)]);
        assert_eq!((file.mode(), both.mode()), (Mode::Audit, Mode::Enforce));
        assert_eq!([80, 90].map(|port| both.care(port) == Care::Judged), [false, true]);
        let named = |rules: &Authorization| {
            ["a", "b"].map(|domain| rules.names(&TrustDomain::parse(domain).unwrap()))
        };
        assert_eq!((named(&file), named(&told), named(&both)), ([true, true], [true, false], [true, false]));
    }

    #[test]
    fn what_rules_look_at_is_listed_once() {
        let team = FieldRule { name: HeaderName::from_static("x-team"), value: None };
        let grpc = vec![GrpcRule { service: "a.B".into(), method: None }];
        let http = HttpRule { headers: vec![team.clone(), team], grpc, ..HttpRule::default() };
        let rules =
            Authorization::new(Mode::Audit, vec![rule(&[], Some(http.clone())), rule(&[], Some(http))]);
        assert_eq!(rules.fields(), [HeaderName::from_static("x-team"), CONTENT_TYPE]);
        assert!(
            rules.names(&TrustDomain::parse("a").unwrap()) && !rules.names(&TrustDomain::parse("b").unwrap())
        );
    }
}
