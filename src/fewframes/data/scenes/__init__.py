"""Find videos of one scene, and propose groups where the data name none."""
