use super::*;
use crate::request::KeyPairAndCsr;
use crate::testing::{TestCa, hours, leaf_params, now};

const ID: &str = "spiffe://example.org/a";

#[test]
fn an_svid_tells_who_and_until_when() {
    let svid = TestCa::new("example.org").leaf(ID).svid();
    assert_eq!(svid.id().as_str(), ID);
    assert_eq!((svid.not_before(), svid.not_after()), (now() - hours(1), now() + hours(1)));
}

#[test]
fn pem_and_back_is_the_same_svid() {
    let ca = TestCa::new("example.org");
    let leaf = ca.leaf(ID);
    let svid = X509Svid::from_parts(vec![leaf.der.clone(), ca.der.clone()], leaf.key_der()).unwrap();
    let again = X509Svid::from_pem(svid.chain_pem().as_bytes(), svid.key_pem().as_bytes()).unwrap();
    assert_eq!(again.chain(), svid.chain());
    assert_eq!(again.key(), svid.key());
    // What others write is read too, and the other way round.
    assert_eq!(svid.key_pem().as_str().lines().count(), leaf.key.serialize_pem().lines().count());
    rcgen::KeyPair::from_pem(&svid.key_pem()).unwrap();
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = TestCa::new("example.org");
    let error = X509Svid::from_parts(vec![ca.leaf(ID).der], ca.leaf(ID).key_der()).unwrap_err();
    assert!(matches!(&error, Error::KeyMismatch(id) if id.as_str() == ID), "{error}");
}

#[test]
fn only_a_leaf_makes_an_svid() {
    let ca = TestCa::new("example.org");
    let leaf = ca.leaf(ID);
    assert!(matches!(X509Svid::from_parts(vec![], leaf.key_der()), Err(Error::Empty)));
    let root_first = vec![ca.der.clone(), leaf.der.clone()];
    assert!(matches!(X509Svid::from_parts(root_first, leaf.key_der()), Err(Error::Leaf(_))));
    let mut params = leaf_params(ID);
    params.subject_alt_names.clear();
    let nameless = ca.sign(&params);
    let result = X509Svid::from_parts(vec![nameless.der.clone()], nameless.key_der());
    assert!(matches!(result, Err(Error::Leaf(LeafError::UriSans { count: 0 }))));
    let long = std::iter::repeat_n(leaf.der.clone(), MAX_CHAIN + 1).collect();
    assert!(matches!(X509Svid::from_parts(long, leaf.key_der()), Err(Error::TooLong)));
    let long = leaf.svid().chain_pem().repeat(MAX_CHAIN + 1);
    assert!(matches!(
        X509Svid::from_pem(long.as_bytes(), leaf.svid().key_pem().as_bytes()),
        Err(Error::TooLong)
    ));
}

#[test]
fn text_that_is_not_pem_is_refused() {
    let svid = TestCa::new("example.org").leaf(ID).svid();
    let (chain, key) = (svid.chain_pem(), svid.key_pem());
    assert!(matches!(X509Svid::from_pem(b"", key.as_bytes()), Err(Error::Empty)));
    assert!(matches!(X509Svid::from_pem(chain.as_bytes(), b""), Err(Error::Pem(_))));
    assert!(matches!(X509Svid::from_pem(chain.as_bytes(), chain.as_bytes()), Err(Error::Pem(_))));
}

#[test]
fn debug_output_shows_no_key() {
    let svid = TestCa::new("example.org").leaf(ID).svid();
    let pair = KeyPairAndCsr::generate(svid.id()).unwrap();
    for shown in [format!("{svid:?}"), format!("{pair:?}")] {
        assert!(shown.len() < 200, "{shown}");
    }
}

#[test]
fn a_request_and_its_key_belong_together() {
    let id = SpiffeId::parse(ID).unwrap();
    let pair = KeyPairAndCsr::generate(&id).unwrap();
    let ca = TestCa::new("example.org");
    let csr = rcgen::CertificateSigningRequestParams::from_pem(pair.csr_pem()).unwrap();
    assert_eq!(csr.params.subject_alt_names, leaf_params(ID).subject_alt_names);
    let leaf = leaf_params(ID).signed_by(&csr.public_key, &ca.issuer).unwrap();
    let svid = X509Svid::from_parts(vec![leaf.der().clone()], pair.key().clone_key()).unwrap();
    assert_eq!(*svid.id(), id);
}
