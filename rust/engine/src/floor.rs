// SPDX-License-Identifier: MIT OR Apache-2.0
//! The least that an engine costs here, for comparison with Mayfly's figures.

#[cfg(feature = "process")]
use std::io;

use mayfly_machine::{CreateError, RunError};

use crate::host::{EngineHost, Host};

/// The smallest program that leaves its processor, and is entered again.
#[derive(Debug)]
pub struct Floor(AnyFloor);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one, and it is measured")]
enum AnyFloor {
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::floor::Floor),
    #[cfg(feature = "process")]
    Process(mayfly_process::floor::Rounds),
}

#[cfg(feature = "process")]
fn create(error: mayfly_process::floor::FloorError) -> CreateError {
    CreateError::Call { call: "a bare stub", source: io::Error::other(error) }
}

impl Floor {
    /// Makes it on this host's engine.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the engine refuses.
    pub fn new(host: &Host) -> Result<Self, CreateError> {
        match &host.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => mayfly_kvm::floor::Floor::new().map(AnyFloor::Kvm).map(Self),
            #[cfg(feature = "process")]
            EngineHost::Process(host) => {
                mayfly_process::floor::Rounds::new(host).map(AnyFloor::Process).map(Self).map_err(create)
            }
        }
    }

    /// Into the program and out again: one `KVM_RUN`, or one SEND and one RECV.
    ///
    /// # Errors
    ///
    /// [`RunError`] if the engine fails.
    #[inline]
    pub fn round_trip(&mut self) -> Result<(), RunError> {
        match &mut self.0 {
            #[cfg(feature = "kvm")]
            AnyFloor::Kvm(floor) => floor.round_trip(),
            #[cfg(feature = "process")]
            AnyFloor::Process(rounds) => {
                rounds.round_trip().map_err(|error| RunError { call: "a round trip", source: io::Error::other(error) })
            }
        }
    }
}

/// Makes bare machines: one virtual machine with a processor, or one stub process, with nothing of a program's.
#[derive(Debug)]
pub struct BareMachines(AnyBare);

#[derive(Debug)]
enum AnyBare {
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::floor::BareVms),
    #[cfg(feature = "process")]
    Process(mayfly_process::floor::Births),
}

/// A bare machine; dropping it ends it.
#[derive(Debug)]
#[allow(dead_code, clippy::large_enum_variant, reason = "kept to be dropped")]
pub enum BareMachine {
    /// A virtual machine.
    #[cfg(feature = "kvm")]
    Kvm(mayfly_kvm::floor::BareVm),
    /// A stub.
    #[cfg(feature = "process")]
    Process(mayfly_process::Stub),
}

impl BareMachines {
    /// Prepares what they share.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the engine refuses.
    pub fn new(host: &Host) -> Result<Self, CreateError> {
        match &host.engine {
            #[cfg(feature = "kvm")]
            EngineHost::Kvm(_) => mayfly_kvm::floor::BareVms::new().map(AnyBare::Kvm).map(Self),
            #[cfg(feature = "process")]
            EngineHost::Process(host) => {
                mayfly_process::floor::Births::new(host).map(AnyBare::Process).map(Self).map_err(create)
            }
        }
    }

    /// Makes one.
    ///
    /// # Errors
    ///
    /// [`CreateError`] if the engine refuses.
    pub fn create(&self) -> Result<BareMachine, CreateError> {
        match &self.0 {
            #[cfg(feature = "kvm")]
            AnyBare::Kvm(bare) => bare.create().map(BareMachine::Kvm),
            #[cfg(feature = "process")]
            AnyBare::Process(bare) => bare.birth().map(BareMachine::Process).map_err(create),
        }
    }
}
