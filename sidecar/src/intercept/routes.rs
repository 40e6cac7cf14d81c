//! Routing rules for transparent proxying: packets with our mark stay in the namespace.

use std::{fs, path::Path};

use super::program::{Error, Program, run};
use crate::model::intercept::{TPROXY_MARK, TPROXY_TABLE};

/// Both versions of IP.
const FAMILIES: [&str; 2] = ["-4", "-6"];
/// How often the rule is removed at most: it is there once, or more often if somebody added it by hand.
const MAX_REMOVALS: usize = 8;

/// What is added, as the arguments of `ip` for one version of IP.
fn additions() -> [String; 2] {
    [format!("route replace local default dev lo table {TPROXY_TABLE}"), format!("rule add {}", selector())]
}

fn selector() -> String {
    format!("pref {TPROXY_TABLE} fwmark {TPROXY_MARK:#x} lookup {TPROXY_TABLE}")
}

/// The commands, for people.
pub(super) fn commands() -> String {
    let lines = FAMILIES.iter().flat_map(|family| additions().map(|rest| format!("ip {family} {rest}\n")));
    lines.collect()
}

/// Versions of IP that the kernel knows.
fn known() -> impl Iterator<Item = &'static str> {
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    FAMILIES.into_iter().filter(move |family| *family == "-4" || has_ipv6)
}

/// Versions of IP that the loopback interface has: no route leads to it by others. Should IPv6 be switched on later, apps
/// are not reached by it until the rules are applied again: their answers have no way back to us.
fn usable() -> impl Iterator<Item = &'static str> {
    let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6");
    let has_ipv6 = disabled.is_ok_and(|text| text.trim() == "0");
    FAMILIES.into_iter().filter(move |family| *family == "-4" || has_ipv6)
}

async fn ip(family: &str, rest: &str) -> Result<String, Error> {
    let arguments: Vec<&str> = std::iter::once(family).chain(rest.split(' ')).collect();
    run(Program::Ip, &arguments, "").await
}

/// Adds route and rule where they are not there yet.
pub(super) async fn add() -> Result<(), Error> {
    for family in usable() {
        let [route, rule] = additions();
        ip(family, &route).await?;
        if !has_rule(family).await? {
            ip(family, &rule).await?;
        }
    }
    Ok(())
}

/// Removes route and rule. Whether there were any.
pub(super) async fn remove() -> Result<bool, Error> {
    let mut were_there = false;
    for family in known() {
        for _removal in 0..MAX_REMOVALS {
            if !has_rule(family).await? {
                break;
            }
            ip(family, &format!("rule del {}", selector())).await?;
            were_there = true;
        }
        if has_route(family).await? {
            ip(family, &format!("route flush table {TPROXY_TABLE}")).await?;
            were_there = true;
        }
    }
    Ok(were_there)
}

/// What is missing of them, in words.
pub(super) async fn missing() -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for family in usable() {
        let [route, rule] = additions();
        if !has_route(family).await? {
            missing.push(format!("ip {family} {route}"));
        }
        if !has_rule(family).await? {
            missing.push(format!("ip {family} {rule}"));
        }
    }
    Ok(missing)
}

async fn has_rule(family: &str) -> Result<bool, Error> {
    Ok(is_in_rules(&ip(family, "rule show").await?))
}

/// Whether our rule is among those that `ip rule show` lists.
fn is_in_rules(listed: &str) -> bool {
    let (preference, mark, table) =
        (format!("{TPROXY_TABLE}:"), format!("fwmark {TPROXY_MARK:#x}"), format!("lookup {TPROXY_TABLE}"));
    listed
        .lines()
        .map(str::trim)
        .any(|line| line.starts_with(&preference) && line.contains(&mark) && line.ends_with(&table))
}

async fn has_route(family: &str) -> Result<bool, Error> {
    match ip(family, &format!("route show table {TPROXY_TABLE}")).await {
        Ok(listed) => Ok(listed.contains("local default dev lo")),
        // There is no such table before the first route is in it.
        Err(Error::Failed(_, complaint)) if complaint.contains("does not exist") => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rule_is_told_from_others() {
        let ours = "0:\tfrom all lookup local\n4343:\tfrom all fwmark 0x4f520000 lookup 4343\n";
        assert!(is_in_rules(ours));
        assert!(!is_in_rules("4343:\tfrom all fwmark 0x4f520001 lookup 4343\n"));
        assert!(!is_in_rules("4343:\tfrom all fwmark 0x4f520000 lookup main\n"));
        assert!(!is_in_rules("100:\tfrom all fwmark 0x4f520000 lookup 4343\n"));
        assert!(!is_in_rules(""));
    }

    #[test]
    fn both_versions_are_named() {
        assert!(commands().contains("ip -4 route replace local default dev lo table 4343\n"));
        assert!(commands().contains("ip -6 rule add pref 4343 fwmark 0x4f520000 lookup 4343\n"));
    }
}
