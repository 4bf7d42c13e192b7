//! The embedded cloud as tables: a scenario and a row of steps in, what the cloud lists out.

use std::{path::Path, time::Duration};

use crate::{
    cloud::Launch,
    fleet::group::{InstanceId, Refusal, RefusalClass},
    timestamp::Timestamp,
};

use super::{Machine, Machines, Scenario};

mod adapter;
mod life;
mod properties;
mod scenarios;

const START: Timestamp = Timestamp(1_000_000);

/// Two groups in two zones: `spot` with GPUs (at most 6) and `cpu` (at most 10), and the given script.
fn scenario(events: &str) -> Scenario {
    let text = format!(
        "
seed: 7
groups:
  - {{id: spot, max: 6, instanceType: g5.xlarge, market: spot, zones: [a, b], price: 0.4, cpu: 8, memory: 32Gi,
     gpu: {{model: a10g, count: 1, memory: 24Gi}}, capacity: {{a: 3}}}}
  - {{id: cpu, max: 10, instanceType: m7i.large, zones: [a, b], cpu: 2, memory: 8Gi}}
events: [{events}]
"
    );
    Scenario::parse(&text, Path::new("test.yaml")).unwrap()
}

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// A cloud and its script, told the time step by step.
struct Story {
    scenario: Scenario,
    cloud: Machines,
}

impl Story {
    fn new(events: &str) -> Self {
        let scenario = scenario(events);
        let cloud = Machines::start(&scenario, START);
        Self { scenario, cloud }
    }

    /// `2 came, 1 NoCapacity` for a launch that was answered, the code for one that was not.
    fn launch(&mut self, group: &str, count: u32, token: &str, seconds: u64) -> String {
        self.cloud.advance(&self.scenario, at(seconds));
        let launch = Launch::new(group.into(), count, token.into());
        match self.cloud.launch(&self.scenario, &launch, at(seconds)) {
            Ok(launched) => {
                let mut told = format!("{} came", launched.instances.len());
                for (count, Refusal { class, .. }) in launched.refused {
                    told += &format!(", {count} {class:?}");
                }
                told
            }
            Err(Refusal { class, code, .. }) => {
                assert_eq!(class, RefusalClass::Configuration);
                code
            }
        }
    }

    fn terminate(&mut self, group: &str, ids: &[&str], seconds: u64) -> Result<(), String> {
        self.cloud.advance(&self.scenario, at(seconds));
        let ids: Vec<InstanceId> = ids.iter().map(|id| InstanceId::from(*id)).collect();
        self.cloud.terminate(&self.scenario, &group.into(), &ids, at(seconds)).map_err(|refusal| refusal.message)
    }

    /// `spot: a/i-000001 Running, …; cpu: …` as one listing shows it.
    fn listed(&mut self, seconds: u64) -> String {
        self.cloud.advance(&self.scenario, at(seconds));
        let groups = self.cloud.list(&self.scenario, at(seconds)).into_iter().filter(|one| !one.instances.is_empty());
        let told = groups.map(|listed| {
            let machine = |one: &crate::fleet::group::Instance| {
                format!("{} {:?}", one.id.as_str().trim_start_matches("sim:///"), one.state)
            };
            let machines: Vec<String> = listed.instances.iter().map(machine).collect();
            format!("{}: {}", listed.group.id, machines.join(", "))
        });
        told.collect::<Vec<_>>().join("; ")
    }

    fn machine(&self, id: &str) -> &Machine {
        self.cloud.machine(id).unwrap()
    }
}
