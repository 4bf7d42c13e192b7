//! The STS API: who the caller is, and temporary credentials for a web identity or for who may take a role.

use serde_json::json;

use super::{
    ACCOUNT, Account,
    answer::{Outcome, Refused},
    machine::millis,
    moment::{Moment, written},
    request::Request,
};

/// The caller, whoever signed.
pub(super) const CALLER: &str = "arn:aws:sts::123456789012:assumed-role/windlass/provider";

pub(super) fn answer(account: &mut Account, request: &Request, now: Moment) -> Outcome {
    match request.action.as_str() {
        "GetCallerIdentity" => Ok(json!({"Arn": CALLER, "UserId": "AROAEXAMPLE:provider", "Account": ACCOUNT})),
        "AssumeRole" | "AssumeRoleWithWebIdentity" => {
            account.keys += 1;
            let credentials = json!({
                "AccessKeyId": format!("ASIA{:016}", account.keys), "SecretAccessKey": "not-a-secret",
                "SessionToken": "not-a-token", "Expiration": written(now + millis(account.credentials_last)),
            });
            let user = json!({"Arn": CALLER, "AssumedRoleId": "AROAEXAMPLE:provider"});
            Ok(json!({"Credentials": credentials, "AssumedRoleUser": user}))
        }
        other => {
            Err(Refused::new(400, "InvalidAction", format!("Could not find operation {other} for version 2011-06-15")))
        }
    }
}
