//! The relay stage: bytes and bodies, both ways, with bounds.

pub mod activity;
pub mod body;
pub mod copy;
#[cfg(test)]
mod fixture;
pub mod frame;
pub mod h2_stream;
mod lane;
pub mod leg;
pub mod permit;
pub mod received;
pub mod replay;
pub mod session;
mod stall;
pub mod whole;
