//! What is in an image: as `deploy/docker/Dockerfile` has it, or an app's.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::processes::process::program;

/// Where our programs are in every image.
const PROGRAMS: &str = "usr/local/bin";
/// What the runner puts into every root, to become the container's user.
pub(super) const RUNTIME: &str = ".runtime";

/// An image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    /// Our programs in it.
    programs: &'static [&'static str],
    pub(super) entrypoint: &'static str,
    pub(super) user: u32,
    /// Whether there is a Debian as well, with a shell, or nothing.
    has_system: bool,
}

/// The image of that name, whatever its registry and tag.
pub(super) fn image(reference: &str) -> Image {
    let name = reference.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    match name {
        "outrider" => ours(&["outrider"]),
        "outrider-ca" => ours(&["outrider-ca"]),
        "outrider-injector" => ours(&["outrider-injector", "outrider-controller"]),
        "outrider-init" => {
            Image { programs: &["outrider"], entrypoint: "outrider", user: 0, has_system: true }
        }
        "outrider-example" => Image { user: 1000, ..ours(&["service"]) },
        "app" => Image { programs: &["service", "greeter"], entrypoint: "sh", user: 0, has_system: true },
        _ => panic!("there is no image {reference}"),
    }
}

/// One of scratch: nothing in it but programs.
fn ours(programs: &'static [&'static str]) -> Image {
    Image { programs, entrypoint: programs.first().expect("it has a program"), user: 4343, has_system: false }
}

impl Image {
    pub(super) fn has_system(self) -> bool {
        self.has_system
    }

    pub(super) fn path(self) -> &'static str {
        if self.has_system {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        } else {
            "/usr/local/bin"
        }
    }

    /// Makes the root of a container in an empty folder. Returns what is to be mounted there: from where, and to where
    /// below the root.
    pub(super) fn unpack(self, root: &Path) -> Vec<(String, String)> {
        let mut mounts = Vec::new();
        // Libraries, as these programs are not linked statically.
        let folders: &[&str] =
            if self.has_system { &["lib", "lib64", "bin", "sbin", "share"] } else { &["lib", "lib64"] };
        for folder in folders {
            mounts.push((format!("/usr/{folder}"), format!("usr/{folder}")));
            if *folder != "share" {
                symlink(format!("usr/{folder}"), root.join(folder)).expect("a link");
            }
        }
        for folder in ["dev", "etc", "proc", "tmp", "run", RUNTIME, PROGRAMS] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        fs::create_dir(root.join("var")).expect("a folder");
        if self.has_system {
            symlink("../run", root.join("var/run")).expect("a link");
        }
        fs::write(root.join("etc/nsswitch.conf"), "hosts: files\n").expect("written");
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").expect("written");
        let own = self
            .programs
            .iter()
            .map(|name| (program(name).display().to_string(), format!("{PROGRAMS}/{name}")));
        let devices =
            ["null", "zero", "random", "urandom"].map(|name| (format!("/dev/{name}"), format!("dev/{name}")));
        let runtime =
            ["setpriv", "env"].map(|name| (format!("/usr/bin/{name}"), format!("{RUNTIME}/{name}")));
        let files: Vec<_> = own.chain(devices).chain(runtime).collect();
        for (_, to) in &files {
            fs::write(root.join(to), "").expect("written");
        }
        for (_, to) in &mounts {
            fs::create_dir_all(root.join(to)).expect("a folder");
        }
        mounts.extend(files);
        mounts
    }
}
