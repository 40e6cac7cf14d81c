//! One container: a root of its own, volumes in their places, and a program with the rights that the manifest says.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::process::{Child, Command};

use super::{
    fields::{environment, list, number, text, words},
    image::{RUNTIME, image},
    volumes::API_TOKEN,
};
use crate::harness::eventually;

/// What a container may do whose manifest says nothing of it (containerd, `oci/spec.go`).
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It ends before the next begins.
    Init,
    /// An init container that goes on.
    Sidecar,
    App,
}

/// What containers of a pod have in common.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Of the pod: volumes are in `volumes/`.
    pub(super) folder: PathBuf,
    /// `/etc/hosts` of all pods.
    pub(super) hosts: PathBuf,
    /// The network namespace.
    pub(super) network: String,
    pub(super) environment: Vec<(String, String)>,
}

/// A container to be run.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) spec: Value,
    place: Place,
    /// What becomes its user in its root, and has its environment, whatever is run then.
    entry: Vec<String>,
    command: Vec<String>,
    hostname: String,
}

/// A container's first process.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// Its number on the node.
    pub(super) pid: i32,
}

impl Running {
    /// Its exit code: 128 and the signal, if a signal ended it.
    pub(super) async fn ended(&mut self) -> i32 {
        let status = self.child.wait().await.expect("it can be waited for");
        status.code().expect("nobody kills who waits for it")
    }
}

impl Container {
    pub(super) fn new(spec: &Value, role: Role, pod: &Value, place: &Place) -> Self {
        let image = image(text(spec, "/image"));
        let mut known = place.environment.clone();
        known.push(("PATH".to_owned(), image.path().to_owned()));
        let known = environment(spec, pod, known);
        let mut command = words(spec, "/command", &known);
        if command.is_empty() {
            command.push(image.entrypoint.to_owned());
        }
        command.extend(words(spec, "/args", &known));
        let mut entry = vec![format!("/{RUNTIME}/setpriv")];
        entry.extend(rights(spec, pod, image.user));
        entry.extend([format!("/{RUNTIME}/env"), "-i".to_owned()]);
        entry.extend(known.iter().map(|(name, value)| format!("{name}={value}")));
        Self {
            name: text(spec, "/name").to_owned(),
            role,
            spec: spec.clone(),
            place: place.clone(),
            entry,
            command,
            hostname: text(pod, "/metadata/name").to_owned(),
        }
    }

    /// Starts it, for the `attempt`th time.
    pub(super) async fn start(&self, attempt: u32) -> Running {
        let folder = self.place.folder.join(&self.name).join(attempt.to_string());
        let (root, pid, script) = (folder.join("root"), folder.join("pid"), folder.join("start"));
        fs::create_dir_all(&root).expect("a folder");
        fs::write(&script, self.script(&root, &pid)).expect("written");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut child = Command::new("nsenter")
            .arg(format!("--net={}", self.place.network))
            .args(["unshare", "--mount", "--uts", "--ipc", "--pid"])
            // It waits for the first process of the new namespace, and ends as that does.
            .args(["sh", "-c", "\"$@\"; exit $?", "sh", "sh", "-e"])
            .arg(&script)
            .args(&self.entry)
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("nsenter starts");
        let is_program = |pid: i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words
                == self.command.iter().flat_map(|word| [word.as_bytes(), b"\0"]).collect::<Vec<_>>().concat()
        };
        let mut number = None;
        eventually(&format!("{} has become its program", self.name), || {
            number = fs::read_to_string(&pid).ok().and_then(|text| text.trim().parse().ok());
            number.is_some_and(is_program) || child.try_wait().expect("it can be waited for").is_some()
        })
        .await;
        Running {
            child,
            pid: number.unwrap_or_else(|| panic!("{} did not start: {}", self.name, self.log())),
        }
    }

    /// What the first process does before it becomes the program: says its number, makes its root, goes there. It runs as
    /// root, in namespaces of its own.
    fn script(&self, root: &Path, pid: &Path) -> String {
        let at = root.display();
        let mut script = format!("read -r pid rest </proc/self/stat\necho \"$pid\" >{}\n", pid.display());
        let mut line = |line: String| writeln!(script, "{line}").expect("text");
        line(format!("hostname {}", self.hostname));
        line(format!("mount --bind {at} {at}"));
        let image = image(text(&self.spec, "/image"));
        for (from, to) in image.unpack(root) {
            line(format!("mount --rbind {from} {at}/{to}"));
        }
        fs::write(root.join("etc/hosts"), "").expect("written");
        line(format!("mount --bind {} {at}/etc/hosts", self.place.hosts.display()));
        // Settings of the kernel are nobody's in a container to change.
        line(format!("mount -t proc proc {at}/proc\nmount --bind {at}/proc/sys {at}/proc/sys"));
        line(format!("mount -o remount,bind,ro {at}/proc/sys"));
        for (volume, path, is_read_only) in self.mounts() {
            let (from, to) = (self.place.folder.join("volumes").join(volume), path.trim_start_matches('/'));
            // Through the links of the image, as a runtime does.
            let to = to.strip_prefix("var/run/").map_or_else(|| to.to_owned(), |rest| format!("run/{rest}"));
            let to = if image.has_system() { to } else { path.trim_start_matches('/').to_owned() };
            fs::create_dir_all(root.join(&to)).expect("a folder");
            line(format!("mount --bind {} {at}/{to}", from.display()));
            if is_read_only {
                line(format!("mount -o remount,bind,ro {at}/{to}"));
            }
        }
        if self.spec["securityContext"]["readOnlyRootFilesystem"] == true {
            line(format!("mount -o remount,bind,ro {at}"));
        }
        line(format!("cd /\nexec chroot {at} \"$@\""));
        script
    }

    /// Volumes, paths, and whether they are only read.
    fn mounts(&self) -> Vec<(&str, &str, bool)> {
        let mounts = list(&self.spec, "/volumeMounts").iter();
        let mut all: Vec<_> = mounts
            .map(|mount| (text(mount, "/name"), text(mount, "/mountPath"), mount["readOnly"] == true))
            .collect();
        if !all.iter().any(|(_, path, _)| *path == API_TOKEN) {
            all.push(("api-token", API_TOKEN, true));
        }
        all.sort_by_key(|(_, path, _)| path.len());
        all
    }

    /// Runs a program beside its first process, as `kubectl exec` does.
    pub(super) async fn exec(&self, pid: i32, command: &[String], limit: Duration) -> Result<Output, String> {
        let mut program = Command::new("nsenter");
        program
            .args([
                "--target",
                &pid.to_string(),
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
                "--root",
                "--wd",
            ])
            .args(&self.entry)
            .args(command)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(limit, program.output()).await;
        output
            .map_err(|_elapsed| format!("{command:?} had not ended after {limit:?}"))?
            .map_err(|error| error.to_string())
    }

    fn log_file(&self) -> PathBuf {
        self.place.folder.join(format!("{}.log", self.name))
    }

    /// What it has written so far.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }
}

/// How `setpriv` makes the container's user.
fn rights(spec: &Value, pod: &Value, image_user: u32) -> Vec<String> {
    let (own, of_pod) = (&spec["securityContext"], &pod["spec"]["securityContext"]);
    let either = |key: &str| number(own, key).or(number(of_pod, key));
    let user = either("/runAsUser").unwrap_or(image_user);
    let group = either("/runAsGroup").unwrap_or(image_user);
    let is_not_root =
        own.get("runAsNonRoot").or(of_pod.get("runAsNonRoot")).is_some_and(|value| value == true);
    assert!(user != 0 || !is_not_root, "a container that must not run as root does");
    let named = |key: &str| list(own, key).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let (add, drop) = (named("/capabilities/add"), named("/capabilities/drop"));
    let kept = CAPABILITIES.into_iter().filter(|name| !drop.contains(&"ALL") && !drop.contains(name));
    let bounding: String = kept.chain(add).map(|name| format!(",+{}", name.to_lowercase())).collect();
    let mut rights = vec![
        format!("--reuid={user}"),
        format!("--regid={group}"),
        number(of_pod, "/fsGroup").map_or("--clear-groups".to_owned(), |group| format!("--groups={group}")),
        "--inh-caps=-all".to_owned(),
        format!("--bounding-set=-all{bounding}"),
    ];
    if own["allowPrivilegeEscalation"] == false {
        rights.push("--no-new-privs".to_owned());
    }
    rights
}
