//! Servers that speak first and shells.

use super::{DATA, Scene, in_url, services};

#[test]
fn ssh_takes_input_and_brings_a_commands_output_and_code() {
    let Some(scene) = Scene::set(&["sshd", "ssh"]) else { return };
    let port = scene.port();
    scene.shell("rm -f id id.pub; ssh-keygen -q -t ed25519 -N '' -f id", &[]);
    scene.pods().place(DATA, "keys", &scene.text(&["cat", "id.pub"]));
    scene.pods().text(DATA, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "hostkey"]);
    let options = "-f /dev/null -h /run/app/hostkey -o AuthorizedKeysFile=/run/app/keys -o StrictModes=no -o UsePAM=no \
                   -o PidFile=none";
    let start = format!("exec $(command -v sshd) -D -e -p {port} {options}");
    let _server = scene.server(port, ["sh", "-euc", &start]);
    let options = "-i id -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
    let calls = || {
        for host in services() {
            let command = format!("ssh {options} -p $2 app@$1 'cat | md5sum; exit 3' || echo code $?");
            let said = scene.shell(&format!("seq 1 300000 | {command}"), &[&host, &port.to_string()]);
            let expected = scene.shell("seq 1 300000 | md5sum; echo code 3", &[]);
            assert_eq!(said, expected, "{host}");
        }
    };
    // Both ends introduce themselves at once.
    let kinds = scene.kinds(|| scene.is_proven(calls));
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| kind.starts_with("opaque ")), "{kinds:?}");
}

#[test]
fn a_mail_server_greets_and_takes_mail() {
    let Some(scene) = Scene::set(&["curl", "python:aiosmtpd"]) else { return };
    let (_server, port) = scene.script_server("../intercept/programs/mail.py", "::");
    scene.found_to_be(&["opaque server"], || {
        for host in services() {
            let url = format!("smtp://{}:{port}/red.test", in_url(&host));
            let script = "seq 1 20000 | curl -sS --crlf --max-time 20 --mail-from a@red.test --mail-rcpt b@data.test -T - -v $1 2>&1";
            let said = scene.shell(script, &[&url]);
            let taken = format!("250 OK {}", (1..=20_000).map(|line: u32| line.to_string().len() + 2).sum::<usize>());
            assert!(said.contains("< 220 ") && said.contains(&taken), "{host}: {said}");
        }
    });
}
