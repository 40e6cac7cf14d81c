//! Every rule of X509-SVID §5, with a certificate that breaks just that one.

use super::*;
use crate::spiffe_id;
use crate::testing::{TestCa, ca_params, hours, leaf_params, now};
use rcgen::{BasicConstraints, NameConstraints};
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, SanType};

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";

/// Verifies a leaf made of a proper leaf's parameters after `change`.
fn changed(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Result<Peer, Error> {
    let ca = TestCa::new("example.org");
    let mut params = leaf_params(ID);
    change(&mut params);
    peer(&[ca.sign(&params).der], &ca.bundles(), Role::Client, now())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn a_proper_chain_gives_the_peer() {
    let ca = TestCa::new("example.org");
    let leaf = ca.leaf(ID);
    for role in [Role::Client, Role::Server] {
        let peer = peer(std::slice::from_ref(&leaf.der), &ca.bundles(), role, now()).unwrap();
        assert_eq!(peer.id().as_str(), ID);
        assert_eq!(peer.not_after(), now() + hours(1));
        assert_eq!(peer_of_verified(std::slice::from_ref(&leaf.der)), Ok(peer));
    }
}

#[test]
fn a_leaf_names_exactly_one_uri() {
    let two = changed(|params| params.subject_alt_names.push(uri("spiffe://example.org/other")));
    assert_eq!(two, Err(LeafError::UriSans { count: 2 }.into()));
    let same_twice = changed(|params| params.subject_alt_names.push(uri(ID)));
    assert_eq!(same_twice, Err(LeafError::UriSans { count: 2 }.into()));
    let dns_only =
        changed(|params| params.subject_alt_names = vec![SanType::DnsName("a.b".try_into().unwrap())]);
    assert_eq!(dns_only, Err(LeafError::UriSans { count: 0 }.into()));
    let ip_only =
        changed(|params| params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())]);
    assert_eq!(ip_only, Err(LeafError::UriSans { count: 0 }.into()));
    assert_eq!(
        changed(|params| params.subject_alt_names.clear()),
        Err(LeafError::UriSans { count: 0 }.into())
    );
}

#[test]
fn other_kinds_of_names_may_stand_beside_the_uri() {
    // X509-SVID §2: "An X.509 SVID MAY contain any number of other SAN field types".
    let with_dns = changed(|params| {
        params.subject_alt_names.push(SanType::DnsName("cart.shop".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
    });
    assert_eq!(with_dns.unwrap().id().as_str(), ID);
}

#[test]
fn a_second_uri_that_is_not_even_text_counts() {
    let result = changed(|params| {
        // GeneralNames with two URIs, of which the second holds the byte 0xff.
        let mut names = vec![0x86, u8::try_from(ID.len()).unwrap()];
        names.extend_from_slice(ID.as_bytes());
        names.extend_from_slice(&[0x86, 0x01, 0xff]);
        let mut content = vec![0x30, u8::try_from(names.len()).unwrap()];
        content.extend_from_slice(&names);
        params.subject_alt_names.clear();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
    });
    assert_eq!(result, Err(LeafError::UriSans { count: 2 }.into()));
}

#[test]
fn the_uri_must_be_a_spiffe_id() {
    let long = format!("spiffe://example.org/{}", "a".repeat(2048));
    for (text, rule) in [
        ("https://example.org/a", spiffe_id::Error::Scheme),
        ("spiffe://example.org/a\0b", spiffe_id::Error::PathCharacter),
        ("spiffe://example.org\0.evil/a", spiffe_id::Error::TrustDomainCharacter),
        ("spiffe://Example.org/a", spiffe_id::Error::TrustDomainCharacter),
        ("spiffe://example.org/a/../b", spiffe_id::Error::RelativeSegment),
        (&long, spiffe_id::Error::TooLong),
    ] {
        let result = changed(|params| params.subject_alt_names = vec![uri(text)]);
        let Err(Error::Leaf(LeafError::NotSpiffe { source, uri })) = result else {
            panic!("{text}: {result:?}")
        };
        assert_eq!(source, rule, "{text}");
        assert!(uri.len() <= 120);
    }
    let own = changed(|params| params.subject_alt_names = vec![uri("spiffe://example.org")]);
    assert!(matches!(own, Err(Error::Leaf(LeafError::NoPath(_)))), "{own:?}");
}

#[test]
fn a_signing_certificate_identifies_nobody() {
    let signing: Result<Peer, Error> = Err(LeafError::Signing.into());
    assert_eq!(changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), signing);
    assert_eq!(changed(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)), signing);
    assert_eq!(changed(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)), signing);
}

#[test]
fn the_key_usage_must_allow_signatures() {
    let none: Result<Peer, Error> = Err(LeafError::NoDigitalSignature.into());
    assert_eq!(changed(|params| params.key_usages.clear()), none);
    assert_eq!(changed(|params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement]), none);
}

#[test]
fn the_extended_key_usage_must_fit_the_side_of_the_peer() {
    let ca = TestCa::new("example.org");
    let verify = |usages: Vec<ExtendedKeyUsagePurpose>, role| {
        let mut params = leaf_params(ID);
        params.extended_key_usages = usages;
        peer(&[ca.sign(&params).der], &ca.bundles(), role, now())
    };
    let only_server = || vec![ExtendedKeyUsagePurpose::ServerAuth];
    let only_client = || vec![ExtendedKeyUsagePurpose::ClientAuth];
    assert!(verify(only_server(), Role::Server).is_ok());
    assert!(matches!(verify(only_server(), Role::Client), Err(Error::Purpose { role: Role::Client, .. })));
    assert!(verify(only_client(), Role::Client).is_ok());
    assert!(matches!(verify(only_client(), Role::Server), Err(Error::Purpose { role: Role::Server, .. })));
    assert!(matches!(
        verify(vec![ExtendedKeyUsagePurpose::CodeSigning], Role::Client),
        Err(Error::Purpose { .. })
    ));
    // X509-SVID §4.4: "SHOULD include this extension", so it may be absent.
    assert!(verify(Vec::new(), Role::Client).is_ok());
}

#[test]
fn only_the_bundle_of_the_ids_own_domain_counts() {
    let (ours, foreign) = (TestCa::new("example.org"), TestCa::new("foreign.example"));
    let verify = |leaf: &crate::testing::TestLeaf, bundles: &TrustBundles| {
        peer(std::slice::from_ref(&leaf.der), bundles, Role::Client, now())
    };
    let stranger = foreign.leaf("spiffe://foreign.example/a");
    let result = verify(&stranger, &ours.bundles());
    assert!(matches!(&result, Err(Error::UnknownTrustDomain { trusted, .. }) if trusted == "example.org"));
    // Both are trusted, but each only for its own.
    let both = TrustBundles::from_iter([ours.bundle(), foreign.bundle()]);
    assert!(verify(&stranger, &both).is_ok());
    let impostor = foreign.leaf(ID);
    assert!(matches!(verify(&impostor, &both), Err(Error::UnknownIssuer { .. })));
    // The same name, another key.
    let twin = TestCa::new("example.org");
    assert!(matches!(verify(&twin.leaf(ID), &ours.bundles()), Err(Error::UnknownIssuer { .. })));
    // A bundle without roots trusts nobody (Trust Domain and Bundle §4.1.3).
    let empty = TrustBundle::new(ours.domain.clone(), Vec::new(), 1, None).unwrap();
    let result = verify(&ours.leaf(ID), &TrustBundles::single(empty));
    assert!(matches!(result, Err(Error::NoValidRoot { .. })));
}

#[test]
fn every_certificate_must_be_valid_at_the_time() {
    let ca = TestCa::new("example.org");
    let leaf = ca.leaf(ID);
    let at = |time| peer(std::slice::from_ref(&leaf.der), &ca.bundles(), Role::Client, time);
    assert!(at(now() + hours(1)).is_ok());
    let late = at(now() + hours(3)).unwrap_err();
    assert!(matches!(late, Error::Expired { leaf: true, .. }));
    assert_eq!(late.to_string(), format!("the certificate of {ID} expired 2h ago"));
    let early = at(now() - hours(2)).unwrap_err();
    assert!(matches!(early, Error::NotValidYet { leaf: true, .. }));
    assert!(early.to_string().contains("valid only in 1h"), "{early}");
    // The root ran out before the leaf: path building alone would not notice.
    let mut params = leaf_params(ID);
    params.not_after = (now() + hours(100)).into();
    let long = ca.sign(&params);
    let result = peer(&[long.der], &ca.bundles(), Role::Client, now() + hours(30));
    assert!(matches!(result, Err(Error::NoValidRoot { .. })), "{result:?}");
}

#[test]
fn intermediates_carry_the_chain() {
    let root = TestCa::new("example.org");
    let middle = root.intermediate(ca_params("example.org", "middle"));
    let leaf = middle.leaf(ID);
    let verify = |chain: &[CertificateDer<'static>]| peer(chain, &root.bundles(), Role::Client, now());
    assert!(verify(&[leaf.der.clone(), middle.der.clone()]).is_ok());
    assert!(verify(&[leaf.der.clone(), root.der.clone(), middle.der.clone()]).is_ok());
    assert!(matches!(verify(std::slice::from_ref(&leaf.der)), Err(Error::UnknownIssuer { .. })));
    let mut expired = ca_params("example.org", "expired");
    expired.not_after = (now() - hours(2)).into();
    let expired = root.intermediate(expired);
    let result = verify(&[expired.leaf(ID).der, expired.der.clone()]);
    assert!(matches!(result, Err(Error::Expired { leaf: false, .. })), "{result:?}");
    // A leaf signed by a workload's certificate.
    let mut params = leaf_params("spiffe://example.org/mallory");
    params.distinguished_name.push(rcgen::DnType::CommonName, "mallory");
    let mallory = root.intermediate(params);
    let result = verify(&[mallory.leaf(ID).der, mallory.der.clone()]);
    assert!(matches!(result, Err(Error::Chain { .. })), "{result:?}");
}

#[test]
fn uri_name_constraints_make_a_chain_fail() {
    let root = TestCa::new("example.org");
    let mut params = ca_params("example.org", "constrained");
    let of_domain = GeneralSubtree::DnsName("example.org".to_owned());
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![of_domain], excluded_subtrees: vec![] });
    let constrained = root.intermediate(params);
    let dns =
        peer(&[constrained.leaf(ID).der, constrained.der.clone()], &root.bundles(), Role::Client, now());
    assert!(dns.is_ok(), "constraints of other kinds do not touch URIs: {dns:?}");
    // nameConstraints { permittedSubtrees { uniformResourceIdentifier ".org" } }
    let content = [&[0x30, 0x0a, 0xa0, 0x08, 0x30, 0x06, 0x86, 0x04][..], b".org"].concat();
    let mut params = ca_params("example.org", "uri");
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    let constrained = root.intermediate(params);
    let result =
        peer(&[constrained.leaf(ID).der, constrained.der.clone()], &root.bundles(), Role::Client, now());
    assert!(matches!(result, Err(Error::Chain { .. })), "{result:?}");
}

#[test]
fn chains_are_bounded_and_garbage_is_refused() {
    let ca = TestCa::new("example.org");
    let leaf = ca.leaf(ID).der;
    let verify = |chain: &[CertificateDer<'static>]| peer(chain, &ca.bundles(), Role::Client, now());
    assert_eq!(verify(&[]), Err(Error::Empty));
    assert_eq!(peer_of_verified(&[]), Err(Error::Empty));
    let long: Vec<_> = std::iter::repeat_n(leaf.clone(), MAX_CHAIN + 1).collect();
    assert_eq!(verify(&long), Err(Error::ChainTooLong));
    for der in [vec![], vec![0x30], leaf[..leaf.len() - 1].to_vec(), [&leaf[..], &[0]].concat()] {
        let result = verify(&[CertificateDer::from(der)]);
        assert!(matches!(result, Err(Error::Leaf(LeafError::Malformed(_)))), "{result:?}");
    }
    // A flipped bit in the signature.
    let mut der = leaf.to_vec();
    *der.last_mut().unwrap() ^= 1;
    assert!(verify(&[CertificateDer::from(der)]).is_err());
    let garbage = CertificateDer::from(vec![0; 64]);
    assert!(verify(&[leaf, garbage]).is_ok(), "what is not needed for the path does not matter");
}
