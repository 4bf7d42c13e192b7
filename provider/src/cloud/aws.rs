//! Auto Scaling groups on AWS. Groups are found by the tags cluster-autoscaler's users already have; machines are asked
//! for with `LaunchInstances`, which answers at once, zone by zone, with AWS's own error, and leaves the desired
//! capacity alone when it fails.

mod access;
mod activities;
mod buying;
pub mod calls;
mod desired;
pub mod doctor;
mod ec2;
mod errors;
mod groups;
mod launch;
mod manners;
pub mod permissions;
pub mod prices;
mod rebalance;
mod states;
mod tags;
mod terminate;
mod types;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use aws_sdk_autoscaling::{Client, types::AutoScalingGroup};

use crate::{
    cloud::{Cloud, CloudError, Kept, Launch, Launched, Listed},
    config::{Config, LaunchMode},
    fleet::group::{GroupId, InstanceId},
    metrics::Metrics,
};

use desired::Growth;

pub use groups::{Discovery, DiscoveryError};

/// The node label by which cluster-autoscaler knows a GPU machine on AWS. EKS does not set it: the group's user data or
/// its `node-template/label` tag must.
pub const GPU_LABEL: &str = "k8s.amazonaws.com/accelerator";
const GPU_RESOURCE: &str = "nvidia.com/gpu";
/// Groups in one page; the API's own limit.
const PAGE: i32 = 100;

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
    /// A group is ours when any of these matches.
    pub discovery: Vec<Discovery>,
    /// Which call machines are asked for with.
    pub launch: LaunchMode,
    /// Suspend the process `AZRebalance` of groups that machines are launched into by zone.
    pub suspend_az_rebalance: bool,
}

impl Settings {
    /// What a configuration says of AWS.
    ///
    /// # Errors
    /// A discovery spec that is none; the configuration's own check finds it first.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        let cloud = &config.cloud;
        let discovery = cloud.specs().iter().map(|spec| spec.parse()).collect::<Result<_, _>>()?;
        let (region, endpoint, price_overrides) =
            (cloud.region.clone(), cloud.endpoint.clone(), cloud.price_overrides.clone());
        Ok(Self {
            region,
            endpoint,
            fips: cloud.fips,
            dual_stack: cloud.dual_stack,
            price_overrides,
            discovery,
            launch: cloud.launch,
            suspend_az_rebalance: cloud.suspend_az_rebalance,
        })
    }
}

/// The Auto Scaling API of one region.
pub struct AutoScaling {
    client: Client,
    region: String,
    discovery: Vec<Discovery>,
    prices: prices::Prices,
    mode: LaunchMode,
    orders: buying::Orders,
    rebalance: rebalance::Rebalance,
    /// Machines that the last listing showed in standby.
    standby: Mutex<HashSet<InstanceId>>,
}

impl AutoScaling {
    /// Credentials come from the SDK's default chain: IRSA, Pod Identity, instance metadata, profile, environment.
    ///
    /// # Errors
    /// No region is set anywhere; the sentence says where one can be.
    pub async fn connect(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, CloudError> {
        let access::Access { sdk, region, .. } = access::Access::load(&settings, metrics).await?;
        let ec2 = ec2::Ec2::new(&sdk, &region);
        let prices = prices::Prices::new(ec2, &region, settings.price_overrides);
        Ok(Self {
            client: Client::new(&sdk),
            region,
            discovery: settings.discovery,
            prices,
            mode: settings.launch,
            orders: buying::Orders::default(),
            rebalance: rebalance::Rebalance::new(settings.suspend_az_rebalance),
            standby: Mutex::default(),
        })
    }

    async fn discovered(&self, by: &Discovery) -> Result<Vec<AutoScalingGroup>, CloudError> {
        let request = self.client.describe_auto_scaling_groups().set_filters(Some(by.filters()));
        let mut pages = request.max_records(PAGE).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| errors::failed("DescribeAutoScalingGroups", &error))?;
            found.extend(page.auto_scaling_groups.unwrap_or_default());
        }
        Ok(found)
    }
}

#[async_trait]
impl Cloud for AutoScaling {
    async fn list(&self) -> Result<Vec<Listed>, CloudError> {
        let mut found = BTreeMap::new();
        let mut standby = HashSet::new();
        for by in &self.discovery {
            for asg in self.discovered(by).await? {
                let growth = Growth::of(&asg);
                let Some(listed) = groups::listed(asg, &self.region) else { continue };
                standby.extend(growth.in_standby.iter().cloned());
                found.insert(listed.group.id.clone(), (listed, growth));
            }
        }
        self.note_standby(standby);
        let mut listing = Vec::with_capacity(found.len());
        for (group, (mut listed, growth)) in found {
            listed.standing = Some(self.standing(&group, &growth).await);
            listed.group.warnings.extend(growth.warnings());
            listed.group.warnings.extend(self.rebalance(&group, &growth).await);
            listing.push(listed);
        }
        self.prices.put_on(&mut listing).await;
        Ok(listing)
    }

    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.buy(launch).await
    }

    async fn terminate(&self, group: &GroupId, instances: &[InstanceId]) -> Result<Vec<Kept>, CloudError> {
        self.end(group, instances).await
    }
}
