"""Speed of spcy by stage: coords, hashmap, rulebook, conv, pool, voxelize, network, importing."""
