//! AWS, faked: the Auto Scaling, EC2, EKS, STS and SQS APIs over HTTP on one loopback port. The core ([`Account`]) is a
//! value that is told the time; the shell around it reads the clock, listens, and does to answers what a test scripted.

mod account;
mod activities;
mod answer;
mod autoscaling;
mod ec2;
mod eks;
mod faults;
mod group;
mod history;
pub mod instance;
mod launch;
mod machine;
mod moment;
mod request;
mod resize;
mod script;
mod server;
mod sqs;
mod sts;
mod supply;
mod templates;
#[cfg(test)]
mod tests;
mod types;

pub use account::{Account, Recorded};
pub use activities::Activity;
pub use faults::{Fault, Faults};
pub use group::{Asg, Hook, Pace, WarmPool};
pub use machine::{Machine, Market};
pub use moment::written;
pub use script::{GroupScript, ZoneScript};
pub use server::AwsCloud;
pub use supply::Scarcity;

/// The one region.
pub const REGION: &str = "us-east-1";
/// The one account.
pub const ACCOUNT: &str = "123456789012";
/// The access key a test gives its program.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
/// The tag prefix of cluster-autoscaler's users.
pub const TAGS: &str = "k8s.io/cluster-autoscaler";
