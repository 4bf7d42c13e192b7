//! Groups are ours by the tags that cluster-autoscaler's users already have.

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
