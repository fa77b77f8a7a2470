//! The tokens that a server knows, and the check that its listeners make.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::watch;

use super::{Grant, MAX_TOKEN, Token, TokenEntry};

/// The maximum number of tokens in an [`Access`]: every presented token is compared with each of them.
pub const MAX_TOKENS: usize = 4_096;

/// How often the wall clock is checked. If it is set, an expired token goes unnoticed for this long at most.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Why a list of tokens is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Two entries have the same name.
    #[error("two tokens are named {name:?}; give each a name of its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// Two entries are the same token.
    #[error("{name:?} and {other:?} are the same token; make another one for each")]
    SameToken {
        /// One of them.
        name: String,
        /// The other one.
        other: String,
    },
    /// A name is not suitable for a log line.
    #[error("a token's name has 1 to 64 characters, none of them a control character")]
    BadName,
    /// There are more than [`MAX_TOKENS`].
    #[error("there are {count} tokens; give at most {MAX_TOKENS}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

/// Tokens with rights, which can be replaced while servers run. All clones are the same list: give one to
/// each listener.
///
/// ```
/// use psa::server::{Access, TokenEntry};
///
/// let token = "what psa token new has printed";
/// let mut entry = TokenEntry::new("billing", Access::sha256(token));
/// entry.subscribe = vec!["orders/*".parse()?];
/// let access = Access::new(vec![entry])?;
/// assert_eq!(access.tokens(), 1);
/// access.replace(Vec::new())?; // clients that use this token are disconnected
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Access(Arc<KnownTokens>);

struct KnownTokens {
    entries: watch::Sender<Arc<[Arc<TokenEntry>]>>,
    /// Incremented under the lock of `entries`, so that a task that their change wakes sees the new number.
    revision: AtomicU64,
}

impl Access {
    /// Creates a list of these tokens. It may be empty: then only the shared token is admitted.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says which entries are invalid or conflict.
    pub fn new(entries: Vec<TokenEntry>) -> Result<Self, AccessError> {
        let entries = watch::Sender::new(checked(entries)?);
        Ok(Self(Arc::new(KnownTokens { entries, revision: AtomicU64::new(0) })))
    }

    /// Replaces all known tokens with these. Clients whose token is no longer among them are disconnected; what they
    /// have already received is not affected.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); the previous tokens then stay in force.
    pub fn replace(&self, entries: Vec<TokenEntry>) -> Result<(), AccessError> {
        let new = checked(entries)?;
        self.update(|entries| *entries = new);
        Ok(())
    }

    /// The hash of a token, as its [entry](TokenEntry::sha256) contains it.
    #[must_use]
    pub fn sha256(token: &str) -> [u8; 32] {
        Sha256::digest(token).into()
    }

    /// The number of known tokens, including expired ones.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.0.entries.borrow().len()
    }

    /// Changes the entries, increments the revision, and wakes everyone who waits for a change.
    fn update(&self, change: impl FnOnce(&mut Arc<[Arc<TokenEntry>]>)) {
        self.0.entries.send_modify(|entries| {
            change(entries);
            // Release: a reader that sees the new number finds the new entries anyway, because they are behind the
            // lock. This only keeps the number from being seen before the lock is taken.
            self.0.revision.fetch_add(1, Ordering::Release);
        });
    }

    /// A number that changes whenever the rights of some token may have changed.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the TCP listener asks"))]
    fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    fn entries(&self) -> Arc<[Arc<TokenEntry>]> {
        self.0.entries.borrow().clone()
    }

    fn find(&self, presented: &str) -> Option<Grant> {
        let entries = self.entries();
        let digest = Self::sha256(presented);
        let mut found = u32::MAX;
        // Always goes on to the last entry, without a branch on what was found: see the module's documentation.
        for (at, entry) in (0..).zip(entries.iter()) {
            found.conditional_assign(&at, entry.sha256.ct_eq(&digest));
        }
        let entry = entries.get(found as usize)?;
        (!entry.is_expired(SystemTime::now())).then(|| Grant::of(entry.clone()))
    }

    /// The current grant of a token that was admitted before; `None` if it is no longer known or has expired.
    fn renew(&self, old: &TokenEntry) -> Option<Grant> {
        let entries = self.entries();
        // The hash that is looked for is that of a known token, so the time this takes reveals nothing.
        let entry = entries.iter().find(|entry| entry.sha256 == old.sha256)?;
        (!entry.is_expired(SystemTime::now())).then(|| Grant::of(entry.clone()))
    }

    /// Reports a change whenever a token expires. Never ends.
    async fn watch_expiry(&self) {
        let mut changes = self.0.entries.subscribe();
        // Expirations up to this time have been reported. At first, none have: a client that was admitted earlier
        // relies on being told of its token's expiry.
        let mut reported = SystemTime::UNIX_EPOCH;
        loop {
            // The time is read before the list is taken. A list that comes later is a change in itself, and
            // whoever learns of that change checks at a later time than this. Each round reports what expired
            // between two such times, so nothing expires between them unnoticed.
            let now = SystemTime::now();
            let entries = changes.borrow_and_update().clone();
            let before = std::mem::replace(&mut reported, now);
            if entries.iter().any(|entry| entry.is_expired(before) != entry.is_expired(now)) {
                self.update(|_| {});
                continue;
            }
            let left = entries.iter().filter_map(|entry| entry.left(now));
            // Waiting for a change cannot fail, because `self` holds the sender.
            if let Some(soonest) = left.filter(|left| !left.is_zero()).min() {
                let _ = tokio::time::timeout(soonest.min(CHECK_EVERY), changes.changed()).await;
            } else {
                let _ = changes.changed().await;
            }
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({} tokens)", self.tokens())
    }
}

fn checked(entries: Vec<TokenEntry>) -> Result<Arc<[Arc<TokenEntry>]>, AccessError> {
    let count = entries.len();
    if count > MAX_TOKENS {
        return Err(AccessError::TooMany { count });
    }
    let mut names = HashSet::new();
    let mut tokens = std::collections::HashMap::new();
    for entry in &entries {
        let name = &entry.name;
        if name.is_empty() || name.chars().count() > 64 || name.contains(char::is_control) {
            return Err(AccessError::BadName);
        }
        if !names.insert(name) {
            return Err(AccessError::SameName { name: name.clone() });
        }
        if let Some(other) = tokens.insert(entry.sha256, name) {
            return Err(AccessError::SameToken { name: name.clone(), other: other.clone() });
        }
    }
    Ok(entries.into_iter().map(Arc::new).collect())
}

/// A listener's check: decides which tokens it admits, and what they may do.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    token: Option<Token>,
    access: Option<Access>,
}

impl Gate {
    pub(crate) fn new(token: Option<Token>, access: Option<Access>) -> Self {
        Self { token, access }
    }

    /// Whether every client is admitted, with or without a token.
    pub(crate) fn is_open(&self) -> bool {
        self.token.is_none() && self.access.is_none()
    }

    /// What is wrong with the shared token, if anything.
    pub(crate) fn validation_error(&self) -> Option<String> {
        self.token.as_ref().and_then(Token::validation_error).map(str::to_owned)
    }

    /// The grant for the token `presented`; `None` if it is not admitted.
    pub(crate) fn admit(&self, presented: &str) -> Option<Grant> {
        if self.is_open() {
            return Some(Grant::ALL);
        }
        let shared = self.token.as_ref().is_some_and(|token| token.matches(presented));
        if shared {
            return Some(Grant::ALL);
        }
        // A longer text cannot be a known token, and is not worth hashing.
        let access = self.access.as_ref().filter(|_| presented.len() <= MAX_TOKEN)?;
        access.find(presented)
    }

    /// The grant's current rights; `None` if its token was removed or has expired.
    pub(crate) fn renew(&self, grant: &Grant) -> Option<Grant> {
        match (grant.entry(), &self.access) {
            (None, _) => Some(Grant::ALL),
            (Some(entry), Some(access)) => access.renew(entry),
            (Some(_), None) => None,
        }
    }

    /// A number that changes whenever a grant may have changed.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "the TCP listener asks"))]
    pub(crate) fn revision(&self) -> u64 {
        self.access.as_ref().map_or(0, Access::revision)
    }

    /// A receiver of changes of the rights. `None` if they never change.
    pub(crate) fn changes(&self) -> Option<AccessChanges> {
        self.access.as_ref().map(|access| AccessChanges(access.0.entries.subscribe()))
    }

    /// Reports a change whenever a token expires. Never ends. Several listeners may run this at the same time.
    pub(crate) async fn watch_expiry(&self) {
        match &self.access {
            Some(access) => access.watch_expiry().await,
            None => std::future::pending().await,
        }
    }
}

/// Receives changes of the rights: a new list, or a token that expired.
pub(crate) struct AccessChanges(watch::Receiver<Arc<[Arc<TokenEntry>]>>);

impl AccessChanges {
    /// Waits for the next change. Cancel safe.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Every `Access` is gone, so nothing can change any more.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;

    fn entry(name: &str, token: &str) -> TokenEntry {
        TokenEntry::new(name, Access::sha256(token))
    }

    fn gate(entries: Vec<TokenEntry>) -> Gate {
        Gate::new(None, Some(Access::new(entries).unwrap()))
    }

    #[test]
    fn the_hash_is_sha_256() {
        let hex: String = Access::sha256("abc").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn each_token_is_its_own_wherever_it_stands() {
        let all: Vec<_> = (0..50).map(|i| entry(&format!("n{i}"), &format!("t{i}"))).collect();
        let gate = gate(all);
        for i in 0..50 {
            assert_eq!(gate.admit(&format!("t{i}")).unwrap().name(), format!("n{i}"));
        }
        for wrong in ["", "t", "t50", "n1", "T1", "t1 ", &"x".repeat(100_000)] {
            assert!(gate.admit(wrong).is_none());
        }
        assert!(!gate.is_open() && gate_of_nobody().admit("").is_none());
    }

    fn gate_of_nobody() -> Gate {
        gate(Vec::new())
    }

    #[test]
    fn the_shared_token_stays_beside_the_others() {
        let access = Access::new(vec![entry("a", "one")]).unwrap();
        let gate = Gate::new(Some(Token::new("shared")), Some(access));
        assert!(!gate.admit("shared").unwrap().is_limited());
        assert!(gate.admit("one").unwrap().is_limited());
        assert!(gate.admit("").is_none());
        assert!(Gate::new(None, None).admit("anything").is_some());
    }

    #[test]
    fn an_expired_token_is_none() {
        let mut late = entry("late", "late");
        late.expires = Some(SystemTime::now() - Duration::from_secs(1));
        let mut soon = entry("soon", "soon");
        soon.expires = Some(SystemTime::now() + Duration::from_secs(3600));
        let gate = gate(vec![late, soon]);
        assert!(gate.admit("late").is_none() && gate.admit("soon").is_some());
    }

    #[test]
    fn a_new_list_changes_what_was_granted() {
        let mut first = entry("a", "a");
        first.publish = vec!["*".parse().unwrap()];
        let access = Access::new(vec![first, entry("b", "b")]).unwrap();
        let gate = Gate::new(None, Some(access.clone()));
        let (a, b) = (gate.admit("a").unwrap(), gate.admit("b").unwrap());
        assert!(a.check(Right::Publish, "t").is_ok());
        let before = gate.revision();
        access.replace(vec![entry("a", "a")]).unwrap();
        assert_ne!(gate.revision(), before);
        assert!(gate.renew(&a).unwrap().check(Right::Publish, "t").is_err());
        assert!(gate.renew(&b).is_none());
    }

    #[test]
    fn a_bad_list_changes_nothing() {
        let access = Access::new(vec![entry("a", "a")]).unwrap();
        let refused = |entries| access.replace(entries).unwrap_err();
        let same = refused(vec![entry("x", "1"), entry("x", "2")]);
        assert_eq!(same, AccessError::SameName { name: "x".into() });
        let same = refused(vec![entry("x", "1"), entry("y", "1")]);
        assert_eq!(same, AccessError::SameToken { name: "y".into(), other: "x".into() });
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert_eq!(refused(vec![entry(bad, "1")]), AccessError::BadName);
        }
        let many = (0..=MAX_TOKENS).map(|i| entry(&i.to_string(), &i.to_string())).collect();
        assert_eq!(refused(many), AccessError::TooMany { count: MAX_TOKENS + 1 });
        assert_eq!((access.tokens(), access.revision()), (1, 0));
    }

    #[test]
    fn nothing_shows_a_hash() {
        let all = format!("{:?}", Access::sha256("a"));
        let shown = format!("{:?} {:?}", entry("a", "a"), Access::new(vec![entry("a", "a")]));
        assert!(!shown.contains(&all) && shown.contains("Access(1 tokens)"), "{shown}");
    }

    /// A gate whose tokens' expiry is watched until the test ends, and its changes.
    fn watched(access: &Access) -> (Gate, AccessChanges) {
        let gate = Gate::new(None, Some(access.clone()));
        let changes = gate.changes().unwrap();
        let watcher = gate.clone();
        tokio::spawn(async move { watcher.watch_expiry().await });
        (gate, changes)
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_of_a_list_and_of_an_end() {
        let access = Access::new(vec![entry("soon", "soon")]).unwrap();
        let (gate, mut changes) = watched(&access);
        let grant = gate.admit("soon").unwrap();
        let mut soon = entry("soon", "soon");
        // The wall clock counts, which cannot be paused; tokio's clock runs ahead of it in this test.
        soon.expires = Some(SystemTime::now() + Duration::from_millis(50));
        access.replace(vec![soon]).unwrap();
        changes.next().await;
        while gate.renew(&grant).is_some() {
            changes.next().await;
        }
        access.replace(vec![entry("a", "a")]).unwrap();
        changes.next().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_expires_before_anybody_looks_is_told() {
        let mut gone = entry("gone", "gone");
        gone.expires = Some(SystemTime::now());
        let access = Access::new(vec![gone]).unwrap();
        // A client that was admitted just before would stay connected if it were not told now.
        let (_, mut changes) = watched(&access);
        tokio::time::timeout(Duration::from_secs(3600), changes.next()).await.unwrap();
    }
}
