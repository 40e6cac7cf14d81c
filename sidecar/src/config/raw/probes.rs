//! `probes`.

use serde_saphyr::Spanned;

use super::NameAndValue;
use crate::model::file::section;

section! {
    pub(in crate::config) struct Probe {
        name: String,
        http: HttpProbe,
        tcp: TcpProbe,
        grpc: GrpcProbe,
        timeout: String,
    }
}

section! {
    pub(in crate::config) struct HttpProbe {
        port: String,
        path: String,
        scheme: String,
        host: String,
        headers: Vec<Spanned<NameAndValue>>,
    }
}

section! {
    pub(in crate::config) struct TcpProbe {
        port: String,
        host: String,
    }
}

section! {
    pub(in crate::config) struct GrpcProbe {
        port: String,
        service: String,
    }
}
