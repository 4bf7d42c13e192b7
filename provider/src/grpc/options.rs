//! What NodeGroupGetOptions answers: nothing for a group that overrides nothing, everything otherwise. Any answer makes
//! CA 1.35 and newer buy twice (kubernetes/autoscaler#10245); one that lacks a field crashes CA up to 1.34.

use std::time::Duration;

use prost_types::Duration as Span;
use windlass_proto::externalgrpc::{LegacyDuration, NodeGroupAutoscalingOptions as Options};

use crate::fleet::group::Overrides;

/// The options of a group; None stands for an empty answer, which means CA's own flags.
pub(super) fn answer(defaults: Option<&Options>, overrides: &Overrides) -> Option<Options> {
    let defaults = defaults.filter(|_| *overrides != Overrides::default())?;
    // CA 1.27 and 1.28 know no provision time here, and take any answer for "a machine may take no time at all".
    let unneeded = span(defaults.scale_down_unneeded_duration.as_ref(), defaults.scale_down_unneeded_time.as_ref())?;
    let unready = span(defaults.scale_down_unready_duration.as_ref(), defaults.scale_down_unready_time.as_ref())?;
    let provision = span(defaults.max_node_provision_duration.as_ref(), defaults.max_node_provision_time.as_ref())?;
    let unneeded = overrides.scale_down_unneeded_time.map_or(unneeded, nanos);
    let unready = overrides.scale_down_unready_time.map_or(unready, nanos);
    let provision = overrides.max_node_provision_time.map_or(provision, nanos);
    Some(Options {
        scale_down_utilization_threshold: overrides
            .scale_down_utilization_threshold
            .unwrap_or(defaults.scale_down_utilization_threshold),
        scale_down_gpu_utilization_threshold: overrides
            .scale_down_gpu_utilization_threshold
            .unwrap_or(defaults.scale_down_gpu_utilization_threshold),
        zero_or_max_node_scaling: overrides.zero_or_max_node_scaling.unwrap_or(defaults.zero_or_max_node_scaling),
        ignore_daemon_sets_utilization: overrides
            .ignore_daemon_sets_utilization
            .unwrap_or(defaults.ignore_daemon_sets_utilization),
        scale_down_unneeded_time: old(unneeded),
        scale_down_unready_time: old(unready),
        max_node_provision_time: old(provision),
        scale_down_unneeded_duration: new(unneeded),
        scale_down_unready_duration: new(unready),
        max_node_provision_duration: new(provision),
    })
}

/// Whether these defaults come from CA 1.35 or newer.
pub(super) fn is_new(defaults: &Options) -> bool {
    defaults.scale_down_unneeded_duration.is_some() && defaults.scale_down_unneeded_time.is_none()
}

/// Nanoseconds, from the new field if it is there, else from the old one.
fn span(new: Option<&Span>, old: Option<&LegacyDuration>) -> Option<i64> {
    let new = new.map(|span| span.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(span.nanos)));
    new.or_else(|| old.map(|span| span.duration))
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

fn old(nanos: i64) -> Option<LegacyDuration> {
    Some(LegacyDuration { duration: nanos })
}

fn new(nanos: i64) -> Option<Span> {
    Some(Span { seconds: nanos / 1_000_000_000, nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults(old_fields: bool, provision: bool, new_fields: bool) -> Options {
        let (old, new) = (|nanos| old(nanos).filter(|_| old_fields), |nanos| new(nanos).filter(|_| new_fields));
        Options {
            scale_down_utilization_threshold: 0.5,
            scale_down_gpu_utilization_threshold: 0.4,
            ignore_daemon_sets_utilization: true,
            scale_down_unneeded_time: old(600_000_000_000),
            scale_down_unready_time: old(0),
            max_node_provision_time: old(900_000_000_000).filter(|_| provision),
            scale_down_unneeded_duration: new(600_000_000_000),
            scale_down_unready_duration: new(0),
            max_node_provision_duration: new(900_000_000_000),
            ..Options::default()
        }
    }

    #[test]
    fn nothing_is_said_where_nothing_is_overridden_or_saying_it_would_hurt() {
        let overrides = Overrides { scale_down_unneeded_time: Some(Duration::from_secs(90)), ..Overrides::default() };
        for (era, old, provision, new, answered) in [
            ("1.28", true, false, false, false),
            ("1.33", true, true, false, true),
            ("1.34.2", true, true, true, true),
            ("1.36", false, false, true, true),
        ] {
            let defaults = defaults(old, provision, new);
            assert_eq!(answer(Some(&defaults), &Overrides::default()), None, "{era}");
            assert_eq!(answer(Some(&defaults), &overrides).is_some(), answered, "{era}");
            assert_eq!(is_new(&defaults), era == "1.36");
        }
        assert_eq!(answer(None, &overrides), None);
    }

    #[test]
    fn an_answer_is_complete_in_both_forms() {
        let overrides = Overrides {
            scale_down_unneeded_time: Some(Duration::from_millis(90_500)),
            scale_down_gpu_utilization_threshold: Some(0.1),
            ..Overrides::default()
        };
        for (old_fields, new_fields) in [(true, false), (true, true), (false, true)] {
            let said = answer(Some(&defaults(old_fields, old_fields, new_fields)), &overrides).unwrap();
            assert_eq!(said.scale_down_unneeded_time, old(90_500_000_000));
            assert_eq!(said.scale_down_unneeded_duration, Some(Span { seconds: 90, nanos: 500_000_000 }));
            assert_eq!((said.scale_down_unready_time, said.scale_down_unready_duration), (old(0), new(0)));
            let provision = (said.max_node_provision_time, said.max_node_provision_duration);
            assert_eq!(provision, (old(900_000_000_000), new(900_000_000_000)));
            assert!((said.scale_down_utilization_threshold - 0.5).abs() < 1e-9);
            assert!((said.scale_down_gpu_utilization_threshold - 0.1).abs() < 1e-9);
            assert!(said.ignore_daemon_sets_utilization && !said.zero_or_max_node_scaling);
        }
    }
}
