//! Which container a process runs in, out of the text of `/proc/PID/cgroup`. Pure.
//! Every shape is handled by one rule: in each path the last pod token counts, then the first 64 hex digits after it.

/// A process's place among pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The pod's uid with dashes; static pods have 32 hex digits without. Absent where a private cgroup namespace cuts it off: then only the
    /// container's id is left.
    pub pod_uid: Option<String>,
    /// The container's id, 64 hex digits; absent in the pod's own cgroup.
    pub container_id: Option<&'a str>,
}

/// Digits in a container id (SHA-256).
const CONTAINER_ID: usize = 64;
/// Characters of a uid with its separators.
const UID_DASHED: usize = 36;
/// Digits of a uid without them.
const UID_PLAIN: usize = 32;

/// Finds the pod and container. `None` for a process of the node itself.
#[must_use]
pub fn place(text: &str) -> Option<Place<'_>> {
    let mut pod_only = None;
    for line in text.lines() {
        // "hierarchy:controllers:path"; the path may hold colons (containerd's systemd form).
        let Some(path) = line.splitn(3, ':').nth(2) else { continue };
        match place_in_path(path) {
            Some(place) if place.container_id.is_some() => return Some(place),
            other => pod_only = pod_only.or(other),
        }
    }
    pod_only
}

fn place_in_path(path: &str) -> Option<Place<'_>> {
    let Some((start, pod_uid)) = pod_in_path(path) else {
        // Seen from a container of the same pod the path begins at the pod, "/../cri-containerd-<id>.scope": what lies further away begins elsewhere.
        let sibling = path.strip_prefix("/../")?.trim_start_matches("../").split('/').next()?;
        return Some(Place { pod_uid: None, container_id: Some(container_id(sibling)?) });
    };
    Some(Place { pod_uid: Some(pod_uid), container_id: container_id(path.get(start..)?) })
}

/// The last pod token of a path: where it ends, and its uid.
fn pod_in_path(path: &str) -> Option<(usize, String)> {
    path.rmatch_indices("pod").find_map(|(at, token)| {
        let start = at + token.len();
        let before = path.get(..at)?;
        // A token begins a path segment or follows the slice's dashes: "/pod<uid>", "-pod<uid>".
        let begins = before.is_empty() || before.ends_with(['/', '-']);
        begins.then(|| uid(path.get(start..)?).map(|uid| (start, uid)))?
    })
}

/// The uid at the start of a text: 36 characters with `-` or `_`, or 32 bare digits, and nothing that continues it.
fn uid(text: &str) -> Option<String> {
    let ends = |length: usize| {
        let next = text.as_bytes().get(length);
        next.is_none_or(|byte| !byte.is_ascii_hexdigit())
    };
    if let Some(dashed) = text.get(..UID_DASHED) {
        let fits = dashed.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-' || byte == b'_',
            _ => byte.is_ascii_hexdigit(),
        });
        if fits && ends(UID_DASHED) {
            return Some(dashed.replace('_', "-"));
        }
    }
    let plain = text.get(..UID_PLAIN)?;
    (plain.bytes().all(|byte| byte.is_ascii_hexdigit()) && ends(UID_PLAIN)).then(|| plain.to_owned())
}

/// The first run of exactly 64 hex digits.
fn container_id(text: &str) -> Option<&str> {
    text.split(|character: char| !character.is_ascii_hexdigit()).find(|run| run.len() == CONTAINER_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1b1cbdb3-3a6f-4f0c-9f0e-6d1f9e3f6a11";
    const UID_UNDERSCORED: &str = "1b1cbdb3_3a6f_4f0c_9f0e_6d1f9e3f6a11";
    const STATIC: &str = "0a55c2e8d2a14c2b9c5b8b8f6f3f1d77";
    const ID: &str = "8c1f4a7e9d2b60358c1f4a7e9d2b60358c1f4a7e9d2b60358c1f4a7e9d2b6035";

    fn check(shape: &str, expect: Option<(&str, Option<&str>)>) {
        let text = shape
            .replace("<uid>", UID)
            .replace("<u_id>", UID_UNDERSCORED)
            .replace("<static>", STATIC)
            .replace("<id>", ID);
        let found = place(&text);
        let found = found.as_ref().map(|place| (place.pod_uid.as_deref().unwrap_or("-"), place.container_id));
        assert_eq!(found, expect, "{shape}");
    }

    #[test]
    fn every_driver_and_runtime_has_its_shape() {
        let container = Some((UID, Some(ID)));
        for shape in [
            // cgroupfs, v1 and v2, with and without a QoS level
            "12:memory:/kubepods/burstable/pod<uid>/<id>\n11:cpu,cpuacct:/kubepods/burstable/pod<uid>/<id>\n",
            "0::/kubepods/besteffort/pod<uid>/<id>\n",
            "0::/kubepods/pod<uid>/<id>",
            // systemd, per runtime
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<u_id>.slice/cri-containerd-<id>.scope",
            "0::/kubepods.slice/kubepods-pod<u_id>.slice/crio-<id>.scope",
            "1:name=systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod<u_id>.slice/docker-<id>.scope",
            // CRI-O's monitor; the hybrid of v1 and v2
            "0::/kubepods.slice/kubepods-pod<u_id>.slice/crio-conmon-<id>.scope",
            "11:pids:/kubepods/pod<uid>/<id>\n1:name=systemd:/kubepods/pod<uid>/<id>\n0::/system.slice/containerd.service\n",
            // containerd's colon form
            "4:devices:/system.slice/containerd.service/kubepods-burstable-pod<u_id>.slice:cri-containerd:<id>",
            // seen from a private cgroup namespace
            "0::/../../../kubepods-burstable.slice/kubepods-burstable-pod<u_id>.slice/cri-containerd-<id>.scope",
            // nested: kind, Talos, an extra leaf, crio's inner container
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<u_id>.slice/cri-containerd-<id>.scope",
            "0::/podruntime/kubelet/kubepods/pod<uid>/<id>/init.scope",
            "0::/kubepods.slice/kubepods-pod<u_id>.slice/crio-<id>.scope/container",
            "0::/docker/ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff/kubepods/pod<uid>/<id>",
            // a pod inside a pod: the last one counts
            "0::/kubepods/pod<static>/ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff/kubepods/pod<uid>/<id>",
            // an empty controller first
            "13:misc:/\n12:rdma:/\n0::/kubepods/pod<uid>/<id>",
        ] {
            check(shape, container);
        }
        check("0::/kubepods/burstable/pod<static>/<id>", Some((STATIC, Some(ID))));
        check("0::/kubepods/burstable/pod<uid>", Some((UID, None)));
        check("0::/../cri-containerd-<id>.scope", Some(("-", Some(ID))));
        check("0::/../../crio-<id>.scope/container", Some(("-", Some(ID))));
    }

    #[test]
    fn what_is_no_pod_is_no_pod() {
        for shape in [
            "",
            "nonsense",
            "0::/",
            "0::/system.slice/sshd.service",
            "0::/user.slice/user-1000.slice/session-2.scope",
            "0::/system.slice/podman-<id>.scope",
            "0::/machine.slice/libpod-<id>.scope",
            "0::/kubepods/podnot-a-uid/<id>",
            "0::/mypod<uid>/<id>",
            "0::/../../system.slice/sshd.service",
            "0::/../../../system.slice/docker-<id>.scope",
            "0::/../../../../docker/<id>",
        ] {
            check(shape, None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in "(.|\n)*", tail in "\\PC*") {
            let _place = place(&text);
            let _place = place(&format!("0::/kubepods/pod{tail}"));
        }
    }
}
