//! The one OS thread that owns the driver: it answers requests for readings, and opens a lost session again with growing pauses.
//! Calls to one GPU are made by a thread behind this one (`nvml/worker.rs`); a library that hangs while it opens, or
//! before it has said how many GPUs there are, holds this thread and nothing else.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Absence, CallLog, Gpus, Reading, nvml};

/// First pause after a session could not be opened; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two attempts: a driver that an operator installs is found within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// So long a session that ended is waited for to close its library: a driver that was upgraded has a new one in the same place.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// What the thread answers.
#[derive(Debug)]
pub struct Answer {
    /// The reading, or why there is none.
    pub reading: Result<Reading, Absence>,
    /// Calls since the thread started.
    pub log: CallLog,
}

struct Request {
    now: Duration,
    reply: oneshot::Sender<Answer>,
}

/// The door to the thread. The thread ends when the last door is dropped and the call in progress returns.
#[derive(Debug, Clone)]
pub struct GpuThread {
    requests: SyncSender<Request>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Request at {:?}", self.now)
    }
}

impl GpuThread {
    /// Starts the thread. `library` is the only library tried; without it, the usual places are searched.
    pub fn start(library: Option<PathBuf>) -> std::io::Result<Self> {
        // One place in the queue: a second request while the first is being answered is refused, never stored.
        let (requests, inbox) = sync_channel(1);
        std::thread::Builder::new().name("nvml".into()).spawn(move || serve(library, &inbox))?;
        Ok(Self { requests })
    }

    /// Asks for a reading. `None` when the thread still works on an earlier request: the driver hangs.
    #[must_use]
    pub fn ask(&self, now: Duration) -> Option<oneshot::Receiver<Answer>> {
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(Request { now, reply }) {
            Ok(()) => Some(answer),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

fn serve(library: Option<PathBuf>, inbox: &Receiver<Request>) {
    let memory = nvml::Memory::default();
    let mut pause = PAUSE_MIN;
    let mut not_before = Duration::ZERO;
    let mut closing = nvml::Library::default();
    let mut patience = Duration::ZERO;
    let mut absence = Absence { cause: "starting", message: "NVML has not been opened yet".into() };
    while let Ok(request) = inbox.recv() {
        if request.now < not_before || (closing.is_open() && request.now < patience) {
            answer(request, Err(absence.clone()), &memory);
            continue;
        }
        let opened = nvml::open(library.as_deref()).and_then(|library| {
            let no_thread =
                |error| Absence { cause: "no_thread", message: format!("no thread for NVML calls: {error}") };
            nvml::Session::new(library, memory.clone()).map_err(no_thread)
        });
        match opened {
            Ok(mut session) => {
                pause = PAUSE_MIN;
                closing = session.library();
                let Some((ended, at)) = attend(&mut session, request, (inbox, &memory)) else { return };
                (absence, not_before, patience) = (ended, at + PAUSE_MIN, at + CLOSING_MAX);
            }
            Err(refused) => {
                absence = refused;
                memory.not_opened(&absence);
                not_before = request.now + pause;
                pause = (pause * 2).min(PAUSE_MAX);
                answer(request, Err(absence.clone()), &memory);
            }
        }
    }
}

/// Answers requests from one session until it breaks; returns why and when, or nothing when nobody can ask any more.
fn attend(
    gpus: &mut dyn Gpus,
    first: Request,
    (inbox, memory): (&Receiver<Request>, &nvml::Memory),
) -> Option<(Absence, Duration)> {
    let mut request = first;
    loop {
        let now = request.now;
        let reading = gpus.read(now);
        let broken = reading.as_ref().err().cloned();
        answer(request, reading, memory);
        if let Some(absence) = broken {
            return Some((absence, now));
        }
        request = inbox.recv().ok()?;
    }
}

fn answer(request: Request, reading: Result<Reading, Absence>, memory: &nvml::Memory) {
    // Whoever asked may have given up at its deadline: then nobody needs the answer.
    let _asker_gone = request.reply.send(Answer { reading, log: memory.log() });
}
