//! What the agent needs of the node besides the driver: the kubelet's sockets, the host's process ids, cgroups and log names.
//! In a pod what is missing is a fault of the manifest; on a bare machine it may simply not be there.

use std::path::Path;

use super::report::Finding;
use crate::config::Config;
use crate::look::Look;

/// The initial pid namespace has this inode on every Linux (PROC_PID_INIT_INO in the kernel's sources).
const HOST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The program, where it runs and as whom.
pub(super) fn agent(config: &Config) -> Finding {
    let what = format!("windlass-agent {} on node {}", env!("CARGO_PKG_VERSION"), config.node_name);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next());
    match uid {
        Some("0") | None => Finding::ok("agent", what),
        Some(_) if config.kubelet_socket.is_none() => Finding::ok("agent", what),
        Some(uid) => Finding::note(
            "agent",
            format!("{what}, as user {uid}"),
            "the kubelet's socket and other users' processes are root's alone: run it as root (no capability is needed)",
        ),
    }
}

pub(super) fn examine(config: &Config, look: &Look) -> Vec<Finding> {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let lacks = |about: &str, what: String, remedy: &str| {
        if in_pod { Finding::mend(about, what, remedy) } else { Finding::note(about, what, remedy) }
    };
    let mut findings = vec![kubelet(config, look, &lacks)];
    if config.kubelet_socket.is_none() {
        return findings; // no pods: nothing below has a use
    }
    findings.push(pods_api(config));
    findings.push(process_ids(config, look, &lacks));
    findings.push(cgroups(&config.host_proc, &lacks));
    findings.push(container_names(config, &lacks));
    findings
}

fn kubelet(config: &Config, look: &Look, lacks: &dyn Fn(&str, String, &str) -> Finding) -> Finding {
    let Some(socket) = &config.kubelet_socket else {
        return Finding::note("kubelet", "not asked: --kubelet-socket is empty", "GPUs are shown without pods");
    };
    match &look.owners {
        Ok(holders) => {
            let mut owners: Vec<_> = holders.assignments.iter().map(|assignment| &assignment.owner).collect();
            owners.sort_unstable();
            owners.dedup();
            let what = format!("{} answers: {} with a GPU", socket.display(), containers(owners.len()));
            if holders.unknown_ids == 0 {
                return Finding::ok("kubelet", what);
            }
            let ids = format!("{what}; {} device ids in unknown forms", holders.unknown_ids);
            Finding::note("kubelet", ids, "their use is found by processes and cgroups alone")
        }
        Err(_) if !socket.exists() => lacks(
            "kubelet",
            format!("{}: not there", socket.display()),
            "on a node: mount the host's /var/lib/kubelet/pod-resources; without Kubernetes: say --kubelet-socket ''",
        ),
        Err(reason) => Finding::mend("kubelet", reason.clone(), "the socket answers root only: runAsUser: 0"),
    }
}

fn containers(count: usize) -> String {
    if count == 1 { "1 container".into() } else { format!("{count} containers") }
}

fn pods_api(config: &Config) -> Finding {
    match config.kubelet_pods_socket.as_deref() {
        Some(socket) if socket.exists() => {
            Finding::ok("pods API", format!("{}: pod uids and labels are known", socket.display()))
        }
        Some(socket) => Finding::ok(
            "pods API",
            format!("{}: not there, as on most kubelets before 1.37; pods go by name", socket.display()),
        ),
        None => Finding::ok("pods API", "not asked: --kubelet-pods-socket is empty"),
    }
}

fn process_ids(config: &Config, look: &Look, lacks: &dyn Fn(&str, String, &str) -> Finding) -> Finding {
    const REMEDY: &str = "hostPID: true in the pod; without it containers that share a GPU cannot be told apart";
    let here = look.pids.iter().filter(|pid| config.host_proc.join(pid.to_string()).exists()).count();
    let proc = config.host_proc.display();
    if !look.pids.is_empty() {
        let what = format!("{here} of {} processes on the GPUs are in {proc}", look.pids.len());
        return if here > 0 { Finding::ok("process ids", what) } else { Finding::mend("process ids", what, REMEDY) };
    }
    match std::fs::read_link(config.host_proc.join("1/ns/pid")).or_else(|_| std::fs::read_link("/proc/self/ns/pid")) {
        Ok(namespace) if namespace.as_os_str() == HOST_PID_NAMESPACE => {
            Finding::ok("process ids", format!("{proc} has the host's"))
        }
        Ok(_) => lacks("process ids", "this is not the host's pid namespace".into(), REMEDY),
        Err(error) => lacks("process ids", format!("the pid namespace cannot be read: {error}"), REMEDY),
    }
}

fn cgroups(proc: &Path, lacks: &dyn Fn(&str, String, &str) -> Finding) -> Finding {
    let file = proc.join("1/cgroup");
    match std::fs::read_to_string(&file) {
        Ok(text) => {
            let version =
                if text.lines().any(|line| line.starts_with("0::")) && text.lines().count() == 1 { "v2" } else { "v1" };
            Finding::ok("cgroups", format!("{version}, readable"))
        }
        Err(error) => lacks(
            "cgroups",
            format!("{}: {error}", file.display()),
            "processes cannot be led to containers: give the pod hostPID, or the host's /proc with --host-proc",
        ),
    }
}

fn container_names(config: &Config, lacks: &dyn Fn(&str, String, &str) -> Finding) -> Finding {
    let folder = config.host_logs.join("containers");
    match std::fs::read_dir(&folder) {
        Ok(entries) => Finding::ok("names", format!("{}: {} containers", folder.display(), entries.count())),
        Err(error) => lacks(
            "names",
            format!("{}: {error}", folder.display()),
            "mount the host's /var/log, read-only: names of log files tell which container an id is (their content is not read)",
        ),
    }
}
