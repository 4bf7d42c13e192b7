//! How the agent is linked: relocations in the packed form, which glibc reads since 2.36. Unpacked they are half a megabyte,
//! and all of it is read at every start.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
