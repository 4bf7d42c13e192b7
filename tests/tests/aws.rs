//! The shipped provider on `cloud.kind: aws`: its own SDK, against AWS's APIs faked over HTTP. One file per concern.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod aws {
    /// What the agents on the nodes announce.
    mod agents;
    /// Broken answers, expired credentials, regions that do not answer.
    mod bad_input;
    /// What moto can do, too.
    mod both;
    /// Launches and refusals.
    mod buying;
    /// The first listing of a process.
    mod cold_start;
    /// As whom, and at which addresses, AWS is asked.
    mod credentials;
    /// Which groups are ours.
    mod discovery;
    /// What the in-tree provider does otherwise.
    mod in_tree;
    /// What a loop of the autoscaler sees that begins after AWS has answered.
    mod loops;
    /// Who calls, how often, and what is signed.
    mod manners;
    /// What a machine costs.
    mod prices;
    /// AWS's own addresses, as a proxy plays them.
    mod proxy;
    /// Machines that go, and those that must not.
    mod returning;
    /// The program, the account and the client, together.
    mod stage;
    /// What a machine's state is called.
    mod states;
    /// What a machine that does not exist yet would be.
    mod templates;
    /// What people are told.
    mod words;
}
