//! windlass-provider: the `externalgrpc` cloud provider and the gRPC expander of a stock cluster-autoscaler (CA).
//!
//! One writer, the [`keeper`], refreshes what the [`cloud`] holds, carries out what CA asks, and publishes an
//! immutable [`snapshot::Snapshot`]. Everything CA, Prometheus or a person reads is answered from that snapshot.

pub mod cloud;
pub mod decisions;
pub mod expander;
pub mod fleet;
pub mod replay;
pub mod snapshot;
pub mod timestamp;
