//! State files of other versions of the program, and what else may stand where one is looked for.

use super::*;
use crate::{expander::bought::Limits, timestamp::Timestamp};

/// As the first versions wrote it: nothing of orders, zones, announced ends, nodes that taught, or a format.
const EARLY: &str = r#"{"fleet":{
  "intents":[{"id":"w-1-18","group":"g","at":100,"units":[
    {"launch":1,"state":"waiting"},{"launch":1,"state":{"machine":"i-1"}},{"launch":0,"state":"done"},
    {"launch":1,"state":{"refused":[{"class":"no-capacity","code":"ICE","message":"none"},200]}}]}],
  "gone":{"i-0":{"group":"g","at":50}}},
 "bought":{"purchases":{"w-1-18":{"group":"g","at":100,"alive":1,"registered":0,"registered_at":null,"pods":[["pod-a",0]]}}},
 "offerings":{"refused":{"t z spot":{"why":"ICE: none","times":1,"until":900}}}}"#;

fn read(bytes: &[u8]) -> anyhow::Result<Option<Kept>> {
    let folder = tempfile::tempdir()?;
    let file = File::new(folder.path().join("state.json"));
    fs::write(&file.path, bytes)?;
    file.read()
}

/// What is on its way, whether the pod is covered, and how many refusals are remembered.
fn holds(kept: &Kept) -> (u32, bool, bool) {
    let mut bought = kept.bought.clone();
    bought.set_limits(Limits::default());
    let refused = serde_json::to_string(&kept.offerings).unwrap().contains("ICE");
    let waiting = serde_json::to_value(&kept.fleet).unwrap().to_string().matches("\"waiting\"").count();
    (u32::try_from(waiting).unwrap(), bought.covers("pod-a", Timestamp(1_000)), refused)
}

#[test]
fn what_an_earlier_version_kept_is_read() {
    let later = EARLY.replacen('{', r#"{"format":1,"#, 1);
    let with_more = EARLY.replace(r#""launch":1,"#, r#""launch":1,"standing":false,"sinceThen":{"a":[1]},"#);
    for text in [EARLY, &later, &with_more] {
        let kept = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(holds(&kept), (1, true, true), "{text}");
    }
}

#[tokio::test]
async fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::new(folder.path().join("state.json"));
    assert!(file.read().unwrap().is_none(), "nothing was kept yet");
    file.write(&read(EARLY.as_bytes()).unwrap().unwrap()).await.unwrap();
    assert_eq!(holds(&file.read().unwrap().unwrap()), (1, true, true));
    let text = fs::read_to_string(&file.path).unwrap();
    assert!(text.starts_with(r#"{"format":1,"#), "{text}");
}

/// Nothing is made of such a file: a provider that went on without it might buy again what is on its way.
#[test]
fn what_cannot_be_read_whole_is_refused_with_what_to_do() {
    let newer = EARLY.replacen('{', r#"{"format":2,"units":"told otherwise","#, 1);
    let negative = EARLY.replace(r#""alive":1"#, r#""alive":-1"#);
    let unknown_word = EARLY.replace(r#""waiting""#, r#""promised""#);
    let doomed_as_a_list = EARLY.replace(r#""gone""#, r#""doomed":["i-1"],"gone""#);
    let without_purchases = r#"{"fleet":{},"offerings":{"refused":{}}}"#;
    let deep = "[".repeat(100_000);
    for (what, text, said) in [
        ("a newer version's", newer.as_bytes(), "written by a newer windlass-provider (format 2, this one knows 1)"),
        ("nothing", b"", "is damaged"),
        ("zeros", &[0; 4096], "is damaged"),
        ("no text", &[0xff, 0xfe, b'{'], "is damaged"),
        ("another program's", br#"{"apiVersion":"v1","kind":"List"}"#, "is damaged, or of another program"),
        ("a list", b"[]", "is damaged"),
        ("deep", deep.as_bytes(), "is damaged"),
        ("a number below zero", negative.as_bytes(), "is damaged"),
        ("a word we do not know", unknown_word.as_bytes(), "is damaged"),
        ("the very first list of machines to end", doomed_as_a_list.as_bytes(), "is damaged"),
        ("no purchases", without_purchases.as_bytes(), "missing field `bought`"),
    ] {
        let error = format!("{:#}", read(text).unwrap_err());
        assert!(error.contains(said) && error.contains("move it away to start without it"), "{what}: {error}");
    }
}

#[test]
fn a_file_that_was_cut_anywhere_is_refused() {
    for length in 0..EARLY.len() {
        assert!(read(&EARLY.as_bytes()[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_folder_in_its_place_is_told_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let error = File::new(folder.path().to_owned()).read().unwrap_err();
    assert!(format!("{error:#}").contains("check the key `state`"), "{error:#}");
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(at in 0..EARLY.len(), byte: u8) {
        let mut bytes = EARLY.as_bytes().to_vec();
        bytes[at] = byte;
        let _kept = serde_json::from_slice::<Kept>(&bytes).map(|kept| holds(&kept));
    }
}
