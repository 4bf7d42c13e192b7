//! Jobs of a batch system such as Slurm, as its prologs write them for dcgm-exporter: a folder with a file for each GPU in use, named by the GPU's index
//! (`0`) or by index and GPU instance (`0.7`), with a job's id on each line. Read every second, with limits; a folder that is not there yet has no jobs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config::limits;
use crate::live::Live;

/// Pause between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Entries of the folder that are looked at: sixteen GPUs with seven instances each are 128.
const FILES_MAX: usize = 512;
/// Largest file.
const FILE_MAX: u64 = 4 << 10;
/// Jobs of one device that are kept.
const JOBS_MAX: usize = 32;
/// Longest id of a job, in bytes.
const JOB_MAX: usize = 64;

/// A GPU by its index, and a GPU instance of it by its id.
type Place = (u32, Option<u32>);

/// Which jobs run where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs {
    on: BTreeMap<Place, Vec<Arc<str>>>,
    /// Whether the folder could be read; `None` where nobody asked for it.
    pub readable: Option<bool>,
}

/// Where the last look is published.
pub type Latest = Arc<ArcSwap<Jobs>>;

impl Jobs {
    /// The job that has a device for itself: the instance's, else that of the whole GPU. Where several share it, nobody does.
    #[must_use]
    pub fn alone(&self, gpu: u32, instance: Option<u32>) -> Option<&Arc<str>> {
        let jobs = self.on.get(&(gpu, instance)).or_else(|| self.on.get(&(gpu, None)))?;
        jobs.first().filter(|_| jobs.len() == 1)
    }

    /// Every job with its GPU and, where it is named, its GPU instance.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &Arc<str>)> {
        self.on.iter().flat_map(|(place, jobs)| jobs.iter().map(|job| (*place, job)))
    }

    fn read(folder: &Path) -> Result<Self, String> {
        let mut jobs = Self { readable: Some(true), ..Self::default() };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(jobs),
            Err(error) => return Err(error.to_string()),
        };
        for entry in entries.take(FILES_MAX) {
            let entry = entry.map_err(|error| error.to_string())?;
            let Some(place) = entry.file_name().to_str().and_then(place) else { continue };
            // A pipe would keep us waiting. A file that has gone since is a job that has ended.
            if entry.path().metadata().is_ok_and(|about| about.is_file())
                && let Ok(text) = crate::config::read(&entry.path(), FILE_MAX)
            {
                jobs.on.insert(place, ids(&text));
            }
        }
        Ok(jobs)
    }
}

/// `0`, `0.7`.
fn place(name: &str) -> Option<Place> {
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match name.split_once('.') {
        Some((gpu, instance)) => Some((number(gpu)?, Some(number(instance)?))),
        None => Some((number(name)?, None)),
    }
}

/// The ids in a file: each once, in its order.
fn ids(text: &[u8]) -> Vec<Arc<str>> {
    let mut ids: Vec<Arc<str>> = Vec::new();
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| Some(std::str::from_utf8(line).ok()?.trim()));
    for id in lines.filter(|id| !id.is_empty() && id.len() <= JOB_MAX && !id.contains(char::is_control)) {
        if ids.len() < JOBS_MAX && ids.iter().all(|known| **known != *id) {
            ids.push(id.into());
        }
    }
    ids
}

/// What the bytes of a file with this name say: for whoever tests this with bytes of their own.
#[must_use]
pub fn parse(name: &str, text: &[u8]) -> Jobs {
    Jobs { on: place(name).map(|place| (place, ids(text))).into_iter().collect(), readable: Some(true) }
}

/// Looks until cancelled, at the folder that the settings name.
pub async fn follow(live: Arc<Live>, latest: Latest, stop: CancellationToken) -> anyhow::Result<()> {
    let mut changes = live.changes();
    loop {
        let folder = changes.borrow_and_update().hpc_job_mapping_dir.clone();
        latest.store(Arc::default());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = watch(folder.as_deref(), &latest) => return ended,
            changed = changes.wait_for(|config| config.hpc_job_mapping_dir != folder) => drop(changed?),
        }
    }
}

/// Looks every second. One look that hangs is told of and awaited, and no second one sent after it.
async fn watch(folder: Option<&Path>, latest: &Latest) -> anyhow::Result<()> {
    let Some(folder) = folder else { return std::future::pending().await };
    let mut complaint = None;
    let mut publish = |read: Result<Jobs, String>| {
        let wrong = read.as_ref().err().cloned();
        if let Some(wrong) = wrong.as_ref().filter(|wrong| complaint.as_ref() != Some(*wrong)) {
            let folder = folder.display();
            tracing::warn!("--hpc-job-mapping-dir {folder}: {wrong}; no jobs are shown until it can be read");
        }
        complaint = wrong;
        latest.store(Arc::new(read.unwrap_or(Jobs { readable: Some(false), ..Jobs::default() })));
    };
    loop {
        let path = folder.to_owned();
        let mut reading = tokio::task::spawn_blocking(move || Jobs::read(&path));
        let read = match tokio::time::timeout(limits::FILE_WAIT, &mut reading).await {
            Ok(read) => read?,
            Err(_elapsed) => {
                publish(Err(format!("not read within {:?}", limits::FILE_WAIT)));
                reading.await?
            }
        };
        publish(read);
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let jobs = Jobs::read(folder.path()).unwrap();
        jobs.iter().map(|((gpu, instance), job)| format!("{gpu} {instance:?} {job}")).collect()
    }

    #[test]
    fn feature_46_a_file_names_the_jobs_of_a_gpu_or_of_an_instance() {
        let files = [
            ("0", "4711\n"),
            ("1", "12_3\n\n 99.batch \n12_3\n"),
            ("0.7", "5"),
            ("README", "6"),
            (".0", "7"),
            ("-1", "8"),
        ];
        assert_eq!(read(&files), ["0 None 4711", "0 Some(7) 5", "1 None 12_3", "1 None 99.batch"]);
        let many: String = (0..100).map(|job| format!("{job}\n")).collect();
        assert_eq!(read(&[("0", &many)]).len(), JOBS_MAX);
        assert_eq!(read(&[("0", &"x".repeat(65)), ("1", "a\u{7}b"), ("2", &"1\n".repeat(4000))]), [""; 0]);
        let nowhere = Jobs::read(Path::new("/nowhere/at/all")).unwrap();
        assert_eq!((nowhere.iter().count(), nowhere.readable), (0, Some(true)), "no job has run yet");
    }

    #[test]
    fn a_device_of_several_jobs_is_nobodys_alone() {
        let mut jobs = parse("0", b"1");
        jobs.on.extend(parse("0.7", b"2").on);
        jobs.on.extend(parse("1", b"3\n4").on);
        let alone = |gpu, instance| jobs.alone(gpu, instance).map(|job| &**job);
        assert_eq!(
            [alone(0, None), alone(0, Some(7)), alone(0, Some(8)), alone(1, None), alone(2, None)],
            [Some("1"), Some("2"), Some("1"), None, None]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(name in ".{0,12}", text: Vec<u8>) {
            for (_, job) in parse(&name, &text).iter() {
                proptest::prop_assert!(!job.is_empty() && job.len() <= JOB_MAX);
            }
        }
    }
}
