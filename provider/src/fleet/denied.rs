//! Why a request of CA changes nothing.

use crate::fleet::group::GroupId;

/// Why a request changes nothing. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No listing has shown this group.
    #[error("no node group \"{0}\" is known; NodeGroups lists those that are")]
    UnknownGroup(String),
    /// The delta's sign makes no sense for the request.
    #[error("a delta of {delta} makes no sense here: it must be {must}")]
    BadDelta {
        /// As it came.
        delta: i32,
        /// What it must be.
        must: &'static str,
    },
    /// The group may not grow that far.
    #[error("{group} has a target of {target} and a maximum of {max}: {delta} more are too many")]
    AboveMax {
        /// The group.
        group: GroupId,
        /// Its target now.
        target: u32,
        /// What was asked.
        delta: u32,
        /// Its maximum.
        max: u32,
    },
    /// More are on their way than are kept account of.
    #[error(
        "{group}: {open} machines have not come yet, and with {delta} more they would be over {most}; ask for fewer, or \
         again when some have come"
    )]
    TooMany {
        /// The group.
        group: GroupId,
        /// How many are on their way, or refused and shown.
        open: u32,
        /// What was asked.
        delta: u32,
        /// The limit.
        most: u32,
    },
    /// Machines that exist are never given up by a lower target.
    #[error("{group}: of {delta} to give up only {open} are not there yet; existing machines end by DeleteNodes alone")]
    BelowExisting {
        /// The group.
        group: GroupId,
        /// What was asked.
        delta: u32,
        /// What could be given up.
        open: u32,
    },
    /// The group may not shrink that far.
    #[error("{group} has a target of {target} and a minimum of {min}: {count} cannot be deleted")]
    BelowMin {
        /// The group.
        group: GroupId,
        /// Its target now.
        target: u32,
        /// How many were named.
        count: u32,
        /// Its minimum.
        min: u32,
    },
    /// A node without `spec.providerID` cannot be told from another.
    #[error("node \"{0}\" has no providerID, so its machine is not known; nothing was deleted")]
    NoProviderId(String),
    /// One of the named nodes is not of this group.
    #[error("\"{node}\" is not a machine of {group}; nothing was deleted")]
    Foreign {
        /// As it was named.
        node: String,
        /// The group that was named.
        group: String,
    },
}
