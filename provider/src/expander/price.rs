//! The cheapest for each pod it helps: what all machines of the option cost in an hour, over its pods. Compared without
//! division, so that nothing is rounded into a tie; what has no price never wins against what has one.

use super::{Candidate, Policy, Word};

/// Millionths of a dollar an hour, and the pods they help.
#[derive(Clone, Copy, Debug)]
struct Cost {
    micros: u128,
    pods: u128,
}

impl Cost {
    /// None for a group that nobody has priced.
    fn of(candidate: &Candidate<'_>) -> Option<Self> {
        let price = candidate.choice.group?.price_micros?;
        let machines = u128::from(candidate.launch.max(1));
        Some(Self { micros: u128::from(price) * machines, pods: u128::from(candidate.demand.pods.max(1)) })
    }

    fn exceeds(self, other: Self) -> bool {
        self.micros * other.pods > other.micros * self.pods
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = self.micros / self.pods;
        write!(out, "${}.{:04} an hour for each pod", each / 1_000_000, each % 1_000_000 / 100)
    }
}

pub(super) fn judge(row: &[Candidate<'_>], _: &Policy) -> Vec<Word> {
    let costs: Vec<_> = row.iter().map(Cost::of).collect();
    let least = costs.iter().flatten().copied().reduce(|least, cost| if least.exceeds(cost) { cost } else { least });
    let Some(least) = least else {
        return row.iter().map(|_| Word::Keep("no price known".to_owned())).collect();
    };
    let word = |cost: &Option<Cost>| match cost {
        None => Word::Drop("no price known".to_owned()),
        Some(cost) if cost.exceeds(least) => Word::Drop(format!("{cost}, where the best costs {least}")),
        Some(cost) => Word::Keep(format!("cheapest: {cost}")),
    };
    costs.iter().map(word).collect()
}
