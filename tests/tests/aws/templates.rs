//! What a machine that does not exist yet would be: its template against the truth.

use prost::Message as _;
use serde_json::{Value, json};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use windlass_proto::{
    core::{Node, Quantity},
    expander::{BestOptionsRequest, Option as WireOption, expander_client::ExpanderClient},
};
use windlass_tests::{
    aws::{Asg, AwsCloud, Fault},
    port::Port,
};

use super::stage::{Stage, gpu_group};

const GIB: u64 = 1 << 30;

/// A group of the cluster `c1` that no tag describes.
pub(super) fn bare() -> Asg {
    Asg::new(&["us-east-1a"]).of_cluster("c1")
}

/// A provider on an account that has this group as `gpu`.
pub(super) async fn of(group: Asg, account: impl FnOnce(&mut windlass_tests::aws::Account)) -> Stage {
    let cloud = AwsCloud::start().unwrap();
    cloud.with(|all, _| account(all));
    cloud.add("gpu", group);
    Stage::new(cloud).await
}

impl Stage {
    /// The template of the group `gpu`.
    pub(super) async fn template(&mut self) -> Node {
        self.template_of("gpu").await.unwrap()
    }

    /// How much of a resource its pods can ask for.
    pub(super) async fn allocatable(&mut self, name: &str) -> Option<String> {
        let status = self.template().await.status.unwrap();
        status.allocatable.get(name).map(|it| it.string().to_owned())
    }

    /// A label of it.
    pub(super) async fn label(&mut self, name: &str) -> Option<String> {
        self.template().await.metadata.unwrap().labels.get(name).cloned()
    }

    /// Every warning that the page shows.
    pub(super) async fn warns(&mut self, part: &str) {
        let told = async |stage: &mut Self| stage.page("/").await.contains(part);
        self.until(&format!("the page says: {part}"), told).await;
    }
}

fn encoded(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letter = |bits: u32| char::from(LETTERS[usize::try_from(bits & 63).unwrap()]);
    let four = |three: &[u8]| {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or(0)));
        let all: String = [18, 12, 6, 0].map(|shift| letter(bits >> shift)).iter().collect();
        format!("{}{}", &all[..=three.len()], "=".repeat(3 - three.len()))
    };
    text.as_bytes().chunks(3).map(four).collect()
}

// in-tree: allocatable is capacity, pods are 110, every accelerator is nvidia.com/gpu.
#[tokio::test]
async fn a_launch_template_alone_describes_a_node_whole() {
    let mut stage = of(bare().launch_template("mine", "$Latest"), |account| {
        account.launch_template("mine", json!({"instanceType": "m5.large"}));
        account.launch_template(
            "mine",
            json!({
                "instanceType": "g5.xlarge", "imageId": "ami-1",
                "blockDeviceMappingSet": [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 100}}],
                "userData": encoded("#!/bin/sh\n/etc/eks/bootstrap.sh c1 --kubelet-extra-args '--node-labels=k8s.amazonaws.com/accelerator=nvidia-a10g --register-with-taints=nvidia.com/gpu=present:NoSchedule'"),
            }),
        );
    })
    .await;
    let node = stage.template().await;
    let (labels, status) = (node.metadata.unwrap().labels, node.status.unwrap());
    for (label, value) in [
        ("node.kubernetes.io/instance-type", "g5.xlarge"),
        ("kubernetes.io/arch", "amd64"),
        ("k8s.amazonaws.com/accelerator", "nvidia-a10g"),
        ("topology.kubernetes.io/region", "us-east-1"),
        ("topology.kubernetes.io/zone", "us-east-1a"),
    ] {
        assert_eq!(labels[label], value, "{label}");
    }
    assert!(!labels.contains_key("eks.amazonaws.com/capacityType"), "a self-managed node has no such label");
    let text = |name: &str| status.allocatable[name].string();
    assert_eq!((text("cpu"), text("pods"), text("nvidia.com/gpu")), ("3920m", "58", "1"));
    let memory: u64 = text("memory").parse().unwrap();
    assert!(memory < 15 * GIB && memory > 13 * GIB, "{memory}");
    let storage: u64 = text("ephemeral-storage").parse().unwrap();
    assert_eq!(storage / GIB, 88);
    assert_eq!(node.spec.unwrap().taints.first().unwrap().key(), "nvidia.com/gpu");
}

#[tokio::test]
async fn the_version_that_is_named_is_the_one_that_counts() {
    for (version, expected) in
        [("1", "m5.large"), ("$Default", "m5.large"), ("2", "g5.xlarge"), ("$Latest", "g5g.xlarge")]
    {
        let mut stage = of(bare().launch_template("mine", version), |account| {
            for name in ["m5.large", "g5.xlarge", "g5g.xlarge"] {
                account.launch_template("mine", json!({"instanceType": name}));
            }
        })
        .await;
        assert_eq!(stage.label("node.kubernetes.io/instance-type").await.unwrap(), expected, "{version}");
    }
}

#[tokio::test]
async fn a_launch_configuration_describes_a_node_too() {
    let mut stage = of(bare().launch_configuration("old"), |account| {
        account.launch_configurations.insert(
            "old".to_owned(),
            json!({"LaunchConfigurationName": "old", "InstanceType": "g4dn.xlarge", "ImageId": "ami-1", "SpotPrice": "0.5",
                   "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 50}}], "CreatedTime": "2026-01-01T00:00:00Z"}),
        );
    })
    .await;
    assert_eq!(stage.label("node.kubernetes.io/instance-type").await.unwrap(), "g4dn.xlarge");
    assert_eq!(stage.allocatable("pods").await.unwrap(), "29");
}

// in-tree: AMD and Gaudi are nvidia.com/gpu, a fraction of a GPU is none, Neuron is absent.
#[tokio::test]
async fn accelerators_of_every_maker_are_offered_by_their_own_name() {
    for (name, resource, count) in [
        ("p4d.24xlarge", "nvidia.com/gpu", "8"),
        ("g4ad.xlarge", "amd.com/gpu", "1"),
        ("dl1.24xlarge", "habana.ai/gaudi", "8"),
        ("trn1.32xlarge", "aws.amazon.com/neuron", "16"),
        ("trn1.32xlarge", "aws.amazon.com/neuroncore", "32"),
        ("g6f.large", "nvidia.com/gpu", "1"),
    ] {
        let mut stage = of(bare().launch_template("mine", "1"), |account| {
            account.launch_template("mine", json!({"instanceType": name}));
        })
        .await;
        assert_eq!(stage.allocatable(resource).await.as_deref(), Some(count), "{name} {resource}");
    }
}

// in-tree: the first override stands for all.
#[tokio::test]
async fn several_shapes_are_described_by_the_least_and_named() {
    let mut stage = of(bare().mixed(&["g5.12xlarge", "g5.xlarge", "g4dn.xlarge"], true), |_| {}).await;
    assert_eq!(stage.allocatable("nvidia.com/gpu").await.unwrap(), "1");
    assert_eq!(
        (stage.allocatable("cpu").await.unwrap(), stage.allocatable("pods").await.unwrap()),
        ("3920m".into(), "29".into())
    );
    stage.warns("g5.12xlarge (48 CPUs").await;
}

// in-tree: the first type that matches stands for all.
#[tokio::test]
async fn attributes_are_turned_into_types() {
    let requirements = json!({"VCpuCount": {"Min": 4, "Max": 16}, "MemoryMiB": {"Min": 1024}, "AcceleratorCount": {"Min": 1},
                              "AcceleratorManufacturers": ["nvidia"]});
    let policy = json!({
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "lt-default", "Version": "$Default"},
            "Overrides": [{"InstanceRequirements": requirements}],
        },
        "InstancesDistribution": {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 0},
    });
    let group = bare().says("LaunchTemplate", Value::Null).says("MixedInstancesPolicy", policy);
    let mut stage = of(group, |_| {}).await;
    assert_eq!(stage.allocatable("nvidia.com/gpu").await.unwrap(), "1");
    assert_eq!(stage.cloud.calls("GetInstanceTypesFromInstanceRequirements").len(), 1);
    stage.warns("its machines differ").await;
}

fn managed() -> Asg {
    bare().tag("eks:cluster-name", "c1").tag("eks:nodegroup-name", "ng").launch_template("mine", "1")
}

fn nodegroup() -> Value {
    json!({
        "nodegroupName": "ng", "clusterName": "c1", "status": "ACTIVE", "capacityType": "CAPACITY_BLOCK",
        "amiType": "BOTTLEROCKET_x86_64_NVIDIA", "diskSize": 100, "labels": {"team": "vision"},
        "taints": [{"key": "gpu", "effect": "NO_SCHEDULE"}, {"key": "team", "value": "vision", "effect": "NO_EXECUTE"}],
    })
}

// in-tree: taints without a value are dropped, the cache forgets the cluster, an error empties it.
#[tokio::test]
async fn a_managed_node_group_brings_its_labels_taints_image_and_capacity() {
    let mut stage = of(managed(), |account| {
        account.launch_template("mine", json!({"instanceType": "p5.48xlarge"}));
        account.nodegroups.insert(("c1".to_owned(), "ng".to_owned()), nodegroup());
    })
    .await;
    let node = stage.template().await;
    let labels = node.metadata.unwrap().labels;
    assert_eq!((labels["team"].as_str(), labels["eks.amazonaws.com/nodegroup"].as_str()), ("vision", "ng"));
    assert_eq!(labels["eks.amazonaws.com/capacityType"], "CAPACITY_BLOCK");
    let taints: Vec<String> =
        node.spec.unwrap().taints.iter().map(|it| format!("{}={}:{}", it.key(), it.value(), it.effect())).collect();
    assert_eq!(taints, ["gpu=:NoSchedule", "team=vision:NoExecute"]);
    let capacity = node.status.unwrap().capacity;
    assert_eq!(capacity["ephemeral-storage"].string().parse::<u64>().unwrap() / GIB, 98);
    assert_eq!(stage.cloud.calls("DescribeNodegroup").len(), 1);
    stage.relisted().await;
    assert_eq!(stage.cloud.calls("DescribeNodegroup").len(), 1, "it is kept");
    assert_eq!(stage.cloud.calls("DescribeInstanceTypes").len(), 1, "it is kept");
    assert_eq!(stage.cloud.calls("DescribeLaunchTemplateVersions").len(), 1, "it is kept");
}

#[tokio::test]
async fn one_broken_launch_template_is_one_warning_and_the_rest_works() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", bare().launch_template("gone", "7"));
    cloud.add("good", gpu_group());
    let mut stage = Stage::new(cloud).await;
    assert_eq!(stage.groups().await.len(), 2);
    assert_eq!(stage.allocatable("cpu").await.unwrap(), "0m", "nothing is guessed");
    stage.warns("its launch template lt-0gone version 7 could not be read").await;
    stage.increase("good", 1).await.unwrap();
    let came = async |stage: &mut Stage| stage.instances("good").await.iter().any(|it| it.id.starts_with("aws:///"));
    stage.until("the other group grows", came).await;
}

#[tokio::test]
async fn types_come_from_the_shipped_table_while_ec2_is_silent() {
    let cloud = AwsCloud::start().unwrap();
    for call in ["DescribeInstanceTypes", "DescribeImages"] {
        cloud.fault(call, Fault::Down);
    }
    cloud.add("gpu", gpu_group().mixed(&["g5.xlarge"], true));
    let mut stage = Stage::new(cloud).await;
    assert_eq!(
        (stage.allocatable("cpu").await.unwrap(), stage.allocatable("pods").await.unwrap()),
        ("3920m".into(), "58".into())
    );
}

#[tokio::test]
async fn mig_slices_and_any_other_resource_are_told_by_tags() {
    let group = gpu_group()
        .mixed(&["p4d.24xlarge"], false)
        .node_template("resources/nvidia.com/mig-1g.5gb", "56")
        .node_template("resources/vpc.amazonaws.com/efa", "4");
    let mut stage = Stage::of(group).await;
    assert_eq!(stage.allocatable("nvidia.com/mig-1g.5gb").await.unwrap(), "56");
    assert_eq!(stage.allocatable("vpc.amazonaws.com/efa").await.unwrap(), "4");
    assert_eq!(stage.allocatable("nvidia.com/gpu").await, None);
    assert_eq!(stage.label("k8s.amazonaws.com/accelerator").await, None, "CA would wait for nvidia.com/gpu for ever");
}

/// What CA asks the expander when it plans with this node of the group.
fn question(node: &Node) -> BestOptionsRequest {
    let option = WireOption { node_group_id: "gpu".to_owned(), node_count: 1, ..WireOption::default() };
    let nodes = [("gpu".to_owned(), node.encode_to_vec().into())].into();
    BestOptionsRequest { options: vec![option], node_bytes_map: nodes, ..BestOptionsRequest::default() }
}

/// A real node of the group: what was described, and what nobody described.
async fn real_node(stage: &mut Stage) -> Node {
    let machine = stage.instances("gpu").await.first().unwrap().id.clone();
    let mut node = stage.template().await;
    node.spec.get_or_insert_default().provider_id = Some(machine);
    let status = node.status.as_mut().unwrap();
    for of in [&mut status.capacity, &mut status.allocatable] {
        of.insert("nvidia.com/gpu".to_owned(), Quantity { string: Some("4".to_owned()) });
        of.insert("memory".to_owned(), Quantity { string: Some("15Gi".to_owned()) });
    }
    let labels = &mut node.metadata.as_mut().unwrap().labels;
    labels.insert("nvidia.com/gpu.product".to_owned(), "NVIDIA-A10G".to_owned());
    labels.insert("kubernetes.io/hostname".to_owned(), "ip-10-0-0-1".to_owned());
    node
}

// in-tree: its core knows a group's last node for as long as the process lives.
#[tokio::test]
async fn what_a_real_node_was_describes_the_group_after_a_restart() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group().mixed(&["g5.xlarge"], true).desired(1));
    let port = Port::hold().unwrap();
    let mut stage = Stage::with(cloud, &json!({"expander": {"listen": port.address()}})).await;
    let node = real_node(&mut stage).await;
    let tls = ClientTlsConfig::new().domain_name("localhost");
    let tls = tls.ca_certificate(Certificate::from_pem(std::fs::read(stage.path("ca.crt")).unwrap()));
    let expander = Endpoint::from_shared(format!("https://{}", port.address())).unwrap().tls_config(tls).unwrap();
    let mut expander = ExpanderClient::new(expander.connect_lazy());
    expander.best_options(question(&node)).await.unwrap();
    let learned = async |stage: &mut Stage| stage.allocatable("nvidia.com/gpu").await.as_deref() == Some("4");
    stage.until("the group is described as its node is", learned).await;
    stage.warns("its real node differs from its description: allocatable nvidia.com/gpu is 4, not 1").await;
    stage.relisted().await;
    stage.kill();
    stage.cloud.group("gpu").with(|group, _| (group.desired, group.machines) = (0, Default::default()));
    stage.start();
    stage.until("the groups are listed again", async |stage: &mut Stage| !stage.groups().await.is_empty()).await;
    assert_eq!(stage.allocatable("nvidia.com/gpu").await.as_deref(), Some("4"));
    assert_eq!(stage.allocatable("memory").await.unwrap(), (15 * GIB).to_string());
    assert_eq!(stage.label("nvidia.com/gpu.product").await.as_deref(), Some("NVIDIA-A10G"));
    assert_eq!(stage.label("kubernetes.io/hostname").await, None);
}
