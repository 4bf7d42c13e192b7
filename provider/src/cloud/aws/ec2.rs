//! EC2's Query API, as lean as our few read-only calls need it: a form in, XML out. Signing, retries with jitter,
//! clock skew, deadlines and the HTTP connection are the SDK's own machinery, the same that its generated clients use.

mod endpoint;
mod protocol;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_runtime::{
    auth::{
        SigV4OperationSigningConfig,
        sigv4::{SCHEME_ID, SigV4AuthScheme},
    },
    retries::classifiers::AwsErrorCodeClassifier,
};
use aws_smithy_runtime::client::{
    identity::IdentityCache,
    orchestrator::operation::Operation,
    retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier},
};
use aws_smithy_runtime_api::client::{
    auth::{AuthSchemeOptionResolverParams, static_resolver::StaticAuthSchemeOptionResolver},
    runtime_components::RuntimeComponentsBuilder,
    runtime_plugin::StaticRuntimePlugin,
};
use aws_smithy_types::{config_bag::Layer, retry::RetryConfig, timeout::TimeoutConfig};
use aws_types::{SigningName, region::SigningRegion};
use serde::de::DeserializeOwned;

use super::{errors, pages};
use crate::{cloud::CloudError, config::limits};

pub(super) use protocol::Params;
use protocol::{Failure, Form};

/// The answer to a call that comes in pages.
pub(super) trait Page: DeserializeOwned {
    /// What the page holds.
    type Item;

    /// Its items, and the token of the next page.
    fn split(self) -> (Vec<Self::Item>, Option<String>);
}

/// EC2 in one region. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ec2 {
    operation: Operation<Form, String, Failure>,
}

impl Ec2 {
    /// With the credentials, the HTTP client, the endpoint override, FIPS and dual-stack of `sdk`.
    pub(super) fn new(sdk: &SdkConfig, region: &str) -> Self {
        let endpoint = sdk.endpoint_url().map_or_else(
            || endpoint::of(region, sdk.use_fips() == Some(true), sdk.use_dual_stack() == Some(true)),
            ToOwned::to_owned,
        );
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(limits::EC2_CONNECT)
            .operation_attempt_timeout(limits::EC2_ATTEMPT)
            .operation_timeout(limits::EC2_CALL)
            .build();
        let mut builder = Operation::builder()
            .service_name("EC2")
            .operation_name("Query")
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&endpoint)
            .standard_retry(&sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard))
            .retry_classifier(TransientErrorClassifier::<Failure>::new())
            .retry_classifier(AwsErrorCodeClassifier::<Failure>::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .timeout_config(timeouts)
            .with_connection_poisoning()
            .runtime_plugin(signing(sdk, region));
        if let Some(client) = sdk.http_client() {
            builder = builder.http_client(client);
        }
        Self { operation: builder.serializer(protocol::request).deserializer(protocol::response).build() }
    }

    /// One call; `T` is read from the whole answer.
    ///
    /// # Errors
    /// AWS's own refusal, or that there was no answer, or none that could be read.
    pub(super) async fn call<T: DeserializeOwned>(&self, action: &str, params: &Params) -> Result<T, CloudError> {
        let answer = self.operation.invoke(params.form(action)).await;
        let text = answer.map_err(|error| errors::failed(action, &error))?;
        quick_xml::de::from_str(&text)
            .map_err(|error| CloudError::Unknown(format!("{action}: the answer could not be read: {error}")))
    }

    /// Every page of a call.
    ///
    /// # Errors
    /// As for [`Ec2::call`]; also when the pages do not end.
    pub(super) async fn pages<P: Page>(&self, action: &str, params: &Params) -> Result<Vec<P::Item>, CloudError> {
        pages::all(action, limits::AWS_PAGES, async |token| {
            let asked = token.into_iter().fold(params.clone(), |asked, token| asked.with("NextToken", token));
            Ok(self.call::<P>(action, &asked).await?.split())
        })
        .await
    }
}

/// Signature version 4, with whatever credentials the SDK's chain finds, kept until they are about to expire.
fn signing(sdk: &SdkConfig, region: &str) -> StaticRuntimePlugin {
    let mut components = RuntimeComponentsBuilder::new("ec2 signing")
        .with_auth_scheme(SigV4AuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID])))
        .with_identity_cache(Some(sdk.identity_cache().unwrap_or_else(|| IdentityCache::lazy().build())));
    if let Some(credentials) = sdk.credentials_provider() {
        components = components.with_identity_resolver(SCHEME_ID, credentials);
    }
    let mut config = Layer::new("ec2 signing");
    config.store_put(AuthSchemeOptionResolverParams::new(()));
    config.store_put(SigV4OperationSigningConfig {
        region: Some(SigningRegion::from(aws_config::Region::new(region.to_owned()))),
        name: Some(SigningName::from_static("ec2")),
        ..SigV4OperationSigningConfig::default()
    });
    StaticRuntimePlugin::new().with_config(config.freeze()).with_runtime_components(components)
}

#[cfg(test)]
mod tests;
