use super::*;
use proptest::prelude::*;

fn token(id: [u8; 16], secret: [u8; 32]) -> JoinToken {
    let credential = Credential::new(TokenId::from_bytes(id), secret);
    let spiffe_id = SpiffeId::parse("spiffe://example.org/a").unwrap();
    let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    JoinToken::new(credential, [9; 32], spiffe_id, expires_at).unwrap()
}

#[test]
fn a_token_tells_whom_it_is_for() {
    let token = JoinToken::parse(&format!(" {}\n", token([1; 16], [2; 32]))).unwrap();
    assert_eq!(token.spiffe_id().as_str(), "spiffe://example.org/a");
    assert_eq!(token.root_spki_sha256(), [9; 32]);
    assert_eq!(token.expires_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    assert_eq!(token.id(), TokenId::from_bytes([1; 16]));
}

#[test]
fn the_credential_is_the_tokens() {
    let token = token([1; 16], [2; 32]);
    let credential = Credential::parse(&token.bearer()).unwrap();
    assert_eq!(credential, token.credential);
    assert!(token.bearer().len() <= MAX_CREDENTIAL_BYTES);
    for wrong in ["", "orc1.", "orc1..", "orj1.aaaa", &token.to_string(), &token.bearer()[1..]] {
        assert_eq!(Credential::parse(wrong), None, "{wrong}");
    }
    assert_eq!(Credential::parse(&token.bearer().to_uppercase()), None);
    assert_eq!(Credential::parse(&format!("{}A", *token.bearer())), None);
}

#[test]
fn debug_output_shows_no_secret() {
    let token = token([1; 16], [0xee; 32]);
    let secret = URL_SAFE_NO_PAD.encode([0xee; 32]);
    assert!(token.bearer().contains(&secret));
    let shown = format!("{token:?} {:?}", token.credential);
    assert!(!shown.contains(&secret) && !shown.contains("238"), "{shown}");
    assert!(shown.contains(&"01".repeat(16)), "{shown}");
}

#[test]
fn what_is_no_whole_token_is_refused() {
    let text = token([1; 16], [2; 32]).to_string();
    assert_eq!(JoinToken::parse(""), Err(Error::Prefix));
    assert_eq!(JoinToken::parse(&text[1..]), Err(Error::Prefix));
    assert_eq!(JoinToken::parse(&text[..text.len() - 2]), Err(Error::Damaged));
    assert_eq!(JoinToken::parse(&format!("{text}=")), Err(Error::Damaged));
    assert_eq!(JoinToken::parse(&"x".repeat(MAX_TOKEN_BYTES + 1)), Err(Error::TooLong));
    let with = |json: &str| JoinToken::parse(&format!("orj1.{}", URL_SAFE_NO_PAD.encode(json)));
    assert_eq!(with("{}"), Err(Error::Damaged));
    let (id, secret) = ("00".repeat(16), URL_SAFE_NO_PAD.encode([0; 32]));
    let fields = |id: &str, secret: &str, spiffe_id: &str| {
        format!(r#"{{"id":"{id}","secret":"{secret}","root":"{secret}","spiffe_id":"{spiffe_id}","exp":1}}"#)
    };
    assert!(with(&fields(&id, &secret, "spiffe://a/b")).is_ok());
    assert_eq!(with(&fields(&id, &secret, "spiffe://a/b/")), Err(Error::Damaged));
    assert_eq!(with(&fields(&id, &secret, "spiffe://a")), Err(Error::NotAWorkload));
    assert_eq!(with(&fields("../../etc/passwd", &secret, "spiffe://a/b")), Err(Error::Damaged));
    assert_eq!(with(&fields(&id, "AAAA", "spiffe://a/b")), Err(Error::Damaged));
}

#[test]
fn the_ca_has_an_id_in_every_domain() {
    let longest = TrustDomain::parse(&"d".repeat(255)).unwrap();
    assert!(ca_spiffe_id(&longest).is_workload());
    let id = ca_spiffe_id(&TrustDomain::parse("example.org").unwrap());
    assert_eq!(id.as_str(), "spiffe://example.org/outrider/ca");
}

#[test]
fn the_longest_id_fits_into_a_token() {
    let id = SpiffeId::parse(&format!("spiffe://d/{}", "a".repeat(2048 - 11))).unwrap();
    let credential = Credential::new(TokenId::from_bytes([1; 16]), [2; 32]);
    let token = JoinToken::new(credential, [3; 32], id, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(JoinToken::parse(&token.to_string()), Ok(token));
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(JoinToken::parse(&text));
        drop(JoinToken::parse(&format!("orj1.{}", URL_SAFE_NO_PAD.encode(bytes))));
        drop(Credential::parse(&text));
        drop(Credential::parse(&format!("orc1.{text}")));
    }

    #[test]
    fn what_is_displayed_is_read_back(
        id in any::<[u8; 16]>(),
        secret in any::<[u8; 32]>(),
        root in any::<[u8; 32]>(),
        seconds in 0..=MAX_SECONDS,
        path in "(/[a-zA-Z0-9_-]{1,20}){1,4}",
    ) {
        let spiffe_id = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
        let expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let credential = Credential::new(TokenId::from_bytes(id), secret);
        let token = JoinToken::new(credential.clone(), root, spiffe_id, expires_at).unwrap();
        prop_assert_eq!(JoinToken::parse(&token.to_string()), Ok(token.clone()));
        prop_assert_eq!(Credential::parse(&token.bearer()), Some(credential));
        prop_assert_eq!(TokenId::parse(&token.id().to_string()), Some(token.id()));
    }
}
