//! The EC2 API, as far as a provider of Auto Scaling groups reads it.

use serde_json::{Value, json};

use super::{
    Account,
    answer::{Outcome, Refused, page},
    launch::zone_id,
    moment::{self, Moment, written},
    request::{Parameters, Request},
    templates,
    types::Requirements,
};

pub(super) fn answer(account: &Account, request: &Request, now: Moment) -> Outcome {
    let asked = &request.parameters;
    if asked.is_true("DryRun") {
        let message = "Request would have succeeded, but DryRun flag is set.";
        return Err(Refused::new(412, "DryRunOperation", message));
    }
    match request.action.as_str() {
        "DescribeInstanceTypes" => instance_types(account, asked),
        "DescribeLaunchTemplateVersions" => versions(account, asked),
        "GetInstanceTypesFromInstanceRequirements" => from_requirements(account, asked),
        "DescribeSpotPriceHistory" => spot_prices(account, asked),
        "DescribeImages" => images(account, asked),
        "DescribeInstances" => instances(account, asked, now),
        "DescribeAvailabilityZones" => zones(account),
        other => {
            Err(Refused::new(400, "InvalidAction", format!("The action {other} is not valid for this web service.")))
        }
    }
}

/// `MaxResults`; all at once without.
fn results(asked: &Parameters) -> usize {
    asked
        .number("MaxResults")
        .and_then(|most| usize::try_from(most).ok())
        .filter(|most| *most > 0)
        .unwrap_or(usize::MAX / 2)
}

fn set(asked: &Parameters, name: &str, all: Vec<Value>) -> Outcome {
    let (some, next) = page(all, asked.get("NextToken"), results(asked))?;
    Ok(json!({name: some, "nextToken": next}))
}

fn instance_types(account: &Account, asked: &Parameters) -> Outcome {
    let names = asked.list("InstanceType");
    if names.len() > 100 {
        return Err(Refused::new(400, "InvalidParameterValue", "At most 100 instance types can be given."));
    }
    let missing: Vec<&str> =
        names.iter().filter(|name| !account.types.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let message = format!("The following supplied instance types do not exist: [{}]", missing.join(", "));
        return Err(Refused::new(400, "InvalidInstanceType", message));
    }
    let found = account.types.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
    set(asked, "instanceTypeSet", found.map(|(_, described)| described.clone()).collect())
}

fn versions(account: &Account, asked: &Parameters) -> Outcome {
    let wanted = asked.list("LaunchTemplateVersion");
    let Some(name) = asked.get("LaunchTemplateId").or(asked.get("LaunchTemplateName")) else {
        // Without a template only the aliases can be asked for, of all templates.
        let of_template = |(name, template): (&String, &templates::LaunchTemplate)| {
            let version = |it: &String| {
                template.version(it).map(|(number, data)| templates::described(name, template, number, data))
            };
            wanted.iter().filter_map(version).collect::<Vec<_>>()
        };
        return set(asked, "launchTemplateVersionSet", account.templates.iter().flat_map(of_template).collect());
    };
    let Some((name, template)) = account.template(name) else {
        let (kind, code) = match asked.get("LaunchTemplateId") {
            Some(_) => ("ID", "InvalidLaunchTemplateId.NotFound"),
            None => ("name", "InvalidLaunchTemplateName.NotFoundException"),
        };
        let message = format!("The specified launch template, with template {kind} {name}, does not exist.");
        return Err(Refused::new(400, code, message));
    };
    let mut found = Vec::new();
    for version in &wanted {
        let Some((number, data)) = template.version(version) else {
            let message = format!(
                "Could not find launch template version {version} for the launch template with ID {}.",
                template.id
            );
            return Err(Refused::new(400, "InvalidLaunchTemplateId.VersionNotFound", message));
        };
        found.push(templates::described(name, template, number, data));
    }
    if wanted.is_empty() {
        let all = template.versions.iter().enumerate();
        found.extend(all.map(|(before, data)| templates::described(name, template, before + 1, data)));
    }
    set(asked, "launchTemplateVersionSet", found)
}

fn from_requirements(account: &Account, asked: &Parameters) -> Outcome {
    let fitting = Requirements::of_parameters(asked).matching(&account.types);
    let architectures = asked.list("ArchitectureType");
    let runs = |name: &String| {
        let supported = account.types.get(name).map(|of| of["processorInfo"]["supportedArchitectures"].clone());
        let supported = supported.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        architectures.is_empty() || supported.into_iter().any(|it| architectures.iter().any(|wanted| wanted == it))
    };
    let fitting = fitting.into_iter().filter(runs).map(|name| json!({"instanceType": name}));
    set(asked, "instanceTypeSet", fitting.collect())
}

fn spot_prices(account: &Account, asked: &Parameters) -> Outcome {
    let types = asked.list("InstanceType");
    let products = asked.list("ProductDescription");
    let zone = asked.get("AvailabilityZone");
    let since = asked.get("StartTime").and_then(moment::read);
    let fits = |price: &&Value| {
        let is = |key: &str, wanted: &[String]| {
            wanted.is_empty() || price[key].as_str().is_some_and(|it| wanted.iter().any(|w| w == it))
        };
        let at = price["timestamp"].as_str().and_then(moment::read);
        is("instanceType", &types)
            && is("productDescription", &products)
            && zone.is_none_or(|zone| price["availabilityZone"] == zone)
            && (since.is_none() || at.is_none() || at >= since || is_newest(account, price))
    };
    set(asked, "spotPriceHistorySet", account.spot_prices.iter().filter(fits).cloned().collect())
}

/// EC2 answers the price that was in force at the start of the span, too.
fn is_newest(account: &Account, price: &Value) -> bool {
    let same = |other: &&Value| {
        ["instanceType", "availabilityZone", "productDescription"].iter().all(|key| price[*key] == other[*key])
    };
    account.spot_prices.iter().filter(same).all(|other| other["timestamp"].as_str() <= price["timestamp"].as_str())
}

fn images(account: &Account, asked: &Parameters) -> Outcome {
    let ids = asked.list("ImageId");
    let found = account.images.iter().filter(|(id, _)| ids.is_empty() || ids.contains(id));
    let named = found.map(|(id, described)| {
        let mut described = described.clone();
        described["imageId"] = json!(id);
        described
    });
    set(asked, "imagesSet", named.collect())
}

fn instances(account: &Account, asked: &Parameters, now: Moment) -> Outcome {
    let ids = asked.list("InstanceId");
    let machines = account.groups.values().flat_map(|group| group.machines.values().chain(group.warm.values()));
    let found = machines.filter(|machine| ids.is_empty() || ids.contains(&machine.id)).filter_map(|machine| {
        machine.state(now)?;
        let (code, state) = match (machine.runs(now), machine.started_at <= now) {
            (true, _) => (16, "running"),
            (false, true) => (32, "shutting-down"),
            (false, false) => (0, "pending"),
        };
        let spot = machine.market.name() == "spot";
        let instance = json!({
            "instanceId": machine.id, "instanceType": machine.instance_type, "launchTime": written(machine.launched_at),
            "instanceState": {"code": code, "name": state}, "instanceLifecycle": spot.then_some("spot"),
            "placement": {"availabilityZone": machine.zone, "availabilityZoneId": zone_id(&machine.zone)},
        });
        Some(json!({"reservationId": format!("r-{}", machine.id), "instancesSet": [instance]}))
    });
    set(asked, "reservationSet", found.collect())
}

fn zones(account: &Account) -> Outcome {
    let mut names: Vec<&String> = account.groups.values().flat_map(|group| &group.zones).collect();
    names.sort_unstable();
    names.dedup();
    let described = |zone: &String| json!({"zoneName": zone, "zoneState": "available", "regionName": "us-east-1", "zoneId": zone_id(zone)});
    Ok(json!({"availabilityZoneInfo": names.into_iter().map(described).collect::<Vec<_>>()}))
}
