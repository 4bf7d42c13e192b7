//! The EKS API: clusters and managed node groups, as a test describes them.

use serde_json::json;

use super::{
    Account,
    answer::{Outcome, Refused},
    request::Request,
};

pub(super) fn answer(account: &Account, request: &Request) -> Outcome {
    let asked = &request.parameters;
    let cluster = asked.get("clusterName").unwrap_or_default().to_owned();
    match request.action.as_str() {
        "DescribeCluster" => match account.clusters.get(&cluster) {
            Some(described) => Ok(json!({"cluster": described})),
            None => missing(&format!("No cluster found for name: {cluster}.")),
        },
        "ListNodegroups" => {
            let of_cluster = account.nodegroups.keys().filter(|(of, _)| *of == cluster).map(|(_, name)| name.as_str());
            Ok(json!({"nodegroups": of_cluster.collect::<Vec<_>>()}))
        }
        _ => {
            let name = asked.get("nodegroupName").unwrap_or_default().to_owned();
            match account.nodegroups.get(&(cluster.clone(), name.clone())) {
                Some(described) => {
                    let mut described = described.clone();
                    described["clusterName"] = json!(cluster);
                    described["nodegroupName"] = json!(name);
                    Ok(json!({"nodegroup": described}))
                }
                None => missing(&format!("No node group found for name: {name}.")),
            }
        }
    }
}

fn missing(message: &str) -> Outcome {
    Err(Refused::new(404, "ResourceNotFoundException", message))
}
