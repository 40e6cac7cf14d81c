//! A wire that loses, delays or cuts: between the caller's sidecar and one replica's, in a network namespace of our own.
//!
//! Everything goes over that namespace's loopback, so the host's network is never touched, and nothing has to be put
//! back: the namespace ends with the last process in it.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;
use rustix::process::getuid;

use super::plan::Host;
use crate::demo::processes::run_tool;

/// What is wrong with the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impairment {
    /// A tenth of the packets is lost, in each direction.
    Loss,
    /// Packets take 100 ms more, in each direction.
    Delay,
    /// The link carries 48 kbit/s in each direction, and queues what is more than that.
    Congestion,
    /// No packet arrives.
    Partition,
}

/// The network between the sidecars.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// Whether the kernel can delay packets (`sch_netem`).
    pub can_delay: bool,
}

/// The own arguments that lead to a namespace of its own, as this user can make one.
fn unshare() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--net".into()];
    if !getuid().is_root() {
        arguments.extend(["--user".into(), "--map-root-user".into()]);
    }
    arguments
}

/// Becomes the same program in a network namespace of its own, if there can be one. Returns why not.
#[must_use]
pub fn move_into_namespace(own: &Path, arguments: impl Iterator<Item = OsString>) -> String {
    let probe = Command::new("unshare")
        .args(unshare())
        .args(["sh", "-c", "ip link set lo up"])
        .stdin(Stdio::null())
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => return String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => return format!("unshare: {error}"),
    }
    let error =
        Command::new("unshare").args(unshare()).arg("--").arg(own).arg("--alone").args(arguments).exec();
    format!("unshare: {error}")
}

impl Wire {
    /// The loopback of this namespace, which is ours.
    ///
    /// # Errors
    /// If it can't be brought up, or classes of traffic can't be told apart.
    pub async fn new() -> anyhow::Result<Self> {
        ip("link set lo up").await?;
        // What belongs to no class passes at once.
        tc("qdisc add dev lo root handle 1: htb").await?;
        let can_delay = {
            tc("class add dev lo parent 1: classid 1:9 htb rate 10gbit").await?;
            tc("qdisc add dev lo parent 1:9 handle 9: netem delay 1ms").await.is_ok()
        };
        Ok(Self { can_delay })
    }

    /// Whether it can be impaired like that.
    #[must_use]
    pub fn can(self, impairment: Impairment) -> bool {
        impairment != Impairment::Delay || self.can_delay
    }

    /// Impairs the wire to a replica's sidecar.
    ///
    /// # Errors
    /// What the tools said.
    pub async fn impair(self, host: &Host, impairment: Impairment) -> anyhow::Result<()> {
        let (ip, port) = (host.inbound.ip(), host.inbound.port());
        let drop = |share: &str| {
            format!(
                "add table inet chaos\n\
                 add chain inet chaos wire {{ type filter hook input priority 0; }}\n\
                 add rule inet chaos wire ip daddr {ip} tcp dport {port} {share} drop\n\
                 add rule inet chaos wire ip saddr {ip} tcp sport {port} {share} drop\n"
            )
        };
        match impairment {
            Impairment::Loss => nft(&drop("numgen random mod 100 < 10")).await,
            Impairment::Partition => nft(&drop("")).await,
            Impairment::Delay => {
                tc("class add dev lo parent 1: classid 1:4 htb rate 10gbit").await?;
                tc("qdisc add dev lo parent 1:4 handle 40: netem delay 100ms").await?;
                classify(host).await
            }
            Impairment::Congestion => {
                tc("class add dev lo parent 1: classid 1:4 htb rate 48kbit burst 2k").await?;
                tc("qdisc add dev lo parent 1:4 handle 40: pfifo limit 1000").await?;
                classify(host).await
            }
        }
    }

    /// Makes it good again.
    ///
    /// # Errors
    /// What the tools said.
    pub async fn heal(self, impairment: Impairment) -> anyhow::Result<()> {
        match impairment {
            Impairment::Loss | Impairment::Partition => nft("delete table inet chaos").await,
            Impairment::Delay | Impairment::Congestion => {
                tc("filter del dev lo parent 1: prio 1").await?;
                tc("class del dev lo classid 1:4").await
            }
        }
    }
}

/// Both directions between the caller and that replica, into the class that is impaired.
async fn classify(host: &Host) -> anyhow::Result<()> {
    let (ip, port) = (host.inbound.ip(), host.inbound.port());
    for (address, side) in [("dst", "dport"), ("src", "sport")] {
        tc(&format!(
            "filter add dev lo protocol ip parent 1: prio 1 u32 match ip {address} {ip}/32 \
             match ip {side} {port} 0xffff flowid 1:4"
        ))
        .await?;
    }
    Ok(())
}

async fn tc(arguments: &str) -> anyhow::Result<()> {
    tool("tc", arguments).await
}

async fn ip(arguments: &str) -> anyhow::Result<()> {
    tool("ip", arguments).await
}

async fn tool(name: &str, arguments: &str) -> anyhow::Result<()> {
    run_tool(Path::new(name), &arguments.split_whitespace().collect::<Vec<_>>()).await
}

async fn nft(commands: &str) -> anyhow::Result<()> {
    run_tool(Path::new("nft"), &[commands]).await.context("impairing the wire")
}
