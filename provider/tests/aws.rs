//! The shipped program on `cloud.kind: aws`: the real SDK, against an Auto Scaling API that is faked over HTTP.
#![cfg(feature = "aws")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

#[path = "aws/fake.rs"]
mod fake;

use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Asg, World};
use tonic::transport::Channel;
use windlass_proto::externalgrpc::{
    ExternalGrpcNode, Instance, NodeGroupDeleteNodesRequest, NodeGroupIncreaseSizeRequest, NodeGroupNodesRequest,
    NodeGroupTargetSizeRequest, NodeGroupsRequest, cloud_provider_client::CloudProviderClient,
};

const OURS: &str = "k8s.io/cluster-autoscaler";

struct Stage {
    world: fake::Shared,
    client: CloudProviderClient<Channel>,
    program: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn group(left: [(&'static str, u32); 2]) -> Asg {
    let template = |rest: &str| format!("{OURS}/node-template/{rest}");
    Asg {
        max: 5,
        zones: vec!["us-east-1a", "us-east-1b"],
        tags: vec![
            (format!("{OURS}/enabled"), ""),
            (format!("{OURS}/c1"), "owned"),
            (template("label/node.kubernetes.io/instance-type"), "g5.xlarge"),
            (template("label/k8s.amazonaws.com/accelerator"), "nvidia-a10g"),
        ],
        left: left.into(),
        code: "InsufficientInstanceCapacity",
        ..Asg::default()
    }
}

async fn stage(asg: Asg) -> Stage {
    let mut world = World::default();
    world.groups.insert("gpu".to_owned(), asg);
    world.groups.insert("not-ours".to_owned(), Asg { max: 1, zones: vec!["us-east-1a"], ..Asg::default() });
    let world = Arc::new(Mutex::new(world));
    let api = fake::serve(world.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let config = format!(
        "cloud: {{kind: aws, region: us-east-1, endpoint: \"http://{api}\", clusterName: c1}}\n\
         provider: {{listen: \"unix://{at}/p.sock\"}}\n\
         expander: {{listen: \"127.0.0.1:0\", selfSigned: {{caFile: {at}/ca.crt}}}}\n\
         http: {{listen: \"127.0.0.1:0\"}}\nrefresh: 200ms\n"
    );
    let file = folder.path().join("windlass.yaml");
    std::fs::write(&file, config).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_windlass-provider"))
        .arg("--config")
        .arg(&file)
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let client = CloudProviderClient::new(
        tonic::transport::Endpoint::try_from(format!("unix://{at}/p.sock")).unwrap().connect_lazy(),
    );
    let mut stage = Stage { world, client, program, _folder: folder };
    stage
        .until("the groups are listed", async |stage| {
            let answer = stage.client.node_groups(NodeGroupsRequest {}).await;
            answer.is_ok_and(|answer| !answer.into_inner().node_groups.is_empty())
        })
        .await;
    stage
}

impl Stage {
    async fn until(&mut self, what: &str, is: impl AsyncFn(&mut Self) -> bool) {
        for _ in 0..200 {
            if is(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("in ten seconds it never came that {what}");
    }

    async fn increase(&mut self, delta: i32) {
        let request = NodeGroupIncreaseSizeRequest { delta, id: "gpu".to_owned() };
        self.client.node_group_increase_size(request).await.unwrap();
    }

    async fn target(&mut self) -> i32 {
        let request = NodeGroupTargetSizeRequest { id: "gpu".to_owned() };
        self.client.node_group_target_size(request).await.unwrap().into_inner().target_size
    }

    async fn nodes(&mut self) -> Vec<Instance> {
        let request = NodeGroupNodesRequest { id: "gpu".to_owned() };
        self.client.node_group_nodes(request).await.unwrap().into_inner().instances
    }
}

#[tokio::test]
async fn a_zone_without_machines_sends_the_launch_to_the_other() {
    let mut stage = stage(group([("us-east-1a", 1), ("us-east-1b", 9)])).await;
    stage.increase(3).await;
    assert_eq!(stage.target().await, 3);
    stage
        .until("three machines are listed", async |stage| {
            stage.nodes().await.iter().filter(|it| it.id.starts_with("aws:///us-east-1")).count() == 3
        })
        .await;
    assert_eq!(stage.target().await, 3);
    assert_eq!(stage.world.lock().unwrap().groups["gpu"].desired, 3);
}

#[tokio::test]
async fn a_shortfall_is_told_with_awss_own_code_and_the_desired_capacity_stays() {
    let mut stage = stage(group([("us-east-1a", 0), ("us-east-1b", 0)])).await;
    stage.increase(2).await;
    stage
        .until("the refusal is shown", async |stage| {
            let errors = stage.nodes().await.into_iter().filter_map(|it| it.status?.error_info);
            errors.filter(|it| it.error_code == "InsufficientInstanceCapacity" && it.instance_error_class == 1).count()
                == 2
        })
        .await;
    assert_eq!(stage.world.lock().unwrap().groups["gpu"].desired, 0);
}

#[tokio::test]
async fn exactly_the_named_machine_is_ended_and_the_target_falls_once() {
    let mut asg = group([("us-east-1a", 9), ("us-east-1b", 9)]);
    asg.desired = 2;
    for id in ["i-0a", "i-0b"] {
        asg.instances.insert(id.to_owned(), ("us-east-1a".to_owned(), "InService"));
    }
    let mut stage = stage(asg).await;
    let node = ExternalGrpcNode {
        provider_id: "aws:///us-east-1a/i-0a".to_owned(),
        name: "a".to_owned(),
        ..Default::default()
    };
    let request = NodeGroupDeleteNodesRequest { nodes: vec![node], id: "gpu".to_owned() };
    for _ in 0..2 {
        stage.client.node_group_delete_nodes(request.clone()).await.unwrap();
    }
    assert_eq!(stage.target().await, 1);
    stage.until("the machine is gone", async |stage| stage.nodes().await.len() == 1).await;
    let world = stage.world.lock().unwrap();
    assert_eq!((world.groups["gpu"].desired, world.groups["gpu"].instances.len()), (1, 1));
}

#[tokio::test]
async fn only_tagged_groups_are_ours() {
    let mut stage = stage(group([("us-east-1a", 1), ("us-east-1b", 1)])).await;
    let groups = stage.client.node_groups(NodeGroupsRequest {}).await.unwrap().into_inner().node_groups;
    assert_eq!(groups.iter().map(|it| (it.id.as_str(), it.max_size)).collect::<Vec<_>>(), [("gpu", 5)]);
}
