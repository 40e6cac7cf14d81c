//! What a route changes, and what is told of callers: the keys as they stand.

use serde_saphyr::Spanned;

use super::{NameAndValue, Texts};
use crate::model::file::section;

section! {
    pub(in crate::config) struct Forwarded {
        client_cert: String,
    }
}

section! {
    pub(in crate::config) struct FieldEdits {
        set: Vec<Spanned<NameAndValue>>,
        add: Vec<Spanned<NameAndValue>>,
        remove: Texts,
    }
}

section! {
    pub(in crate::config) struct Rewrite {
        host: String,
        path: String,
        path_prefix: String,
    }
}

section! {
    pub(in crate::config) struct Redirect {
        scheme: String,
        host: String,
        port: String,
        path: String,
        path_prefix: String,
        status: String,
    }
}
