//! Auto Scaling groups on AWS. Groups are found by the tags cluster-autoscaler's users already have; machines are asked
//! for with `LaunchInstances`, which answers at once, zone by zone, with AWS's own error, and leaves the desired
//! capacity alone when it fails.

mod access;
mod activities;
mod allocatable;
mod buying;
pub mod calls;
mod desired;
mod discovery;
pub mod doctor;
mod ec2;
mod eks;
mod errors;
mod groups;
pub mod interruptions;
mod lately;
mod launch;
mod manners;
mod orders;
mod pages;
pub mod permissions;
pub mod prices;
mod rebalance;
mod roster;
mod states;
mod tags;
mod template;
mod terminate;
mod types;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;

use crate::{
    cloud::{Cloud, CloudError, Kept, Launch, Launched, Listed, Listing, Look},
    config::{Config, LaunchMode},
    fleet::group::{GroupId, InstanceId},
    metrics::Metrics,
};

use desired::Growth;

pub use discovery::{Discovery, DiscoveryError, Ours};

/// The node label by which cluster-autoscaler knows a GPU machine on AWS. EKS does not set it: the group's user data or
/// its `node-template/label` tag must.
pub const GPU_LABEL: &str = "k8s.amazonaws.com/accelerator";

/// Where and as whom, and which groups.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// None: what the SDK's own chain finds (`AWS_REGION`, the profile, the instance metadata).
    pub region: Option<String>,
    /// Another address for every API.
    pub endpoint: Option<String>,
    /// Endpoints that keep to FIPS 140; else what the SDK finds (`AWS_USE_FIPS_ENDPOINT`, the profile).
    pub fips: bool,
    /// Endpoints that answer over IPv6 too; else what the SDK finds (`AWS_USE_DUALSTACK_ENDPOINT`, the profile).
    pub dual_stack: bool,
    /// The operator's own prices.
    pub price_overrides: Option<PathBuf>,
    /// Which groups.
    pub ours: Ours,
    /// The VPC CNI hands out prefixes, which allows more pods on a machine.
    pub prefixes: bool,
    /// Which call machines are asked for with.
    pub launch: LaunchMode,
    /// Suspend the process `AZRebalance` of groups that machines are launched into by zone.
    pub suspend_az_rebalance: bool,
    /// How often all groups are read.
    pub refresh: Duration,
    /// Somebody waits for the answer: what does not come soon does not come.
    pub glance: bool,
    /// The state file, beside which is kept what was read of launch templates and node groups.
    pub state: Option<PathBuf>,
}

impl Settings {
    /// What a configuration says of AWS.
    ///
    /// # Errors
    /// A discovery spec that is none; the configuration's own check finds it first.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let cloud = &config.cloud;
        let specs = cloud.specs().iter().map(|spec| spec.parse()).collect::<Result<_, _>>()?;
        let ours = Ours { specs, groups: cloud.groups.clone(), exclude: cloud.exclude.clone() };
        let (region, endpoint, price_overrides) =
            (cloud.region.clone(), cloud.endpoint.clone(), cloud.price_overrides.clone());
        Ok(Self {
            region,
            endpoint,
            fips: cloud.fips,
            dual_stack: cloud.dual_stack,
            price_overrides,
            ours,
            prefixes: cloud.prefix_delegation,
            launch: cloud.launch,
            suspend_az_rebalance: cloud.suspend_az_rebalance,
            refresh: config.refresh(),
            glance: false,
            state: config.state.clone(),
        })
    }

    /// The same for whoever only looks: nothing is suspended or written, and nobody waits long.
    ///
    /// # Errors
    /// As for [`Settings::of`].
    pub fn glance(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { glance: true, suspend_az_rebalance: false, state: None, ..Self::of(config)? })
    }
}

/// The Auto Scaling API of one region.
pub struct AutoScaling {
    client: Client,
    region: String,
    ours: Ours,
    roster: roster::Roster,
    refresh: Duration,
    prefixes: bool,
    sources: template::Sources,
    prices: prices::Prices,
    mode: LaunchMode,
    orders: orders::Orders,
    rebalance: rebalance::Rebalance,
    manners: manners::Manners,
    /// Machines that the last listing showed in standby.
    standby: Mutex<HashSet<InstanceId>>,
}

impl AutoScaling {
    /// Credentials come from the SDK's default chain: IRSA, Pod Identity, instance metadata, profile, environment.
    ///
    /// # Errors
    /// No region is set anywhere; the sentence says where one can be.
    pub async fn connect(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, CloudError> {
        let access::Access { sdk, region, manners } = access::Access::load(&settings, metrics).await?;
        let ec2 = ec2::Ec2::new(&sdk, &region);
        let prices = prices::Prices::new(ec2.clone(), &region, settings.price_overrides);
        let client = Client::new(&sdk);
        let file = settings.state.as_deref().map(template::File::beside);
        let sources = template::Sources::new(ec2, aws_sdk_eks::Client::new(&sdk), client.clone(), file);
        Ok(Self {
            client,
            region,
            ours: settings.ours,
            roster: roster::Roster::new(settings.refresh),
            refresh: settings.refresh,
            prefixes: settings.prefixes,
            sources,
            prices,
            mode: settings.launch,
            orders: orders::Orders::new(),
            rebalance: rebalance::Rebalance::new(settings.suspend_az_rebalance),
            manners,
            standby: Mutex::default(),
        })
    }
}

#[async_trait]
impl Cloud for AutoScaling {
    async fn list(&self, look: Look) -> Result<Listing, CloudError> {
        self.roster.read(&self.client, &self.ours, look.now, &self.orders.followed()).await?;
        let told = self.follow_orders(look).await;
        self.roster.reread(&self.client, &told).await?;
        let groups = self.roster.groups();
        self.sources.refresh(&groups, look.now).await;
        let (mut listing, growths): (Vec<Listed>, Vec<Growth>) = self.sources.facts(|facts| {
            let view = groups::View { ours: &self.ours, facts, region: &self.region, prefixes: self.prefixes };
            groups.iter().filter_map(|group| Some((groups::listed(group, &view)?, Growth::of(group)))).unzip()
        });
        self.note_standby(growths.iter().flat_map(|growth| growth.in_standby.iter().cloned()).collect());
        groups::apart(&mut listing);
        for (listed, growth) in listing.iter_mut().zip(&growths) {
            let group = listed.group.id.clone();
            listed.standing = Some(self.orders.standing(&group, growth));
            listed.group.warnings.extend(growth.warnings());
            listed.group.warnings.extend(self.without_instances(&group));
            listed.group.warnings.extend(self.rebalance(&group, growth, look.now).await);
        }
        self.prices.put_on(&mut listing, look.now).await;
        Ok(Listing { missing: self.ours.missing(&groups, &self.region), groups: listing })
    }

    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.roster.touch(&launch.group);
        let answer = self.buy(launch).await;
        self.roster.touch(&launch.group);
        answer
    }

    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<Vec<Kept>, CloudError> {
        let answer = self.end(group, instances).await;
        self.roster.touch(group);
        answer
    }
}

#[cfg(test)]
mod interleavings;
