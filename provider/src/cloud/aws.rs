//! Auto Scaling groups on AWS. Groups are found by the tags cluster-autoscaler's users already have; machines are asked
//! for with `LaunchInstances`, which answers at once, zone by zone, with AWS's own error, and leaves the desired
//! capacity alone when it fails.

pub mod calls;
mod ec2;
mod errors;
mod groups;
mod launch;
mod manners;
pub mod permissions;
pub mod prices;
mod tags;
mod types;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_autoscaling::{Client, error::ProvideErrorMetadata, types::AutoScalingGroup};

use crate::{
    cloud::{Cloud, CloudError, Launch, Launched, Listed},
    fleet::group::{GroupId, InstanceId},
    metrics::Metrics,
};

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
    /// Another address for the Auto Scaling API.
    pub endpoint: Option<String>,
    /// The operator's own prices.
    pub price_overrides: Option<PathBuf>,
    /// A group is ours when any of these matches.
    pub discovery: Vec<Discovery>,
}

/// The Auto Scaling API of one region.
pub struct AutoScaling {
    client: Client,
    region: String,
    discovery: Vec<Discovery>,
    prices: prices::Prices,
}

impl AutoScaling {
    /// Credentials come from the SDK's default chain: IRSA, Pod Identity, instance metadata, profile, environment.
    ///
    /// # Errors
    /// No region is set anywhere; the sentence says where one can be.
    pub async fn connect(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, CloudError> {
        let manners = manners::Manners::new(metrics);
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::standard());
        loader = loader.http_client(manners.http_client());
        if let Some(region) = settings.region {
            loader = loader.region(Region::new(region));
        }
        if let Some(endpoint) = settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        let config = loader.load().await;
        let region = config.region().map(ToString::to_string).ok_or_else(|| {
            CloudError::Refused(errors::refusal(
                Some("MissingRegion"),
                Some("no AWS region: set cloud.region in the configuration, or AWS_REGION"),
            ))
        })?;
        let ec2 = ec2::Ec2::new(&config, &region);
        let prices = prices::Prices::new(ec2, &region, settings.price_overrides);
        Ok(Self { client: Client::new(&config), region, discovery: settings.discovery, prices })
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

    async fn zones(&self, group: &GroupId) -> Result<Vec<String>, CloudError> {
        let request = self.client.describe_auto_scaling_groups().auto_scaling_group_names(group.as_str());
        let answer = request.send().await.map_err(|error| errors::failed("DescribeAutoScalingGroups", &error))?;
        let group = answer.auto_scaling_groups.unwrap_or_default().into_iter().next();
        let mut zones = group.and_then(|group| group.availability_zones).unwrap_or_default();
        zones.sort_unstable();
        Ok(zones)
    }

    async fn launch_in(&self, ask: &launch::Ask, group: &GroupId) -> Result<launch::Answer, CloudError> {
        let request = self.client.launch_instances().auto_scaling_group_name(group.as_str());
        let request = request.requested_capacity(i32::try_from(ask.count).unwrap_or(i32::MAX));
        let request = request.client_token(&ask.token).availability_zones(&ask.zone);
        let request = request.retry_strategy(aws_sdk_autoscaling::types::RetryStrategy::None);
        match request.send().await {
            Ok(answer) => Ok(launch::answered(ask, answer)),
            Err(error) => match errors::failed("LaunchInstances", &error) {
                CloudError::Refused(refusal) => Ok(launch::refused(ask, refusal)),
                unknown @ CloudError::Unknown(_) => Err(unknown),
            },
        }
    }

    async fn terminate_one(&self, instance: &InstanceId) -> Result<(), CloudError> {
        let id = instance.as_str().rsplit('/').next().unwrap_or_default();
        let request = self.client.terminate_instance_in_auto_scaling_group().instance_id(id);
        match request.should_decrement_desired_capacity(true).send().await {
            Ok(_) => Ok(()),
            // The machine is no longer the group's: what was asked has come true.
            Err(error) if error.message().is_some_and(|message| message.contains("not found")) => Ok(()),
            Err(error) => Err(errors::failed("TerminateInstanceInAutoScalingGroup", &error)),
        }
    }
}

#[async_trait]
impl Cloud for AutoScaling {
    async fn list(&self) -> Result<Vec<Listed>, CloudError> {
        let mut found = BTreeMap::new();
        for by in &self.discovery {
            let groups = self.discovered(by).await?.into_iter();
            found.extend(
                groups.filter_map(|group| groups::listed(group, &self.region)).map(|it| (it.group.id.clone(), it)),
            );
        }
        let mut listing: Vec<_> = found.into_values().collect();
        self.prices.put_on(&mut listing).await;
        Ok(listing)
    }

    /// Zone after zone, until all have come or all have refused. Which zone is asked first follows from the token, so
    /// that a repeated launch asks for the same things under the same tokens.
    async fn launch(&self, launch: &Launch) -> Result<Launched, CloudError> {
        let zones = self.zones(&launch.group).await?;
        let mut progress = launch::Progress::new(launch, zones);
        while let Some(ask) = progress.next() {
            progress.take(self.launch_in(&ask, &launch.group).await?);
        }
        Ok(progress.launched())
    }

    async fn terminate(&self, _group: &GroupId, instances: &[InstanceId]) -> Result<(), CloudError> {
        for instance in instances {
            self.terminate_one(instance).await?;
        }
        Ok(())
    }
}
