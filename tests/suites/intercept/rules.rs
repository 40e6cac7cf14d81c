//! The table as a whole: loaded, shown, removed, whatever was there before and whoever is killed meanwhile.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use super::{
    namespace::{claim, ip, nft, ran, sysctl},
    program::{Intercept, complaint, everything, network},
};
use crate::processes::process::program;

/// Exceptions of every kind.
const EXCEPTIONS: [&str; 2] = [
    "except_ports: [25, 3306], except_cidrs: [10.8.0.0/16, 10.8.1.0/24, 'fd08::/16'], except_uids: [1000]",
    "except_ports: [9090], except_cidrs: [10.9.0.0/16, 0.0.0.0/0, '::/0']",
];

fn full(mode: &str) -> Intercept {
    Intercept::new(mode, EXCEPTIONS[0], EXCEPTIONS[1])
}

/// Rules as other programs make them: `iptables-nft`, a firewall.
fn foreign_rules() {
    nft("table ip nat { chain OUTPUT { type nat hook output priority -100; policy accept;
            ip daddr 127.0.0.11 tcp dport 53 counter dnat to 127.0.0.11:44321 ; } ; }
         table ip6 filter { chain INPUT { type filter hook input priority 0; policy accept; counter ; } ; }
         table inet firewall { set s { type ipv4_addr ; elements = { 192.0.2.7 } ; } ;
            chain c { type filter hook forward priority 0; ip saddr @s drop ; } ; }");
    ip("rule add pref 100 fwmark 0x7 lookup 4344");
    ip("route add local default dev lo table 4344");
}

fn is_shown_as(intercept: &Intercept, state: &str) -> bool {
    intercept.good("show").contains(&format!("# loaded: {state}\n"))
}

#[test]
fn applying_twice_is_applying_once() {
    claim(&[], async || {
        for mode in ["redirect", "tproxy"] {
            let intercept = full(mode);
            intercept.good("apply");
            let once = everything();
            assert!(once.contains("table inet outrider {"), "{once}");
            intercept.good("apply");
            assert_eq!(everything(), once);
            assert!(is_shown_as(&intercept, "same"));
        }
    });
}

#[test]
fn what_was_loaded_before_does_not_matter() {
    claim(&[], async || {
        let intercept = full("redirect");
        intercept.good("apply");
        let fresh = everything();
        for mode in ["tproxy", "redirect"] {
            Intercept::new(mode, "except_ports: [80]", "").good("apply");
            assert!(is_shown_as(&intercept, "different"));
            intercept.good("apply");
            assert_eq!(everything(), fresh, "after {mode}");
        }
        nft("delete table inet outrider");
        nft("table inet outrider { set x { type inet_service ; } ; chain outbound { drop ; } ; }");
        intercept.good("apply");
        assert_eq!(everything(), fresh);
    });
}

#[test]
fn removing_leaves_everything_as_it_was_and_nothing_of_others_is_touched() {
    claim(&[], async || {
        for mode in ["redirect", "tproxy"] {
            let intercept = full(mode);
            // Loading the first rules of a kind may make the kernel list more of its own.
            intercept.good("apply");
            intercept.good("remove");
            foreign_rules();
            let before = everything();
            assert!(intercept.good("remove").contains("nothing to remove"));
            assert_eq!(everything(), before);
            intercept.good("apply");
            let applied = everything();
            let foreign = ["nat", "filter", "firewall"].map(|name| format!(" {name} {{"));
            assert!(foreign.iter().all(|table| applied.contains(table)), "{applied}");
            let of_others: String = ["ip nat", "ip6 filter", "inet firewall"]
                .map(|table| ran(Command::new("nft").args(["-s", "list", "table"]).args(table.split(' '))))
                .concat();
            assert!(of_others.lines().all(|line| before.contains(line)), "{of_others}");
            assert!(intercept.good("remove").contains("removed"));
            assert_eq!(everything(), before);
            nft("flush ruleset");
            ip("rule del pref 100");
            ip("route flush table 4344");
        }
    });
}

/// A program before the real one: at its `turn`-th run it kills who started it, before or after it does its work.
fn killer(intercept: &Intercept, turn: usize, is_after: bool) -> PathBuf {
    let folder = intercept.folder().join("killer");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir(&folder).expect("a folder");
    for name in ["nft", "ip"] {
        let kill = if is_after { "/usr/sbin/PROGRAM \"$@\"; kill -9 $PPID" } else { "kill -9 $PPID" };
        let script = format!(
            "#!/bin/sh\nPATH=$PATH:/usr/sbin:/sbin\necho >>{folder}/runs\n\
             if [ $(wc -l <{folder}/runs) -eq {turn} ]; then {kill}; exit 1; fi\n\
             PATH=$(echo $PATH | sed s,{folder}:,,) exec PROGRAM \"$@\"\n",
            folder = folder.display()
        );
        let path = folder.join(name);
        fs::write(&path, script.replace("PROGRAM", name)).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    folder
}

/// Programs that are run at most by one command: more turns than that kill nobody.
const MAX_RUNS: usize = 20;

#[test]
fn being_killed_at_any_step_is_made_good_by_the_next_run() {
    claim(&[], async || {
        let intercept = full("tproxy");
        intercept.good("apply");
        let applied = everything();
        intercept.good("remove");
        let removed = everything();
        let mut killed = 0;
        for what in ["apply", "show", "remove"] {
            for (turn, is_after) in (1..=MAX_RUNS).flat_map(|turn| [(turn, false), (turn, true)]) {
                let folder = killer(&intercept, turn, is_after);
                let mut path = folder.into_os_string();
                path.push(":");
                path.push(std::env::var_os("PATH").unwrap_or_default());
                let ended = intercept.command(what).env("PATH", path).output().expect("it starts");
                killed += usize::from(ended.status.code().is_none());
                if ended.status.success() {
                    break;
                }
                intercept.good("apply");
                assert_eq!(everything(), applied, "{what}, killed at step {turn}");
                if what == "apply" {
                    intercept.good("remove");
                    assert_eq!(everything(), removed, "{what}, killed at step {turn}");
                }
            }
            intercept.good("apply");
        }
        assert!(killed > 20, "killed {killed} times only");
    });
}

#[test]
fn what_is_shown_is_what_nft_would_load() {
    claim(&[], async || {
        let intercept = full("tproxy");
        let shown = intercept.good("show");
        assert!(shown.contains("# loaded: absent\n"), "{shown}");
        fs::write(intercept.folder().join("rules"), &shown).expect("written");
        ran(Command::new("nft").arg("-f").arg(intercept.folder().join("rules")));
        for command in shown.lines().filter_map(|line| line.strip_prefix("# ip ")) {
            ip(command);
        }
        assert!(is_shown_as(&intercept, "same"));
        let by_hand = everything();
        intercept.good("apply");
        assert_eq!(everything(), by_hand);
    });
}

#[test]
fn each_difference_of_what_is_loaded_is_shown() {
    claim(&[], async || {
        let intercept = full("tproxy");
        intercept.good("apply");
        nft("insert rule inet outrider outbound tcp dport 443 accept");
        ip("rule del pref 4343");
        let shown = intercept.good("show");
        assert!(shown.contains("the table has besides: chain outbound: tcp dport 443 accept"), "{shown}");
        assert!(shown.contains("routing lacks: ip -4 rule add pref 4343"), "{shown}");
    });
}

#[test]
fn it_works_where_ipv6_is_switched_off() {
    claim(&[], async || {
        sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        network();
        for mode in ["redirect", "tproxy"] {
            let intercept = full(mode);
            intercept.set(mode, "except_ports: [25]", "");
            intercept.good("apply");
            let said = intercept.good("check");
            assert!(said.contains("IPv6: there is no route out") && said.contains("by IPv4 keep"), "{said}");
            intercept.good("remove");
        }
    });
}

#[test]
fn without_the_capability_the_message_names_it() {
    claim(&["setpriv"], async || {
        let intercept = full("redirect");
        for what in ["apply", "check", "remove"] {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
            command.arg(program("outrider")).args(["intercept", what]);
            if what != "remove" {
                command.arg("--config").arg(intercept.config());
            }
            let said = complaint(&mut command);
            assert!(said.contains("CAP_NET_ADMIN is missing"), "{said}");
        }
        let mut elsewhere = Command::new("unshare");
        elsewhere.args(["--user", "--map-root-user"]).arg(program("outrider"));
        let said = complaint(elsewhere.args(["intercept", "apply", "--config"]).arg(intercept.config()));
        assert!(said.contains("belongs to another user namespace"), "{said}");
    });
}

#[test]
fn without_nft_the_message_names_its_package() {
    claim(&["mount"], async || {
        let intercept = full("redirect");
        for folder in ["/usr/sbin", "/sbin"] {
            if fs::symlink_metadata(folder).is_ok_and(|found| found.is_dir()) {
                ran(Command::new("mount").args(["-t", "tmpfs", "none", folder]));
            }
        }
        let said = complaint(intercept.command("apply").env("PATH", intercept.folder()));
        assert!(said.contains("there is no `nft`") && said.contains("install nftables"), "{said}");
    });
}

#[test]
fn a_configuration_without_the_section_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("outrider.yaml");
    let text = "service: s\ntrust_domain: t\nidentity: { file: { certificate: a, key: b, bundle: c } }\n\
                outbound: [{ listen: '127.0.0.1:0' }]\n";
    fs::write(&path, text).expect("written");
    let mut command = Command::new(program("outrider"));
    let said = complaint(command.args(["intercept", "apply", "--config"]).arg(path));
    assert!(said.contains("has no section `intercept`"), "{said}");
}
