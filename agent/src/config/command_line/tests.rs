//! Command lines and settings files as people write them.

use std::time::Duration;

use super::*;

/// Reads a command line, with a settings file of this text where it says FILE.
fn run(line: &str, text: &str) -> Result<(Task, Args), String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let line = line.replace("FILE", &file.path().display().to_string());
    let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
    parse(&words).map_err(|error| error.to_string())
}

#[test]
fn a_variable_that_is_no_setting_is_found_and_those_of_a_service_are_let_be() {
    let names = [
        "WINDLASS_LISTN",
        "WINDLASS_LISTEN",
        "WINDLASS_ONCE",
        "WINDLASS_AGENT_SERVICE_HOST",
        "WINDLASS_AGENT_PORT_9400_TCP",
        "PATH",
    ];
    assert_eq!(strangers(names.map(Into::into)), ["WINDLASS_LISTN", "WINDLASS_ONCE"]);
}

#[test]
fn a_command_takes_the_flags_before_it_and_after_it() {
    for (line, task, library) in [
        ("windlass-agent", Task::Serve, None),
        ("windlass-agent --once --nvml-library /a", Task::Once, Some("/a")),
        ("windlass-agent --nvml-library /a doctor", Task::Doctor, Some("/a")),
        ("windlass-agent doctor --nvml-library /a --json", Task::Doctor, Some("/a")),
    ] {
        let (found, args) = run(line, "").unwrap();
        assert_eq!((found, args.nvml_library.as_deref()), (task, library.map(Path::new)), "{line}");
    }
}

#[test]
fn the_file_fills_in_what_the_line_does_not_say() {
    let text = "# of the node\nsample-interval: 2s\ndcgm-names: 4.6\nmax-series: 500\npod-uid: true\nkubelet-socket:\n";
    let (_, args) = run("windlass-agent --config FILE --max-series 7", text).unwrap();
    assert_eq!((args.sample_interval, args.dcgm_names), (Duration::from_secs(2), crate::config::DcgmNames::V46));
    assert_eq!((args.max_series, args.pod_uid, &*args.kubelet_socket), (7, true, ""));
    let (_, args) =
        run("windlass-agent --config FILE", "pod-uid: false\ndcgm-names: off\ntaint-on: [maintenance, preemption]\n")
            .unwrap();
    assert!(!args.pod_uid && args.dcgm_names == crate::config::DcgmNames::Off);
    assert_eq!(args.kubernetes.taint_on.len(), 2);
    assert_eq!(run("windlass-agent --config FILE", "---\n# nothing\n").unwrap().0, Task::Serve);
}

#[test]
fn what_is_wrong_is_said_with_its_file_and_its_key() {
    for (line, text, expect) in [
        ("windlass-agent --config FILE", "sample-intervall: 1s", "\"sample-intervall\" is no setting"),
        ("windlass-agent --config FILE", "once: true", "\"once\" is no setting"),
        ("windlass-agent --config FILE", "sample-interval: 2h", "sample-interval"),
        (
            "windlass-agent --config FILE",
            "dcgm-names: new",
            "for 'dcgm-names <NAMES>' [possible values: compat, 4.6, off]",
        ),
        ("windlass-agent --config FILE", "max-series: {a: b}", "max-series: write one value"),
        ("windlass-agent --config FILE", "a: [", "line "),
        ("windlass-agent --config /nowhere.yaml", "", "/nowhere.yaml: cannot be read: No such file"),
        ("windlass-agent --sample-interval 2m", "", "must be from 100ms to 1m"),
        ("windlass-agent --json", "", "--once"),
        ("windlass-agent docter", "", "doctor"),
        ("windlass-agent --max-series 0", "", "from 1"),
    ] {
        let error = run(line, text).expect_err(line);
        assert!(error.contains(expect), "{line} {text}: {error}");
        assert!(!line.contains("--config") || error.contains("--config /"), "{error}");
    }
}

proptest::proptest! {
    #[test]
    fn any_file_is_read_without_a_panic(text in "\\PC*", lines in "(([a-z-]{1,16}|max-series|listen): ?[\\PC]{0,12}\n){0,4}") {
        let _any = (flags(&text), flags(&lines));
    }
}
