"""What a run leaves behind, and how it is opened again: its folder, checkpoints, sources, exports."""
