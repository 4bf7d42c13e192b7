//! Groups are ours by the tags that cluster-autoscaler's users already have.

use serde_json::{Value, json};
use windlass_tests::aws::{Asg, AwsCloud};

use super::stage::{Stage, gpu_group};

#[tokio::test]
async fn only_tagged_groups_are_ours() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    cloud.add("not-ours", Asg::new(&["us-east-1a"]));
    cloud.add("anothers", Asg::new(&["us-east-1a"]).of_cluster("c2"));
    let mut stage = Stage::new(cloud).await;
    let groups = stage.groups().await;
    assert_eq!(groups.iter().map(|it| (it.id.as_str(), it.max_size)).collect::<Vec<_>>(), [("gpu", 5)]);
}

async fn names(stage: &mut Stage) -> Vec<String> {
    stage.groups().await.into_iter().map(|group| group.id).collect()
}

// in-tree: several specs are merged into one, so that a group has to match all of them.
#[tokio::test]
async fn each_discovery_spec_is_an_alternative() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("a", gpu_group());
    cloud.add("b", Asg::new(&["us-east-1a"]).tag("team", "vision"));
    cloud.add("c", Asg::new(&["us-east-1a"]).tag("team", "speech").tag("tier", "gpu"));
    cloud.add("d", Asg::new(&["us-east-1a"]).tag("team", "speech"));
    let settings = json!({"cloud": {"discovery": ["asg:tag=team=vision", "asg:tag=team=speech,tier=gpu"]}});
    let mut stage = Stage::with(cloud, &settings).await;
    assert_eq!(names(&mut stage).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn groups_are_named_and_left_out_whatever_their_tags() {
    let cloud = AwsCloud::start().unwrap();
    for name in ["gpu-new", "gpu-old", "cpu-old"] {
        cloud.add(name, gpu_group());
    }
    cloud.add("untagged", Asg::new(&["us-east-1a"]));
    let settings = json!({"cloud": {"groups": [{"name": "untagged", "min": 1, "max": 4}, {"name": "nowhere"}], "exclude": ["*-old"]}});
    let mut stage = Stage::with(cloud, &settings).await;
    assert_eq!(names(&mut stage).await, ["gpu-new", "untagged"]);
    let bounds =
        stage.groups().await.into_iter().find(|group| group.id == "untagged").map(|it| (it.min_size, it.max_size));
    assert_eq!(bounds, Some((1, 4)));
}

#[tokio::test]
async fn named_groups_alone_need_no_cluster() {
    let cloud = AwsCloud::start().unwrap();
    cloud.add("gpu", gpu_group());
    cloud.add("other", gpu_group());
    let settings = json!({"cloud": {"clusterName": Value::Null, "groups": [{"name": "gpu"}]}});
    let mut stage = Stage::with(cloud, &settings).await;
    assert_eq!(names(&mut stage).await, ["gpu"]);
}

#[tokio::test]
async fn a_group_that_loses_its_tag_or_is_deleted_leaves_with_what_was_asked_of_it() {
    let cloud = AwsCloud::start().unwrap();
    for name in ["stays", "untagged", "deleted"] {
        cloud.add(name, gpu_group());
        cloud.group(name).refuse("InsufficientInstanceCapacity");
    }
    let mut stage = Stage::new(cloud).await;
    for name in ["stays", "untagged", "deleted"] {
        stage.increase(name, 2).await.unwrap();
    }
    stage.cloud.group("untagged").with(|group, _| group.tags.clear());
    stage.cloud.group("deleted").delete();
    let left = async |stage: &mut Stage| names(stage).await == ["stays"];
    stage.until("the groups are gone", left).await;
    stage.refresh().await.unwrap();
    let denied = stage.increase("deleted", 1).await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::NotFound, "{denied}");
    stage.relisted().await;
    assert_eq!(names(&mut stage).await, ["stays"]);
    stage.cloud.group("untagged").with(|group, _| group.tags = gpu_group().tags);
    let back = async |stage: &mut Stage| names(stage).await == ["stays", "untagged"];
    stage.until("the group is back", back).await;
    assert_eq!(stage.target("untagged").await, 0, "what was asked of it before is forgotten");
}

/// Made anew under another name, with the machines it had.
#[tokio::test]
async fn a_group_that_is_renamed_takes_its_machines_along_and_none_ends() {
    let mut stage = Stage::of(gpu_group().desired(2)).await;
    stage.cloud.with(|account, _| {
        let group = account.groups.remove("gpu").unwrap();
        account.groups.insert("renamed".to_owned(), group);
    });
    let renamed = async |stage: &mut Stage| names(stage).await == ["renamed"];
    stage.until("the group has its new name", renamed).await;
    assert_eq!((stage.target("renamed").await, stage.instances("renamed").await.len()), (2, 2));
    let machine = stage.instances("renamed").await[0].id.clone();
    stage.delete("renamed", &[&machine]).await.unwrap();
    let gone = async |stage: &mut Stage| stage.instances("renamed").await.len() == 1;
    stage.until("the machine that was named is gone", gone).await;
    assert_eq!(stage.cloud.calls("TerminateInstanceInAutoScalingGroup").len(), 1);
    assert_eq!(stage.cloud.calls("SetDesiredCapacity"), []);
}
