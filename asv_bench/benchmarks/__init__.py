"""Speed of spcy by stage: coords, hashmap, rulebook, conv, pool, voxel."""
