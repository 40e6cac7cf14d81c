use super::*;
use crate::testing::leaf_params;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType};

const ID: &str = "spiffe://example.org/a";

/// Parameters as a request may have them.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = leaf_params(ID).subject_alt_names;
    params
}

fn request(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).unwrap().pem().unwrap()
}

fn proven() -> SpiffeId {
    SpiffeId::parse(ID).unwrap()
}

#[test]
fn the_usual_kinds_of_keys_are_taken() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = Csr::read(&request(&params(), &key)).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(csr.spki_sha256, sha256(&spki));
        assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&csr.public_key), spki);
        assert_eq!(csr.check_name(&proven()), Ok(()));
    }
}

#[test]
fn other_keys_are_refused() {
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    assert_eq!(Csr::read(&request(&params(), &p521)).unwrap_err(), Error::Key);
    // openssl req -new -newkey rsa:1024 -nodes -keyout /dev/null -subj /
    let weak = include_str!("rsa1024.pem");
    assert_eq!(Csr::read(weak).unwrap_err(), Error::Key);
}

#[test]
fn a_request_names_the_caller_or_nobody() {
    let key = KeyPair::generate().unwrap();
    let read = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        Csr::read(&request(&params, &key)).unwrap().check_name(&proven())
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    assert_eq!(read(vec![]), Ok(()));
    assert_eq!(read(vec![uri(ID)]), Ok(()));
    assert_eq!(
        read(vec![SanType::DnsName("a.example".try_into().unwrap())]),
        Ok(()),
        "never certified anyway"
    );
    for names in [
        vec![uri("spiffe://example.org/b")],
        vec![uri("spiffe://other.example/a")],
        vec![uri(ID), uri("spiffe://example.org/admin")],
        vec![uri("spiffe://example.org/a/")],
    ] {
        assert!(matches!(read(names), Err(Error::OtherName { .. })));
    }
}

#[test]
fn wishes_beside_the_name_do_no_harm() {
    let key = KeyPair::generate().unwrap();
    let mut params = params();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    Csr::read(&request(&params, &key)).unwrap().check_name(&proven()).unwrap();
}

#[test]
fn the_sender_must_hold_the_key() {
    let key = KeyPair::generate().unwrap();
    let good = params().serialize_request(&key).unwrap();
    let other = KeyPair::generate().unwrap();
    // Another key of the same length in place of the signed one.
    let (own, new) = (key.public_key_raw(), other.public_key_raw());
    let der = good.der();
    let at = der.windows(own.len()).position(|window| window == own).unwrap();
    let swapped = [&der[..at], new, &der[at + own.len()..]].concat();
    let pem = crate::pem::encode("CERTIFICATE REQUEST", &swapped);
    assert_eq!(Csr::read(&pem).unwrap_err(), Error::Signature);
}

#[test]
fn garbage_is_refused() {
    let key = KeyPair::generate().unwrap();
    let der = params().serialize_request(&key).unwrap().der().to_vec();
    let pem = |der: &[u8]| crate::pem::encode("CERTIFICATE REQUEST", der);
    assert_eq!(Csr::read("").unwrap_err(), Error::NotPem);
    assert_eq!(Csr::read("garbage").unwrap_err(), Error::NotPem);
    assert_eq!(Csr::read(&crate::pem::encode("CERTIFICATE", &der)).unwrap_err(), Error::NotPem);
    assert_eq!(Csr::read(&key.serialize_pem()).unwrap_err(), Error::NotPem);
    assert_eq!(Csr::read(&pem(&[])).unwrap_err(), Error::Malformed);
    assert_eq!(Csr::read(&pem(&der[..der.len() - 1])).unwrap_err(), Error::Malformed);
    assert_eq!(Csr::read(&pem(&[&der[..], &[0]].concat())).unwrap_err(), Error::Malformed);
    assert_eq!(Csr::read(&"A".repeat(MAX_CSR_BYTES + 1)).unwrap_err(), Error::TooLarge);
}

proptest! {
    #[test]
    fn damaged_requests_are_read_without_a_panic(at in 0_usize..1000, byte in any::<u8>()) {
        let key = KeyPair::generate().unwrap();
        let mut der = params().serialize_request(&key).unwrap().der().to_vec();
        let at = at % der.len();
        der[at] = byte;
        drop(Csr::read(&crate::pem::encode("CERTIFICATE REQUEST", &der)));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Csr::read(&text));
        drop(Csr::read(&crate::pem::encode("CERTIFICATE REQUEST", &bytes)));
    }
}
