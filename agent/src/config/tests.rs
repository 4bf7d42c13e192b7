//! Flags, intervals, empty paths: what a Config is made of.

use super::*;
use clap::CommandFactory as _;

#[test]
fn every_flag_is_documented_and_has_a_twin() {
    let command = Args::command();
    command.clone().debug_assert();
    for argument in command.get_arguments().filter(|argument| !["once", "json"].contains(&argument.get_long().unwrap()))
    {
        let long = argument.get_long().unwrap();
        let twin = format!("WINDLASS_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env().and_then(|env| env.to_str()), Some(twin.as_str()));
        assert!(argument.get_help().is_some(), "{long}");
    }
}

#[test]
fn intervals_have_units_and_bounds() {
    for (text, expect) in [
        ("100ms", Some(100)),
        ("1s", Some(1_000)),
        ("1m", Some(60_000)),
        ("99ms", None),
        ("61s", None),
        ("1", None),
        ("", None),
        ("-1s", None),
        ("18446744073709551615m", None),
    ] {
        assert_eq!(interval(text).ok(), expect.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn empty_paths_switch_a_source_off() {
    let args =
        Args::parse_from(["windlass-agent", "--kubelet-socket", "", "--kubelet-checkpoint=", "--dcgm-names", "4.6"]);
    let config = Config::from(args);
    assert_eq!((config.kubelet_socket, config.kubelet_checkpoint), (None, None));
    assert_eq!(config.dcgm_names, DcgmNames::V46);
    assert!(!config.node_name.is_empty());
}
