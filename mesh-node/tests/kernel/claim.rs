//! Two agents of one name.

use mesh_node::bpf::{Claim, KernelError, detach_all};

use crate::world::World;

#[test]
fn a_second_agent_of_the_same_instance_is_refused_until_the_first_is_gone() {
    let Some(mut world) = World::new() else { return };
    let first = Claim::take(&world.config).unwrap();
    let refused = Claim::take(&world.config).unwrap_err();
    assert!(matches!(refused, KernelError::Claimed { .. }), "{refused}");

    let name = world.config.instance.clone();
    world.config.instance = format!("{name}-other");
    drop(Claim::take(&world.config).unwrap());
    detach_all(&world.config.bpffs, Some(&world.config.instance)).unwrap();
    world.config.instance = name;

    drop(first);
    let _next = Claim::take(&world.config).unwrap();
}
