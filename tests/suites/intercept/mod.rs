//! Connections that the kernel brings: real kernels, rules, sockets and programs, in network namespaces of the tests' own.
//!
//! Each claim runs in a copy of the test program, started in namespaces that end with it, so that nothing of it is seen
//! outside. It takes root, or a kernel that lets users make user namespaces, and the programs `unshare`, `ip` and `nft`;
//! a claim that cannot be tried says so in one line and is skipped, or fails if `OUTRIDER_REQUIRE_FOREIGN=1`.

mod namespace;
mod pod;

mod loops;
mod sockets;
mod starting;
mod tproxy;
