//! The process's memory: what it may be, and a look at what it is, from time to time.
//!
//! There is no book-keeping of buffers on the data path: it would cost every frame, and still miss what the allocator,
//! TLS and HTTP/2 keep. The kernel knows the true figure. Between two looks memory grows by no more than what comes in
//! meanwhile, which the share of the cgroup's limit that is left out of the budget has to take.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    drain,
    model::{load::Load, settings::MemoryBudget},
};

/// Time between two looks while much of the budget is free.
const CALM: Duration = Duration::from_secs(1);
/// Time between two looks once half of the budget is used: at 10 Gbit/s, 120 MiB come in meanwhile.
const ALERT: Duration = Duration::from_millis(100);
/// What cgroup v1 says where there is no limit is near the largest number; nobody has an EiB.
const NO_LIMIT: u64 = 1 << 60;

/// What the process may use, in bytes; `None` for no bound.
#[must_use]
pub fn budget(setting: MemoryBudget) -> Option<u64> {
    match setting {
        MemoryBudget::None => None,
        MemoryBudget::Bytes(bytes) => Some(bytes),
        MemoryBudget::Auto { percent, without_limit } => {
            let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let limit = cgroup_limit(&groups, |path| fs::read_to_string(path).ok());
            Some(limit.map_or(without_limit, |limit| limit / 100 * percent))
        }
    }
}

/// Looks at the memory in use from now on, if there is a budget for it.
pub fn watch(load: &Arc<Load>) {
    let Some(budget) = load.budget_bytes else { return };
    let load = Arc::clone(load);
    drain::spawn_background(async move {
        loop {
            let Some(resident) = resident() else {
                tracing::warn!("memory in use cannot be read: limits.memory is without effect");
                return;
            };
            if load.looked(resident) {
                let exceeded = load.exceeded.load(Ordering::Relaxed);
                if load.is_over() {
                    tracing::warn!(resident, budget, exceeded, "over the memory budget: new work is refused");
                } else {
                    tracing::info!(resident, budget, exceeded, "within the memory budget again");
                }
            }
            tokio::time::sleep(if resident < budget / 2 { CALM } else { ALERT }).await;
        }
    });
}

/// Memory of the process that no file stands behind, in bytes.
fn resident() -> Option<u64> {
    anonymous(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `RssAnon` of a `/proc/<pid>/status` (proc_pid_status(5)), in bytes.
fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest limit over the cgroups that `/proc/self/cgroup` names and those above them; versions 2 and 1.
fn cgroup_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _other => return None,
        };
        // Inside a container the path may be that of the host: then the root is our own group.
        let own = PathBuf::from(root).join(path.trim_start_matches('/'));
        let limit = |group: &Path| read(&group.join(file))?.trim().parse().ok();
        own.ancestors().take_while(|group| group.starts_with(root)).filter_map(limit).min()
    });
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        cgroup_limit(groups, |path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn the_smallest_limit_above_us_counts() {
        let v2 = "0::/a/b\n";
        let max = "/sys/fs/cgroup/a/b/memory.max";
        assert_eq!(limit(v2, &[(max, "max\n")]), None);
        assert_eq!(limit(v2, &[(max, "1000\n"), ("/sys/fs/cgroup/a/memory.max", "900\n")]), Some(900));
        assert_eq!(limit(v2, &[("/sys/fs/cgroup/memory.max", "800\n"), (max, "max")]), Some(800));
        let v1 = "5:cpu,cpuacct:/x\n4:memory:/a\n0::/\n";
        let file = "/sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_eq!(limit(v1, &[(file, "700\n")]), Some(700));
        assert_eq!(limit(v1, &[(file, "9223372036854771712\n")]), None);
        assert_eq!(limit("nonsense\n1:\n", &[]), None);
    }

    #[test]
    fn what_is_resident_is_read_as_the_kernel_writes_it() {
        assert_eq!(anonymous("Name:\tx\nVmRSS:\t  9 kB\nRssAnon:\t   40 kB\n"), Some(40 * 1024));
        assert_eq!(anonymous("RssAnon:\t40\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn auto_is_a_share_of_some_limit() {
        assert_eq!(budget(MemoryBudget::None), None);
        assert_eq!(budget(MemoryBudget::Bytes(7)), Some(7));
        let auto = MemoryBudget::Auto { percent: 80, without_limit: 1 << 30 };
        assert!(budget(auto).is_some_and(|bytes| bytes > 1 << 20));
    }
}
