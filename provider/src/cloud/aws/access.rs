//! How AWS is reached and as whom: region, endpoints and credentials by the SDK's own chain (environment, profile, IRSA's
//! web identity, Pod Identity, instance metadata), and the door that every request passes.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

use super::{Settings, errors, manners::Manners};
use crate::{cloud::CloudError, config::limits, metrics::Metrics};

/// Ready for any client.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) sdk: SdkConfig,
    pub(super) region: String,
    pub(super) manners: Manners,
}

impl Access {
    /// # Errors
    /// No region is set anywhere; the sentence says where one can be.
    pub(super) async fn load(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, CloudError> {
        let manners = Manners::new(metrics);
        // The SDK itself waits for ever for an answer that does not begin.
        let (attempt, call) =
            if settings.glance { limits::AWS_GLANCE } else { (limits::AWS_ATTEMPT, limits::AWS_CALL) };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits::AWS_CONNECT)
            .operation_attempt_timeout(attempt)
            .operation_timeout(call)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(RetryConfig::standard())
            .timeout_config(timeouts)
            .http_client(manners.http_client());
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        // Unset leaves it to AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and the profile.
        if settings.fips {
            loader = loader.use_fips(true);
        }
        if settings.dual_stack {
            loader = loader.use_dual_stack(true);
        }
        let sdk = loader.load().await;
        let region = sdk.region().map(ToString::to_string).ok_or_else(|| {
            CloudError::Refused(errors::refusal(
                Some("MissingRegion"),
                Some("no AWS region: set cloud.region in the configuration, or AWS_REGION"),
            ))
        })?;
        Ok(Self { sdk, region, manners })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_configurations_word_on_endpoints_reaches_every_client() {
        let load = async |settings: Settings| Access::load(&settings, Arc::new(Metrics::new().unwrap())).await.unwrap();
        let region = Some("us-gov-west-1".to_owned());
        let access =
            load(Settings { region: region.clone(), fips: true, dual_stack: true, ..Settings::default() }).await;
        assert_eq!((access.sdk.use_fips(), access.sdk.use_dual_stack()), (Some(true), Some(true)));
        assert_eq!((access.region.as_str(), access.sdk.endpoint_url()), ("us-gov-west-1", None));
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        let access = load(Settings { region, endpoint, ..Settings::default() }).await;
        assert_eq!(access.sdk.endpoint_url(), Some("http://127.0.0.1:1"));
        assert!(access.sdk.http_client().is_some(), "every client goes through the one door");
        let waits = |access: &Access| access.sdk.timeout_config().and_then(TimeoutConfig::operation_timeout).unwrap();
        assert_eq!(waits(&access), limits::AWS_CALL, "no client waits for ever");
        assert!(limits::AWS_CALL < limits::CLOUD_CALL, "the call's own words come before those of who waits for it");
        let region = Some("us-east-1".to_owned());
        assert!(waits(&load(Settings { region, glance: true, ..Settings::default() }).await) < limits::AWS_CALL);
    }
}
