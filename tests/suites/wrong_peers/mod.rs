//! Peers that are not who they should be: none gets a byte through, in or out, and each is counted by its reason.

mod inbound;
mod openssl;
mod outbound;
mod wire;
