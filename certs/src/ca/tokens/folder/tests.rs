use super::*;
use crate::spiffe_id::SpiffeId;
use crate::testing::{hours, now};

/// A store in a folder that lives as long as it.
fn store() -> (tempfile::TempDir, FolderTokens) {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderTokens::new(folder.path().to_owned());
    (folder, store)
}

fn credential(number: u8) -> Credential {
    Credential::new(TokenId::from_bytes([number; 16]), [number; 32])
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://example.org/a").unwrap()
}

/// Adds a token that is good for that many hours.
fn add(store: &FolderTokens, number: u8, good_for: u64) -> Result<(), Error> {
    let credential = credential(number);
    store.add(&credential, &StoredToken::new(&credential, &id(), now() + hours(good_for)), now())
}

#[test]
fn a_token_is_good_once() {
    let (_folder, store) = store();
    add(&store, 1, 1).unwrap();
    let grant = store.check(&credential(1), now()).unwrap();
    assert_eq!(grant.spiffe_id, id());
    store.use_up(&grant).unwrap();
    assert!(matches!(store.use_up(&grant), Err(Error::Used)));
    assert!(matches!(store.check(&credential(1), now()), Err(Error::Used)));
}

#[test]
fn of_many_attempts_at_once_one_wins() {
    let (_folder, store) = store();
    add(&store, 1, 1).unwrap();
    let attempt = || store.check(&credential(1), now()).and_then(|grant| store.use_up(&grant)).is_ok();
    let won: usize = std::thread::scope(|scope| {
        let attempts: Vec<_> = (0..8).map(|_| scope.spawn(attempt)).collect();
        attempts.into_iter().map(|attempt| usize::from(attempt.join().unwrap())).sum()
    });
    assert_eq!(won, 1);
}

#[test]
fn only_the_secret_is_told_what_is_wrong() {
    let (_folder, store) = store();
    let wrong = Credential::new(TokenId::from_bytes([1; 16]), [9; 32]);
    assert!(matches!(store.check(&credential(1), now()), Err(Error::Unknown)));
    add(&store, 1, 1).unwrap();
    assert!(matches!(store.check(&wrong, now()), Err(Error::Unknown)));
    assert!(matches!(store.check(&wrong, now() + hours(2)), Err(Error::Unknown)));
    let expired = store.check(&credential(1), now() + hours(2)).unwrap_err();
    assert_eq!(expired.to_string(), "the join token expired 1h ago");
    assert!(matches!(store.check(&credential(1), now() + hours(1)), Err(Error::Expired { .. })));
    let grant = store.check(&credential(1), now()).unwrap();
    store.use_up(&grant).unwrap();
    assert!(matches!(store.check(&wrong, now()), Err(Error::Unknown)));
}

#[test]
fn the_secret_is_in_no_file() {
    let (folder, store) = store();
    let credential = Credential::new(TokenId::from_bytes([1; 16]), [0xab; 32]);
    store.add(&credential, &StoredToken::new(&credential, &id(), now() + hours(1)), now()).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("171,171,171"), "{text}");
    }
}

#[test]
fn old_files_are_swept_and_their_number_is_bounded() {
    let (folder, store) = store();
    let store = FolderTokens { capacity: 20, ..store };
    add(&store, 1, 1).unwrap();
    add(&store, 2, 50).unwrap();
    store.use_up(&store.check(&credential(1), now()).unwrap()).unwrap();
    assert_eq!(store.sweep(now() + hours(24)).unwrap(), 2);
    assert_eq!(store.sweep(now() + hours(26)).unwrap(), 1);
    assert!(matches!(store.check(&credential(1), now()), Err(Error::Unknown)));
    assert!(store.check(&credential(2), now()).is_ok());
    for number in 1..20 {
        fs::write(folder.path().join(format!("filler-{number}")), "").unwrap();
    }
    assert!(matches!(add(&store, 3, 1), Err(Error::TooMany)));
}

#[test]
fn damaged_and_oversized_files_are_errors() {
    let (folder, store) = store();
    let place = folder.path().join(format!("{}.json", credential(1).id()));
    for content in [String::new(), "{".to_owned(), " ".repeat(10_000)] {
        fs::write(&place, content).unwrap();
        assert!(matches!(store.check(&credential(1), now()), Err(Error::Io { .. })));
    }
}
