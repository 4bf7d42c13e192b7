//! Every limit of the program that is not a key of the configuration. What stands here is chosen with those who ask and
//! answer in mind: cluster-autoscaler, AWS, the agents.

use std::time::Duration;

/// Biggest message taken or sent. A BestOptions request of CA's scalability goal (30,000 pods, 200 groups) has tens
/// of MiB, and CA itself limits only what it receives (128 MiB).
pub const MESSAGE: usize = 256 << 20;
/// Requests at once on one connection; CA sends a handful.
pub const STREAMS: u32 = 256;
/// After this long a connection is asked to come again (GOAWAY), so that a moved server is found.
pub const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// What is under way on such a connection, or at shutdown, may take this long.
pub const DRAIN: Duration = Duration::from_secs(10);
/// A client that does not finish its TLS handshake in this time is dropped.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// TLS handshakes at once.
pub const HANDSHAKES: usize = 64;
/// A request that waits for the keeper longer than this is answered with an error and without effect; CA itself
/// gives up after five seconds.
pub const COMMAND: Duration = Duration::from_secs(4);
/// Requests waiting for the keeper.
pub const COMMANDS: usize = 4096;
/// Machines of one group that were asked for and have not come. Each is an entry of the ledger and, where it was refused,
/// up to 750 bytes of an answer of which CA reads no more than 4 MiB (the default of its gRPC library).
pub const ON_THE_WAY: u32 = 4000;
/// Bytes of a refusal's sentence that CA is told, once for each machine; log and page have the whole.
pub const REFUSAL: usize = 400;
/// One cloud call.
pub const CLOUD_CALL: Duration = Duration::from_secs(60);
/// How often a throttled cloud call is repeated.
pub const CLOUD_RETRIES: u32 = 5;
/// Cloud calls at once.
pub const CLOUD_CALLS: usize = 32;
/// The first wait before a cloud call is repeated; it doubles.
pub const RETRY: Duration = Duration::from_millis(500);
/// Longest wait before a cloud call is repeated.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// A launch whose fate stays unknown is shown as refused after this long.
pub const LAUNCH: Duration = Duration::from_secs(300);
/// A machine that was ended and is listed as alive for this long is ended once more.
pub const END_AGAIN: Duration = Duration::from_secs(60);
/// The state file must be written within this time, or the answer goes out without.
pub const STATE_WRITE: Duration = Duration::from_secs(2);
/// Listings in a row that may claim that all groups are gone before it is believed.
pub const EMPTY_LISTINGS: u32 = 3;
/// When CA has not called for this long it does not count as calling.
pub const CALLER_GONE: Duration = Duration::from_secs(60);
/// HTTP connections at once; further ones wait in the kernel's queue.
pub const HTTP_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request, and how long an idle connection is kept.
pub const HTTP_HEAD: Duration = Duration::from_secs(10);
/// How long a client may leave its answer untaken.
pub const HTTP_UNTAKEN: Duration = Duration::from_secs(10);
/// How often files (configuration, priorities, certificates) are looked at.
pub const FILE_POLL: Duration = Duration::from_secs(2);
/// Biggest such file.
pub const FILE: u64 = 4 << 20;
/// Until AWS is connected.
pub const AWS_CONNECT: Duration = Duration::from_secs(4);
/// One attempt of a call to AWS: longer than a long poll of SQS takes.
pub const AWS_ATTEMPT: Duration = Duration::from_secs(25);
/// Such a call with its attempts; shorter than [`CLOUD_CALL`], so that its own words are heard.
pub const AWS_CALL: Duration = Duration::from_secs(50);
/// The two for a command that a person waits for.
pub const AWS_GLANCE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(15));
/// CA's Refresh waits this long for what becomes of launches and orders, no longer.
pub const LOOP_WAIT: Duration = Duration::from_secs(1);
/// However often Refresh comes, such orders are not read more often than this.
pub const ORDERS_AGAIN: Duration = Duration::from_secs(3);
/// A request to AWS waits this long for its turn, no longer.
pub const AWS_TURN: Duration = Duration::from_secs(20);
/// A listing waits this long for spot prices, no longer.
pub const SPOT_PRICES: Duration = Duration::from_secs(8);
/// Until EC2 is connected.
pub const EC2_CONNECT: Duration = Duration::from_secs(4);
/// One attempt of a call to EC2.
pub const EC2_ATTEMPT: Duration = Duration::from_secs(12);
/// Such a call with its attempts.
pub const EC2_CALL: Duration = Duration::from_secs(40);
/// Pages of one answer of AWS: EC2 has some 1,400 instance types, a hundred to a page.
pub const AWS_PAGES: u32 = 64;
/// Pages of scaling activities of all groups together; when there are more, each group is asked for alone.
pub const ACTIVITY_PAGES: u32 = 3;
/// How long the first listing waits for launch templates, node groups and instance types.
pub const TEMPLATES: Duration = Duration::from_secs(10);
/// How long a later one does.
pub const TEMPLATES_LATER: Duration = Duration::from_secs(1);
/// Such calls at once.
pub const TEMPLATE_CALLS: usize = 8;
/// Agents that are asked; what a name has more of is left out, and said.
pub const AGENTS: usize = 10_000;
/// Agents asked at once.
pub const AGENT_QUESTIONS: usize = 64;
/// One question to an agent, from the connection to the last byte.
pub const AGENT_WAIT: Duration = Duration::from_secs(3);
/// Longest answer of an agent: eight GPUs in 56 MIG instances with 200 containers have less than 200 kB.
pub const AGENT_BODY: usize = 1 << 20;
/// Longest head of such an answer; hyper's least.
pub const AGENT_HEAD: usize = 8 << 10;
/// Notices of one agent that are read.
pub const AGENT_NOTICES: usize = 64;
/// The agents' name is looked up within this time, or the addresses known stand.
pub const AGENT_LOOKUP: Duration = Duration::from_secs(5);
/// An agent that has been silent for this long is forgotten, and its address may speak for another machine.
pub const AGENT_FORGOTTEN: Duration = Duration::from_secs(300);
/// Names of nodes that are remembered, for agents that cannot tell their machine.
pub const NODE_NAMES: usize = 50_000;
