//! Topics that survive: a broker over a folder, through restarts.

#![cfg(any(feature = "server", feature = "http"))]

mod backup;
mod basics;
mod catch_up;
mod conditions;
mod damage;
mod disk;
mod killed;
mod leases;
mod limits;
mod lives;
mod repair;
mod support;
