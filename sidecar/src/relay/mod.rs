//! The relay stage: bytes and bodies, both ways, with bounds.

pub mod activity;
pub mod body;
pub mod copy;
pub mod frame;
mod lane;
pub mod received;
pub mod replay;
pub mod session;
mod stall;
