//! `authorization`, as it stands.

use serde_saphyr::Spanned;

use super::{NameAndValue, Texts};
use crate::model::file::section;

section! {
    pub(in crate::config) struct Authorization {
        mode: String,
        rules: Vec<Spanned<Rule>>,
    }
}

section! {
    pub(in crate::config) struct Rule {
        name: String,
        from: Texts,
        from_namespaces: Texts,
        from_trust_domains: Texts,
        ports: Texts,
        hosts: Texts,
        methods: Texts,
        paths: Texts,
        path_prefixes: Texts,
        headers: Vec<Spanned<NameAndValue>>,
        grpc: Texts,
    }
}
