//! The command line of `outrider-injector` from outside.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use assert_cmd::Command;

fn injector(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_outrider-injector")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_says_not_yet_and_what_works_instead() {
    for arguments in [
        &["serve", "--listen", "127.0.0.1:4380"][..],
        &["inject", "--filename", "pod.yaml"],
        &["uninject"],
        &["install", "--namespace", "mesh"],
        &["check"],
    ] {
        let (code, stdout, stderr) = injector(arguments);
        assert_eq!(code, Some(3), "{arguments:?}: {stderr}");
        assert!(stdout.is_empty(), "nothing that could be taken for manifests: {stdout}");
        assert!(stderr.contains("not yet") && stderr.contains("outrider run --config"), "{stderr}");
        assert!(stderr.contains(arguments.first().unwrap()), "{stderr}");
    }
}

#[test]
fn help_and_version_are_there() {
    let (code, stdout, _) = injector(&["--help"]);
    assert_eq!(code, Some(0));
    for command in ["serve", "inject", "uninject", "install", "check"] {
        assert!(stdout.contains(command), "{stdout}");
    }
    let (code, stdout, _) = injector(&["--version"]);
    assert_eq!((code, stdout.trim()), (Some(0), concat!("outrider-injector ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_wrong_call_is_told_apart_from_not_yet() {
    for arguments in [&["inject", "--nonsense"][..], &["fly"], &["serve", "--listen", "nowhere"], &[]] {
        let (code, _, stderr) = injector(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_page_that_the_message_names_is_there() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/vm/README.md");
    assert!(page.is_file());
}
