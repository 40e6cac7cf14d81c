//! Does what the page about two hosts says, command by command, with two loopback addresses for the hosts.
//!
//! Each block of commands on the page says who runs it: `sh host-a`, `sh host-b` or `sh both`. Two shells stand for the
//! two hosts.

mod page;

use page::{Shell, blocks};

#[test]
fn the_page_about_two_hosts_works_as_it_is_written() {
    let page = include_str!("../vm/README.md");
    let network = format!("127.{}.{}", fastrand::u8(16..=250), fastrand::u8(..));
    let (a, b) = (format!("{network}.10"), format!("{network}.20"));
    let home = tempfile::tempdir().expect("a folder");
    let mut shells = [Shell::start("host-a", home.path()), Shell::start("host-b", home.path())];
    let mut everything = String::new();

    for block in blocks(page) {
        let who = block.shell.expect("a block for somebody");
        assert!(["host-a", "host-b", "both"].contains(&who.as_str()), "for {who}, in {}?", block.section);
        for shell in shells.iter_mut().filter(|shell| who == shell.name || who == "both") {
            let own = if shell.name == "host-a" { &a } else { &b };
            // What the page says about trying it on one machine.
            let commands = block
                .commands
                .replace("A=192.0.2.10  B=192.0.2.20  L=127.0.0.1", &format!("A={a}  B={b}  L={own}"))
                .replace(
                    "scp token-for-b $B:host-b/token && rm token-for-b",
                    "mv token-for-b ~/host-b/token",
                );
            everything.push_str(&shell.follow(&commands, block.is_refused));
            if commands.contains("cp -r") {
                shell.follow("sed -i \"s/127\\.0\\.0\\.1/$L/\" outrider.yaml", false);
            }
        }
    }
    for proof in [
        r#""service":"web""#,
        r#""caller":"By=spiffe://example.org/orders;URI=spiffe://example.org/web""#,
        r#""version":"TLSv1_3""#,
        r#""peer":"spiffe://example.org/web""#,
    ] {
        assert!(everything.contains(proof), "{proof} is nowhere in\n{everything}");
    }
}
