//! Names in the DNS: what a resolver makes of the answers of real servers, good and bad, over UDP and TCP; and a mesh
//! whose callers find their endpoints that way.

mod answers;
mod mesh;
mod server;

pub(crate) use answers::look_with_mark;
pub(crate) use server::{Answer, DnsServer, address};
