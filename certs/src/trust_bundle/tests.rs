use super::*;
use crate::testing::{TestCa, ca_params, leaf_params};
use proptest::prelude::*;
use rcgen::{KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn bundle(roots: Vec<CertificateDer<'static>>) -> Result<TrustBundle, Error> {
    TrustBundle::new(domain(), roots, 7, Some(Duration::from_secs(300)))
}

#[test]
fn several_roots_go_through_both_forms() {
    let roots = vec![TestCa::new("example.org").der, TestCa::new("example.org").der];
    let whole = bundle(roots.clone()).unwrap();
    let again = TrustBundle::from_jwks(domain(), whole.to_jwks().as_bytes()).unwrap();
    assert_eq!(again, whole);
    assert_eq!((again.sequence(), again.refresh_hint()), (7, Some(Duration::from_secs(300))));
    let again = TrustBundle::from_pem(domain(), whole.to_pem().as_bytes()).unwrap();
    assert_eq!((again.roots(), again.sequence()), (roots.as_slice(), 0));
    // The same root twice counts once.
    let doubled = TrustBundle::from_pem(domain(), whole.to_pem().repeat(2).as_bytes()).unwrap();
    assert_eq!(doubled.roots(), roots);
}

#[test]
fn the_document_has_the_members_of_the_standard() {
    let document: Value =
        serde_json::from_str(&bundle(vec![TestCa::new("example.org").der]).unwrap().to_jwks()).unwrap();
    assert_eq!(document["spiffe_sequence"], 7);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    let key = &document["keys"][0];
    // X509-SVID §6.1: use = x509-svid, exactly one certificate, no kid.
    assert_eq!((&key["kty"], &key["use"], &key["crv"]), (&json!("EC"), &json!("x509-svid"), &json!("P-256")));
    assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
    assert!(key.get("kid").is_none());
    // RFC 7518 §6.2.1.2: 32 bytes for P-256.
    assert_eq!(key["x"].as_str().unwrap().len(), 43);
}

#[test]
fn all_usual_kinds_of_keys_are_written() {
    for (algorithm, kty) in [
        (&rcgen::PKCS_ECDSA_P384_SHA384, "EC"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "EC"),
        (&rcgen::PKCS_ED25519, "OKP"),
        (&rcgen::PKCS_RSA_SHA256, "RSA"),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let der = ca_params("example.org", "root").self_signed(&key).unwrap().der().clone();
        let whole = bundle(vec![der]).unwrap();
        let document: Value = serde_json::from_str(&whole.to_jwks()).unwrap();
        assert_eq!(document["keys"][0]["kty"], kty);
        if kty == "RSA" {
            assert_eq!(document["keys"][0]["e"], "AQAB", "RFC 7518 §6.3.1.2");
        }
        assert_eq!(TrustBundle::from_jwks(domain(), whole.to_jwks().as_bytes()).unwrap(), whole);
    }
}

#[test]
fn keys_of_other_uses_are_skipped() {
    let mut document: Value =
        serde_json::from_str(&bundle(vec![TestCa::new("example.org").der]).unwrap().to_jwks()).unwrap();
    let good = document["keys"][0].clone();
    let with = |change: fn(&mut Value)| {
        let mut key = good.clone();
        change(&mut key);
        key
    };
    // Trust Domain and Bundle §4.1.3, §4.2; X509-SVID §6.2.
    document["keys"] = json!([
        {"kty": "EC", "use": "jwt-svid", "kid": "a", "crv": "P-256", "x": "", "y": ""},
        with(|key| key["use"] = json!("unknown")),
        with(|key| drop(key.as_object_mut().unwrap().remove("use"))),
        with(|key| key["kty"] = json!("unknown")),
        with(|key| drop(key.as_object_mut().unwrap().remove("x5c"))),
        with(|key| key["x5c"] = json!([])),
        with(|key| key["x5c"].as_array_mut().unwrap().push(json!("only the first counts"))),
    ]);
    document["more"] = json!({});
    let read = TrustBundle::from_jwks(domain(), document.to_string().as_bytes()).unwrap();
    assert_eq!(read.roots().len(), 1);
}

#[test]
fn an_empty_set_of_keys_is_a_bundle_that_trusts_nobody() {
    let read = TrustBundle::from_jwks(domain(), br#"{"keys":[]}"#).unwrap();
    assert!(read.roots().is_empty());
    assert_eq!((read.sequence(), read.refresh_hint()), (0, None));
}

#[test]
fn what_is_no_root_of_the_domain_is_refused() {
    let ca = TestCa::new("example.org");
    let leaf = ca.sign(&leaf_params("spiffe://example.org/a")).der;
    assert!(matches!(bundle(vec![ca.der.clone(), leaf]), Err(Error::NotACa { index: 1 })));
    let mut params = ca_params("example.org", "root");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let unable = TestCa::from_params("example.org", params);
    assert!(matches!(bundle(vec![unable.der]), Err(Error::NotACa { index: 0 })));
    let foreign = TestCa::new("other.example");
    assert!(matches!(bundle(vec![foreign.der]), Err(Error::OtherTrustDomain { .. })));
    assert!(matches!(bundle(vec![CertificateDer::from(vec![1, 2])]), Err(Error::Malformed { .. })));
    // The ID of the standard's own example ends in '/'; roots without an ID exist.
    let mut params = ca_params("example.org", "root");
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/".try_into().unwrap())];
    bundle(vec![TestCa::from_params("example.org", params).der]).unwrap();
    let mut params = ca_params("example.org", "root");
    params.subject_alt_names.clear();
    bundle(vec![TestCa::from_params("example.org", params).der]).unwrap();
}

#[test]
fn documents_are_bounded() {
    let large = vec![b' '; MAX_DOCUMENT_BYTES + 1];
    assert!(matches!(TrustBundle::from_jwks(domain(), &large), Err(Error::TooLarge)));
    assert!(matches!(TrustBundle::from_pem(domain(), &large), Err(Error::TooLarge)));
    let roots = (0..=MAX_ROOTS).map(|_| TestCa::new("example.org").der).collect();
    assert!(matches!(bundle(roots), Err(Error::TooManyRoots)));
    let keys = json!({"keys": vec![json!({}); 1000]}).to_string();
    assert!(matches!(TrustBundle::from_jwks(domain(), keys.as_bytes()), Err(Error::TooManyRoots)));
    assert!(matches!(TrustBundle::from_pem(domain(), b""), Err(Error::Empty)));
    let hint = TrustBundle::from_jwks(domain(), br#"{"keys":[],"spiffe_refresh_hint":18446744073709551615}"#);
    assert_eq!(hint.unwrap().refresh_hint(), Some(MAX_REFRESH_HINT));
}

#[test]
fn doubled_and_wrong_members_are_refused() {
    for text in [
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":{}}"#,
        r#"{}"#,
        r#"{"keys":[],"spiffe_sequence":-1}"#,
        r#"{"keys":[],"spiffe_sequence":"1"}"#,
        r#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":"text"}]}"#,
        "",
        "[",
    ] {
        assert!(matches!(TrustBundle::from_jwks(domain(), text.as_bytes()), Err(Error::Json(_))), "{text}");
    }
    let not_base64 = br#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":["!"]}]}"#;
    assert!(matches!(TrustBundle::from_jwks(domain(), not_base64), Err(Error::Base64 { index: 0 })));
}

#[test]
fn bundles_are_found_by_their_own_domain() {
    let (a, b) = (TestCa::new("a.example").bundle(), TestCa::new("b.example").bundle());
    let bundles = TrustBundles::from_iter([a.clone(), b.clone()]);
    assert_eq!(bundles.get(a.trust_domain()), Some(&a));
    assert_eq!(bundles.get(b.trust_domain()), Some(&b));
    assert_eq!(TrustBundles::single(a.clone()).get(b.trust_domain()), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(TrustBundle::from_jwks(domain(), &bytes));
        drop(TrustBundle::from_pem(domain(), &bytes));
        drop(bundle(vec![CertificateDer::from(bytes)]));
    }

    #[test]
    fn damaged_roots_are_read_without_a_panic(at in 0_usize..450, byte in any::<u8>()) {
        let mut der = TestCa::new("example.org").der.to_vec();
        let at = at % der.len();
        der[at] = byte;
        drop(bundle(vec![CertificateDer::from(der)]).map(|whole| whole.to_jwks()));
    }
}
