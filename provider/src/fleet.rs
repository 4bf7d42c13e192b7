//! What there is and what is on its way: groups, instances, the ledger of intents. Values only.

pub mod group;
