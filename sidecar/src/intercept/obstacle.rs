//! Why the kernel's rules cannot be touched, in words that name what is missing.

use std::fs;

use super::program::{self, Program, run};

/// `CAP_NET_ADMIN` of capabilities(7).
const NET_ADMIN: u32 = 12;

/// Why interception could not be applied, looked at or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// We may not.
    #[error(
        "CAP_NET_ADMIN is missing: run as root of the network namespace, or give the container the capability NET_ADMIN \
         (an ordinary user has it inside `unshare --user --map-root-user --net`)"
    )]
    Capability,
    /// We have the capability, but not in the user namespace that the network namespace belongs to.
    #[error(
        "CAP_NET_ADMIN is held, but not over this network namespace: it belongs to another user namespace \
         (`unshare --net` together with `--user`), or `{0}` was started as an ordinary user, to whom the capability \
         does not pass on"
    )]
    Namespace(&'static str),
    /// The kernel lacks something that the rules use.
    #[error("this kernel lacks {}", .0.join(", and "))]
    Kernel(Vec<String>),
    /// A program did not do what it should, for another reason.
    #[error(transparent)]
    Program(#[from] program::Error),
}

/// What the rules are made of: rules that use one thing each, and what it is called where kernels are configured.
const FEATURES: [(&str, &str); 7] = [
    (
        "nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET)",
        "chain c { type filter hook output priority 0; }",
    ),
    (
        "address translation for inet tables (CONFIG_NFT_NAT; Linux 5.2 or newer)",
        "chain c { type nat hook output priority -100; }",
    ),
    (
        "redirection (CONFIG_NFT_REDIR)",
        "chain c { type nat hook output priority -100; meta l4proto tcp redirect to :1; }",
    ),
    (
        "lookups of address types (CONFIG_NFT_FIB_INET, CONFIG_NFT_FIB_IPV4, CONFIG_NFT_FIB_IPV6)",
        "chain c { type filter hook output priority 0; fib daddr type local accept; }",
    ),
    (
        "marks of connections (CONFIG_NFT_CT, CONFIG_NF_CONNTRACK_MARK)",
        "chain c { type filter hook output priority 0; ct mark set 1; }",
    ),
    (
        "named counters (CONFIG_NFT_OBJREF on older kernels)",
        "counter n { }; chain c { type filter hook output priority 0; counter name ct mark map { 1 : \"n\" }; }",
    ),
    (
        "transparent proxying (CONFIG_NFT_TPROXY, CONFIG_NFT_REJECT_INET), which only `mode: tproxy` needs",
        "chain c { type filter hook prerouting priority 0; meta l4proto tcp tproxy to :1; \
         meta l4proto tcp reject with tcp reset; }",
    ),
];

/// What stands behind a program's failure.
pub(super) async fn explain(error: program::Error) -> Error {
    let program::Error::Failed(program, complaint) = &error else { return error.into() };
    let is_forbidden = ["Operation not permitted", "Permission denied", "you must be root"];
    if is_forbidden.iter().any(|words| complaint.contains(words)) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        return if has_net_admin(&status) { Error::Namespace(program.names().0) } else { Error::Capability };
    }
    if *program == Program::Ip {
        return error.into();
    }
    let missing = missing_features().await;
    if missing.is_empty() { error.into() } else { Error::Kernel(missing) }
}

/// Asks the kernel about each thing by a transaction that is tried and not carried out. What needs the first thing is
/// not asked about where that is missing.
async fn missing_features() -> Vec<String> {
    let mut missing = Vec::new();
    for (name, rules) in FEATURES {
        let table = format!("table inet outrider_probe {{ {rules} }}\n");
        if let Err(program::Error::Failed(_, complaint)) = run(Program::Nft, &["-c", "-f", "-"], &table).await
        {
            let reason = complaint.lines().next().unwrap_or_default();
            missing.push(format!("{name}: {}", reason.rsplit("Error: ").next().unwrap_or_default()));
            if missing.len() == 1 && name.starts_with("nf_tables") {
                break;
            }
        }
    }
    missing
}

/// Whether `CAP_NET_ADMIN` is in the effective set of a `/proc/<pid>/status` (proc_pid_status(5)).
fn has_net_admin(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    bits >> NET_ADMIN & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_one_bit_of_the_effective_set() {
        assert!(has_net_admin("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\n"));
        assert!(has_net_admin("CapEff:\t000001ffffffffff\n"));
        assert!(!has_net_admin("CapEff:\t000001fffeffefff\n"));
        assert!(!has_net_admin("CapPrm:\t0000000000001000\nCapEff:\t0000000000000000\n"));
        assert!(!has_net_admin("CapEff:\tnonsense\n") && !has_net_admin(""));
    }
}
