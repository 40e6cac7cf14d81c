//! Whom a connection names, where its address says nothing.

use std::{io, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{Uri, header::HOST};

use super::race::read;
use crate::{
    model::{Cluster, Snapshot, settings::Limits, transport::Transport},
    net::Net,
    pipeline::{door::Door, tcp::Destination, worker::Worker},
    route,
};

/// What a connection began with.
pub(super) struct Named {
    /// All that has been read.
    pub(super) read: Bytes,
    /// Where it leads; `None` if it names nobody whom we know.
    pub(super) destination: Option<Destination>,
    /// Whether whom it names has rules of its own, by which each of its requests goes.
    pub(super) has_rules: bool,
}

/// What one look at the bytes says.
enum Look {
    /// They are not all there.
    More,
    /// It names nobody, or it is not what it seemed to be.
    Nobody,
    Name(String),
}

/// Reads the head of an HTTP/1 request. `None` if the connection breaks before.
pub(super) async fn of_request<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    stream: &mut N::Stream,
    first: Bytes,
) -> Option<Named> {
    let limits = limits(worker, door);
    let look = |bytes: &[u8]| request_authority(bytes, limits.header_count);
    named(worker, door, stream, (first, limits.header_bytes), look).await
}

/// Whom a ClientHello names; only clusters of the mesh carry an app's own TLS inside of theirs.
pub(super) fn of_name<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Cluster>> {
    let is_mesh = |found: &&Arc<Cluster>| matches!(found.settings.transport, Transport::Mesh(..));
    route::find(snapshot, name, None).filter(is_mesh)
}

fn limits<N: Net>(worker: &Worker<N>, door: &Door) -> Arc<Limits> {
    Arc::clone(&door.load(&worker.snapshots).config.settings.limits)
}

async fn named<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    stream: &mut N::Stream,
    (first, max_bytes): (Bytes, usize),
    look: impl Fn(&[u8]) -> Look,
) -> Option<Named> {
    let mut bytes = BytesMut::from(&*first);
    let reading = async {
        loop {
            match look(&bytes) {
                Look::More if bytes.len() < max_bytes => {
                    // What ends, or takes too long, is carried on as it is.
                    if !read(stream, &mut bytes).await? {
                        return Ok::<_, io::Error>(None);
                    }
                }
                Look::More | Look::Nobody => return Ok(None),
                Look::Name(name) => return Ok(Some(name)),
            }
        }
    };
    let limit = limits(worker, door).header_read_timeout;
    let name = match tokio::time::timeout(limit, reading).await {
        Ok(read) => read.ok()?,
        Err(_elapsed) => None,
    };
    let snapshot = door.load(&worker.snapshots);
    let has_rules = name
        .as_ref()
        .is_some_and(|name| route::table::of_host(&snapshot.config.settings.routes, name).is_some());
    let cluster = name.and_then(|name| route::find(&snapshot, &name, None));
    let destination = cluster.map(|cluster| Destination::new(cluster, &snapshot, door));
    Some(Named { read: bytes.freeze(), destination, has_rules })
}

/// Whom a request is for, by the parser that will read it if we serve it: its target where that names somebody (RFC 9112
/// §3.2.2), else its one `Host`.
fn request_authority(bytes: &[u8], max_fields: usize) -> Look {
    let mut fields = vec![httparse::EMPTY_HEADER; max_fields];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Look::More,
        Err(_) => return Look::Nobody,
    }
    let target = request.path.and_then(|target| target.parse::<Uri>().ok());
    if let Some(authority) = target.as_ref().and_then(Uri::authority) {
        return Look::Name(authority.to_string());
    }
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(HOST.as_str()));
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            std::str::from_utf8(host.value).map_or(Look::Nobody, |host| Look::Name(host.to_owned()))
        }
        (_, _) => Look::Nobody,
    }
}
