//! What the agent may do at the Kubernetes API. Nothing by default; all of it needs a build with the cargo feature `kube` and rights of its own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::notices::Kind;

/// Its flags.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Kubernetes {
    /// Taint the own node and write an Event while the cloud gives notice of one of these kinds, comma-separated [default: none]
    #[arg(long, env = "WINDLASS_TAINT_ON", value_name = "KINDS", value_delimiter = ',')]
    pub taint_on: Vec<Kind>,
    /// How long a rebalance recommendation keeps the taint before it counts as come to nothing: 1m to 24h
    #[arg(long, env = "WINDLASS_REBALANCE_HOLD", value_name = "DURATION", default_value = "15m", value_parser = hold)]
    pub rebalance_hold: Duration,
    /// Watch the node's pods at the API server, for their uids and labels, where the kubelet has no Pods API
    #[arg(long, env = "WINDLASS_POD_INFORMER")]
    pub pod_informer: bool,
    /// How to reach the API server [default: as a pod does]
    #[arg(long, env = "WINDLASS_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,
}

impl Default for Kubernetes {
    fn default() -> Self {
        let rebalance_hold = Duration::from_secs(15 * 60);
        Self { taint_on: Vec::new(), rebalance_hold, pod_informer: false, kubeconfig: None }
    }
}

impl Kubernetes {
    /// The first flag that asks for the API server.
    #[must_use]
    pub fn wants(&self) -> Option<&'static str> {
        let taint = (!self.taint_on.is_empty()).then_some("--taint-on");
        taint.or(self.pod_informer.then_some("--pod-informer"))
    }
}

/// `90s`, `15m`, `2h`.
fn hold(text: &str) -> Result<Duration, String> {
    let wrong = || "write it as 90s, 15m or 2h, from 1m to 24h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1_u64,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| (60..=86_400).contains(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_has_a_unit_and_bounds() {
        for (text, expect) in [
            ("15m", Some(900)),
            ("90s", Some(90)),
            ("24h", Some(86_400)),
            ("59s", None),
            ("25h", None),
            ("15", None),
            ("m", None),
            ("", None),
            ("é", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(hold(text).ok(), expect.map(Duration::from_secs), "{text}");
        }
    }
}
