//! The Auto Scaling API over HTTP, faked: the Query protocol's forms in, its XML out, for the four calls that are made.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Form, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};

/// One Auto Scaling group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asg {
    pub(crate) max: u32,
    pub(crate) desired: u32,
    pub(crate) zones: Vec<&'static str>,
    pub(crate) tags: Vec<(String, &'static str)>,
    /// Instance id to (zone, lifecycle state).
    pub(crate) instances: BTreeMap<String, (String, &'static str)>,
    /// Machines that each zone can still give.
    pub(crate) left: HashMap<&'static str, u32>,
    /// What a zone without machines says.
    pub(crate) code: &'static str,
}

/// The API's state, and every call that was made of it.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) groups: BTreeMap<String, Asg>,
    pub(crate) calls: Vec<String>,
    answered: HashMap<String, String>,
    made: u32,
}

pub(crate) type Shared = Arc<Mutex<World>>;

/// Serves on a free loopback port until the runtime ends.
pub(crate) async fn serve(world: Shared) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", post(answer)).with_state(world);
    #[expect(clippy::disallowed_methods, reason = "the test's runtime owns it")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn answer(State(world): State<Shared>, Form(form): Form<HashMap<String, String>>) -> impl IntoResponse {
    let mut world = world.lock().unwrap();
    let action = form["Action"].clone();
    world.calls.push(action.clone());
    let body = match action.as_str() {
        "DescribeAutoScalingGroups" => Ok(world.describe(&form)),
        "LaunchInstances" => Ok(world.launch(&form)),
        "TerminateInstanceInAutoScalingGroup" => world.terminate(&form),
        _ => Err(("InvalidAction", action.clone())),
    };
    match body {
        Ok(result) => (
            StatusCode::OK,
            format!(
                "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><{action}Result>{result}</{action}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{action}Response>"
            ),
        ),
        Err((code, message)) => (
            StatusCode::BAD_REQUEST,
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"
            ),
        ),
    }
}

impl World {
    fn describe(&self, form: &HashMap<String, String>) -> String {
        let named = form.get("AutoScalingGroupNames.member.1");
        let filters: Vec<&String> =
            form.iter().filter(|(key, _)| key.contains(".Values.member.")).map(|it| it.1).collect();
        let tagged = |group: &Asg| filters.iter().all(|key| group.tags.iter().any(|(tag, _)| tag == *key));
        let wanted = |name: &String, group: &Asg| named.map_or_else(|| tagged(group), |it| it == name);
        let members = self.groups.iter().filter(|(name, group)| wanted(name, group)).map(|it| member(it.0, it.1));
        format!("<AutoScalingGroups>{}</AutoScalingGroups>", members.collect::<String>())
    }

    fn launch(&mut self, form: &HashMap<String, String>) -> String {
        let token = form["ClientToken"].clone();
        if let Some(before) = self.answered.get(&token) {
            return before.clone();
        }
        let group = self.groups.get_mut(&form["AutoScalingGroupName"]).unwrap();
        let (zone, asked) =
            (form["AvailabilityZones.member.1"].clone(), form["RequestedCapacity"].parse::<u32>().unwrap());
        let given = group.left.get_mut(zone.as_str()).map_or(0, |left| {
            let given = asked.min(*left);
            *left -= given;
            given
        });
        let ids: Vec<String> = (1..=given).map(|n| format!("i-{:08}", self.made + n)).collect();
        self.made += given;
        group.desired += given;
        group.instances.extend(ids.iter().map(|id| (id.clone(), (zone.clone(), "Pending"))));
        let ids: String = ids.iter().map(|id| format!("<member>{id}</member>")).collect();
        let came =
            format!("<member><AvailabilityZone>{zone}</AvailabilityZone><InstanceIds>{ids}</InstanceIds></member>");
        let error = if given < asked {
            format!(
                "<member><AvailabilityZone>{zone}</AvailabilityZone><ErrorCode>{}</ErrorCode><ErrorMessage>not here, not now</ErrorMessage></member>",
                group.code
            )
        } else {
            String::new()
        };
        let came = if given > 0 { came } else { String::new() };
        let answer = format!("<ClientToken>{token}</ClientToken><Instances>{came}</Instances><Errors>{error}</Errors>");
        self.answered.insert(token, answer.clone());
        answer
    }

    fn terminate(&mut self, form: &HashMap<String, String>) -> Result<String, (&'static str, String)> {
        let id = &form["InstanceId"];
        for group in self.groups.values_mut() {
            if group.instances.remove(id).is_some() {
                group.desired -= u32::from(form["ShouldDecrementDesiredCapacity"] == "true");
                return Ok("<Activity><ActivityId>a</ActivityId><AutoScalingGroupName>g</AutoScalingGroupName><Cause>c</Cause><StartTime>2026-01-01T00:00:00Z</StartTime><StatusCode>InProgress</StatusCode></Activity>".to_owned());
            }
        }
        Err(("ValidationError", format!("Instance Id not found - No managed instance found for instance ID: {id}")))
    }
}

fn member(name: &str, group: &Asg) -> String {
    let zones: String = group.zones.iter().map(|zone| format!("<member>{zone}</member>")).collect();
    let tag = |(key, value): &(String, &str)| {
        format!("<member><Key>{key}</Key><Value>{value}</Value><PropagateAtLaunch>true</PropagateAtLaunch></member>")
    };
    let tags: String = group.tags.iter().map(tag).collect();
    let instance = |(id, (zone, state)): (&String, &(String, &str))| {
        format!(
            "<member><InstanceId>{id}</InstanceId><AvailabilityZone>{zone}</AvailabilityZone><LifecycleState>{state}</LifecycleState><HealthStatus>Healthy</HealthStatus><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>"
        )
    };
    let instances: String = group.instances.iter().map(instance).collect();
    format!(
        "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><MinSize>0</MinSize><MaxSize>{}</MaxSize><DesiredCapacity>{}</DesiredCapacity>\
         <DefaultCooldown>300</DefaultCooldown><HealthCheckType>EC2</HealthCheckType><CreatedTime>2026-01-01T00:00:00Z</CreatedTime>\
         <AvailabilityZones>{zones}</AvailabilityZones><Tags>{tags}</Tags><Instances>{instances}</Instances></member>",
        group.max, group.desired
    )
}
