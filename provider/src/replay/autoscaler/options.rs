//! Per-group options as each release reads them, with the releases' defects: they are what a provider has to live with.

use std::time::Duration;

use windlass_proto::externalgrpc::{LegacyDuration, NodeGroupAutoscalingOptions};

use super::flags::{Era, Flags};

/// What the loop goes by for one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) utilization: f64,
    pub(super) gpu_utilization: f64,
    pub(super) unneeded: Duration,
    pub(super) unready: Duration,
    pub(super) provision: Duration,
    pub(super) startup: Duration,
    pub(super) zero_or_max: bool,
}

impl Options {
    /// What the command line says, for groups that say nothing.
    pub(super) fn of(flags: &Flags) -> Self {
        Self {
            utilization: flags.utilization_threshold,
            gpu_utilization: flags.gpu_utilization_threshold,
            unneeded: flags.unneeded_time,
            unready: flags.unready_time,
            provision: flags.max_node_provision_time,
            startup: flags.max_node_startup_time,
            zero_or_max: false,
        }
    }

    /// The `defaults` of a request, in the fields this release knows.
    pub(super) fn to_message(self, era: Era) -> NodeGroupAutoscalingOptions {
        let old =
            |span: Duration| Some(LegacyDuration { duration: i64::try_from(span.as_nanos()).unwrap_or(i64::MAX) });
        let new = |span: Duration| prost_types::Duration::try_from(span).ok();
        let (with_old, with_new) = (era <= Era::V1_34, era >= Era::V1_34);
        NodeGroupAutoscalingOptions {
            scale_down_utilization_threshold: self.utilization,
            scale_down_gpu_utilization_threshold: self.gpu_utilization,
            scale_down_unneeded_time: with_old.then(|| old(self.unneeded)).flatten(),
            scale_down_unready_time: with_old.then(|| old(self.unready)).flatten(),
            max_node_provision_time: (with_old && era > Era::V1_27).then(|| old(self.provision)).flatten(),
            zero_or_max_node_scaling: self.zero_or_max,
            ignore_daemon_sets_utilization: false,
            scale_down_unneeded_duration: with_new.then(|| new(self.unneeded)).flatten(),
            scale_down_unready_duration: with_new.then(|| new(self.unready)).flatten(),
            max_node_provision_duration: with_new.then(|| new(self.provision)).flatten(),
        }
    }

    /// What a release makes of an answer that carries options.
    ///
    /// # Errors
    /// A sentence, where the release's client dies of a nil pointer.
    pub(super) fn read(message: &NodeGroupAutoscalingOptions, era: Era, flags: &Flags) -> Result<Self, String> {
        let old = |span: Option<LegacyDuration>| {
            span.map(|span| Duration::from_nanos(u64::try_from(span.duration).unwrap_or(0)))
        };
        let new = |span: Option<prost_types::Duration>| span.map(|span| Duration::try_from(span).unwrap_or_default());
        let pick = |new_form: Option<Duration>, old_form: Option<Duration>, field: &str| match era {
            Era::V1_36 => Ok(new_form.unwrap_or_default()),
            Era::V1_34 => new_form.or(old_form).ok_or_else(|| died(field)),
            _ => old_form.ok_or_else(|| died(field)),
        };
        Ok(Self {
            utilization: message.scale_down_utilization_threshold,
            gpu_utilization: message.scale_down_gpu_utilization_threshold,
            unneeded: pick(
                new(message.scale_down_unneeded_duration),
                old(message.scale_down_unneeded_time),
                "scaleDownUnneededTime",
            )?,
            unready: pick(
                new(message.scale_down_unready_duration),
                old(message.scale_down_unready_time),
                "scaleDownUnreadyTime",
            )?,
            provision: if era == Era::V1_27 {
                // The client of 1.27 and 1.28 does not know the field and leaves zero (kubernetes/autoscaler#5935).
                Duration::ZERO
            } else {
                pick(
                    new(message.max_node_provision_duration),
                    old(message.max_node_provision_time),
                    "MaxNodeProvisionTime",
                )?
            },
            // Not in the contract: from 1.35 on, whoever answers options answers zero (kubernetes/autoscaler#10245).
            startup: if era >= Era::V1_36 { Duration::ZERO } else { flags.max_node_startup_time },
            zero_or_max: message.zero_or_max_node_scaling,
        })
    }
}

fn died(field: &str) -> String {
    format!("nil pointer in NodeGroupGetOptions: the answer has options without {field}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_fields_only_kill_the_old_clients_and_blind_the_new_one() {
        let flags = Flags::quick(Era::V1_36);
        let all = Options::of(&flags);
        let new_only = all.to_message(Era::V1_36);
        for era in [Era::V1_27, Era::V1_29, Era::V1_33] {
            assert!(Options::read(&new_only, era, &flags).is_err(), "{era:?}");
        }
        assert_eq!(Options::read(&new_only, Era::V1_34, &flags), Ok(all));
        assert_eq!(
            Options::read(&new_only, Era::V1_36, &flags),
            Ok(Options { startup: Duration::ZERO, ..all }),
            "1.35 and newer take every registered node that is not ready for a broken one"
        );
    }

    #[test]
    fn provision_time_is_lost_on_1_27() {
        let flags = Flags::quick(Era::V1_27);
        let both = Options::of(&flags).to_message(Era::V1_34);
        let read = Options::read(&both, Era::V1_27, &flags);
        assert_eq!(read.map(|options| options.provision), Ok(Duration::ZERO));
    }
}
