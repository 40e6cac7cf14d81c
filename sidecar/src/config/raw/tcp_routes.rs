//! `tcp_routes`: where opaque streams go.

use serde_saphyr::Spanned;

use super::{Texts, WeightedCluster};
use crate::model::file::section;

section! {
    pub(in crate::config) struct TcpRoute {
        name: String,
        services: Texts,
        ports: Texts,
        snis: Texts,
        clusters: Vec<Spanned<WeightedCluster>>,
    }
}
