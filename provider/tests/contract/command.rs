//! The program as a person starts it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::stage::GROUPS;

fn provider(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass-provider"));
    command.args(args).env("WINDLASS_CONFIG", folder.join("windlass.yaml")).env_remove("WINDLASS_LOG");
    command
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn check_says_what_is_wrong_and_its_exit_code_tells() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windlass.yaml");
    std::fs::write(folder.path().join("scenario.yaml"), GROUPS).unwrap();
    let check = || said(&provider(folder.path(), &["check"]).output().unwrap());
    let (code, text) = check();
    assert!(code == Some(2) && text.contains("cannot be read"), "{code:?} {text}");
    std::fs::write(&file, "cloud: {kind: sim, scenario: scenario.yaml}\nrefesh: 10s\n").unwrap();
    let (code, text) = check();
    assert!(code == Some(2) && text.contains("windlass.yaml:2: refesh: unknown field"), "{code:?} {text}");
    std::fs::write(&file, "cloud: {kind: sim, scenario: scenario.yaml}\nrefresh: 10s\n").unwrap();
    assert_eq!(check(), (Some(0), format!("{}: nothing is wrong\n", file.display())));
    std::fs::write(folder.path().join("scenario.yaml"), "groups: [{id: a, mx: 3}]").unwrap();
    let (code, text) = check();
    assert!(code == Some(2) && text.contains("scenario.yaml:1"), "{code:?} {text}");
    let (code, text) = said(&provider(folder.path(), &["--version"]).output().unwrap());
    assert!(code == Some(0) && text.starts_with("windlass-provider "), "{text}");
}

#[test]
fn groups_and_doctor_look_at_the_embedded_cloud_and_leave_it_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scenario.yaml"), GROUPS).unwrap();
    let config = "cloud: {kind: sim, scenario: scenario.yaml, state: sim.json}\nstate: state.json\nhttp: {listen: \"127.0.0.1:1\"}\n";
    std::fs::write(folder.path().join("windlass.yaml"), config).unwrap();
    let (code, text) = said(&provider(folder.path(), &["groups"]).output().unwrap());
    assert!(code == Some(0) && text.starts_with("GROUP ") && text.contains(" groups, "), "{code:?} {text}");
    let (code, text) = said(&provider(folder.path(), &["groups", "--json"]).output().unwrap());
    let groups: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(code == Some(0) && groups[0]["id"].is_string(), "{code:?} {text}");
    let (code, text) = said(&provider(folder.path(), &["doctor"]).output().unwrap());
    assert!(code == Some(0) && text.contains("nothing to mend") && text.contains("GPU label"), "{code:?} {text}");
    assert!(!folder.path().join("sim.json").exists() && !folder.path().join("state.json").exists());
    std::fs::write(folder.path().join("windlass.yaml"), format!("{config}groups: {{mispelt: {{labels: {{a: b}}}}}}\n"))
        .unwrap();
    let (_, text) = said(&provider(folder.path(), &["groups"]).output().unwrap());
    assert!(text.contains("mispelt\n  ! groups.mispelt has settings, and the cloud has no such group"), "{text}");
    std::fs::remove_file(folder.path().join("windlass.yaml")).unwrap();
    let output = provider(folder.path(), &["groups"]).output().unwrap();
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("cannot be read"));
}

#[test]
fn a_signal_ends_it_gently() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("scenario.yaml"), GROUPS).unwrap();
    let socket = folder.path().join("p.sock");
    let text = format!(
        "cloud: {{kind: sim, scenario: scenario.yaml}}
provider: {{listen: \"unix://{}\"}}
expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: ca.crt}}}}
http: {{listen: \"127.0.0.1:0\"}}\n",
        socket.display()
    );
    std::fs::write(folder.path().join("windlass.yaml"), text).unwrap();
    let mut child = provider(folder.path(), &[]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("listening")));
    assert!(socket.exists());
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert!(log.any(|line| line.contains("draining")));
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}
