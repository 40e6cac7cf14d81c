//! Response flags: why the proxy answered instead of the upstream, or what was odd about an answer.

/// Envoy's letters where they exist; the rest say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResponseFlag {
    /// No route, or no such cluster.
    NR,
    /// No healthy endpoint.
    UH,
    /// Connecting upstream failed.
    UF,
    /// Upstream reset or closed before its answer was complete.
    UC,
    /// A cap was reached.
    UO,
    /// No answer in time.
    UT,
    /// The stream was idle too long.
    SI,
    /// The downstream went away first.
    DC,
    /// The downstream broke the protocol.
    DPE,
    /// The upstream broke the protocol.
    UPE,
    /// The peer is not who it must be (ours: Envoy counts this under UF).
    ID,
    /// We are draining (ours).
    DR,
    /// The caller is not allowed (as Envoy's `UAEX`, with our letters of `RBAC`).
    RBAC,
    /// The process is over its memory budget (as Envoy's overload manager).
    OM,
    /// A rate limit is reached.
    RL,
    /// An answer that was injected as a fault.
    FI,
    /// A delay that was injected as a fault.
    DI,
    /// The caller's own time ran out (ours: Envoy counts this under UT).
    DE,
}

impl ResponseFlag {
    /// Every flag, in the order of their discriminants.
    pub const ALL: [Self; 18] = [
        Self::NR,
        Self::UH,
        Self::UF,
        Self::UC,
        Self::UO,
        Self::UT,
        Self::SI,
        Self::DC,
        Self::DPE,
        Self::UPE,
        Self::ID,
        Self::DR,
        Self::RBAC,
        Self::OM,
        Self::RL,
        Self::FI,
        Self::DI,
        Self::DE,
    ];

    /// The letters, as in metrics and logs.
    #[must_use]
    pub fn letters(self) -> &'static str {
        match self {
            Self::NR => "NR",
            Self::UH => "UH",
            Self::UF => "UF",
            Self::UC => "UC",
            Self::UO => "UO",
            Self::UT => "UT",
            Self::SI => "SI",
            Self::DC => "DC",
            Self::DPE => "DPE",
            Self::UPE => "UPE",
            Self::ID => "ID",
            Self::DR => "DR",
            Self::RBAC => "RBAC",
            Self::OM => "OM",
            Self::RL => "RL",
            Self::FI => "FI",
            Self::DI => "DI",
            Self::DE => "DE",
        }
    }
}
