//! What every reader reads: one immutable value, published whole by the keeper.
