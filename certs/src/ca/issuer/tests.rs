//! The steps of issuing, against a CA in a folder.

use super::*;
use crate::ca::NewCa;
use crate::ca::issue::BACKDATE;
use crate::certificate::{Leaf, parse};
use crate::join_token::JoinToken;
use crate::request::KeyPairAndCsr;
use crate::spiffe_id::TrustDomain;
use crate::testing::{TestCa, hours, now};
use crate::trust_bundle::TrustBundles;
use crate::verify::{Role, peer};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use std::path::PathBuf;
use tonic::Code;

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

struct Fixture {
    folder: tempfile::TempDir,
    state: Arc<CaState>,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let new = NewCa { trust_domain: TrustDomain::parse("example.org").unwrap(), root_lifetime: hours(1000) };
    let state = Arc::new(CaState::init(&folder.path().join("ca"), &new, now()).unwrap());
    Fixture { folder, state }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

impl Fixture {
    fn token(&self, for_id: &str) -> JoinToken {
        self.state.new_token(&id(for_id), hours(1), now()).unwrap()
    }

    fn issue(&self, proof: Proof, csr_pem: &str) -> Result<Issued, Refusal> {
        self.issue_with(proof, csr_pem, NamesOf::new())
    }

    fn issue_with(&self, proof: Proof, csr_pem: &str, names: NamesOf) -> Result<Issued, Refusal> {
        let names = Arc::new(names);
        let wish =
            Wish { proof, csr_pem: csr_pem.to_owned(), validity: hours(24), bundle_sequence: 1, names };
        issue(&self.state, &wish, now())
    }

    fn log(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.log_place()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn log_place(&self) -> PathBuf {
        self.folder.path().join("ca/issued.jsonl")
    }
}

fn with(token: &JoinToken) -> Proof {
    Proof::Token(Credential::parse(&token.bearer()).unwrap())
}

fn csr_for(text: &str) -> String {
    KeyPairAndCsr::generate(&id(text)).unwrap().csr_pem().to_owned()
}

#[test]
fn a_token_gives_a_leaf_that_peers_accept() {
    let ca = fixture();
    let token = ca.token(ID);
    let issued = ca.issue(with(&token), &csr_for(ID)).unwrap();
    let bundles = TrustBundles::single(ca.state.bundle().clone());
    for role in [Role::Client, Role::Server] {
        let peer = peer(std::slice::from_ref(&issued.leaf), &bundles, role, now()).unwrap();
        assert_eq!(peer.id().as_str(), ID);
    }
    let leaf = Leaf::read(&issued.leaf).unwrap();
    assert_eq!(leaf.validity.not_before, now() - BACKDATE);
    assert_eq!(leaf.validity.not_after, now() + hours(24));
    let [line] = ca.log().try_into().unwrap();
    assert_eq!(line["spiffe_id"], ID);
    assert_eq!(line["proof"], "join_token");
    assert_eq!(line["token_id"], token.id().to_string());
    assert_eq!(line["serial"], issued.serial);
    assert!(!line.to_string().contains(token.bearer().rsplit('.').next().unwrap()));
}

#[test]
fn wishes_of_a_request_are_not_granted() {
    let ca = fixture();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["admin.example.org".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let issued = ca.issue(with(&ca.token(ID)), &csr).unwrap();
    let leaf = parse(&issued.leaf).unwrap();
    assert!(!leaf.is_ca());
    assert_eq!(leaf.subject().iter().count(), 0);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "RFC 5280 §4.1.2.6: critical, for the subject is empty");
    assert_eq!(names.value.general_names.len(), 1);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth && !usage.code_signing);
    assert_eq!(Leaf::read(&issued.leaf).unwrap().id.as_str(), ID);
}

#[test]
fn what_is_refused_does_not_cost_the_token() {
    let ca = fixture();
    let token = ca.token(ID);
    let garbage = ca.issue(with(&token), "garbage").unwrap_err();
    assert_eq!((garbage.code(), garbage.reason()), (Code::InvalidArgument, "csr_malformed"));
    let other = ca.issue(with(&token), &csr_for("spiffe://example.org/admin")).unwrap_err();
    assert_eq!((other.code(), other.reason()), (Code::PermissionDenied, "csr_name"));
    assert!(ca.log().is_empty());
    assert!(ca.issue(with(&token), &csr_for(ID)).is_ok());
    // The same request once more, as a replay: the token is what is used up.
    let again = ca.issue(with(&token), &csr_for(ID)).unwrap_err();
    assert_eq!((again.code(), again.reason()), (Code::Unauthenticated, "token_used"));
}

#[test]
fn an_svid_renews_its_own_id_alone() {
    let ca = fixture();
    let first = ca.issue(with(&ca.token(ID)), &csr_for(ID)).unwrap();
    let bundles = TrustBundles::single(ca.state.bundle().clone());
    let peer = peer(&[first.leaf], &bundles, Role::Client, now()).unwrap();
    let renewed = ca.issue(Proof::Svid(peer.clone()), &csr_for(ID)).unwrap();
    assert_eq!((renewed.id.as_str(), renewed.proof), (ID, ProofKind::Svid));
    assert_ne!(renewed.serial, first.serial);
    let other = ca.issue(Proof::Svid(peer.clone()), &csr_for("spiffe://example.org/admin")).unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    // It has run out while its connection was open.
    let wish = Wish {
        proof: Proof::Svid(peer),
        csr_pem: csr_for(ID),
        validity: hours(1),
        bundle_sequence: 0,
        names: Arc::default(),
    };
    let late = issue(&ca.state, &wish, now() + hours(25)).unwrap_err();
    assert_eq!((late.code(), late.reason()), (Code::Unauthenticated, "svid_expired"));
}

#[test]
fn only_ids_of_the_own_domain_are_certified_and_never_the_cas() {
    let ca = fixture();
    for (text, reason) in [
        ("spiffe://other.example/a", "other_trust_domain"),
        ("spiffe://example.org", "other_trust_domain"),
        ("spiffe://example.org/outrider/ca", "reserved_id"),
    ] {
        let refusal = ca.issue(Proof::Operator(id(text)), &csr_for(ID)).unwrap_err();
        assert_eq!((refusal.code(), refusal.reason()), (Code::PermissionDenied, reason));
        assert!(ca.state.new_token(&id(text), hours(1), now()).is_err());
    }
    // A peer whom another domain's root has verified.
    let foreign = TestCa::new("other.example");
    let leaf = foreign.leaf("spiffe://other.example/a").der;
    let peer = peer(&[leaf], &foreign.bundles(), Role::Client, now()).unwrap();
    let refusal = ca.issue(Proof::Svid(peer), &csr_for("spiffe://other.example/a")).unwrap_err();
    assert_eq!(refusal.reason(), "other_trust_domain");
}

#[test]
fn without_a_log_there_is_no_certificate_and_the_token_is_spent() {
    let ca = fixture();
    let token = ca.token(ID);
    std::fs::create_dir(ca.log_place()).unwrap();
    let refusal = ca.issue(with(&token), &csr_for(ID)).unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (Code::Unavailable, "log"));
    assert!(!refusal.status().message().contains("issued.jsonl"), "places stay with the operator");
    assert!(refusal.to_string().contains("issued.jsonl"));
    std::fs::remove_dir(ca.log_place()).unwrap();
    assert_eq!(ca.issue(with(&token), &csr_for(ID)).unwrap_err().reason(), "token_used");
}

#[test]
fn a_line_that_a_crash_cut_short_does_not_swallow_the_next() {
    let ca = fixture();
    std::fs::write(ca.log_place(), "{\"time\":\"20").unwrap();
    ca.issue(with(&ca.token(ID)), &csr_for(ID)).unwrap();
    let text = std::fs::read_to_string(ca.log_place()).unwrap();
    let [half, whole] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(half, "{\"time\":\"20");
    serde_json::from_str::<serde_json::Value>(whole).unwrap();
}

#[test]
fn no_leaf_outlives_the_root() {
    let ca = fixture();
    let wish = |validity| Wish {
        proof: Proof::Operator(id(ID)),
        csr_pem: csr_for(ID),
        validity,
        bundle_sequence: 0,
        names: Arc::default(),
    };
    let issued = issue(&ca.state, &wish(hours(24)), now() + hours(990)).unwrap();
    assert_eq!(issued.not_after, ca.state.root_not_after());
    assert_eq!(issued.not_after, now() + hours(1000));
    let refusal = issue(&ca.state, &wish(hours(1)), now() + hours(1000)).unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (Code::FailedPrecondition, "signing"));
    let early = issue(&ca.state, &wish(hours(1)), now() - hours(1)).unwrap_err();
    assert!(early.to_string().contains("not valid at this time"), "{early}");
}

#[test]
fn lifetimes_are_kept_within_their_bounds() {
    let bounds = Validity { default: hours(24), min: hours(1), max: hours(48) };
    assert_eq!(bounds.of(None), hours(24));
    assert_eq!(bounds.of(Some(hours(2))), hours(2));
    assert_eq!(bounds.of(Some(Duration::from_secs(1))), hours(1));
    assert_eq!(bounds.of(Some(hours(1000))), hours(48));
    assert_eq!(Validity { max: hours(100_000), ..bounds }.of(Some(Duration::MAX)), MAX_VALIDITY);
}

#[test]
fn further_names_are_for_the_ids_that_have_them() {
    let ca = fixture();
    let names = NamesOf::from([(id(ID), vec![ServerSan::Dns("injector.mesh.svc".to_owned())])]);
    for (who, expected) in [(ID, true), ("spiffe://example.org/other", false)] {
        let issued = ca.issue_with(with(&ca.token(who)), &csr_for(who), names.clone()).unwrap();
        let text =
            format!("{:?}", parse(&issued.leaf).unwrap().subject_alternative_name().unwrap().unwrap().value);
        assert_eq!(text.contains("injector.mesh.svc"), expected, "{text}");
    }
}

#[test]
fn a_reviewed_token_names_the_workload_and_the_log_its_pod() {
    let ca = fixture();
    let pod = Pod { pod: "cart-1".to_owned(), pod_uid: "123".to_owned() };
    let reviewed = Reviewed { id: id(ID), pod: Some(pod) };
    let issued = ca.issue(Proof::Reviewed(reviewed), &csr_for(ID)).unwrap();
    assert_eq!(issued.id, id(ID));
    let line = ca.log().pop().unwrap();
    assert_eq!(
        (&line["proof"], &line["pod"], &line["pod_uid"]),
        (&"service_account".into(), &"cart-1".into(), &"123".into())
    );
    let other = Reviewed { id: id("spiffe://other.org/ns/shop/sa/cart"), pod: None };
    assert_eq!(ca.issue(Proof::Reviewed(other), &csr_for(ID)).unwrap_err().code(), Code::PermissionDenied);
}
