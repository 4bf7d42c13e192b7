//! What moto, which knows nothing of us, and our fake can both do: the provider must see the very same world through
//! either, and change it in the same way.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_proto::externalgrpc::instance_status::InstanceState;
use windlass_tests::{
    aws::{Asg, AwsCloud, TAGS},
    moto::Moto,
};

use super::stage::Stage;

/// More groups than one page has.
const GROUPS: usize = 120;

/// Who plays AWS.
enum World {
    Fake,
    Moto(Moto),
}

impl World {
    fn moto() -> Self {
        Self::Moto(Moto::start().unwrap())
    }

    /// A provider on it, with these keys more in `cloud`.
    async fn stage(&self, cloud: AwsCloud, mut keys: Value) -> Stage {
        if let Self::Moto(moto) = self {
            keys["endpoint"] = json!(moto.endpoint());
        }
        Stage::with(cloud, &json!({"cloud": keys})).await
    }

    /// The managed node group `gpu` of the cluster `c1`.
    fn nodegroup(&self, cloud: &AwsCloud) {
        let labels = json!({"team": "vision"});
        let taints = json!([{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}]);
        let Self::Moto(moto) = self else {
            let described = json!({"status": "ACTIVE", "capacityType": "SPOT", "labels": labels, "taints": taints});
            return cloud.with(|account, _| {
                account.nodegroups.insert(("c1".to_owned(), "gpu".to_owned()), described);
            });
        };
        let role = "arn:aws:iam::123456789012:role/r";
        let cluster = json!({"name": "c1", "roleArn": role, "resourcesVpcConfig": {"subnetIds": ["subnet-1"]}});
        moto.eks("/clusters", &cluster).unwrap();
        let nodegroup = json!({
            "nodegroupName": "gpu", "nodeRole": role, "subnets": ["subnet-1"], "capacityType": "SPOT", "labels": labels,
            "taints": taints,
        });
        moto.eks("/clusters/c1/node-groups", &nodegroup).unwrap();
    }

    fn launch_template(&self, cloud: &AwsCloud, name: &str, instance_type: &str) {
        match self {
            Self::Fake => {
                cloud.with(|account, _| account.launch_template(name, json!({"instanceType": instance_type})));
            }
            Self::Moto(moto) => {
                let data =
                    format!("LaunchTemplateData.InstanceType={instance_type}&LaunchTemplateData.ImageId=ami-12c6146b");
                let form = format!("Action=CreateLaunchTemplate&Version=2016-11-15&LaunchTemplateName={name}&{data}");
                moto.query("ec2", &form).unwrap();
            }
        }
    }

    /// A group of this launch template in one zone.
    fn group(&self, cloud: &AwsCloud, name: &str, group: Asg) {
        let Self::Moto(moto) = self else { return cloud.add(name, group) };
        let template = group.description["LaunchTemplate"]["LaunchTemplateName"].as_str().unwrap();
        let tags = group.tags.iter().enumerate().map(|(number, (key, value))| {
            let tag = format!("Tags.member.{}", number + 1);
            format!("&{tag}.Key={key}&{tag}.Value={value}&{tag}.PropagateAtLaunch=true&{tag}.ResourceId={name}&{tag}.ResourceType=auto-scaling-group")
        });
        let form = format!(
            "Action=CreateAutoScalingGroup&Version=2011-01-01&AutoScalingGroupName={name}&MinSize={}&MaxSize={}\
             &DesiredCapacity={}&AvailabilityZones.member.1={}&LaunchTemplate.LaunchTemplateName={template}\
             &LaunchTemplate.Version=%24Default{}",
            group.min,
            group.max,
            group.desired,
            group.zones[0],
            tags.collect::<String>().replace(' ', "%20"),
        );
        moto.query("autoscaling", &form).unwrap();
    }
}

fn group() -> Asg {
    Asg::new(&["us-east-1a"]).launch_template("gpus", "$Default").between(0, 4).of_cluster("c1")
}

/// Groups by id with their bounds.
async fn bounds(stage: &mut Stage) -> BTreeMap<String, (i32, i32)> {
    stage.groups().await.into_iter().map(|it| (it.id, (it.min_size, it.max_size))).collect()
}

/// Tags choose the groups, and every page is read.
async fn groups_are_found(world: World) -> BTreeMap<String, (i32, i32)> {
    let cloud = AwsCloud::start().unwrap();
    world.launch_template(&cloud, "gpus", "g5.xlarge");
    for number in 0..GROUPS {
        world.group(&cloud, &format!("gpu-{number:03}"), group());
    }
    world.group(
        &cloud,
        "anothers",
        Asg::new(&["us-east-1a"]).launch_template("gpus", "$Default").tag(&format!("{TAGS}/enabled"), ""),
    );
    let mut stage = world.stage(cloud, json!({})).await;
    bounds(&mut stage).await
}

/// One of three machines goes, and the target with it. Answers what is left and the target.
async fn a_machine_is_given_back(world: World) -> (usize, i32) {
    let cloud = AwsCloud::start().unwrap();
    world.launch_template(&cloud, "gpus", "g5.xlarge");
    world.group(&cloud, "gpu", group().desired(3));
    let mut stage = world.stage(cloud, json!({})).await;
    let listed = stage.instances("gpu").await;
    let id = listed[0].id.clone();
    assert!(id.starts_with("aws:///us-east-1a/i-"), "{id}");
    stage.delete("gpu", &[&id]).await.unwrap();
    stage.until("the machine is gone", async |stage| stage.instances("gpu").await.iter().all(|it| it.id != id)).await;
    (stage.instances("gpu").await.len(), stage.target("gpu").await)
}

/// Two machines are asked for by raising the desired capacity, and come. Answers how many and the target.
async fn machines_are_bought(world: World) -> (usize, i32) {
    let cloud = AwsCloud::start().unwrap();
    world.launch_template(&cloud, "gpus", "g5.xlarge");
    world.group(&cloud, "gpu", group());
    let mut stage = world.stage(cloud, json!({"launch": "desired-capacity"})).await;
    stage.increase("gpu", 2).await.unwrap();
    stage.until("both machines run", async |stage| stage.count("gpu", InstanceState::InstanceRunning).await == 2).await;
    (stage.instances("gpu").await.len(), stage.target("gpu").await)
}

/// What a machine of a managed node group would be: labels, taints and resources, from its launch template, its type's
/// description and EKS.
async fn a_machine_is_described(world: World) -> BTreeMap<String, String> {
    let cloud = AwsCloud::start().unwrap();
    world.launch_template(&cloud, "gpus", "g4dn.xlarge");
    world.nodegroup(&cloud);
    let eks = group().tag("eks:cluster-name", "c1").tag("eks:nodegroup-name", "gpu");
    world.group(&cloud, "gpu", eks);
    let mut stage = world.stage(cloud, json!({})).await;
    let labelled = async |stage: &mut Stage| template(stage).await.contains_key("label team");
    stage.until("EKS has been asked", labelled).await;
    template(&mut stage).await
}

/// What EC2's spot history says of the zones of a spot group, and where that was read.
async fn a_price_is_read(world: World) -> (Value, Value) {
    let cloud = AwsCloud::start().unwrap();
    world.launch_template(&cloud, "gpus", "g4dn.xlarge");
    world.nodegroup(&cloud);
    let eks = group().tag("eks:cluster-name", "c1").tag("eks:nodegroup-name", "gpu");
    world.group(&cloud, "gpu", eks);
    // The price that moto has for everything.
    let price = json!({"instanceType": "g4dn.xlarge", "availabilityZone": "us-east-1a", "spotPrice": "0.00001",
                       "productDescription": "Linux/UNIX", "timestamp": "2006-01-02T15:04:05.999Z"});
    cloud.with(|account, _| account.spot_prices = vec![price]);
    let stage = world.stage(cloud, json!({})).await;
    let said = stage.run(&["groups", "--json"]);
    let groups: Value = serde_json::from_slice(&said.stdout).unwrap();
    (groups[0]["price"]["zones"].clone(), groups[0]["price"]["source"].clone())
}

/// The template of the group `gpu`, field by field; empty while there is none.
async fn template(stage: &mut Stage) -> BTreeMap<String, String> {
    let Some(node) = stage.template_of("gpu").await else { return BTreeMap::new() };
    let (metadata, spec, status) =
        (node.metadata.unwrap_or_default(), node.spec.unwrap_or_default(), node.status.unwrap_or_default());
    let labels = metadata.labels.iter().filter(|(key, _)| *key != "kubernetes.io/hostname");
    let labels = labels.map(|(key, value)| (format!("label {key}"), value.clone()));
    let taints =
        spec.taints.iter().map(|it| (format!("taint {}", it.key()), format!("{}:{}", it.value(), it.effect())));
    let capacity =
        status.capacity.iter().map(|(name, amount)| (format!("capacity {name}"), amount.string().to_owned()));
    let free =
        status.allocatable.iter().map(|(name, amount)| (format!("allocatable {name}"), amount.string().to_owned()));
    labels.chain(taints).chain(capacity).chain(free).collect()
}

#[tokio::test]
async fn a_machine_is_described_from_template_type_and_node_group_on_moto_as_on_the_fake() {
    let seen = a_machine_is_described(World::Fake).await;
    for (field, value) in [
        ("label node.kubernetes.io/instance-type", "g4dn.xlarge"),
        ("label eks.amazonaws.com/capacityType", "SPOT"),
        ("taint nvidia.com/gpu", "present:NoSchedule"),
        ("capacity nvidia.com/gpu", "1"),
        ("capacity pods", "29"),
    ] {
        assert_eq!(seen.get(field).map(String::as_str), Some(value), "{field}: {seen:#?}");
    }
    assert_eq!(a_machine_is_described(World::moto()).await, seen);
}

#[tokio::test]
async fn machines_are_bought_by_the_desired_capacity_on_moto_as_on_the_fake() {
    assert_eq!(machines_are_bought(World::Fake).await, (2, 2));
    assert_eq!(machines_are_bought(World::moto()).await, (2, 2));
}

#[tokio::test]
async fn groups_are_found_by_tag_over_several_pages_on_moto_as_on_the_fake() {
    let seen = groups_are_found(World::Fake).await;
    assert_eq!(seen.len(), GROUPS);
    assert_eq!(groups_are_found(World::moto()).await, seen);
}

#[tokio::test]
async fn a_machine_is_given_back_on_moto_as_on_the_fake() {
    assert_eq!(a_machine_is_given_back(World::Fake).await, (2, 2));
    assert_eq!(a_machine_is_given_back(World::moto()).await, (2, 2));
}

#[tokio::test]
async fn spot_prices_are_read_on_moto_as_on_the_fake() {
    let seen = a_price_is_read(World::Fake).await;
    assert_eq!(seen, (json!({"us-east-1a": 0.00001}), json!("spot-history")));
    assert_eq!(a_price_is_read(World::moto()).await, seen);
}
