//! Basic authentication against bcrypt hashes. A hash costs tens of milliseconds of a core by design, so that one is computed at a time, away
//! from the loop, and who was let in once is remembered under a keyed digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use crate::config::web::Secret;

/// Salt and digest of a hash that no password is known for.
const NOBODY: &str = "SnoEmAYqWbESPVva0tgEvuMmKXj0O3APVtirti6RQCSAEixYVeHt.";
/// Remembered admissions. More than there are users means that a password was changed.
const REMEMBERED: usize = 100;

/// Who may read.
pub(super) struct Users {
    hashes: BTreeMap<String, Secret>,
    /// What an unknown user's password is compared with: as costly as the costliest, so that the time of the answer does not tell who exists.
    nobody: String,
    admitted: Mutex<BTreeSet<Vec<u8>>>,
    /// Made only where there are users: the first random number costs a tenth of a second and half a megabyte.
    key: Option<hmac::Key>,
    turn: Arc<Semaphore>,
}

impl Users {
    /// Users with their hashes; none lets everybody in. Fails only where the system has no random numbers.
    pub(super) fn new(hashes: BTreeMap<String, Secret>) -> Result<Self, String> {
        let random = || hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new());
        let key = (!hashes.is_empty()).then(random).transpose();
        let key = key.map_err(|_| "the system gives no random numbers".to_owned())?;
        let cost = |hash: &Secret| Some(hash.0.parse::<bcrypt::HashParts>().ok()?.get_cost());
        let nobody = format!("$2b${:02}${NOBODY}", hashes.values().filter_map(cost).max().unwrap_or_default());
        Ok(Self { hashes, nobody, admitted: Mutex::default(), key, turn: Arc::new(Semaphore::new(1)) })
    }

    /// Whether everybody is let in.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether the `Authorization` header opens the door.
    pub(super) async fn admit(&self, authorization: Option<&str>) -> bool {
        let Some(key) = &self.key else { return true };
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        let known = self.hashes.get(&user);
        let hash = known.map_or(&self.nobody, |hash| &hash.0).clone();
        let tag = hmac::sign(key, format!("{user}\0{hash}\0{password}").as_bytes()).as_ref().to_vec();
        if self.admitted().contains(&tag) {
            return true;
        }
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return false };
        // The turn goes along: a client that leaves does not make room for another hash beside the one it asked for.
        let verified = tokio::task::spawn_blocking(move || {
            let fits = bcrypt::verify(password, &hash).unwrap_or(false);
            drop(turn);
            fits
        });
        let admitted = verified.await.unwrap_or(false) && known.is_some();
        if admitted {
            let mut remembered = self.admitted();
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(tag);
        }
        admitted
    }

    fn admitted(&self) -> std::sync::MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// User and password out of `Basic …`.
#[must_use]
pub fn credentials(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[tokio::test]
    async fn who_is_known_is_let_in_and_remembered() {
        let hash = bcrypt::hash_with_salt("open:sesame", 4, [7; 16]).unwrap().to_string();
        // As `htpasswd` writes it, and older programs.
        let [by_htpasswd, old] = ["$2y$", "$2a$"].map(|prefix| Secret(hash.replace("$2b$", prefix)));
        let users = [("alice".to_owned(), Secret(hash)), ("carol".to_owned(), by_htpasswd), ("dave".to_owned(), old)];
        let users = Users::new(users.into()).unwrap();
        for (header, expect) in [
            (Some(basic("alice:open:sesame")), true),
            (Some(basic("alice:open:sesame").replace("Basic", "bAsIc ")), true),
            (Some(basic("carol:open:sesame")), true),
            (Some(basic("dave:open:sesame")), true),
            (Some(basic("alice:wrong")), false),
            (Some(basic("bob:open:sesame")), false),
            (Some(basic("alice")), false),
            (Some("Bearer open".to_owned()), false),
            (Some("Basic §".to_owned()), false),
            (Some(String::new()), false),
            (None, false),
        ] {
            assert_eq!(users.admit(header.as_deref()).await, expect, "{header:?}");
        }
        assert_eq!(users.admitted().len(), 3);
        assert!(Users::new(BTreeMap::new()).unwrap().admit(None).await, "no users: no door");
    }

    #[test]
    fn a_stranger_costs_as_much_as_the_costliest_user() {
        let hash = |cost| Secret(bcrypt::hash_with_salt("x", cost, [7; 16]).unwrap().to_string());
        let users = Users::new([("alice".to_owned(), hash(4)), ("bob".to_owned(), hash(6))].into()).unwrap();
        assert_eq!(users.nobody.parse::<bcrypt::HashParts>().unwrap().get_cost(), 6);
        assert!(!bcrypt::verify("x", &users.nobody).unwrap(), "it is a whole hash, and computed");
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(header in "\\PC*", encoded in "[Bb]asic [A-Za-z0-9+/=]{0,20}") {
            let _any = (credentials(&header), credentials(&encoded));
        }
    }
}
