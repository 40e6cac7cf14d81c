//! `identity.ca`: how we prove who we are.

use std::path::PathBuf;

use super::settings;
use crate::model::settings::{CaProof, IdentitySource};

fn file(keys: &str) -> String {
    format!(
        "service: web\ntrust_domain: cluster.local\nidentity: {{ca: {{address: 'ca:4350', {keys}}}}}\n\
         outbound: [{{listen: '127.0.0.1:0'}}]\n"
    )
}

fn proof(keys: &str) -> CaProof {
    match settings(&file(keys)).bootstrap.identity {
        IdentitySource::Ca { proof, .. } => proof,
        other @ IdentitySource::File { .. } => panic!("{other:?}"),
    }
}

#[test]
fn the_ca_is_told_who_we_are_in_one_way() {
    assert_eq!(proof(""), CaProof::JoinToken { file: None });
    assert_eq!(proof("join_token_file: /t"), CaProof::JoinToken { file: Some(PathBuf::from("/t")) });
    let (token_file, bundle_file) = (PathBuf::from("/t"), PathBuf::from("/b"));
    assert_eq!(
        proof("service_account_token_file: /t, bundle_file: /b"),
        CaProof::ServiceAccount { token_file, bundle_file }
    );
}

#[test]
fn contradictions_are_faults() {
    for (keys, fault) in [
        ("service_account_token_file: /t", "has service_account_token_file without bundle_file"),
        ("bundle_file: /b", "identity.ca.bundle_file: is not used here"),
        ("join_token_file: /t, bundle_file: /b", "identity.ca.bundle_file: is not used here"),
        (
            "join_token_file: /t, service_account_token_file: /t, bundle_file: /b",
            "has both join_token_file and service_account_token_file",
        ),
    ] {
        let found = crate::config::parse(&file(keys), std::path::Path::new("")).unwrap_err().to_string();
        assert!(found.contains(fault), "{keys}: {found}");
    }
}
