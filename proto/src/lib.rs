//! The contracts Windlass speaks, generated from `proto/*.proto`, and Kubernetes quantities.
//! Nothing here does I/O or keeps state.

pub mod quantity;

/// Generated code carries upstream's names and no docs of its own.
macro_rules! contract {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated from the .proto file")]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

contract!(
    /// `clusterautoscaler.cloudprovider.v1.externalgrpc`: what cluster-autoscaler asks a cloud provider.
    externalgrpc,
    "clusterautoscaler.cloudprovider.v1.externalgrpc"
);
contract!(
    /// `grpcplugin`: what cluster-autoscaler asks an expander.
    expander,
    "grpcplugin"
);
contract!(
    /// The kubelet's PodResources v1 API.
    podresources,
    "v1"
);
contract!(
    /// The kubelet's Pods API, and what is read of a pod.
    pods,
    "v1alpha1"
);
contract!(
    /// The fields of Kubernetes core/v1 that Windlass reads or writes.
    core,
    "core"
);
