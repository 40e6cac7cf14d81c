//! Policies as objects of the cluster, and what becomes of them at sidecars.

mod allowed;
