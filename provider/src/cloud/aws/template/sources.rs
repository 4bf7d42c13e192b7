//! Keeps [`Facts`] up to date: asks AWS for what is due, in few calls and within a time, and never forgets an answer
//! because the next one failed.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_sdk_autoscaling::types::AutoScalingGroup;
use tokio::{
    task::{self, JoinSet},
    time,
};

use super::{
    Facts, File, Reference, configured,
    facts::{Needs, Wanted},
    images::{self, Images},
    kept::{FIXED, FRESH},
    requirements::Matching,
    versions::{self, Version, Versions},
};
use crate::{
    cloud::{
        CloudError,
        aws::{
            ec2::{Ec2, Params},
            eks, errors, types,
        },
    },
    config::limits,
    fleet::group::RefusalClass,
    timestamp::Timestamp,
};

/// Names in one call of `DescribeInstanceTypes`; the API's own limit.
const TYPES: usize = 100;
/// Names in one call of `DescribeLaunchConfigurations`; the API's own limit.
const CONFIGURATIONS: usize = 50;
/// Images in one call of `DescribeImages`; a filter takes 200 values.
const IMAGES: usize = 100;
/// From as many launch templates on, all of the account are asked for at once.
const ALL_TEMPLATES: usize = 10;

/// Where facts come from.
pub(in crate::cloud::aws) struct Sources {
    shared: Arc<Shared>,
    /// The reading under way, if any. It ends with its owner.
    reading: tokio::sync::Mutex<JoinSet<()>>,
    begun: AtomicBool,
}

struct Shared {
    ec2: Ec2,
    eks: aws_sdk_eks::Client,
    autoscaling: aws_sdk_autoscaling::Client,
    facts: Mutex<Facts>,
    file: Option<File>,
}

impl Sources {
    pub(in crate::cloud::aws) fn new(
        ec2: Ec2,
        eks: aws_sdk_eks::Client,
        autoscaling: aws_sdk_autoscaling::Client,
        file: Option<File>,
    ) -> Self {
        let facts = file.as_ref().and_then(File::read);
        // What an earlier process read is good enough for a first listing.
        let begun = AtomicBool::new(facts.is_some());
        let facts = Mutex::new(facts.unwrap_or_default());
        let shared = Arc::new(Shared { ec2, eks, autoscaling, facts, file });
        Self { shared, reading: tokio::sync::Mutex::default(), begun }
    }

    /// What is known now.
    pub(in crate::cloud::aws) fn facts<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        self.shared.facts(look)
    }

    /// Asks for what these groups rest on and is due. The first time this waits for the answers; later a listing is not
    /// held up by them, and what has not come in time is there for the next one.
    pub(in crate::cloud::aws) async fn refresh(&self, groups: &[AutoScalingGroup], now: Timestamp) {
        let mut reading = self.reading.lock().await;
        if reading.is_empty() || reading.try_join_next().is_some() {
            let (shared, needs) = (self.shared.clone(), Needs::of(groups));
            reading.spawn(async move { shared.read(&needs, now).await });
        }
        let first = !self.begun.swap(true, Ordering::Relaxed);
        let patience = if first { limits::TEMPLATES } else { limits::TEMPLATES_LATER };
        if time::timeout(patience, reading.join_next()).await.is_err() {
            tracing::info!("launch templates and instance types are still being read");
        }
    }
}

impl Shared {
    fn facts<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what is due, and keeps it.
    async fn read(self: Arc<Self>, needs: &Needs, now: Timestamp) {
        let before = self.facts(|facts| facts.puts());
        self.read_in_order(needs, now).await;
        let Some(file) = self.file.clone() else { return };
        let facts = self.facts(|facts| (facts.puts() > before).then(|| facts.clone()));
        if let Some(facts) = facts {
            // A disk may be slow; whatever becomes of it, nothing waits for it but the next reading.
            let _ = task::spawn_blocking(move || file.write(&facts)).await;
        }
    }

    /// Each step rests on the one before: a template names image and attributes, these name types.
    async fn read_in_order(self: &Arc<Self>, needs: &Needs, now: Timestamp) {
        tokio::join!(self.templates(needs, now), self.configurations(needs, now), self.nodegroups(needs, now));
        self.images(needs, now).await;
        self.matching(needs, now).await;
        self.types(needs, now).await;
    }

    async fn templates(self: &Arc<Self>, needs: &Needs, now: Timestamp) {
        let mut due = self.facts(|facts| facts.templates.due(needs.templates(), now));
        if due.len() >= ALL_TEMPLATES {
            match self.ec2.pages::<Versions>("DescribeLaunchTemplateVersions", &versions::of_all()).await {
                Ok(all) => due.retain(|reference| !self.answered(reference, &all, now)),
                Err(error) => tracing::debug!("not every launch template could be read at once: {error}"),
            }
        }
        each(due, |reference| self.clone().template(reference, now)).await;
    }

    async fn template(self: Arc<Self>, reference: Reference, now: Timestamp) -> bool {
        let answer = self.ec2.pages::<Versions>("DescribeLaunchTemplateVersions", &versions::of(&reference)).await;
        let goes_on = answers(&answer);
        let recipe = answer.map_err(|error| error.to_string()).and_then(|versions| {
            versions.first().map(Version::recipe).ok_or_else(|| "there is no such version".to_owned())
        });
        let fresh = if reference.is_fixed() { FIXED } else { FRESH };
        self.facts(|facts| facts.templates.put(reference, recipe, fresh, now));
        goes_on
    }

    /// Takes what `reference` means from the versions of all templates, if it is among them.
    fn answered(&self, reference: &Reference, all: &[Version], now: Timestamp) -> bool {
        let latest = all.iter().filter(|it| it.is_of(reference)).map(Version::number).max().unwrap_or(0);
        let Some(version) = all.iter().find(|it| it.answers(reference, latest)) else { return false };
        let fresh = if reference.is_fixed() { FIXED } else { FRESH };
        self.facts(|facts| facts.templates.put(reference.clone(), Ok(version.recipe()), fresh, now));
        true
    }

    async fn configurations(&self, needs: &Needs, now: Timestamp) {
        let due = self.facts(|facts| facts.configurations.due(needs.configurations(), now));
        for names in due.chunks(CONFIGURATIONS) {
            let request = self.autoscaling.describe_launch_configurations();
            let answer = request.set_launch_configuration_names(Some(names.to_vec())).send().await;
            let answer = answer.map_err(|error| errors::failed("DescribeLaunchConfigurations", &error));
            let found = answer.map(|answer| answer.launch_configurations.unwrap_or_default());
            self.facts(|facts| {
                for name in names {
                    let recipe = match &found {
                        Ok(found) => {
                            found.iter().find(|it| it.launch_configuration_name() == Some(name)).map(configured)
                        }
                        Err(error) => {
                            facts.configurations.put(name.clone(), Err(error.to_string()), FRESH, now);
                            continue;
                        }
                    };
                    let recipe = recipe.ok_or_else(|| "there is none of that name".to_owned());
                    facts.configurations.put(name.clone(), recipe, FIXED, now);
                }
            });
        }
    }

    async fn nodegroups(self: &Arc<Self>, needs: &Needs, now: Timestamp) {
        let due = self.facts(|facts| facts.nodegroups.due(needs.nodegroups.iter().cloned(), now));
        each(due, |name| self.clone().nodegroup(name, now)).await;
    }

    async fn nodegroup(self: Arc<Self>, name: eks::Name, now: Timestamp) -> bool {
        let answer = eks::describe(&self.eks, &name).await;
        let goes_on = answers(&answer);
        // Refused for good, and never read: what little is known has to do. Else the next answer is waited for.
        let final_word = matches!(&answer, Err(CloudError::Refused(why)) if why.class != RefusalClass::Throttled);
        let answer = answer.map_err(|error| error.to_string());
        self.facts(|facts| {
            if final_word && facts.nodegroups.get(&name).is_none() {
                facts.nodegroups.put(name.clone(), Ok(eks::unread(&name)), FRESH, now);
            }
            facts.nodegroups.put(name, answer, FRESH, now);
        });
        goes_on
    }

    async fn images(&self, needs: &Needs, now: Timestamp) {
        let due = self.facts(|facts| {
            let used = needs.images(facts);
            facts.images.due(used, now)
        });
        for ids in due.chunks(IMAGES) {
            let answer = self.ec2.pages::<Images>("DescribeImages", &images::of(ids)).await;
            let answer = by_name(answer);
            self.facts(|facts| {
                for id in ids {
                    facts.images.put(id.clone(), answer(id), FIXED, now);
                }
            });
        }
    }

    async fn matching(self: &Arc<Self>, needs: &Needs, now: Timestamp) {
        let due = self.facts(|facts| {
            let used = needs.matching(facts);
            facts.matching.due(used, now)
        });
        each(due, |wanted| self.clone().matched(wanted, now)).await;
    }

    async fn matched(self: Arc<Self>, wanted: Wanted, now: Timestamp) -> bool {
        let params = wanted.0.params(&wanted.1);
        let answer = self.ec2.pages::<Matching>("GetInstanceTypesFromInstanceRequirements", &params).await;
        let goes_on = answers(&answer);
        let answer = answer.map_err(|error| error.to_string());
        self.facts(|facts| facts.matching.put(wanted, answer, FRESH, now));
        goes_on
    }

    /// Types are asked for by name; one that EC2 does not know fails the call, so then each is asked for alone.
    async fn types(&self, needs: &Needs, now: Timestamp) {
        let due = self.facts(|facts| {
            let used = needs.types(facts);
            facts.types.due(used, now)
        });
        for names in due.chunks(TYPES) {
            let answer = self.described(names).await;
            let one_by_one =
                matches!(&answer, Err(CloudError::Refused(why)) if why.code.starts_with("InvalidInstanceType"));
            if one_by_one && names.len() > 1 {
                for name in names {
                    let alone = std::slice::from_ref(name);
                    self.keep_types(self.described(alone).await, alone, now);
                }
            } else {
                self.keep_types(answer, names, now);
            }
        }
    }

    async fn described(&self, names: &[String]) -> Result<Vec<(String, types::InstanceType)>, CloudError> {
        let params = Params::default().list("InstanceType", names);
        let found = self.ec2.pages::<types::Described>("DescribeInstanceTypes", &params).await?;
        Ok(found.into_iter().map(|it| (it.name.clone(), it)).collect())
    }

    fn keep_types(
        &self,
        answer: Result<Vec<(String, types::InstanceType)>, CloudError>,
        names: &[String],
        now: Timestamp,
    ) {
        let answer = by_name(answer);
        self.facts(|facts| {
            for name in names {
                facts.types.put(name.clone(), answer(name), FIXED, now);
            }
        });
    }
}

/// One answer for many names, as an answer for each.
fn by_name<T: Clone>(answer: Result<Vec<(String, T)>, CloudError>) -> impl Fn(&String) -> Result<T, String> {
    let answer = answer.map_err(|error| error.to_string());
    move |name| match &answer {
        Ok(found) => {
            let found = found.iter().find(|(id, _)| id == name).map(|(_, it)| it.clone());
            found.ok_or_else(|| format!("EC2 knows no {name}"))
        }
        Err(error) => Err(error.clone()),
    }
}

/// A refusal is an answer, too; silence is none.
fn answers<T>(answer: &Result<T, CloudError>) -> bool {
    !matches!(answer, Err(CloudError::Unknown(_)))
}

/// Does `work` for each, a few at a time, as long as there are answers: where nobody answers, the others are not asked
/// for one after the other, but with the next listing.
async fn each<K, F>(keys: Vec<K>, work: impl Fn(K) -> F)
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut keys = keys.into_iter().map(work);
    let mut answered = true;
    while answered {
        for work in keys.by_ref().take(limits::TEMPLATE_CALLS - running.len()) {
            running.spawn(work);
        }
        match running.join_next().await {
            Some(ended) => answered = ended.unwrap_or(false),
            None => return,
        }
    }
    while running.join_next().await.is_some() {}
}
