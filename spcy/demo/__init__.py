"""The main job: from a point cloud to labels and a sparse network's output, and what each step took."""
