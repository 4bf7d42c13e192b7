//! The device manager's checkpoint: which pod uid and container holds which device ids. Pure parsing of a file that the kubelet writes.
//! It knows uids where PodResources knows names; the device ids are what both know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;

use super::{Assignment, Owner};

#[derive(Deserialize)]
struct File {
    #[serde(rename = "Data")]
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "PodDeviceEntries")]
    entries: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "DeviceIDs")]
    devices: Devices,
}

/// By NUMA node since Kubernetes 1.20, a plain list before.
#[derive(Deserialize)]
#[serde(untagged)]
enum Devices {
    ByNode(BTreeMap<String, Vec<String>>),
    Plain(Vec<String>),
}

/// (pod uid, container name) -> the container's full name.
pub type Names = BTreeMap<(String, String), Arc<Owner>>;

/// Joins the checkpoint with what PodResources says: same container name and same ids mean the same container, if only one fits.
/// Broken JSON is an error with serde's own position.
pub fn join(text: &[u8], assignments: &[Assignment]) -> Result<Names, serde_json::Error> {
    let file: File = serde_json::from_slice(text)?;
    let mut by_owner: BTreeMap<&Arc<Owner>, BTreeSet<&str>> = BTreeMap::new();
    for assignment in assignments.iter().filter(|assignment| !assignment.claimed) {
        by_owner.entry(&assignment.owner).or_default().insert(&assignment.device_id);
    }
    let mut by_container: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for entry in file.data.entries.unwrap_or_default() {
        let ids = by_container.entry((entry.pod_uid, entry.container)).or_default();
        match entry.devices {
            Devices::ByNode(nodes) => ids.extend(nodes.into_values().flatten()),
            Devices::Plain(plain) => ids.extend(plain),
        }
    }
    let mut names = Names::new();
    for ((uid, container), ids) in by_container {
        let mut fitting = by_owner.iter().filter(|(owner, held)| {
            *owner.container == *container && !held.is_empty() && held.iter().all(|id| ids.contains(*id))
        });
        // Two that fit would be a guess.
        if let (Some((owner, _)), None) = (fitting.next(), fitting.next()) {
            names.insert((uid, container), Arc::clone(owner));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(pod: &str, container: &str, id: &str) -> Assignment {
        let owner = Owner { namespace: "ml".into(), pod: pod.into(), container: container.into() };
        Assignment { owner: Arc::new(owner), device_id: id.into(), claimed: false }
    }

    fn check(text: &str, assignments: &[Assignment], expect: &[(&str, &str)]) {
        let names = join(text.as_bytes(), assignments).unwrap();
        let names: Vec<_> = names.iter().map(|((uid, _), owner)| (uid.as_str(), &*owner.pod)).collect();
        assert_eq!(names, expect);
    }

    #[test]
    fn uids_meet_names_over_device_ids() {
        let text = r#"{"Data":{"PodDeviceEntries":[
            {"PodUID":"u1","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"-1":["GPU-1::0"],"0":["GPU-1::3"]},"AllocResp":"Cg=="},
            {"PodUID":"u2","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":["GPU-1::1"],"AllocResp":""},
            {"PodUID":"gone","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":["GPU-9"]}],
            "RegisteredDevices":{"nvidia.com/gpu":["GPU-1"]}},"Checksum":42}"#;
        let assignments = [give("a", "main", "GPU-1::0"), give("a", "main", "GPU-1::3"), give("b", "main", "GPU-1::1")];
        check(text, &assignments, &[("u1", "a"), ("u2", "b")]);
        check(r#"{"Data":{"PodDeviceEntries":null}}"#, &assignments, &[]);
        assert!(join(b"{", &assignments).is_err());
    }

    #[test]
    fn two_that_fit_are_not_guessed_between() {
        let text = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","ContainerName":"main","DeviceIDs":["GPU-1"]}]}}"#;
        check(text, &[give("finished", "main", "GPU-1"), give("running", "main", "GPU-1")], &[]);
    }
}
