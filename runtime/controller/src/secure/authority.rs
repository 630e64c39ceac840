//! Making certificates: an authority of our own, and one certificate for each role.
//!
//! Keys are ECDSA on P-256, made and used with ring. A certificate says what it is for: the bridge's may only answer,
//! those of controller and observer may only call, so neither can stand in for the other whatever its name.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use tenon_link::Role;
use time::OffsetDateTime;

/// Clocks of two computers may differ by this much without a new certificate being "not yet valid".
const CLOCK_ROOM_S: f64 = 3600.0;
/// An authority outlives its certificates by far: nobody has to copy a new one each year.
pub const AUTHORITY_DAYS: f64 = 3650.0;

const DAY_S: f64 = 86_400.0;

/// A certificate and the key that belongs to it, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Seconds since 1970; nothing that it signs is valid longer.
    until_s: f64,
}

/// A new authority, and what lets those who believe the one before believe it.
pub struct NewAuthority {
    pub pair: Pair,
    /// The new authority's certificate, signed by the old one.
    pub cross: Option<String>,
}

impl Authority {
    /// Of the files of an authority; `until_s` is the end of its certificate.
    pub fn of(pair: &Pair, until_s: f64) -> Result<Self> {
        let key = KeyPair::from_pem(&pair.key).context("the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key).context("the authority's certificate")?;
        Ok(Self { issuer, until_s })
    }

    /// When its certificate ends, seconds since 1970.
    pub fn until_s(&self) -> f64 {
        self.until_s
    }

    /// Makes one. `before` signs it too, so that its believers go on.
    pub fn make(now_s: f64, before: Option<&Self>) -> Result<NewAuthority> {
        let key = KeyPair::generate().context("making the authority's key")?;
        let digest = Sha256::digest(key.public_key_raw());
        let mut params = CertificateParams::default();
        // Two authorities of one name could not be told apart.
        let name = format!("Tenon authority {:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
        params.distinguished_name = named(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid(&mut params, now_s, now_s + AUTHORITY_DAYS * DAY_S)?;
        let certificate = params.self_signed(&key).context("the authority's certificate")?;
        let cross = match before {
            None => None,
            Some(before) => {
                let mut params = params.clone();
                params.use_authority_key_identifier_extension = true;
                valid(&mut params, now_s, before.until_s.min(now_s + AUTHORITY_DAYS * DAY_S))?;
                Some(
                    params.signed_by(&key, &before.issuer).context("signing the new authority with the old one")?.pem(),
                )
            }
        };
        Ok(NewAuthority { pair: Pair { certificate: certificate.pem(), key: key.serialize_pem() }, cross })
    }

    /// A certificate for a role. `names`: of the computer, for the bridge; `valid_s`: from now on.
    pub fn certify(&self, role: Role, names: &[String], now_s: f64, valid_s: f64) -> Result<Pair> {
        let key = KeyPair::generate().with_context(|| format!("making the key of the {role}"))?;
        let mut params = CertificateParams::new(names.to_vec())
            .with_context(|| format!("a name of the {role} is none: {}", names.join(", ")))?;
        params.distinguished_name = named(role.common_name());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Bridge => ExtendedKeyUsagePurpose::ServerAuth,
            Role::Controller | Role::Observer => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now_s, (now_s + valid_s).min(self.until_s))?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("certifying the {role}"))?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// The bytes of the public key that belongs to a private one.
pub fn public_key(key_pem: &str) -> Result<Vec<u8>> {
    Ok(KeyPair::from_pem(key_pem)?.public_key_raw().to_vec())
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn valid(params: &mut CertificateParams, now_s: f64, until_s: f64) -> Result<()> {
    let date =
        |s: f64| OffsetDateTime::from_unix_timestamp(s as i64).context("this computer's clock shows no usable date");
    params.not_before = date(now_s - CLOCK_ROOM_S)?;
    params.not_after = date(until_s)?;
    Ok(())
}
