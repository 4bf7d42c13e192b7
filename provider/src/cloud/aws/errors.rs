//! AWS's error codes, in our five classes.

use aws_sdk_autoscaling::error::{ProvideErrorMetadata, SdkError};

use crate::{
    cloud::CloudError,
    fleet::group::{Refusal, RefusalClass},
};

/// Codes by class, first match wins. Sources: EC2's error code list, and the faults of the Auto Scaling API.
const CLASSES: &[(RefusalClass, &[&str])] = &[
    (
        RefusalClass::NoCapacity,
        &[
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientCapacity",
            "InsufficientCapacityOnHost",
            "UnfulfillableCapacity",
            "SpotMaxPriceTooLow",
            "ReservationCapacityExceeded",
            "Unsupported",
        ],
    ),
    (
        RefusalClass::Quota,
        &[
            "VcpuLimitExceeded",
            "InstanceLimitExceeded",
            "MaxSpotInstanceCountExceeded",
            "MaxFleetCountExceeded",
            "VolumeLimitExceeded",
            "LimitExceeded",
            "InsufficientFreeAddressesInSubnet",
        ],
    ),
    (RefusalClass::Permission, &["UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "OptInRequired"]),
    (RefusalClass::Throttled, &["ResourceContention", "ScalingActivityInProgress", "IdempotentCallInProgress"]),
];

/// Codes that mean "too many calls", besides those that begin with `Throttl`.
const TOO_FAST: [&str; 5] =
    ["EC2ThrottledException", "RequestLimitExceeded", "RequestThrottled", "SlowDown", "TooManyRequestsException"];

/// Whether the call came too fast after others.
pub(super) fn is_too_fast(code: &str) -> bool {
    code.starts_with("Throttl") || TOO_FAST.contains(&code)
}

/// Codes that tell of the credentials or the clock, not of what they allow. Sources: the common errors of EC2, of the
/// Query APIs and of STS.
const CREDENTIALS: [&str; 11] = [
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

/// Whether the caller was not known, or not any more: other credentials may be allowed the very same call.
pub(super) fn is_about_credentials(code: &str) -> bool {
    CREDENTIALS.contains(&code)
}

/// The class of a code; what is not in the list is a matter of configuration, which a person has to look at.
pub(super) fn class(code: &str) -> RefusalClass {
    if is_about_credentials(code) {
        return RefusalClass::Permission;
    }
    if is_too_fast(code) {
        return RefusalClass::Throttled;
    }
    let bare = code.strip_suffix("Fault").or_else(|| code.strip_suffix("Error")).unwrap_or(code);
    let found = CLASSES.iter().find(|(_, codes)| codes.contains(&bare));
    found.map_or(RefusalClass::Configuration, |(class, _)| *class)
}

/// A code and a sentence of AWS, as a refusal.
pub(super) fn refusal(code: Option<&str>, message: Option<&str>) -> Refusal {
    let code = code.unwrap_or("UnknownError").to_owned();
    Refusal { class: class(&code), message: message.unwrap_or(&code).to_owned(), code }
}

/// Refusals from several places as one: the first that is not merely about capacity names the class, since no other
/// place will mend it; the message has them all.
pub(super) fn sum(refusals: impl IntoIterator<Item = (String, Refusal)>) -> Refusal {
    let refusals: Vec<_> = refusals.into_iter().collect();
    let mut told: Vec<String> = Vec::new();
    for (place, it) in &refusals {
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        let sentence = format!("{place}{} ({})", it.message, it.code);
        if !told.contains(&sentence) {
            told.push(sentence);
        }
    }
    let message = told.join("; ");
    let worst = refusals.iter().find(|(_, it)| it.class != RefusalClass::NoCapacity).or(refusals.first());
    match worst {
        Some((_, refusal)) => Refusal { message, ..refusal.clone() },
        None => Refusal {
            class: RefusalClass::Configuration,
            code: "NoZones".to_owned(),
            message: "the Auto Scaling group has no Availability Zone, or is gone".to_owned(),
        },
    }
}

/// A call that failed: AWS's own answer when there is one, else it is unknown whether it took effect.
pub(super) fn failed<E: ProvideErrorMetadata, R>(call: &str, error: &SdkError<E, R>) -> CloudError {
    match error {
        SdkError::ServiceError(answer) if answer.err().code().is_some_and(|code| !is_outage(code)) => {
            CloudError::Refused(refusal(answer.err().code(), answer.err().message()))
        }
        SdkError::ServiceError(answer) => {
            let (code, message) =
                (answer.err().code().unwrap_or("no code"), answer.err().message().unwrap_or_default());
            CloudError::Unknown(format!("{call}: {code} {message}").trim_end().to_owned())
        }
        SdkError::ConstructionFailure(_) => CloudError::Refused(Refusal {
            class: RefusalClass::Configuration,
            code: "RequestNotBuilt".to_owned(),
            message: format!("{call} could not be built"),
        }),
        SdkError::TimeoutError(_) => CloudError::Unknown(format!("{call}: no answer in time")),
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map_or_else(|| "not sent".to_owned(), |it| sentence(it));
            CloudError::Unknown(format!("{call}: {cause}"))
        }
        _ => CloudError::Unknown(format!("{call}: the answer could not be read")),
    }
}

fn is_outage(code: &str) -> bool {
    // `ServerException` and `ServiceUnavailableException` are EKS's.
    let outage = ["InternalFailure", "InternalError", "ServiceUnavailable", "Unavailable", "RequestTimeout", "Server"];
    outage.contains(&code.strip_suffix("Exception").unwrap_or(code))
}

/// The whole chain of causes in one line: a missing credential stands at its end.
fn sentence(failure: &dyn std::error::Error) -> String {
    // The connector's own word is only the kind of its cause.
    let first = failure.source().unwrap_or(failure);
    let mut text = first.to_string();
    let mut cause = first.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_fall_into_their_class() {
        for (code, expected) in [
            ("InsufficientInstanceCapacity", RefusalClass::NoCapacity),
            ("VcpuLimitExceeded", RefusalClass::Quota),
            ("UnauthorizedOperation", RefusalClass::Permission),
            ("AccessDenied", RefusalClass::Permission),
            ("ExpiredToken", RefusalClass::Permission),
            ("AuthFailure", RefusalClass::Permission),
            ("ResourceContentionFault", RefusalClass::Throttled),
            ("Throttling", RefusalClass::Throttled),
            ("TooManyRequestsException", RefusalClass::Throttled),
            ("InvalidLaunchTemplateName.NotFoundException", RefusalClass::Configuration),
            ("IdempotentParameterMismatchError", RefusalClass::Configuration),
        ] {
            assert_eq!(class(code), expected, "{code}");
        }
    }
}
