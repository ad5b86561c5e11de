"""How a version moves through the environments: pointers, shadow, proof, guard, rollback."""
