//! `routes`: where requests go, and what holds for them.

use serde_saphyr::Spanned;

use super::{Fault, FieldEdits, InboundRateLimit, RateLimit, Redirect, Retry, Rewrite, Texts};
use crate::model::file::section;

section! {
    pub(in crate::config) struct HttpRoute {
        name: String,
        hosts: Texts,
        services: Texts,
        rules: Vec<Spanned<Rule>>,
    }
}

section! {
    pub(in crate::config) struct Rule {
        name: String,
        matches: Vec<Spanned<Match>>,
        clusters: Vec<Spanned<RuleCluster>>,
        mirror: Vec<Spanned<Mirror>>,
        sticky: Sticky,
        request_timeout: String,
        retry: Retry,
        rate_limits: Vec<Spanned<RateLimit>>,
        fault: Fault,
        request_headers: FieldEdits,
        response_headers: FieldEdits,
        rewrite: Rewrite,
        redirect: Redirect,
    }
}

section! {
    pub(in crate::config) struct Match {
        path: String,
        path_prefix: String,
        methods: Texts,
        headers: Vec<Spanned<NameAndValue>>,
        query: Vec<Spanned<NameAndValue>>,
        cookies: Vec<Spanned<NameAndValue>>,
        grpc: String,
    }
}

section! {
    pub(in crate::config) struct WeightedCluster {
        name: String,
        weight: String,
    }
}

section! {
    pub(in crate::config) struct RuleCluster {
        name: String,
        weight: String,
        request_headers: FieldEdits,
        response_headers: FieldEdits,
    }
}

section! {
    pub(in crate::config) struct Mirror {
        cluster: String,
        percent: String,
    }
}

section! {
    pub(in crate::config) struct Sticky {
        header: String,
        cookie: String,
    }
}

section! {
    pub(in crate::config) struct Route {
        name: String,
        path: String,
        path_prefix: String,
        methods: Texts,
        headers: Vec<Spanned<NameAndValue>>,
        query: Vec<Spanned<NameAndValue>>,
        cookies: Vec<Spanned<NameAndValue>>,
        grpc: String,
        request_timeout: String,
        retry: Retry,
        rate_limits: Vec<Spanned<RateLimit>>,
        fault: Fault,
        request_headers: FieldEdits,
        response_headers: FieldEdits,
        rewrite: Rewrite,
        redirect: Redirect,
    }
}

section! {
    pub(in crate::config) struct InboundRoute {
        name: String,
        path: String,
        path_prefix: String,
        methods: Texts,
        headers: Vec<Spanned<NameAndValue>>,
        query: Vec<Spanned<NameAndValue>>,
        cookies: Vec<Spanned<NameAndValue>>,
        grpc: String,
        request_timeout: String,
        rate_limits: Vec<Spanned<InboundRateLimit>>,
        fault: Fault,
        request_headers: FieldEdits,
        response_headers: FieldEdits,
        rewrite: Rewrite,
    }
}

section! {
    pub(in crate::config) struct NameAndValue {
        name: String,
        value: String,
    }
}
