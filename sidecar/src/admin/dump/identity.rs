//! Where our identity comes from, as configured: files by their names.

use serde_json::{Value, json};

use super::config::duration;
use crate::model::settings::{CaProof, IdentitySource};

pub(super) fn identity(source: &IdentitySource) -> Value {
    match source {
        IdentitySource::Ca { address, proof: CaProof::JoinToken { file }, validity } => json!({ "ca": {
            "address": address,
            "join_token_file": file,
            "validity": duration(*validity),
        }}),
        IdentitySource::Ca {
            address,
            proof: CaProof::ServiceAccount { token_file, bundle_file },
            validity,
        } => json!({ "ca": {
            "address": address,
            "service_account_token_file": token_file,
            "bundle_file": bundle_file,
            "validity": duration(*validity),
        }}),
        IdentitySource::File { certificate, key, bundle } => json!({ "file": {
            "certificate": certificate,
            "key": key,
            "bundle": bundle,
        }}),
    }
}
