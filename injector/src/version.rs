//! Which versions of Kubernetes will do.

use std::fmt;

/// The first version whose sidecars start before a pod's containers and end after them, unless it was switched off.
pub const OLDEST: Version = Version { major: 1, minor: 29 };

/// A version of Kubernetes, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second one.
    pub minor: u32,
}

/// Why a version will not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no version.
    #[error("{0:?} is no version of Kubernetes such as 1.33")]
    NotOne(String),
    /// It is too old.
    #[error(
        "Kubernetes {0} is too old: it has no sidecar containers (init containers with restartPolicy: Always), which \
         start before a pod's own containers and end after them; use {OLDEST} or newer"
    )]
    TooOld(Version),
}

impl Version {
    /// Reads `1.33`, `v1.33.2`, `v1.33.2-eks-1234`, `v1.29.0+k3s1`.
    ///
    /// # Errors
    /// [`Error::NotOne`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let number = |part: Option<&str>| {
            let part = part?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part.get(..digits)?.parse().ok()
        };
        let mut parts = text.trim().trim_start_matches('v').split('.');
        let (major, minor) = (number(parts.next()), number(parts.next()));
        match (major, minor) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(Error::NotOne(text.chars().take(40).collect())),
        }
    }

    /// This version, if it will do.
    ///
    /// # Errors
    /// [`Error::TooOld`].
    pub fn checked(self) -> Result<Self, Error> {
        if self >= OLDEST { Ok(self) } else { Err(Error::TooOld(self)) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_api_servers_tell_them() {
        for text in ["1.33", "v1.33.2", "v1.33.2-eks-1-2", "1.33+", "v1.33.0+k3s1"] {
            assert_eq!(Version::parse(text), Ok(Version { major: 1, minor: 33 }), "{text}");
        }
        for text in ["", "1", "latest", "v.1", "1.x"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn before_1_29_there_are_no_sidecars() {
        let check = |text| Version::parse(text).unwrap().checked();
        assert!(check("1.28.15").unwrap_err().to_string().contains("restartPolicy"));
        assert!(check("v1.29.0").is_ok() && check("2.0").is_ok() && check("1.100").is_ok());
    }
}
