//! A node's `/proc` and `/var/log`, as far as a program reads them to find the container of a process:
//! `proc/<pid>/{cgroup,stat,comm}` in the shapes that runtimes write, and the kubelet's names of container logs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

/// The file system of a node, until dropped.
#[derive(Debug)]
pub struct Host {
    root: TempDir,
}

/// A container as the node's files name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// UID of its pod, with dashes (none for static pods).
    pub uid: String,
    /// Its own name.
    pub name: String,
    /// 64 hex digits.
    pub id: String,
}

/// How a runtime and its cgroup driver write the path of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// cgroup v2, systemd driver, containerd, burstable.
    Systemd,
    /// The same, guaranteed: no QoS level in the path.
    SystemdGuaranteed,
    /// cgroup v2, systemd driver, CRI-O, best effort.
    SystemdCrio,
    /// cgroup v1, systemd driver, docker: one line a controller.
    SystemdDockerV1,
    /// cgroup v2, cgroupfs driver, burstable.
    Cgroupfs,
    /// cgroup v1, cgroupfs driver, guaranteed.
    CgroupfsV1,
    /// containerd's form with colons.
    Colon,
    /// cgroup v2 as a reader in a private cgroup namespace sees it.
    Private,
    /// A node in a container (kind, minikube): its own prefix before the pod's.
    Nested,
    /// With one more level below the container.
    Leaf,
}

impl Cgroup {
    /// Every shape.
    pub const ALL: [Self; 10] = [
        Self::Systemd,
        Self::SystemdGuaranteed,
        Self::SystemdCrio,
        Self::SystemdDockerV1,
        Self::Cgroupfs,
        Self::CgroupfsV1,
        Self::Colon,
        Self::Private,
        Self::Nested,
        Self::Leaf,
    ];

    /// The contents of `/proc/<pid>/cgroup`.
    pub fn text(self, container: &Container) -> String {
        let (uid, id) = (&container.uid, &container.id);
        let under = uid.replace('-', "_");
        let burstable = format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice");
        let v1 = |path: String| {
            format!("12:devices:{path}\n11:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n")
        };
        match self {
            Self::Systemd => format!("0::{burstable}/cri-containerd-{id}.scope\n"),
            Self::SystemdGuaranteed => {
                format!("0::/kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{id}.scope\n")
            }
            Self::SystemdCrio => format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{id}.scope\n"
            ),
            Self::SystemdDockerV1 => v1(format!("{burstable}/docker-{id}.scope")),
            Self::Cgroupfs => format!("0::/kubepods/burstable/pod{uid}/{id}\n"),
            Self::CgroupfsV1 => v1(format!("/kubepods/pod{uid}/{id}")),
            Self::Colon => {
                format!("0::/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{id}\n")
            }
            Self::Private => {
                let inside = burstable.trim_start_matches("/kubepods.slice/");
                format!("0::/../../../{inside}/cri-containerd-{id}.scope\n")
            }
            Self::Nested => format!("0::/kubelet.slice/kubelet{burstable}/cri-containerd-{id}.scope\n"),
            Self::Leaf => format!("0::{burstable}/cri-containerd-{id}.scope/container\n"),
        }
    }
}

impl Host {
    /// An empty node.
    pub fn new() -> anyhow::Result<Self> {
        let root = tempfile::tempdir().context("a folder for the node's files")?;
        for folder in ["proc", "log/containers", "log/pods"] {
            std::fs::create_dir_all(root.path().join(folder)).with_context(|| folder.to_owned())?;
        }
        Ok(Self { root })
    }

    /// For `--host-proc`.
    pub fn proc(&self) -> PathBuf {
        self.root.path().join("proc")
    }

    /// For `--host-logs`.
    pub fn logs(&self) -> PathBuf {
        self.root.path().join("log")
    }

    /// The folder of both.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A container starts: the kubelet makes its log folder and links to it.
    pub fn container(&self, container: &Container) -> anyhow::Result<()> {
        let Container { namespace, pod, uid, name, id } = container;
        let folder = self.logs().join(format!("pods/{namespace}_{pod}_{uid}/{name}"));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let log = folder.join("0.log");
        std::fs::write(&log, "").with_context(|| log.display().to_string())?;
        let link = self.link(container);
        std::os::unix::fs::symlink(&log, &link).with_context(|| link.display().to_string())?;
        anyhow::ensure!(id.len() == 64, "a container id has 64 hex digits, not {}", id.len());
        Ok(())
    }

    /// A container is removed with its log.
    pub fn remove_container(&self, container: &Container) -> anyhow::Result<()> {
        let Container { namespace, pod, uid, .. } = container;
        std::fs::remove_file(self.link(container)).context("the link to a container's log")?;
        std::fs::remove_dir_all(self.logs().join(format!("pods/{namespace}_{pod}_{uid}"))).context("a pod's logs")
    }

    fn link(&self, container: &Container) -> PathBuf {
        let Container { namespace, pod, name, id, .. } = container;
        self.logs().join(format!("containers/{pod}_{namespace}_{name}-{id}.log"))
    }

    /// A process of a container.
    pub fn process(&self, pid: u32, container: &Container, shape: Cgroup) -> anyhow::Result<()> {
        self.write(pid, "python3", &shape.text(container))
    }

    /// NVIDIA's MPS server, in the container of its daemon.
    pub fn mps_server(&self, pid: u32, container: &Container) -> anyhow::Result<()> {
        // The kernel keeps fifteen characters of `nvidia-cuda-mps-server`.
        self.write(pid, "nvidia-cuda-mps", &Cgroup::Systemd.text(container))
    }

    /// A process of the node itself, in no container.
    pub fn host_process(&self, pid: u32, name: &str) -> anyhow::Result<()> {
        self.write(pid, name, "0::/user.slice/user-0.slice/session-3.scope\n")
    }

    /// Another process has this pid from now on: it started later.
    pub fn reuse(&self, pid: u32, container: &Container, shape: Cgroup) -> anyhow::Result<()> {
        self.process(pid, container, shape)?;
        let stat = self.proc().join(format!("{pid}/stat"));
        let text =
            std::fs::read_to_string(&stat)?.replace(&format!(" {} ", 1_000 + pid), &format!(" {} ", 900_000 + pid));
        std::fs::write(&stat, text).with_context(|| stat.display().to_string())
    }

    /// A process ends.
    pub fn exit(&self, pid: u32) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.proc().join(pid.to_string())).with_context(|| format!("process {pid}"))
    }

    fn write(&self, pid: u32, name: &str, cgroup: &str) -> anyhow::Result<()> {
        let folder = self.proc().join(pid.to_string());
        std::fs::create_dir_all(&folder)?;
        // The 22nd field is the start time; a name may hold blanks and brackets.
        let stat = format!(
            "{pid} ({name}) S 1 {pid} {pid} 0 -1 4194304 0 0 0 0 10 5 0 0 20 0 1 0 {} 1000000 500\n",
            1_000 + pid
        );
        std::fs::write(folder.join("stat"), stat)?;
        std::fs::write(folder.join("comm"), format!("{name}\n"))?;
        std::fs::write(folder.join("cgroup"), cgroup)?;
        Ok(())
    }
}

impl Container {
    /// A container with ids made from its names, for tests that do not care.
    pub fn new(namespace: &str, pod: &str, name: &str) -> Self {
        let hash = |salt: u64, text: &str| {
            let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            text.bytes().fold(0xcbf2_9ce4_8422_2325 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15), fold)
        };
        let of_pod = format!("{namespace}/{pod}");
        let digits = format!("{:016x}{:016x}", hash(1, &of_pod), hash(2, &of_pod));
        let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default().to_owned();
        let uid = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-");
        let id = (3..7).map(|salt| format!("{:016x}", hash(salt, &format!("{of_pod}/{name}")))).collect();
        Self { namespace: namespace.to_owned(), pod: pod.to_owned(), uid, name: name.to_owned(), id }
    }
}
