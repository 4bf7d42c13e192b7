//! Which settings a running agent takes over, and which wait for its next start: where it listens, and the paths of what it holds open.
//! Pure: settings in, settings and flags out.

use super::Config;
use super::kubernetes::Kubernetes;

/// Settings after a change.
#[derive(Debug)]
pub(crate) struct Reloaded {
    /// What is in force now.
    pub(crate) config: Config,
    /// Flags whose new values wait for the next start.
    pub(crate) waiting: Vec<&'static str>,
}

impl Config {
    /// Takes over what of `wanted` a running agent can. A taint can be changed and given up, but only a start can reach the Kubernetes API first.
    pub(crate) fn reloaded(&self, wanted: Config, taints: bool) -> Reloaded {
        let mut waiting = Vec::new();
        let mut wait = |flag, same: bool| {
            if !same {
                waiting.push(flag);
            }
        };
        // Whole, so that the compiler asks about each setting that is added.
        let Config {
            listen,
            nvml_library,
            kubelet_socket,
            kubelet_checkpoint,
            kubelet_pods_socket,
            shown,
            host_proc,
            host_logs,
            metadata,
            kubernetes: Kubernetes { taint_on, rebalance_hold, pod_informer, kubeconfig },
            sample_interval,
            node_name,
            dcgm_names,
            collectors,
            web_config_file,
            hpc_job_mapping_dir,
            max_series,
            log,
            out_of_reach: _,
            line: _,
            file: _,
        } = wanted;
        wait("listen", listen == self.listen);
        wait("nvml-library", nvml_library == self.nvml_library);
        wait("kubelet-socket", kubelet_socket == self.kubelet_socket);
        wait("kubelet-checkpoint", kubelet_checkpoint == self.kubelet_checkpoint);
        wait("kubelet-pods-socket", kubelet_pods_socket == self.kubelet_pods_socket);
        wait("host-proc", host_proc == self.host_proc);
        wait("host-logs", host_logs == self.host_logs);
        // A slip in one file must not take the password from a page that another file asks for.
        wait("web-config-file", web_config_file == self.web_config_file);
        wait("pod-informer", pod_informer == self.kubernetes.pod_informer);
        wait("kubeconfig", kubeconfig == self.kubernetes.kubeconfig);
        wait("taint-on", taints || taint_on == self.kubernetes.taint_on);
        let taint_on = if taints { taint_on } else { self.kubernetes.taint_on.clone() };
        let config = Config {
            shown,
            metadata,
            kubernetes: Kubernetes { taint_on, rebalance_hold, ..self.kubernetes.clone() },
            sample_interval,
            node_name,
            dcgm_names,
            collectors,
            hpc_job_mapping_dir,
            max_series,
            log,
            ..self.clone()
        };
        Reloaded { config, waiting }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::Args;
    use super::*;

    fn config(flags: &[&str]) -> Config {
        Config::from(Args::parse_from([&["windlass-agent"], flags].concat()))
    }

    /// A value for each flag that is not its default.
    const CHANGED: &[(&str, &str, bool)] = &[
        ("listen", "127.0.0.1:1", false),
        ("nvml-library", "/a", false),
        ("kubelet-socket", "/a", false),
        ("kubelet-checkpoint", "/a", false),
        ("kubelet-pods-socket", "/a", false),
        ("pod-labels", "team", true),
        ("pod-uid", "", true),
        ("host-proc", "/a", false),
        ("host-logs", "/a", false),
        ("metadata-endpoint", "", true),
        ("sample-interval", "2s", true),
        ("node-name", "another", true),
        ("dcgm-names", "off", true),
        ("taint-on", "maintenance", false),
        ("rebalance-hold", "5m", true),
        ("pod-informer", "", false),
        ("kubeconfig", "/a", false),
        ("collectors", "/a", true),
        ("web-config-file", "/a", false),
        ("hpc-job-mapping-dir", "/a", true),
        ("max-series", "7", true),
        ("log", "debug", true),
    ];

    #[test]
    fn each_setting_is_taken_over_or_named_as_waiting() {
        let before = config(&[]);
        for (flag, value, live) in CHANGED {
            let switch = ["pod-uid", "pod-informer"].contains(flag);
            let flags = if switch { format!("--{flag}") } else { format!("--{flag}={value}") };
            let wanted = config(&[&flags]);
            let Reloaded { config, waiting } = before.reloaded(wanted.clone(), false);
            let expect = if *live { (&wanted, vec![]) } else { (&before, vec![*flag]) };
            assert_eq!((&config, waiting), expect, "{flag}");
        }
        let all = Args::command();
        let flags = all.get_arguments().filter_map(|flag| flag.get_long());
        for flag in flags.filter(|flag| !["config", "once", "json"].contains(flag)) {
            assert!(CHANGED.iter().any(|(known, ..)| *known == flag), "{flag} is not in the table above");
            let live = CHANGED.iter().any(|(known, _, live)| *known == flag && *live);
            let told = readme(if live { "are taken over while the agent runs" } else { "wait for the next start" });
            assert!(told.contains(&format!("`{flag}`")), "README: {flag} is not in the row of {told}");
        }
    }

    /// The row of README's table of what is taken over.
    fn readme(row: &str) -> &'static str {
        include_str!("../../../README.md").lines().find(|line| line.contains(row)).unwrap()
    }

    #[test]
    fn a_taint_is_changed_and_given_up_where_a_start_asked_for_one() {
        let before = config(&["--taint-on", "maintenance"]);
        for taint_on in ["preemption", ""] {
            let wanted = if taint_on.is_empty() { config(&[]) } else { config(&["--taint-on", taint_on]) };
            let Reloaded { config, waiting } = before.reloaded(wanted.clone(), true);
            assert_eq!((config, waiting), (wanted, vec![]), "{taint_on}");
        }
    }
}
