//! The keeper in front of the embedded cloud: what is not asked any more, and clouds that are slow or say no for a while.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::{
    cloud::{CloudError, Launch, Listing, patient::Patient, sim::SimCloud},
    ready::Ready,
};

const GROUP: &str = "machines: {pendingTime: 0s}
groups: [{id: g, max: 9, instanceType: t, zones: [z], cpu: 4, memory: 16Gi}]\n";

fn sim(folder: &Path, events: &str) -> Arc<SimCloud> {
    let file = folder.join("scenario.yaml");
    std::fs::write(&file, format!("{GROUP}{events}")).unwrap();
    Arc::new(SimCloud::open(&file, None).unwrap())
}

fn keeper(events: &str) -> (TempDir, Keeper, Handle) {
    let folder = tempfile::tempdir().unwrap();
    let cloud = sim(folder.path(), events);
    let text = "cloud: {kind: sim, scenario: scenario.yaml}\nrefresh: 100ms\n";
    let config = Config::parse(text, &folder.path().join("windlass.yaml")).unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let unsynced = Ready::default().wait_for("it");
    let parts = Parts { cloud, dialect: Arc::new(Dialect::sim()), metrics, unsynced };
    let (keeper, handle) = Keeper::new(&config, parts).unwrap();
    (folder, keeper, handle)
}

async fn synced(keeper: &mut Keeper) {
    keeper.tick().await;
    while keeper.synced_at.is_none() {
        let outcome = keeper.calls.next().await;
        keeper.hear(outcome).await;
    }
}

fn increase() -> (Command, oneshot::Receiver<Result<(), Denied>>) {
    let (reply, answer) = oneshot::channel();
    (Command::Increase { group: "g".to_owned(), delta: 1, reply }, answer)
}

#[tokio::test]
async fn what_the_asker_gave_up_on_is_not_carried_out() {
    let (_folder, mut keeper, handle) = keeper("");
    synced(&mut keeper).await;
    let (given_up, answer) = increase();
    drop(answer);
    let (wanted, mut answer) = increase();
    keeper.obey(&mut vec![given_up, wanted]).await;
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert_eq!(handle.snapshot().fleet.group("g").unwrap().target, 1);
}

#[tokio::test]
async fn the_snapshot_shows_a_change_before_it_is_answered() {
    let (_folder, mut keeper, handle) = keeper("");
    synced(&mut keeper).await;
    let (wanted, answer) = increase();
    let mut batch = vec![wanted];
    let (target, ()) = tokio::join!(
        async { answer.await.map(|_| handle.snapshot().fleet.group("g").unwrap().target) },
        keeper.obey(&mut batch)
    );
    assert_eq!(target, Ok(1));
}

#[tokio::test]
async fn an_empty_listing_is_not_believed_at_once() {
    let (folder, mut keeper, handle) = keeper("");
    synced(&mut keeper).await;
    let begun = clock();
    for left in [1, 1, 1, 0] {
        keeper.hear(calls::Outcome::Listed(begun, Ok(Listing::default()))).await;
        assert_eq!(handle.snapshot().fleet.groups().len(), left);
    }
    drop(folder);
}

/// CA was told that the machine goes: an answer that says no more than "later" does not make it count again.
#[tokio::test]
async fn a_deletion_that_is_throttled_is_asked_for_until_it_is_through() {
    let (folder, mut keeper, handle) = keeper("");
    synced(&mut keeper).await;
    keeper.obey(&mut vec![increase().0]).await;
    while handle.snapshot().fleet.group("g").unwrap().live() == 0 {
        let outcome = keeper.calls.next().await;
        keeper.hear(outcome).await;
    }
    sim(folder.path(), "events: [{at: 0s, group: g, failCalls: throttled}]");
    let (reply, _answer) = oneshot::channel();
    let id = handle.snapshot().fleet.group("g").unwrap().instances[0].id.to_string();
    keeper
        .obey(&mut vec![Command::Delete { group: "g".to_owned(), nodes: vec![Named { id, fake: false }], reply }])
        .await;
    let later = time::sleep(Duration::from_secs(1));
    tokio::pin!(later);
    let mut lifted = false;
    while !handle.snapshot().fleet.group("g").unwrap().instances.is_empty() {
        assert_eq!(handle.snapshot().fleet.group("g").unwrap().target, 0);
        tokio::select! {
            () = &mut later, if !lifted => lifted = { sim(folder.path(), ""); true },
            outcome = keeper.calls.next() => keeper.hear(outcome).await,
            () = time::sleep(Duration::from_millis(50)) => keeper.tick().await,
        }
    }
    assert!(lifted, "it went while AWS said no");
}

#[tokio::test]
async fn a_keeper_that_is_gone_or_stuck_is_an_error_and_not_a_wait() {
    let (_folder, keeper, handle) = keeper("");
    let ask = || handle.ask(|reply| Command::Increase { group: "g".to_owned(), delta: 1, reply });
    assert_eq!(ask().await, Err(Unheard::Busy), "nobody reads");
    drop(keeper);
    assert_eq!(ask().await, Err(Unheard::Busy), "nobody is there");
}

#[tokio::test]
async fn a_slow_cloud_is_unanswered_and_a_throttling_one_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let launch = |token: &str| Launch::new("g".into(), 1, token.to_owned());
    let slow = sim(folder.path(), "events: [{at: 0s, group: g, slowCalls: 1h}]");
    let slow = Patient::new(slow, Duration::from_millis(20));
    assert!(matches!(slow.launch(&launch("a")).await, Err(CloudError::Unknown(_))));
    let busy = sim(folder.path(), "events: [{at: 0s, for: 700ms, group: g, failCalls: throttled}]");
    let busy = Patient::new(busy, Duration::from_secs(60));
    assert_eq!(busy.launch(&launch("b")).await.map(|it| it.instances.len()), Ok(1));
    let no = sim(folder.path(), "events: [{at: 0s, group: g, failCalls: permission}]");
    let no = Patient::new(no, Duration::from_secs(60));
    assert!(matches!(no.launch(&launch("c")).await, Err(CloudError::Refused(_))), "a no is not asked again");
}
