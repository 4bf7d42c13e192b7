//! Groups that were refused lately are left alone while there is another: CA has its own backoff, but forgets it with
//! every restart and knows nothing of a neighbour that buys the same machines in the same zone.

use super::{Candidate, Policy, Word};

pub(super) fn judge(row: &[Candidate<'_>], _: &Policy) -> Vec<Word> {
    let word = |candidate: &Candidate<'_>| match &candidate.choice.shunned {
        None if candidate.choice.refusing.is_empty() => Word::Keep("nothing was refused lately".to_owned()),
        None => Word::Keep(format!("refused lately only in {}", candidate.choice.refusing.join(", "))),
        Some(shunned) => Word::Drop(format!("refused lately ({})", shunned.why)),
    };
    row.iter().map(word).collect()
}
