//! Interception: which connections of the network namespace the kernel brings to us, and which it leaves alone.

use ipnet::IpNet;

/// The connections that are brought to us. Fixed for the life of the process: the rules in the kernel are made from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptSettings {
    /// How inbound connections are brought here.
    pub mode: Mode,
    /// How the kernel knows connections that are our own.
    pub own: Own,
    /// What leaves the namespace.
    pub outbound: OutboundRules,
    /// What comes into it.
    pub inbound: InboundRules,
}

/// How inbound connections are brought here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By rewriting their destination; the app sees them come from the own address.
    Redirect,
    /// By transparent proxying; the app sees the client's address. Needs `CAP_NET_ADMIN` while running.
    Tproxy,
}

/// How the kernel knows connections that are our own, which are never brought to us again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// By the user that makes them: everything that this user runs is left alone.
    Uid(u32),
    /// By a mark that we set on them (`SO_MARK`), which takes `CAP_NET_ADMIN`: where there is only one user.
    Mark(u32),
}

impl Own {
    /// The mark of our connections, if they have one.
    #[must_use]
    pub fn mark(self) -> Option<u32> {
        match self {
            Self::Uid(_) => None,
            Self::Mark(mark) => Some(mark),
        }
    }
}

/// What leaves the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundRules {
    /// The port that we listen on for it.
    pub port: u16,
    /// Destination ports that are left alone.
    pub except_ports: Vec<u16>,
    /// Destinations that are left alone.
    pub except_cidrs: Vec<IpNet>,
    /// Users whose connections are left alone.
    pub except_uids: Vec<u32>,
}

/// What becomes of a connection to an address that no cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It goes on to that address, unchanged.
    Passthrough,
    /// It is refused.
    Deny,
}

/// What comes into the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundRules {
    /// The port that we listen on for it.
    pub port: u16,
    /// Ports of the namespace that are left alone.
    pub except_ports: Vec<u16>,
    /// Sources that are left alone.
    pub except_cidrs: Vec<IpNet>,
}

/// The DSCP value of our connections to the own app (RFC 2474: xxxx11 is for local use). They go to the namespace's own
/// address and must arrive there, while those that we make to ourselves as to any other endpoint must come in as a peer's:
/// the rules tell them apart by it.
pub const APP_DSCP: u8 = 43;

/// With [`Mode::Tproxy`]: mark of our connections to the app that have a client's address, and of the app's packets in
/// answer, which a routing rule keeps in the namespace by it. Marks of connections from here to [`MARK_MAX`] are ours.
pub const TPROXY_MARK: u32 = 0x4f52_0000;
/// The largest mark of a connection that is ours: those above [`TPROXY_MARK`] are of exceptions.
pub const MARK_MAX: u32 = 0x4f52_ffff;
/// With [`Mode::Tproxy`]: number of the routing table by which such packets stay, and preference of the rule that leads
/// to it.
pub const TPROXY_TABLE: u32 = 4343;
