//! Load over time, as a pure function of seconds. A curve is all that the fake knows about a
//! process's use of an engine, so whatever it reports can be held against the curve.

use serde::{Deserialize, Serialize};

/// Percent of one engine over time. Written in YAML as a bare number or as a map with one key:
/// `50`, `{square: {low: 0, high: 80, period_s: 10}}`, `{ramp: {from: 0, to: 100, over_s: 60}}`,
/// `{trace: {points: [[0, 10], [5, 90]]}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Curve {
    /// The same percentage for ever.
    Constant(f64),
    /// Something that moves.
    Shape(Shape),
}

/// A load that changes. Seconds count from the profile's `epoch_s` (default: the Unix epoch for periodic
/// shapes to agree in every process; see [`crate::profile::Profile::epoch_s`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// `high` for the first `duty` of each period, then `low`.
    Square {
        /// Percent in the second part.
        low: f64,
        /// Percent in the first part.
        high: f64,
        /// Seconds of one period.
        period_s: f64,
        /// Part of the period that is high, 0–1.
        #[serde(default = "half")]
        duty: f64,
    },
    /// A straight line from `from` to `to`, then flat.
    Ramp {
        /// Percent at the start.
        from: f64,
        /// Percent at the end.
        to: f64,
        /// Seconds from start to end.
        over_s: f64,
    },
    /// Steps: each point is (second, percent) and holds until the next.
    Trace {
        /// In order of time.
        points: Vec<(f64, f64)>,
        /// Start again after this many seconds; once only when absent.
        #[serde(default)]
        repeat_s: Option<f64>,
    },
}

fn half() -> f64 {
    0.5
}

impl Default for Curve {
    fn default() -> Self {
        Self::Constant(0.0)
    }
}

impl Curve {
    /// Percent at second `t`, between 0 and 100.
    pub fn at(&self, t: f64) -> f64 {
        let percent = match self {
            Self::Constant(percent) => *percent,
            Self::Shape(shape) => shape.at(t),
        };
        if percent.is_nan() { 0.0 } else { percent.clamp(0.0, 100.0) }
    }
}

impl Shape {
    fn at(&self, t: f64) -> f64 {
        match self {
            Self::Square { low, high, period_s, duty } => {
                let phase = t.rem_euclid(period_s.max(1e-3)) / period_s.max(1e-3);
                if phase < *duty { *high } else { *low }
            }
            Self::Ramp { from, to, over_s } => from + (to - from) * (t / over_s.max(1e-3)).clamp(0.0, 1.0),
            Self::Trace { points, repeat_s } => {
                let t = repeat_s.map_or(t, |period| t.rem_euclid(period.max(1e-3)));
                let reached = points.iter().take_while(|(second, _)| *second <= t).last();
                reached.map_or(0.0, |(_, percent)| *percent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expect: &[(f64, f64)]) {
        let curve: Curve = serde_saphyr::from_str(yaml).unwrap();
        for (t, percent) in expect {
            assert!((curve.at(*t) - percent).abs() < 1e-9, "{yaml} at {t}: {}", curve.at(*t));
        }
    }

    #[test]
    fn shapes_are_what_their_yaml_says() {
        check("50", &[(0.0, 50.0), (1e9, 50.0)]);
        check("170", &[(0.0, 100.0)]);
        check(
            "{square: {low: 10, high: 80, period_s: 10, duty: 0.3}}",
            &[(0.0, 80.0), (2.9, 80.0), (3.1, 10.0), (13.1, 10.0), (-0.1, 10.0)],
        );
        check("{ramp: {from: 0, to: 100, over_s: 10}}", &[(-5.0, 0.0), (2.5, 25.0), (20.0, 100.0)]);
        check("{trace: {points: [[0, 10], [5, 90]], repeat_s: 10}}", &[(0.0, 10.0), (5.0, 90.0), (11.0, 10.0)]);
        check("{trace: {points: [[1, 10]]}}", &[(0.5, 0.0), (99.0, 10.0)]);
    }
}
