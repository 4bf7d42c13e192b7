//! Compiles the contracts with protox, so that no system protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["externalgrpc.proto", "expander.proto", "podresources.proto", "pods.proto", "core.proto"];
    let descriptors = protox::compile(files.map(|file| format!("proto/{file}")), ["proto"])?;
    tonic_prost_build::configure()
        // An option holds thousands of pods; shared bytes make decoding copy nothing.
        .bytes(".grpcplugin")
        // An answer of the kubelet may be 16 MiB, of which little is kept.
        .bytes(".v1")
        .bytes(".v1alpha1.ListPodsResponse")
        // Sorted maps make equal nodes encode to equal bytes.
        .btree_map(".core")
        .btree_map(".v1alpha1")
        .compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
