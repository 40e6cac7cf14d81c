//! What the controller says of the own workload, as it stands.

use serde_saphyr::Spanned;

use super::{Authorization, Port};
use crate::model::file::section;

section! {
    pub(in crate::config) struct Workload {
        ports: Vec<Spanned<Port>>,
        authorization: Authorization,
    }
}
