//! Ending machines: each by its name, with the desired capacity lowered by it, a few side by side.

use std::{collections::HashSet, sync::Arc};

use aws_sdk_autoscaling::Client;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{AutoScaling, desired::Growth, errors, states};
use crate::{
    cloud::{CloudError, Kept},
    fleet::group::{GroupId, InstanceId, InstanceState, Refusal, RefusalClass},
};

/// Calls at once for one deletion.
const AT_ONCE: usize = 8;

/// What AWS's refusal to end a machine means. It has one code for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The group does not know it any more: what was asked has come true.
    Gone,
    /// One fewer would be below the group's minimum.
    AtMinimum,
    /// Possibly that it is on its way out.
    Unclear,
    /// No.
    Final,
}

fn meaning(refusal: &Refusal) -> Meaning {
    match refusal.code.as_str() {
        "ValidationError" if refusal.message.contains("No managed instance found") => Meaning::Gone,
        "ValidationError" if refusal.message.contains("Instance Id not found") => Meaning::Gone,
        "ValidationError" if refusal.message.contains("min size constraint") => Meaning::AtMinimum,
        "ValidationError" | "ScalingActivityInProgress" => Meaning::Unclear,
        _ => Meaning::Final,
    }
}

impl AutoScaling {
    /// Ends machines and returns those that stay. Safe to repeat: what AWS has agreed to is not asked for again, so that
    /// a deletion too long for one deadline comes to its end.
    pub(super) async fn end(&self, group: &GroupId, machines: &[InstanceId]) -> Result<Vec<Kept>, CloudError> {
        let turn = self.orders.turn(group);
        let _shared = turn.read().await;
        let left = self.orders.not_ended(machines);
        let mut surplus = self.surplus(group).await;
        // The desired capacity counts neither a machine in standby nor one too many: lowered by it, it would have AWS end
        // another one.
        let left = left.into_iter().map(|machine| {
            let is_counted = !self.is_in_standby(&machine);
            let is_surplus = is_counted && surplus > 0;
            surplus -= u32::from(is_surplus);
            (is_counted && !is_surplus, machine)
        });
        let kept = end_each(&self.client, left, |machine, lowered| self.orders.ended(group, machine, lowered)).await?;
        self.orders.all_ended(machines);
        Ok(kept)
    }

    /// How many machines the group has too many; looked at anew where the last reading shows any.
    async fn surplus(&self, group: &GroupId) -> u32 {
        if self.roster.growth(group).is_none_or(|growth| growth.surplus() == 0) {
            return 0;
        }
        self.describe(group).await.map_or(0, |asg| Growth::of(&asg).surplus())
    }

    fn is_in_standby(&self, machine: &InstanceId) -> bool {
        self.standby.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(machine)
    }

    /// Keeps in mind which machines are in standby.
    pub(super) fn note_standby(&self, machines: HashSet<InstanceId>) {
        *self.standby.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = machines;
    }
}

/// Ends machines side by side, and tells of each as soon as AWS has agreed, with whether that lowered the desired
/// capacity. Returns those that stay.
async fn end_each(
    client: &Client,
    machines: impl Iterator<Item = (bool, InstanceId)>,
    ended: impl Fn(&InstanceId, bool),
) -> Result<Vec<Kept>, CloudError> {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for (counted, machine) in machines {
        let (client, slots) = (client.clone(), slots.clone());
        calls.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let answer = end_one(&client, &machine, counted).await;
            (machine, answer)
        });
    }
    let (mut kept, mut unanswered) = (Vec::new(), None);
    while let Some(done) = calls.join_next().await {
        let (machine, answer) = done.map_err(|died| CloudError::Unknown(format!("a call died: {died}")))?;
        match answer {
            Ok(lowered) => ended(&machine, lowered),
            Err(CloudError::Refused(refusal)) if refusal.class != RefusalClass::Throttled => {
                kept.push((machine, refusal));
            }
            Err(error) => unanswered = Some(error),
        }
    }
    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
    unanswered.map_or(Ok(kept), Err)
}

/// Whether the desired capacity was lowered by it.
async fn end_one(client: &Client, machine: &InstanceId, counted: bool) -> Result<bool, CloudError> {
    let Err(error) = terminate(client, machine, counted).await else { return Ok(counted) };
    let CloudError::Refused(refusal) = &error else { return Err(error) };
    match meaning(refusal) {
        Meaning::Gone => Ok(false),
        // The group has to have its minimum: AWS puts another machine in the place of this one.
        Meaning::AtMinimum => terminate(client, machine, false).await.map(|()| false),
        Meaning::Unclear if is_ending(client, machine).await? => Ok(false),
        Meaning::Unclear | Meaning::Final => Err(error),
    }
}

async fn terminate(client: &Client, machine: &InstanceId, decrement: bool) -> Result<(), CloudError> {
    let request = client.terminate_instance_in_auto_scaling_group().instance_id(bare(machine));
    let answer = request.should_decrement_desired_capacity(decrement).send().await;
    answer.map(|_| ()).map_err(|error| errors::failed("TerminateInstanceInAutoScalingGroup", &error))
}

/// Whether the machine is on its way out, or no longer any group's.
async fn is_ending(client: &Client, machine: &InstanceId) -> Result<bool, CloudError> {
    let request = client.describe_auto_scaling_instances().instance_ids(bare(machine));
    let answer = request.send().await.map_err(|error| errors::failed("DescribeAutoScalingInstances", &error))?;
    let found = answer.auto_scaling_instances.unwrap_or_default().into_iter().next();
    let state = found.and_then(|it| it.lifecycle_state);
    Ok(state.is_none_or(|state| states::state(&state) == Some(InstanceState::Deleting)))
}

/// `i-0abc` of `aws:///eu-west-1a/i-0abc`.
fn bare(machine: &InstanceId) -> &str {
    machine.as_str().rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Mutex, time::Duration};

    use axum::{Form, Router, extract::State, routing::post};
    use tokio::{net::TcpListener, time};

    use super::{super::orders::Orders, *};

    #[test]
    fn a_refusal_to_end_a_machine_is_read_by_awss_own_words() {
        for (code, message, expected) in [
            (
                "ValidationError",
                "Instance Id not found - No managed instance found for instance ID: i-0abc",
                Meaning::Gone,
            ),
            (
                "ValidationError",
                "Currently, desiredSize equals minSize (1). Terminating instance without replacement will violate \
                 group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower \
                 group's min size.",
                Meaning::AtMinimum,
            ),
            ("ValidationError", "The instance i-0abc is not in InService or Standby.", Meaning::Unclear),
            ("ScalingActivityInProgress", "Instance i-0abc is already being terminated.", Meaning::Unclear),
            ("AccessDenied", "User is not authorized: role not found", Meaning::Final),
        ] {
            assert_eq!(meaning(&errors::refusal(Some(code), Some(message))), expected, "{message}");
        }
    }

    /// Agrees to the end of `most` machines and then says nothing any more; the ids it was asked for.
    async fn grudging(most: usize) -> (Client, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
        type Asked = Arc<Mutex<Vec<String>>>;
        async fn answer(
            State((most, asked)): State<(usize, Asked)>,
            Form(form): Form<HashMap<String, String>>,
        ) -> String {
            let heard = {
                let mut asked = asked.lock().unwrap();
                asked.push(form["InstanceId"].clone());
                asked.len()
            };
            if heard > most {
                std::future::pending::<()>().await;
            }
            "<TerminateInstanceInAutoScalingGroupResponse><TerminateInstanceInAutoScalingGroupResult/></TerminateInstanceInAutoScalingGroupResponse>".to_owned()
        }
        let (asked, listener) = (Asked::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/", post(answer)).with_state((most, asked.clone()));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let config = aws_sdk_autoscaling::Config::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("us-east-1"))
            .credentials_provider(aws_sdk_sts::config::Credentials::new("A", "b", None, None, "test"))
            .endpoint_url(endpoint);
        (Client::from_conf(config.build()), asked, server)
    }

    /// A whole deletion that has to fit one deadline, or begins again from the start, never ends more than fits.
    #[tokio::test]
    async fn a_deletion_that_is_cut_off_goes_on_where_it_was() {
        let (orders, group) = (Orders::new(), GroupId::from("g"));
        let machines: Vec<InstanceId> = (10..30).map(|n| format!("aws:///a/i-{n}").into()).collect();
        let left = |orders: &Orders| orders.not_ended(&machines);
        let end = async |client: &Client| {
            let each = left(&orders).into_iter().map(|machine| (true, machine));
            end_each(client, each, |machine, lowered| orders.ended(&group, machine, lowered)).await
        };
        let (client, asked, _server) = grudging(15).await;
        let stuck = async {
            while left(&orders).len() > 5 {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = end(&client) => panic!("{answer:?}"),
            () = stuck => {}
        }
        let first: Vec<_> = asked.lock().unwrap().iter().take(15).cloned().collect();
        let (client, asked, _server) = grudging(usize::MAX).await;
        assert_eq!(end(&client).await, Ok(Vec::new()));
        let second = asked.lock().unwrap().clone();
        assert_eq!(second.len(), 5, "{second:?} after {first:?}");
        assert!(second.iter().all(|id| !first.contains(id)));
        orders.all_ended(&machines);
        assert_eq!(left(&orders).len(), 20, "named once more, they are asked for once more");
    }
}
