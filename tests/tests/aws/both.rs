//! What moto, which knows nothing of us, and our fake can both do: the provider must see the very same world through
//! either, and change it in the same way.

use std::collections::BTreeMap;

use serde_json::json;
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

    /// A provider on it.
    async fn stage(&self, cloud: AwsCloud) -> Stage {
        match self {
            Self::Fake => Stage::new(cloud).await,
            Self::Moto(moto) => Stage::with(cloud, &json!({"cloud": {"endpoint": moto.endpoint()}})).await,
        }
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
    let mut stage = world.stage(cloud).await;
    bounds(&mut stage).await
}

/// One of three machines goes, and the target with it. Answers what is left and the target.
async fn a_machine_is_given_back(world: World) -> (usize, i32) {
    let cloud = AwsCloud::start().unwrap();
    world.launch_template(&cloud, "gpus", "g5.xlarge");
    world.group(&cloud, "gpu", group().desired(3));
    let mut stage = world.stage(cloud).await;
    let listed = stage.instances("gpu").await;
    let id = listed[0].id.clone();
    assert!(id.starts_with("aws:///us-east-1a/i-"), "{id}");
    stage.delete("gpu", &[&id]).await.unwrap();
    stage.until("the machine is gone", async |stage| stage.instances("gpu").await.iter().all(|it| it.id != id)).await;
    (stage.instances("gpu").await.len(), stage.target("gpu").await)
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
