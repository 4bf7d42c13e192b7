//! How the agent is linked where it is built for size, as it is shipped: relocations in the packed form, which glibc reads
//! since 2.36. Unpacked they are half a megabyte, and all of it is read at every start.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, wanted: &str| std::env::var(variable).is_ok_and(|value| value == wanted);
    if is("CARGO_CFG_TARGET_ENV", "gnu") && is("OPT_LEVEL", "z") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
