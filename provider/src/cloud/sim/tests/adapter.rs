//! The embedded cloud behind its trait, on real files: restarts, changed and broken scenarios, failing calls.

use std::{fs, path::PathBuf};

use crate::{
    cloud::{
        Cloud as _, CloudError, Launch,
        sim::{SimCloud, look},
    },
    fleet::group::{InstanceId, RefusalClass},
};

/// A scenario in a directory of its own, with one group `g` and the given script.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(events: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write(events);
        place
    }

    fn write(&self, events: &str) {
        let group = "{id: g, max: 9, instanceType: t, cpu: 2, memory: 8Gi, pendingTime: 0s}";
        fs::write(self.scenario(), format!("groups: [{group}]\nevents: [{events}]\n")).unwrap();
    }

    fn scenario(&self) -> PathBuf {
        self.dir.path().join("scenario.yaml")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("cloud.json")
    }

    fn open(&self) -> anyhow::Result<SimCloud> {
        SimCloud::open(&self.scenario(), Some(&self.state()))
    }
}

async fn launch(cloud: &SimCloud, count: u32, token: &str) -> Result<usize, CloudError> {
    let launch = Launch::new("g".into(), count, token.into());
    cloud.launch(&launch).await.map(|launched| launched.instances.len())
}

async fn living(cloud: &SimCloud) -> Vec<InstanceId> {
    let listed = cloud.list(crate::cloud::Look::default()).await.unwrap();
    listed.groups.into_iter().flat_map(|one| one.instances).map(|machine| machine.id).collect()
}

#[tokio::test]
async fn who_is_killed_finds_its_machines_and_its_tokens_again() {
    let place = Place::new("");
    let before = place.open().unwrap();
    assert_eq!(launch(&before, 2, "w-1").await, Ok(2));
    let machines = living(&before).await;
    drop(before);
    let seen = look(&place.scenario(), &place.state(), crate::timestamp::Timestamp::default()).unwrap();
    assert_eq!(seen.into_iter().map(|machine| machine.id).collect::<Vec<_>>(), machines);
    let after = place.open().unwrap();
    assert_eq!(living(&after).await, machines);
    assert_eq!(launch(&after, 2, "w-1").await, Ok(2));
    assert_eq!(living(&after).await, machines, "the token was used before the restart");
    assert!(after.machine(machines[0].as_str()).unwrap().registers_at.is_some());
    assert_eq!(after.machine("sim:///nowhere/i-1"), None);
}

#[tokio::test]
async fn a_broken_state_is_refused_with_a_remedy() {
    let place = Place::new("");
    fs::write(place.state(), "{\"started\": 1").unwrap();
    let told = format!("{:#}", place.open().err().unwrap());
    assert!(told.contains("cloud.json") && told.contains("line 1") && told.contains("move it away"), "{told}");
}

#[tokio::test]
async fn a_missing_scenario_is_named() {
    let place = Place::new("");
    fs::remove_file(place.scenario()).unwrap();
    let told = format!("{:#}", place.open().err().unwrap());
    assert!(told.contains("scenario.yaml") && told.contains("cloud.scenario"), "{told}");
}

#[tokio::test]
async fn a_changed_scenario_is_taken_up_and_a_wrong_one_is_not() {
    let place = Place::new("");
    let cloud = place.open().unwrap();
    place.write("{at: 0s, stockOut: true}");
    touch(&place, 10);
    assert_eq!(launch(&cloud, 1, "w-1").await, Ok(0));
    place.write("{at: 0s, stockOut: perhaps}");
    touch(&place, 20);
    assert_eq!(launch(&cloud, 1, "w-2").await, Ok(0), "the old one stands");
    place.write("");
    touch(&place, 30);
    assert_eq!(launch(&cloud, 1, "w-3").await, Ok(1));
}

/// Makes the change visible on file systems with coarse times.
fn touch(place: &Place, seconds: u64) {
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(2_000_000_000 + seconds);
    fs::File::options().append(true).open(place.scenario()).unwrap().set_modified(when).unwrap();
}

#[tokio::test]
async fn calls_fail_as_the_script_says() {
    for (how, class, came) in [
        ("throttled", Some(RefusalClass::Throttled), 0),
        ("permission", Some(RefusalClass::Permission), 0),
        ("configuration", Some(RefusalClass::Configuration), 0),
        ("unavailable", None, 0),
        ("lost", None, 1),
    ] {
        let place = Place::new(&format!("{{at: 0s, group: g, failCalls: {how}}}"));
        let cloud = place.open().unwrap();
        match (launch(&cloud, 1, "w-1").await, class) {
            (Err(CloudError::Refused(refusal)), Some(class)) => assert_eq!(refusal.class, class, "{how}"),
            (Err(CloudError::Unknown(_)), None) => {}
            (other, _) => panic!("{how}: {other:?}"),
        }
        assert_eq!(living(&cloud).await.len(), came, "{how}");
    }
}

#[tokio::test]
async fn a_slow_call_takes_effect_before_its_answer() {
    let place = Place::new("{at: 0s, group: g, slowCalls: 1h}");
    let cloud = place.open().unwrap();
    let patience = std::time::Duration::from_millis(20);
    assert!(tokio::time::timeout(patience, launch(&cloud, 1, "w-1")).await.is_err());
    assert_eq!(living(&cloud).await.len(), 1);
}
